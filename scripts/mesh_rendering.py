"""Pictures of meshes without a window system: rays from all sides, by trimesh and embreex."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.polygon_field import corner_weights
from latentpress.codecs.shape_source import surface_painter

DISTANCE = 3.2
FIELD_OF_VIEW = 0.75
AMBIENT = 0.35
GREY = 0.7


class Cameras(NamedTuple):
    """Where pictures are taken from.

    Attributes:
        camera_to_world: ``(V, 4, 4)``; cameras look along their z, x to the right, y down (as in OpenCV).
        intrinsics: ``(3, 3)`` in pixels, of all of them.
        size: Rows and columns.
    """

    camera_to_world: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    size: int


def cameras_around(views: int, size: int, turned: float = 0.0) -> Cameras:
    """Cameras around the cube [-1, 1]^3, y upward, alternating above and below.

    Args:
        views: Number of cameras.
        size: Rows and columns of their pictures.
        turned: By how much of the angle between two views all of them are moved on.

    Example:
        >>> cameras_around(4, 64).camera_to_world[:, :3, 3].round(2)[0].tolist()
        [2.77, 1.6, 0.0]
    """
    angle = 2 * np.pi * (np.arange(views) + turned) / views
    height = 0.5 * (-1.0) ** np.arange(views)
    flat = np.sqrt(1 - height**2)
    positions = DISTANCE * np.stack((flat * np.cos(angle), height, flat * np.sin(angle)), axis=1)
    forward = -positions / DISTANCE
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    matrices = np.tile(np.eye(4), (views, 1, 1))
    matrices[:, :3] = np.stack((right, np.cross(forward, right), forward, positions), axis=2)
    focal = size / 2 / np.tan(FIELD_OF_VIEW / 2)
    return Cameras(matrices, np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]), size)


def render(mesh: Any, views: int = 8, size: int = 256) -> NDArray[np.float32]:
    """Renders a mesh that fits the cube [-1, 1]^3 from all around, on white, lit from the camera.

    Args:
        mesh: A ``trimesh.Trimesh``; grey without colours. Triangles are shaded flat, from both sides.
        views: Number of pictures.
        size: Rows and columns.

    Returns:
        ``(views, size, size, 3)`` in [0, 1].
    """
    return on_white(render_from(mesh, cameras_around(views, size), lit=True))


def render_from(mesh: Any, cameras: Cameras, lit: bool) -> NDArray[np.float32]:
    """Renders a mesh from given places.

    Args:
        mesh: A ``trimesh.Trimesh``; grey without colours.
        cameras: Where from.
        lit: Shade the triangles by a light at the camera, instead of showing their plain colours, which are
            the same from everywhere.

    Returns:
        ``(V, size, size, 4)`` RGBA in [0, 1]; alpha is 0 or 1.
    """
    size = cameras.size
    pictures = np.zeros((len(cameras.camera_to_world), size * size, 4), np.float32)
    if not len(mesh.faces):
        return pictures.reshape(-1, size, size, 4)
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    intersector = RayMeshIntersector(mesh)
    painter, faces = surface_painter(mesh), np.asarray(mesh.faces)
    normals = np.asarray(mesh.face_normals)
    v, u = np.mgrid[0:size, 0:size] + 0.5
    pixels = np.stack((u.ravel(), v.ravel(), np.ones(size * size)), axis=1)
    local = pixels @ np.linalg.inv(cameras.intrinsics).T
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    for picture, matrix in zip(pictures, cameras.camera_to_world, strict=True):
        directions = local @ matrix[:3, :3].T
        origins = np.broadcast_to(matrix[:3, 3], directions.shape)
        places, rays, triangles = intersector.intersects_location(origins, directions, multiple_hits=False)
        if not len(rays):
            continue
        colour = np.full((len(rays), 3), GREY)
        if painter is not None:
            weights = corner_weights(np.asarray(mesh.triangles)[triangles], places)
            colour = painter(np.asarray(triangles), faces, weights)
        if lit:
            shade = np.abs((normals[triangles] * directions[rays]).sum(1))[:, None]
            colour = colour * (AMBIENT + (1 - AMBIENT) * shade)
        picture[rays] = np.hstack((colour, np.ones((len(rays), 1))))
    return pictures.reshape(-1, size, size, 4)


def on_white(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Composites pictures ``(..., 4)`` over white, ``(..., 3)``.

    Example:
        >>> on_white(np.array([[0.0, 0, 0, 0], [0.5, 0, 0, 1]], np.float32)).tolist()
        [[1.0, 1.0, 1.0], [0.5, 0.0, 0.0]]
    """
    alpha = pictures[..., 3:]
    return pictures[..., :3] * alpha + (1 - alpha)


def picture_psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """PSNR in dB over all pixels of all views."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return float(-10 * np.log10(max(error, 1e-12)))


def picture_similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean MS-SSIM of pictures ``(V, H, W, 3)`` in [0, 1], sides above 160 pixels."""
    import torch
    from pytorch_msssim import ms_ssim

    first, second = (torch.from_numpy(x).permute(0, 3, 1, 2).float() for x in (a, b))
    return float(ms_ssim(first, second, data_range=1.0))
