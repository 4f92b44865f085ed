"""What the encoder of polygons is free to choose: where corners come to lie, and their colours.

A corner has to be on the grid. Which node near it does least harm depends on the triangles around it: along a
flat place it may move, out of it not. The quadric of its triangles says so (Garland and Heckbert, 1997), and
bits count too. Colours are fitted to pictures of the original by least squares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.polygon_channel import PricingChannel
from latentpress.codecs.polygon_coder import PolygonCoder, Polygons
from latentpress.codecs.polygon_decimation import proper_faces
from latentpress.codecs.polygon_payload import HALF_WIDTH
from latentpress.codecs.polygon_views import Seen

BIT_PRICE = 0.02
"""Squared grid steps out of the surface that a bit is worth."""

_ALONG = 0.05
_REACH = 2
_KEEP = 0.3


def corner_quadrics(vertices: NDArray[Any], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much it matters in which direction corners move, ``(V, 3, 3)``, the least 0.05."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1).clip(1e-12)
    product = normal[:, :, None] * normal[:, None, :] / area[:, None, None]
    found, weight = np.zeros((len(vertices), 3, 3)), np.zeros(len(vertices))
    for k in range(3):
        np.add.at(found, faces[:, k], product)
        np.add.at(weight, faces[:, k], area)
    quadrics: NDArray[np.float64] = found / weight.clip(1e-12)[:, None, None] + _ALONG * np.eye(3)
    return quadrics


class CornerPlacing:
    """Chooses nodes for corners while they are coded, by harm and bits.

    Args:
        vertices: ``(V, 3)`` in the cube.
        faces: ``(F, 3)``.
        grid: Steps of the grid.

    Attributes:
        nodes: What was chosen, ``(V, 3)``.
    """

    def __init__(self, vertices: NDArray[Any], faces: NDArray[np.int64], grid: int) -> None:
        above, below = HALF_WIDTH
        self._places = (np.asarray(vertices, np.float64) * below / above + 1) * grid / 2
        self._quadrics = corner_quadrics(vertices, faces)
        self._grid = grid
        self.nodes = np.zeros((len(vertices), 3), np.int64)

    def __call__(self, vertex: int, axis: int, before: list[int], row: NDArray[np.int64]) -> int:
        """The node on one axis, given those before; the axes after are still free."""
        place, quadric = self._places[vertex], self._quadrics[vertex]
        known, free = slice(0, axis + 1), slice(axis + 1, 3)
        matter = quadric[known, known]
        if axis < 2:
            mixed = quadric[known, free]
            matter = matter - mixed @ np.linalg.solve(quadric[free, free], mixed.T)
        wanted = place[axis] - matter[axis, :axis] @ (before - place[:axis]) / matter[axis, axis]
        middle = int(np.clip(np.floor(wanted), 0, self._grid))
        nodes = np.arange(max(0, middle - _REACH), min(self._grid, middle + _REACH + 1) + 1)
        harm = matter[axis, axis] * (nodes - wanted) ** 2
        harm -= BIT_PRICE * np.log2(row[nodes].clip(1) / row.sum())
        chosen = int(nodes[harm.argmin()])
        self.nodes[vertex, axis] = chosen
        return chosen


def placed(vertices: NDArray[Any], faces: NDArray[np.int64], grid: int) -> NDArray[np.int64]:
    """Nodes of the grid for the corners of a mesh, ``(V, 3)``."""
    placing = CornerPlacing(vertices, faces, grid)
    nowhere = Polygons(np.zeros((len(vertices), 3), np.int64), faces)
    PolygonCoder(PricingChannel(), grid, placing).code(nowhere, len(faces))
    return placing.nodes


def cleaned(nodes: NDArray[np.int64], faces: NDArray[np.int64]) -> Polygons:
    """A mesh whose corners at one node are one, without triangles that have lost their area by it.

    Example:
        >>> nodes = np.array([[0, 0, 0], [0, 0, 0], [4, 0, 0], [0, 4, 0]])
        >>> cleaned(nodes, np.array([[0, 2, 3], [0, 1, 2]])).faces
        array([[0, 2, 1]])
    """
    places, joined = np.unique(nodes, axis=0, return_inverse=True)
    corners = proper_faces(joined.reshape(-1)[faces])
    used, numbers = np.unique(corners, return_inverse=True)
    return Polygons(places[used].reshape(-1, 3), numbers.reshape(corners.shape))


def fitted_colours(
    seen: list[Seen], wanted: NDArray[Any], faces: NDArray[np.int64], usual: NDArray[Any]
) -> NDArray[np.float64]:
    """Colours of corners whose pictures are nearest to those of the original, ``(V, 3)`` in [0, 1].

    Args:
        seen: What views show of the mesh.
        wanted: The original's pictures from there, ``(views, pixels, 3)``.
        faces: Of the mesh.
        usual: ``(V, 3)``: what corners are near to that hardly any pixel shows.
    """
    from scipy.sparse import csr_matrix, eye
    from scipy.sparse.linalg import splu

    weights = np.concatenate([one.weights * one.shade[:, None] for one in seen])
    corners = np.concatenate([faces[one.face] for one in seen])
    targets = np.concatenate([picture[one.pixel] for one, picture in zip(seen, wanted, strict=True)])
    rows = np.repeat(np.arange(len(weights)), 3)
    matrix = csr_matrix((weights.ravel(), (rows, corners.ravel())), shape=(len(weights), len(usual)))
    normal = (matrix.T @ matrix + _KEEP * eye(len(usual))).tocsc()
    found: NDArray[np.float64] = splu(normal).solve(matrix.T @ targets + _KEEP * usual).clip(0, 1)
    return found
