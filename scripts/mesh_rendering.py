"""Pictures of meshes without a window system: rays from all sides, by trimesh and embreex."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.shape_source import surface_painter

DISTANCE = 3.2
FIELD_OF_VIEW = 0.75
AMBIENT = 0.35


def camera_positions(views: int) -> NDArray[np.float64]:
    """Places around the origin, alternating above and below, ``(views, 3)``."""
    angle = 2 * np.pi * np.arange(views) / views
    height = 0.5 * (-1.0) ** np.arange(views)
    flat = np.sqrt(1 - height**2)
    return DISTANCE * np.stack((flat * np.cos(angle), height, flat * np.sin(angle)), axis=1)


def render(mesh: Any, views: int = 8, size: int = 256) -> NDArray[np.float32]:
    """Renders a mesh that fits the cube [-1, 1]^3 from all around, on white.

    Args:
        mesh: A ``trimesh.Trimesh``; grey without colours. Triangles are shaded flat, from both sides.
        views: Number of pictures.
        size: Rows and columns.

    Returns:
        ``(views, size, size, 3)`` in [0, 1].
    """
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    intersector = RayMeshIntersector(mesh)
    painter, faces = surface_painter(mesh), np.asarray(mesh.faces)
    normals = np.asarray(mesh.face_normals)
    pictures = np.ones((views, size * size, 3), np.float32)
    grid = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(FIELD_OF_VIEW / 2)
    across, down = (axis.ravel() for axis in np.meshgrid(grid, grid))
    for view, position in enumerate(camera_positions(views)):
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, (0.0, 1.0, 0.0))
        right /= np.linalg.norm(right)
        directions = forward + across[:, None] * right + down[:, None] * np.cross(forward, right)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        places, rays, triangles = intersector.intersects_location(
            np.broadcast_to(position, directions.shape), directions, multiple_hits=False
        )
        if not len(rays):
            continue
        weights = _barycentric(np.asarray(mesh.triangles)[triangles], places)
        colour = np.full((len(rays), 3), 0.7)
        if painter is not None:
            colour = painter(np.asarray(triangles), faces, weights)
        shade = np.abs((normals[triangles] * directions[rays]).sum(1))[:, None]
        pictures[view, rays] = colour * (AMBIENT + (1 - AMBIENT) * shade)
    return pictures.reshape(views, size, size, 3)


def picture_psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """PSNR in dB over all pixels of all views."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return float(-10 * np.log10(max(error, 1e-12)))


def _barycentric(triangles: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Weights ``(N, 3)`` of the corners of triangles ``(N, 3, 3)`` at points in them, ``(N, 3)``."""
    a, b, c = (triangles[:, k].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.square(normal).sum(1).clip(1e-30)
    first = (np.cross(c - b, points - b) * normal).sum(1) / area
    second = (np.cross(a - c, points - c) * normal).sum(1) / area
    weights = np.stack((first, second, 1 - first - second), axis=1).clip(0, 1)
    return weights / weights.sum(1, keepdims=True)
