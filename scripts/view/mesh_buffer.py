"""Meshes and point clouds in the form in which the page hands them to the graphics card."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Frame(NamedTuple):
    """What a shape is moved and scaled by to be shown: the same for an original and what came back.

    Attributes:
        centre: That becomes the origin.
        scale: That the coordinates are multiplied by.
    """

    centre: NDArray[np.float64]
    scale: float


def frame_of(points: NDArray[Any]) -> Frame:
    """The frame in which points ``(N, 3)`` lie in the cube [-1, 1]^3 around the origin.

    Example:
        >>> frame_of(np.array([[0.0, 0, 0], [4, 2, 2]])).scale
        0.5
    """
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    return Frame((low + high) / 2, 2.0 / (float((high - low).max()) or 1.0))


def mesh_buffer(
    points: NDArray[Any], faces: NDArray[Any] | None, colours: NDArray[np.uint8] | None, frame: Frame
) -> bytes:
    """Packs a shape.

    ::

        uint32 points, uint32 faces, uint32 whether there are colours
        float32 x, y, z of each point; uint32 corners of each face; uint8 red, green, blue, 255 of each point

    Args:
        points: ``(N, 3)``.
        faces: ``(F, 3)``; None for a cloud of points.
        colours: ``(N, 3)`` uint8, or None.
        frame: Where to show it.

    Example:
        >>> corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> len(mesh_buffer(corners, np.array([[0, 1, 2]]), None, frame_of(corners)))
        60
    """
    placed = (np.asarray(points, np.float64) - frame.centre) * frame.scale
    corners = np.zeros((0, 3), "<u4") if faces is None else np.asarray(faces).astype("<u4")
    parts = [
        struct.pack("<3I", len(placed), len(corners), colours is not None),
        placed.astype("<f4").tobytes(),
        corners.tobytes(),
    ]
    if colours is not None:
        opaque = np.full((len(placed), 4), 255, np.uint8)
        opaque[:, :3] = colours
        parts.append(opaque.tobytes())
    return b"".join(parts)
