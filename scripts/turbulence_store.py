"""The zarr stores of :mod:`latentpress.scripts.make_turbulence`, written and read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.train.data.turbulence import Snapshots


def write_store(path: str, snapshots: Snapshots, spacing: float, attributes: dict[str, Any]) -> None:
    """Writes snapshots as a zarr group of format 3 that xarray opens; a snapshot is a chunk.

    Args:
        path: Of the store, which must not exist.
        snapshots: Of :func:`latentpress.train.data.turbulence.simulate`.
        spacing: Time between them.
        attributes: Of the group.
    """
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(attributes)
    count = len(snapshots.velocity)
    space = ("x", "y", "z")
    arrays = {
        "velocity": (
            snapshots.velocity.transpose(0, 1).cpu().numpy(),
            ("box", "time", "component", *space),
        ),
        "viscosity": (snapshots.viscosity.cpu().numpy(), ("box",)),
        "time": (np.arange(count) * spacing, ("time",)),
    }
    if snapshots.scalar is not None:
        arrays["scalar"] = (snapshots.scalar.transpose(0, 1).cpu().numpy(), ("box", "time", *space))
    for name, (values, dimensions) in arrays.items():
        chunks = (1, 1, *values.shape[2:]) if values.ndim > 2 else values.shape
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=chunks, dimension_names=dimensions
        )[:] = values


class TurbulenceStore:
    """Reads a store snapshot by snapshot.

    Args:
        path: Of the store.

    Attributes:
        boxes: Number of flows.
        times: Number of snapshots of each.
        spacing: Time between snapshots; NaN if there is one only.

    Raises:
        ValueError: The store holds no velocities.
    """

    def __init__(self, path: str) -> None:
        import zarr

        self._group = zarr.open_group(path, mode="r")
        velocity = self._group.get("velocity")
        if not isinstance(velocity, zarr.Array) or velocity.ndim != 6:
            raise ValueError(f"{path} holds no velocities (box, time, component, x, y, z)")
        self._velocity: Any = velocity
        self.boxes, self.times = velocity.shape[:2]
        times = self._array("time")
        self.spacing = float(times[1] - times[0]) if len(times) > 1 else math.nan

    def velocity(self, box: int, time: int) -> NDArray[np.float32]:
        """A snapshot, ``(3, N, N, N)``."""
        return np.asarray(self._velocity[box, time], np.float32)

    def kolmogorov_time(self, box: int) -> float:
        """The square root of viscosity over mean dissipation."""
        checks: Any = self._group.attrs["checks"]
        dissipation = [one["flow"]["dissipation"] for one in checks if one["box"] == box]
        return math.sqrt(float(self._array("viscosity")[box]) / float(np.mean(dissipation)))

    def _array(self, name: str) -> NDArray[Any]:
        array: Any = self._group[name]
        return np.asarray(array[:])
