"""Radiance fields: density and colour at any place, rendered by integrating along rays."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.shape.generator import ShapeField, ShapeGenerator
from latentpress.models.shape.layers import GRID_HALF_WIDTH

_RAYS_AT_ONCE = 2**12

# Of a sample, and far less than what 8 bits tell apart for all samples of a ray together.
_LEAST_WEIGHT = 1e-6


class Rendering(NamedTuple):
    """A rendered picture.

    Attributes:
        colour: ``(H, W, 3)`` RGB, not premultiplied by nor blended with anything where opacity is one.
        opacity: ``(H, W)`` in [0, 1].
        depth: ``(H, W)`` expected distance along the ray, in the field's own unit.
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor


def camera_rays(
    camera_to_world: Tensor, intrinsics: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Rays through the centres of pixels.

    Args:
        camera_to_world: ``(4, 4)``; the camera looks along its z, x to the right, y down (as in OpenCV).
        intrinsics: ``(3, 3)`` in pixels.
        height: Rows.
        width: Columns.

    Returns:
        Origins and unit directions, ``(H, W, 3)`` each.
    """
    rows, columns = (
        torch.arange(count, device=camera_to_world.device, dtype=camera_to_world.dtype) + 0.5
        for count in (height, width)
    )
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    x = (u - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    local = torch.stack((x, y, torch.ones_like(x)), dim=-1)
    directions = local @ camera_to_world[:3, :3].T
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return camera_to_world[:3, 3].expand_as(directions), directions


def within_cube(origins: Tensor, directions: Tensor, half_width: float) -> tuple[Tensor, Tensor]:
    """Where rays are within a cube around the origin: from and to, ``(R, 1)`` each, equal where they miss it.

    Args:
        origins: ``(R, 3)``.
        directions: ``(R, 3)``, of unit length.
        half_width: Of the cube.

    Example:
        >>> near, far = within_cube(torch.tensor([[0.0, 0.0, -3.0]]), torch.tensor([[0.0, 0.0, 1.0]]), 1.0)
        >>> near.item(), far.item()
        (2.0, 4.0)
    """
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (-half_width - origins) / safe, (half_width - origins) / safe
    near = torch.minimum(first, second).amax(-1, keepdim=True).clamp(min=0)
    return near, torch.maximum(torch.maximum(first, second).amin(-1, keepdim=True), near)


def ray_weights(density: Tensor, step: Tensor) -> Tensor:
    """What each sample of a ray adds to it (NeRF, arXiv 2003.08934, equation 3), ``(R, S)``.

    Args:
        density: ``(R, S)`` per unit of length.
        step: ``(R, 1)`` or ``(R, S)`` length that each sample stands for.

    Example:
        >>> ray_weights(torch.tensor([[0.0, 1e6, 1e6]]), torch.ones(1, 1)).tolist()
        [[0.0, 1.0, 0.0]]
    """
    alpha = 1 - torch.exp(-density * step)
    passed = torch.cumprod(torch.cat((torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]), dim=1), dim=1)
    return alpha * passed


def composite(weight: Tensor, colour: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Integrates along rays.

    Args:
        weight: ``(R, S)``, from :func:`ray_weights`.
        colour: ``(R, S, 3)``.
        depth: ``(R, S)`` of the samples.

    Returns:
        Colour ``(R, 3)`` premultiplied by opacity, opacity ``(R,)``, depth ``(R,)``.

    Example:
        >>> wall, red = ray_weights(torch.full((1, 2), 1e6), torch.ones(1, 1)), torch.eye(3)[None, :2]
        >>> composite(wall, red, torch.tensor([[1.0, 2.0]]))[0].tolist()
        [[1.0, 0.0, 0.0]]
    """
    return (weight[..., None] * colour).sum(1), weight.sum(1), (weight * depth).sum(1)


class RadianceField:
    """Density and colour of one shape in its own coordinates.

    Args:
        generator: That made the field.
        field: Of one shape.
        scale: Half the longest side of the shape.
        centre: Of the shape.
    """

    def __init__(
        self,
        generator: ShapeGenerator,
        field: ShapeField,
        scale: float,
        centre: tuple[float, float, float],
    ) -> None:
        self.generator = generator
        self.field = field
        self.scale = scale
        self.centre = torch.tensor(centre, dtype=torch.float32, device=field.geometry.device)

    @property
    def device(self) -> torch.device:
        """Where the field is evaluated."""
        return self.field.geometry.device

    def signed_distance(self, points: Tensor) -> Tensor:
        """Signed distance ``(N,)`` at ``(N, 3)``, about right near the surface, negative inside."""
        inner = self._inner(points)
        found = self.generator.signed_distance(self.field, inner[None])[0]
        outside = (inner.abs().amax(-1) - GRID_HALF_WIDTH).clamp(min=0)
        return (found + outside) * self.scale

    def density(self, points: Tensor) -> Tensor:
        """Density per unit of length, ``(N,)`` at ``(N, 3)``."""
        return self.generator.density(self.signed_distance(points) / self.scale) / self.scale

    def colour(self, points: Tensor) -> Tensor:
        """RGB in [0, 1], ``(N, 3)`` at ``(N, 3)``; a middle grey for a shape without colour."""
        if self.field.colour is None:
            return torch.full_like(points, 0.5)
        return self.generator.colour_at(self.field, self._inner(points)[None])[0].clamp(0, 1)

    def render(
        self, camera_to_world: Tensor, intrinsics: Tensor, height: int, width: int, samples: int = 96
    ) -> Rendering:
        """Renders a picture; differentiable.

        Args:
            camera_to_world: ``(4, 4)``, see :func:`camera_rays`.
            intrinsics: ``(3, 3)`` in pixels.
            height: Rows.
            width: Columns.
            samples: Along each ray, within the cube around the shape.
        """
        matrix = camera_to_world.to(self.device, torch.float32)
        rays = camera_rays(matrix, intrinsics.to(self.device, torch.float32), height, width)
        origins, directions = (ray.reshape(-1, 3) for ray in rays)
        parts = [
            self.render_rays(o, d, samples)
            for o, d in zip(origins.split(_RAYS_AT_ONCE), directions.split(_RAYS_AT_ONCE), strict=True)
        ]
        colour, opacity, depth = (torch.cat(part) for part in zip(*parts, strict=True))
        size = (height, width)
        return Rendering(colour.view(*size, 3), opacity.view(size), depth.view(size))

    def render_rays(self, origins: Tensor, directions: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """Premultiplied colour ``(R, 3)``, opacity ``(R,)`` and depth ``(R,)`` of rays ``(R, 3)``."""
        near, far = within_cube(origins - self.centre, directions, GRID_HALF_WIDTH * self.scale)
        fractions = (torch.arange(samples, device=origins.device) + 0.5) / samples
        depth = near + (far - near) * fractions
        points = origins[:, None] + directions[:, None] * depth[..., None]
        density = self.density(points.reshape(-1, 3)).view(depth.shape)
        weight = ray_weights(density, (far - near) / samples)
        # Nearly all of a ray is empty or hidden, and colours there would take half of the time.
        seen = weight > _LEAST_WEIGHT
        colour = torch.zeros_like(points)
        colour[seen] = self.colour(points[seen])
        return composite(weight, colour, depth)

    def _inner(self, points: Tensor) -> Tensor:
        return (points.to(self.device, torch.float32) - self.centre) / self.scale
