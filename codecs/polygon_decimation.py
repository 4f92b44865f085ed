"""Fewer triangles: quadric edge collapses, after clustering of vertices where these alone get stuck."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CLUSTER_CELLS = (128, 64, 48, 32, 20)
_REACHED = 1.1


def welded(mesh: Any) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices and faces of a mesh, equal vertices merged, without faces that have two corners in one."""
    vertices, inverse = np.unique(np.asarray(mesh.vertices, np.float32), axis=0, return_inverse=True)
    return vertices, proper_faces(inverse.reshape(-1)[np.asarray(mesh.faces)])


def decimated(
    points: NDArray[np.float32], faces: NDArray[np.int32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A mesh of about so many faces.

    Quadric decimation (Garland and Heckbert, 1997) of some meshes ends early, because every further collapse
    would flip a sliver; with vertices clustered on a grid (Rossignac and Borrel, 1993) it goes on.

    Args:
        points: ``(V, 3)`` in [-1, 1].
        faces: ``(F, 3)``, more than ``count``.
        count: Wanted faces.

    Returns:
        Points and faces; as few faces as were reached if not so few.
    """
    import fast_simplification

    best = fast_simplification.simplify(points, faces, target_count=count)
    for cells in _CLUSTER_CELLS:
        if len(best[1]) <= _REACHED * count:
            break
        fewer = _clustered(points, faces, cells)
        if len(fewer[1]) > count:
            fewer = fast_simplification.simplify(*fewer, target_count=count)
        if 0 < len(fewer[1]) < len(best[1]):
            best = fewer
    return np.asarray(best[0], np.float32), np.asarray(best[1], np.int32)


def _clustered(
    points: NDArray[np.float32], faces: NDArray[np.int32], cells: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The vertices in a cell of a grid become their mean."""
    places = np.round((points + 1) * (cells / 2)).astype(np.int64)
    _, cluster, size = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    cluster = cluster.reshape(-1)
    means = np.stack([np.bincount(cluster, points[:, k]) for k in range(3)], axis=1) / size[:, None]
    return means.astype(np.float32), proper_faces(cluster[faces])


def proper_faces(faces: NDArray[Any]) -> NDArray[np.int32]:
    """Faces ``(F, 3)`` without those that have two corners in one vertex.

    Example:
        >>> proper_faces(np.array([[0, 1, 2], [0, 1, 1]])).tolist()
        [[0, 1, 2]]
    """
    found: NDArray[np.int32] = faces[(faces != np.roll(faces, 1, axis=1)).all(1)].astype(np.int32)
    return found
