"""Damage to velocity fields, for a critic to learn from and to be measured on.

Fields are ``(B, D, H, W, 3)`` with unit variance; every sample has a strength of its own, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Corruption = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Field, strengths ``(B,)``, generator to damaged field."""

LOST_BLOCK = 8
"""Side of the cubes that are lost at once: the codec's blocks."""


def white_noise(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Adds noise of 0.003 to 0.6 times the field's size, as a bound on the error leaves it."""
    noise = torch.randn(field.shape, generator=generator, device=field.device)
    return field + noise * _sizes(strength, 0.003, 0.6)


def blur(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Mixes the field with its means over about 2 to 5 points."""
    smooth = field
    for reach in (1, 2):
        for axis in (1, 2, 3):
            smooth = 0.5 * smooth + 0.25 * (smooth.roll(reach, axis) + smooth.roll(-reach, axis))
    share = strength[:, None, None, None, None]
    return (1 - share) * field + share * smooth


def lost_blocks(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Replaces up to a fifth of the blocks by their means."""
    size = LOST_BLOCK
    counts = [side // size for side in field.shape[1:4]]
    chosen = torch.rand((len(field), *counts), generator=generator, device=field.device)
    lost = chosen < 0.2 * strength[:, None, None, None]
    inside = [count * size for count in counts]
    part = field[:, : inside[0], : inside[1], : inside[2]]
    blocks = part.unflatten(1, (-1, size)).unflatten(3, (-1, size)).unflatten(5, (-1, size))
    means = blocks.mean((2, 4, 6), keepdim=True).expand_as(blocks)
    mask = lost[:, :, None, :, None, :, None, None]
    mixed = torch.where(mask, means, blocks).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    damaged = field.clone()
    damaged[:, : inside[0], : inside[1], : inside[2]] = mixed
    return damaged


def coarse_steps(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds to multiples of 0.01 to 2 times the field's size."""
    step = _sizes(strength, 0.01, 2.0)
    return (field / step).round() * step


LEARNED: dict[str, Corruption] = {
    "noise": white_noise,
    "blur": blur,
    "lost blocks": lost_blocks,
    "coarse steps": coarse_steps,
}
"""What the critic is trained with."""


def mixed_up(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts every second plane along the first axis by up to 4 points, as a wrong stride would."""
    shifts = (4 * strength).round().long().tolist()
    damaged = field.clone()
    for sample, shift in zip(damaged, shifts, strict=True):
        sample[::2] = sample[::2].roll(shift, 1)
    return damaged


def dead_samples(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Sets up to 5 % of the points to zero."""
    chosen = torch.rand(field.shape[:-1], generator=generator, device=field.device)
    return torch.where((chosen < 0.05 * strength[:, None, None, None])[..., None], 0.0, field)


def box_filter(field: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Mixes the field with its means over cubes of 4 points, repeated: a coarse field without a decoder."""
    size = 4
    inside = [side // size * size for side in field.shape[1:4]]
    part = field[:, : inside[0], : inside[1], : inside[2]]
    cubes = part.unflatten(1, (-1, size)).unflatten(3, (-1, size)).unflatten(5, (-1, size))
    means = cubes.mean((2, 4, 6), keepdim=True).expand_as(cubes).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    share = strength[:, None, None, None, None]
    damaged = field.clone()
    damaged[:, : inside[0], : inside[1], : inside[2]] = (1 - share) * part + share * means
    return damaged


UNSEEN: dict[str, Corruption] = {
    "mixed-up planes": mixed_up,
    "dead samples": dead_samples,
    "box filter": box_filter,
}
"""What it is only measured on."""


def _sizes(strength: Tensor, least: float, most: float) -> Tensor:
    return (least * (most / least) ** strength)[:, None, None, None, None]
