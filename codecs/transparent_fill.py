"""Fills what cannot be seen: colour under fully transparent pixels should cost no bits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NEUTRAL = 0.5


def fill_transparent(colour: Tensor, visible: Tensor) -> Tensor:
    """Continues visible colour smoothly into what cannot be seen.

    The picture is halved again and again, counting visible pixels only, until nothing is left open; then each
    size fills what is open in the next larger one (Gortler et al., "The Lumigraph", 1996: pull and push).

    Args:
        colour: ``(C, H, W)``, floating point.
        visible: ``(H, W)``, bool, on the same device.

    Returns:
        The same shape; visible pixels are as they were.

    Example:
        >>> colour = torch.tensor([[[0.2, 0.9, 0.9, 0.2]]])
        >>> fill_transparent(colour, torch.tensor([[True, False, False, True]])).tolist()
        [[[0.20000000298023224, 0.20000000298023224, 0.20000000298023224, 0.20000000298023224]]]
    """
    if bool(visible.all()):
        return colour
    if not bool(visible.any()):
        return torch.full_like(colour, _NEUTRAL)
    weights = visible.to(colour.dtype)[None, None]
    return torch.where(visible, colour, _filled(colour[None] * weights, weights)[0])


def _filled(sums: Tensor, weights: Tensor) -> Tensor:
    """Means of what is there, and a smooth continuation of them elsewhere."""
    means = sums / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    there = weights > 0
    if bool(there.all()):
        return means
    # At odd borders sums and weights are divided by the same, so that their ratio stays a mean.
    coarse = _filled(*(F.avg_pool2d(x, 2, ceil_mode=True) for x in (sums, weights)))
    larger = F.interpolate(coarse, size=weights.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(there, means, larger)
