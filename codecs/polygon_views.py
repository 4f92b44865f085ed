"""Pictures of a mesh from all sides, by which the encoder judges what people will see.

::

    corners, faces -> per view: fragments of all triangles -> the nearest of each pixel -> Seen -> picture

Triangles are shaded flat by a light at the camera, from both sides, before a white background.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DISTANCE = 3.2
FIELD_OF_VIEW = 0.75
AMBIENT = 0.35
BACKGROUND = 1.0

_HIGHEST = 0.85
_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
_FRAGMENTS_AT_ONCE = 2**21
_NEAREST = 0.1

Paint = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[Any]]
"""Triangles ``(P,)`` and weights of their corners ``(P, 3)`` to RGB ``(P, 3)`` in [0, 1]."""


class View(NamedTuple):
    """A camera outside the cube [-1, 1]^3 that looks at its centre.

    Attributes:
        origin: ``(3,)``.
        rotation: ``(3, 3)``: rows are right, down and forward.
        size: Rows and columns of the picture.
    """

    origin: NDArray[np.float64]
    rotation: NDArray[np.float64]
    size: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(self.size / 2 / np.tan(FIELD_OF_VIEW / 2))

    def rays(self, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Unit directions through the centres of pixels, ``(P, 3)``."""
        row, column = np.divmod(pixels, self.size)
        middle = 0.5 - self.size / 2
        local = np.stack((column + middle, row + middle, np.full(len(pixels), self.focal)), axis=1)
        found: NDArray[np.float64] = local / np.linalg.norm(local, axis=1, keepdims=True) @ self.rotation
        return found


class Seen(NamedTuple):
    """What the pixels of a view show.

    Attributes:
        pixel: Those that show a triangle, ``(P,)``.
        face: The triangle, ``(P,)``.
        weights: Of its corners, ``(P, 3)``.
        shade: How bright, ``(P,)``.
    """

    pixel: NDArray[np.int64]
    face: NDArray[np.int64]
    weights: NDArray[np.float64]
    shade: NDArray[np.float64]


def views_around(count: int, size: int) -> list[View]:
    """Cameras on a spiral from below to above, y upward.

    Args:
        count: Number of views.
        size: Rows and columns of their pictures.

    Example:
        >>> views_around(3, 64)[1].origin.round(2).tolist()
        [-2.36, 0.0, 2.16]
    """
    found = []
    for k in range(count):
        height = _HIGHEST * (2 * (k + 0.5) / count - 1)
        flat, angle = np.sqrt(1 - height**2), _GOLDEN_ANGLE * k
        toward = np.array((flat * np.cos(angle), height, flat * np.sin(angle)))
        right = np.cross(-toward, (0.0, 1.0, 0.0))
        right /= np.linalg.norm(right)
        found.append(View(DISTANCE * toward, np.stack((right, np.cross(-toward, right), -toward)), size))
    return found


def look(vertices: NDArray[Any], faces: NDArray[Any], view: View) -> Seen:
    """What a view shows of triangles.

    Args:
        vertices: ``(V, 3)`` in about the cube [-1, 1]^3.
        faces: ``(F, 3)``.
        view: Where from.
    """
    local = (np.asarray(vertices, np.float64) - view.origin) @ view.rotation.T
    depth = local[:, 2].clip(_NEAREST)
    screen = local[:, :2] / depth[:, None] * view.focal + view.size / 2
    shown = _nearest_faces(screen[faces], 1 / depth[faces], view.size)
    pixel = np.flatnonzero(shown >= 0)
    face, ray = shown[pixel], view.rays(pixel)
    a, b, c = (np.asarray(vertices, np.float64)[faces[face, k]] - view.origin for k in range(3))
    # Volumes between the ray and the edges: exact in perspective.
    weights = np.stack([(ray * np.cross(p, q)).sum(1) for p, q in ((b, c), (c, a), (a, b))], axis=1)
    total = weights.sum(1, keepdims=True)
    weights = (weights / np.where(np.abs(total) < 1e-12, 1e-12, total)).clip(0, 1)
    normal = np.cross(b - a, c - a)
    cosine = np.abs((normal * ray).sum(1)) / np.linalg.norm(normal, axis=1).clip(1e-12)
    return Seen(pixel, face, weights, AMBIENT + (1 - AMBIENT) * cosine)


def picture(seen: Seen, colours: NDArray[Any], view: View) -> NDArray[np.float32]:
    """Pixels ``(size * size, 3)`` of what is seen in colours ``(P, 3)``."""
    found = np.full((view.size**2, 3), BACKGROUND, np.float32)
    found[seen.pixel] = colours * seen.shade[:, None]
    return found


def pictures(vertices: NDArray[Any], faces: NDArray[Any], paint: Paint, views: list[View]) -> NDArray[Any]:
    """Pictures of a mesh, ``(views, size * size, 3)`` float32."""
    found = []
    for view in views:
        seen = look(vertices, faces, view)
        found.append(picture(seen, paint(seen.face, seen.weights), view))
    return np.stack(found)


def _nearest_faces(
    corners: NDArray[np.float64], nearness: NDArray[np.float64], size: int
) -> NDArray[np.int64]:
    """The nearest triangle of every pixel, ``(size * size,)``; -1 for none."""
    low = np.ceil(corners.min(1) - 0.5).clip(0, size).astype(np.int64)
    high = (np.floor(corners.max(1) - 0.5) + 1).clip(0, size).astype(np.int64)
    width, height = (high - low).clip(0).T
    area = _turn(corners[:, 0], corners[:, 1], corners[:, 2])
    count = width * height * (np.abs(area) > 1e-12)
    best = np.full(size * size, -1, np.int64)
    nearest = np.zeros(size * size)
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _FRAGMENTS_AT_ONCE)))
        part = count[start:stop]
        face = np.repeat(np.arange(start, start + len(part)), part)
        place = np.arange(len(face)) - np.repeat(np.cumsum(part) - part, part)
        x, y = low[face, 0] + place % width[face].clip(1), low[face, 1] + place // width[face].clip(1)
        point = np.stack((x + 0.5, y + 0.5), axis=1)
        a, b, c = (corners[face, k] for k in range(3))
        weights = np.stack((_turn(b, c, point), _turn(c, a, point), _turn(a, b, point)), axis=1)
        weights /= area[face][:, None]
        kept = (weights >= -1e-9).all(1)
        face, pixel = face[kept], (y * size + x)[kept]
        near = (weights[kept] * nearness[face]).sum(1)
        order = np.argsort(near, kind="stable")
        face, pixel, near = face[order], pixel[order], near[order]
        # Of several for one pixel the last counts, which is the nearest.
        last = np.full(size * size, -1, np.int64)
        last[pixel] = np.arange(len(pixel))
        hit = np.flatnonzero(last >= 0)
        hit = hit[near[last[hit]] > nearest[hit]]
        best[hit], nearest[hit] = face[last[hit]], near[last[hit]]
        start = stop
    return best


def _turn(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[np.float64]:
    """Twice the signed area of triangles in the plane."""
    first, second = b - a, c - a
    found: NDArray[np.float64] = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    return found
