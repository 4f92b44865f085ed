"""Vectors that depend on the quality, so that one network serves every rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

QUALITY_MAX = 100
"""Qualities are real numbers in [0, 100]."""


class QualityVector(nn.Module):
    """A learned vector for every quality, linear between equally spaced knots.

    Neighbouring qualities share their knots, so each is trained by samples of all qualities around it,
    and any real quality has a vector (gain units, arXiv 2003.02012, interpolate in the same spirit).

    Args:
        channels: Length of the vector.
        knots: Number of knots over [0, 100].
        first: Initial value at quality 0.
        last: Initial value at quality 100; the knots between start on the line.

    Example:
        >>> QualityVector(4, first=0.0, last=1.0)(torch.tensor([50.0]))[0]
        tensor([0.5000, 0.5000, 0.5000, 0.5000], grad_fn=<SelectBackward0>)
    """

    def __init__(self, channels: int, knots: int = 21, first: float = 0.0, last: float = 0.0) -> None:
        super().__init__()
        line = torch.linspace(first, last, knots)[:, None].expand(knots, channels)
        self.knots = nn.Parameter(line.clone())

    def forward(self, quality: Tensor) -> Tensor:
        """Maps qualities ``(B,)`` in [0, 100] to vectors ``(B, channels)``."""
        count = self.knots.shape[0]
        position = quality.clamp(0, QUALITY_MAX) * ((count - 1) / QUALITY_MAX)
        # Weights of a hat function around each knot: a product is faster to differentiate than a gather.
        grid = torch.arange(count, device=quality.device, dtype=position.dtype)
        weights = (1 - (position[:, None] - grid).abs()).clamp(min=0)
        # A gain rounded to bfloat16 would move every large coefficient by more than a quantisation step.
        with torch.autocast(quality.device.type, enabled=False):
            return weights.float() @ self.knots.float()


class QualityGain(QualityVector):
    """A positive learned factor per channel and quality: the exponential of a :class:`QualityVector`."""

    def forward(self, quality: Tensor) -> Tensor:
        """Maps qualities ``(B,)`` in [0, 100] to positive factors ``(B, channels)``."""
        return super().forward(quality).exp()
