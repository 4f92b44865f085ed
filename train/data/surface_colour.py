"""Procedural colour for surfaces: patterns of a few colours as functions of position."""

from __future__ import annotations

import torch
from torch import Tensor

_PATTERNS = 3


def procedural_colour(points: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Colours shapes at random: gradients, stripes, patches and mottling, one shape in six plain.

    Args:
        points: ``(B, N, 3)``, longest side about 2.
        generator: Of the points' device.

    Returns:
        ``(B, N, 3)`` RGB in [0, 1].
    """
    batch, device = len(points), points.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand((batch, *shape), generator=generator, device=device)

    colour = uniform(1, 3).expand_as(points)
    plain = uniform(1, 1) < 1 / 6
    for _ in range(_PATTERNS):
        # Three waves in random directions: one strong wave makes stripes, three alike make patches.
        direction = torch.nn.functional.normalize(
            torch.randn((batch, 3, 3), generator=generator, device=device), dim=-1
        )
        frequency = 0.7 * torch.exp(uniform(1, 3) * 2.5)
        weight = uniform(1, 3).square()
        angles = (points @ direction.transpose(1, 2)) * frequency * torch.pi + uniform(1, 3) * 6.28
        wave = (weight * angles.sin()).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)
        sharpness = torch.exp(uniform(1, 1) * 4)
        mask = torch.sigmoid((wave - (uniform(1, 1) - 0.3)) * sharpness) * uniform(1, 1).sqrt()
        colour = torch.lerp(colour, uniform(1, 3).expand_as(points), mask * ~plain)
    return colour.clamp(0, 1)
