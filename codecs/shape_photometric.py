"""How far a decoded field is from photographs: along rays, whether they hit it, and which colour they find.

::

    posed images -> rays in the cube (origin, direction, RGB, object or not)
    field, rays -> where each ray meets the surface, or comes nearest to it -> silhouette error, colour error

Surfaces instead of integrals along rays: the generator's distance says where a ray ends, and what an error
means has the unit of all other errors of the refinement, which the price of bits is weighed against.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.posed_images import PosedImages
from latentpress.codecs.shape_payload import Pose
from latentpress.models.shape.generator import ShapeField, ShapeGenerator
from latentpress.models.shape.layers import GRID_HALF_WIDTH
from latentpress.models.shape.radiance import camera_rays, within_cube

_MOST_RAYS = 2**16
_SAMPLES = 64
_SLOPE_STEP = 5e-3
_LEAST_SLOPE = 0.2


class SeenRays(NamedTuple):
    """Pixels as rays in the cube.

    Attributes:
        origins: ``(R, 3)``.
        directions: ``(R, 3)``, of unit length.
        colour: ``(R, 3)`` RGB in [0, 1].
        opaque: ``(R,)`` whether the object is seen.
    """

    origins: Tensor
    directions: Tensor
    colour: Tensor
    opaque: Tensor

    def chosen(self, index: Tensor) -> SeenRays:
        """The rays of some indices."""
        return SeenRays(*(part[index] for part in self))

    def to(self, device: torch.device | str) -> SeenRays:
        """The same rays on another device."""
        return SeenRays(*(part.to(device) for part in self))


class PhotometricError(NamedTuple):
    """Mean errors over rays.

    Attributes:
        silhouette: How far, of rays that should hit, the field stays away, and of those that should not, how
            deep they dive into it; longest side 2.
        colour: Mean absolute error of RGB where a ray hits what it should.
    """

    silhouette: Tensor
    colour: Tensor


def seen_rays(given: PosedImages, pose: Pose, most: int = _MOST_RAYS, seed: int = 0) -> SeenRays:
    """The pixels of posed images as rays in the cube that a pose puts around the object.

    Args:
        given: The images.
        pose: Of the cube.
        most: Number of rays that are kept at most, half of them through the object where it is large enough.
        seed: Of their choice.
    """
    rgba = given.rgba()
    height, width = rgba.shape[1:3]
    intrinsics = np.broadcast_to(np.asarray(given.intrinsics, np.float64), (len(rgba), 3, 3))
    origins, directions = [], []
    for matrix, view in zip(given.camera_to_world, intrinsics, strict=True):
        start, towards = camera_rays(
            torch.tensor(np.asarray(matrix, np.float64)), torch.tensor(view), height, width
        )
        origins.append(((start - torch.tensor(pose.centre)) / pose.scale).reshape(-1, 3))
        directions.append(towards.reshape(-1, 3))
    pixels = torch.from_numpy(rgba.reshape(-1, 4))
    rays = SeenRays(
        torch.cat(origins).float(), torch.cat(directions).float(), pixels[:, :3], pixels[:, 3] > 0.5
    )
    near, far = within_cube(rays.origins, rays.directions, GRID_HALF_WIDTH)
    return rays.chosen(_spread((far > near)[:, 0], rays.opaque, most, seed))


def _spread(crossing: Tensor, opaque: Tensor, most: int, seed: int) -> Tensor:
    """Indices of rays that cross the cube, through the object and beside it about equally many."""
    random = torch.Generator().manual_seed(seed)
    kinds = [(crossing & kind).nonzero().flatten() for kind in (opaque, ~opaque)]
    shuffled = [kind[torch.randperm(len(kind), generator=random)] for kind in kinds]
    hits, misses = shuffled
    count = min(len(hits), max(most // 2, most - len(misses)))
    return torch.cat((hits[:count], misses[: most - count]))


def photometric_error(generator: ShapeGenerator, field: ShapeField, rays: SeenRays) -> PhotometricError:
    """Errors of one field along rays, differentiable in the field.

    Args:
        generator: That made the field.
        field: Of one shape; without colour, the error of the colour is zero.
        rays: On the field's device.
    """
    depth, nearest, hits = _march(generator, field, rays)

    def at(along: Tensor) -> Tensor:
        return rays.origins + rays.directions * along[:, None]

    closest = generator.signed_distance(field, at(nearest)[None])[0]
    silhouette = torch.where(rays.opaque, closest, -closest).clamp(min=0).mean()
    if field.colour is None:
        return PhotometricError(silhouette, torch.zeros_like(silhouette))
    # The place of the hit moves with the field: differentiating distance(origin + depth * direction) = 0
    # gives how (DVR, arXiv 1912.07372, equation 10).
    distance = generator.signed_distance(field, at(depth)[None])[0]
    with torch.no_grad():
        ends = torch.cat((at(depth + _SLOPE_STEP), at(depth - _SLOPE_STEP)))
        after, before = generator.signed_distance(field, ends[None])[0].chunk(2)
        slope = ((after - before) / (2 * _SLOPE_STEP)).clamp(max=-_LEAST_SLOPE)
    places = at(depth - (distance - distance.detach()) / slope)
    found = generator.colour_at(field, places[None])[0]
    counted = (rays.opaque & hits)[:, None]
    error = torch.where(counted, (found - rays.colour).abs(), 0.0)
    return PhotometricError(silhouette, error.sum() / (3 * counted.sum()).clamp(min=1))


@torch.no_grad()
def _march(generator: ShapeGenerator, field: ShapeField, rays: SeenRays) -> tuple[Tensor, Tensor, Tensor]:
    """Depths of the first crossing and of the nearest approach ``(R,)``, and which rays cross the surface."""
    near, far = within_cube(rays.origins, rays.directions, GRID_HALF_WIDTH)
    step = (far - near) / _SAMPLES
    depths = near + step * (torch.arange(_SAMPLES, device=near.device) + 0.5)
    points = rays.origins[:, None] + rays.directions[:, None] * depths[..., None]
    values = generator.signed_distance(field, points.reshape(1, -1, 3))[0].view(depths.shape)
    inside = values < 0
    hits = inside.any(1)
    first = inside.to(torch.uint8).argmax(1, keepdim=True)
    before = (first - 1).clamp(min=0)
    low, high = values.gather(1, before), values.gather(1, first)
    # Between the last sample outside and the first inside, the distance is about linear.
    share = torch.where(first > 0, low / (low - high).clamp(min=1e-9), torch.ones_like(low)).clamp(0, 1)
    depth = depths.gather(1, before) + share * (depths.gather(1, first) - depths.gather(1, before))
    nearest = depths.gather(1, values.argmin(1, keepdim=True))
    return depth[:, 0], nearest[:, 0], hits
