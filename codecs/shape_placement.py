"""Decoded shapes from the cube [-1, 1]^3 to where they stood, whichever mode coded them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.shape_payload import Pose

if TYPE_CHECKING:
    import trimesh


def placed_mesh(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int64],
    colours: NDArray[np.uint8] | None,
    pose: Pose,
    unit: str | None,
) -> trimesh.Trimesh:
    """A decoded mesh where the shape stood.

    Args:
        vertices: ``(V, 3)`` in the cube.
        faces: ``(F, 3)``.
        colours: RGB of the vertices ``(V, 3)``, or None.
        pose: Of the cube in the shape's own coordinates.
        unit: Of these coordinates, or None.
    """
    import trimesh

    rgba = None
    if colours is not None:
        rgba = np.full((len(colours), 4), 255, np.uint8)
        rgba[:, :3] = colours
    placed = vertices.astype(np.float64) * pose.scale + pose.centre
    result = trimesh.Trimesh(placed, faces, vertex_colors=rgba, process=False)
    if unit is not None:
        result.units = unit
    return result


def placed_points(
    points: NDArray[np.float32], colours: NDArray[Any] | None, pose: Pose
) -> NDArray[np.float32]:
    """Decoded points where the shape stood, ``(N, 3)``, or ``(N, 6)`` with colours.

    Args:
        points: ``(N, 3)`` in the cube.
        colours: RGB in [0, 1] of the points ``(N, 3)``, or None.
        pose: Of the cube in the shape's own coordinates.
    """
    placed = (points * pose.scale + pose.centre).astype(np.float32)
    return placed if colours is None else np.hstack((placed, colours.astype(np.float32)))
