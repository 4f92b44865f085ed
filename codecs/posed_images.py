"""Radiance fields given as posed images: carved into a solid, and sampled like any other shape.

No network looks at the images: where silhouettes are known, the visual hull says where the surface can be
(Laurentini, 1994), which is all that the point encoder needs to begin with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.codecs.shape_payload import Pose
from latentpress.models.shape.oriented_points import OrientedPoints

if TYPE_CHECKING:
    from latentpress.codecs.shape_source import ShapeSource

_VOXELS = 96
_DENSE = 16384
_DEPTH_CELLS = 64
_OCCLUSION = 0.12
"""A point so much of half the longest side behind another in the same cell of the picture is hidden."""


@dataclass(frozen=True)
class PosedImages:
    """Pictures of one object from all sides, with what is object and what is not.

    Attributes:
        images: ``(V, H, W, 4)`` RGBA, uint8 or floating point in [0, 1], colours not premultiplied.
        camera_to_world: ``(V, 4, 4)``, invertible; cameras look along their z, x to the right, y down (as in
            OpenCV).
        intrinsics: ``(V, 3, 3)`` or ``(3, 3)`` in pixels, focal lengths positive.
        low: Least coordinates of a box around the object.
        high: Largest coordinates of that box.

    Raises:
        TypeError: The images are neither uint8 nor floating point.
        ValueError: Shapes do not fit together, values are not finite or out of range, or the box is empty.
    """

    images: NDArray[Any]
    camera_to_world: NDArray[Any]
    intrinsics: NDArray[Any]
    low: tuple[float, float, float] = (-1.0, -1.0, -1.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Checks shapes and values."""
        images = np.asarray(self.images)
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise TypeError(f"images must be uint8 or floating point, got {images.dtype}")
        if images.ndim != 4 or images.shape[-1] != 4 or 0 in images.shape:
            raise ValueError(f"images must have shape (V, H, W, 4), got {images.shape}")
        # Written so that values which are no numbers fail too.
        if images.dtype.kind == "f" and not (images.min() >= -1e-6 and images.max() <= 1 + 1e-6):
            raise ValueError("floating-point images must be in [0, 1]")
        poses, intrinsics = np.asarray(self.camera_to_world), np.asarray(self.intrinsics)
        if poses.shape != (len(images), 4, 4):
            raise ValueError(f"camera_to_world must have shape ({len(images)}, 4, 4), got {poses.shape}")
        if not np.isfinite(poses).all() or not (np.abs(np.linalg.det(poses)) > 0).all():
            raise ValueError("camera_to_world must be finite and invertible")
        if intrinsics.shape not in ((3, 3), (len(images), 3, 3)):
            raise ValueError(f"intrinsics must have shape (V, 3, 3) or (3, 3), got {intrinsics.shape}")
        if not np.isfinite(intrinsics).all() or not (intrinsics[..., (0, 1), (0, 1)] > 0).all():
            raise ValueError("intrinsics must be finite, with positive focal lengths")
        box = (*self.low, *self.high)
        if not np.isfinite(box).all() or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"the box from {self.low} to {self.high} is empty or not finite")

    def rgba(self) -> NDArray[np.float32]:
        """The images in [0, 1]."""
        images = np.asarray(self.images)
        return images.astype(np.float32) / (255 if images.dtype.kind == "u" else 1)


def images_source(given: PosedImages, colour: bool) -> ShapeSource:
    """Carves posed images.

    Args:
        given: The images.
        colour: Colour the surface by the images.

    Raises:
        ValueError: The silhouettes have nothing in common.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.measure import marching_cubes

    from latentpress.codecs.chamfer import sample_triangles
    from latentpress.codecs.shape_source import ShapeSource

    low, high = np.array(given.low, np.float64), np.array(given.high, np.float64)
    cell = float((high - low).max()) / _VOXELS
    counts = np.maximum(np.ceil((high - low) / cell).astype(int), 1)
    axes = [low[k] + (np.arange(counts[k]) + 0.5) * cell for k in range(3)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    rgba = given.rgba()
    inside = np.ones(len(centres), bool)
    for view in range(len(rgba)):
        inside &= _looked_up(given, view, centres, rgba[view, :, :, 3:]).values[:, 0] > 0.5
    if not inside.any():
        raise ValueError("the silhouettes of the images have nothing in common within the given box")
    volume = np.pad(inside.reshape(counts).astype(np.float32), 2)
    smooth = gaussian_filter(volume, 0.8)
    if not smooth.max() > 0.5:
        raise ValueError(f"the object is too thin to be carved from a box {_VOXELS} voxels wide")
    vertices, faces, _, _ = marching_cubes(smooth, 0.5, gradient_direction="ascent")  # type: ignore[no-untyped-call]
    vertices = (vertices - 1.5) * cell + low
    pose = Pose.around(tuple(vertices.min(0)), tuple(vertices.max(0)))
    cube = ((vertices - pose.centre) / pose.scale).astype(np.float32)
    reference, chosen = sample_triangles(cube, faces.astype(np.int64), 30000)
    corners = cube[faces[chosen]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
    dense = OrientedPoints(torch.from_numpy(reference[:_DENSE]), torch.from_numpy(normals[:_DENSE]))
    colours = None
    if colour:
        places = reference[:_DENSE].astype(np.float64) * pose.scale + pose.centre
        colours = _seen_colours(given, rgba, places, normals[:_DENSE], pose.scale)
    return ShapeSource("images", dense, reference, colours, pose, None, None, given)


class _LookedUp(NamedTuple):
    """What one image shows at the projections of points.

    Attributes:
        values: ``(N, C)``, zero outside of the image.
        shown: ``(N,)`` whether a point is within the image.
        pixel: ``(N, 2)`` column and row.
        depth: ``(N,)`` along the camera's z.
    """

    values: NDArray[np.float32]
    shown: NDArray[np.bool_]
    pixel: NDArray[np.int64]
    depth: NDArray[np.float64]


def _looked_up(
    given: PosedImages, view: int, points: NDArray[np.float64], plane: NDArray[np.float32]
) -> _LookedUp:
    matrix = np.linalg.inv(np.asarray(given.camera_to_world[view], np.float64))
    local = points @ matrix[:3, :3].T + matrix[:3, 3]
    intrinsics = np.asarray(given.intrinsics, np.float64)
    projected = local @ (intrinsics if intrinsics.ndim == 2 else intrinsics[view]).T
    in_front = projected[:, 2] > 1e-9
    place = projected[:, :2] / np.where(in_front, projected[:, 2], 1)[:, None]
    # What is far outside is no integer any more.
    pixel = np.floor(place.clip(-1, 2**31)).astype(np.int64)
    height, width = plane.shape[:2]
    shown = in_front & (pixel >= 0).all(1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
    values = np.zeros((len(points), plane.shape[2]), np.float32)
    values[shown] = plane[pixel[shown, 1], pixel[shown, 0]]
    return _LookedUp(values, shown, pixel, local[:, 2])


def _seen_colours(
    given: PosedImages,
    rgba: NDArray[np.float32],
    points: NDArray[np.float64],
    normals: NDArray[np.float32],
    size: float,
) -> NDArray[np.float32]:
    """Colours of surface points: of the views that look at them, the more squarely the more they count."""
    total, weights = np.full((len(points), 3), 0.5e-6), np.full((len(points), 1), 1e-6)
    for view in range(len(rgba)):
        found = _looked_up(given, view, points, rgba[view])
        towards = np.asarray(given.camera_to_world[view], np.float64)[:3, 3] - points
        cosine = (towards * normals).sum(1) / np.linalg.norm(towards, axis=1).clip(1e-12)
        front = _foremost(found, rgba.shape[1:3], _OCCLUSION * size)
        weight = (cosine.clip(0) ** 4 * front * found.values[:, 3])[:, None]
        total += weight * found.values[:, :3]
        weights += weight
    mean: NDArray[np.float32] = (total / weights).astype(np.float32)
    return mean


def _foremost(found: _LookedUp, shape: tuple[int, ...], tolerance: float) -> NDArray[np.bool_]:
    """Points that no other point hides, by the least depth in the cells of a coarse picture."""
    height, width = shape
    cell = max(1.0, max(height, width) / _DEPTH_CELLS)
    column, row = (found.pixel[found.shown] / cell).astype(np.int64).T
    index = row * (_DEPTH_CELLS + 1) + column
    least = np.full((_DEPTH_CELLS + 1) ** 2, np.inf)
    np.minimum.at(least, index, found.depth[found.shown])
    front = np.zeros(len(found.shown), bool)
    front[found.shown] = found.depth[found.shown] <= least[index] + tolerance
    return front
