"""Reading and writing fields: numpy files, HDF5, zarr and netCDF, each with the library its users have."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = frozenset({".npy", ".h5", ".hdf5", ".zarr", ".nc"})
"""Suffixes of files that hold fields."""


def is_field(path: str) -> bool:
    """Whether a path names a file of fields.

    Example:
        >>> is_field("flow.npy"), is_field("photo.png")
        (True, False)
    """
    return Path(path).suffix.lower() in FIELDS


def read_field(path: str, variable: str | None = None) -> NDArray[Any]:
    """Reads one array, as ``(C, D, H, W)`` or ``(C, H, W)``; a single plane is one component.

    Args:
        path: A file or, for zarr, a folder.
        variable: Which array of a file that holds several; may be left out if there is one.

    Raises:
        ValueError: The array is not of floating-point numbers, has too few or many axes, or is not the
            only one.
        ModuleNotFoundError: The library for this kind of file is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        values = np.load(path, allow_pickle=False)
    elif suffix == ".zarr":
        values = _from_zarr(path, variable)
    elif suffix == ".nc":
        values = _from_netcdf(path, variable)
    else:
        values = _from_hdf5(path, variable)
    if values.dtype not in (np.float32, np.float64):
        raise ValueError(f"{path} holds {values.dtype}, a field has float32 or float64")
    if not 2 <= values.ndim <= 4:
        raise ValueError(f"{path} has {values.ndim} axes, a field has 2 to 4")
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native[None] if native.ndim == 2 else native


def field_bytes(values: NDArray[Any]) -> bytes:
    """A field as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _chosen(names: list[str], variable: str | None, path: str) -> str:
    if variable is not None and variable in names:
        return variable
    if variable is None and len(names) == 1:
        return names[0]
    raise ValueError(f"{path} holds {', '.join(sorted(names)) or 'no array'}: name one with --variable")


def _from_hdf5(path: str, variable: str | None) -> NDArray[Any]:
    import h5py

    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return np.asarray(file[_chosen(names, variable, path)])


def _from_zarr(path: str, variable: str | None) -> NDArray[Any]:
    import zarr

    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return np.asarray(found[:])
    return np.asarray(found[_chosen(list(found.array_keys()), variable, path)])


def _from_netcdf(path: str, variable: str | None) -> NDArray[Any]:
    import xarray

    with xarray.open_dataset(path) as file:
        return np.asarray(file[_chosen([str(name) for name in file.data_vars], variable, path)].values)
