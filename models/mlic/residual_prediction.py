"""Latent residual prediction: guesses what rounding took away from a latent.

Source: Minnen & Singh, arXiv 2007.08739.
MLIC++ adds ``tanh(...) / 2`` to each decoded slice. The limit is a plain clamp here, which integers have too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentpress.models.entropy.blocks import LeakyRectifier
from latentpress.models.mlic.attention import Bound

LARGEST_CORRECTION = 0.5
"""Rounding takes away at most half a quantisation step."""

_LARGEST_RESIDUAL = 4.0


class ResidualPrediction(nn.Module):
    """Predicts the rounding error from what predicted the distribution, and from how the rounding went.

    ::

        hidden, limit(decoded - mean) -> 1x1 -> leaky rectifier -> 1x1 -> limit to [-1/2, 1/2]

    It starts as zero.

    Args:
        hidden_channels: Channels of what the distribution is made of.
        channels: Channels of the slice.
        width: Channels inside.

    Example:
        >>> layer = ResidualPrediction(8, 4, width=6)
        >>> layer(torch.zeros(1, 3, 2, 8), torch.ones(1, 3, 2, 4)).abs().max()
        tensor(0., grad_fn=<MaxBackward1>)
    """

    def __init__(self, hidden_channels: int, channels: int, width: int) -> None:
        super().__init__()
        self.limit_residual = Bound(_LARGEST_RESIDUAL)
        self.expand = nn.Linear(hidden_channels + channels, width)
        self.rectifier = LeakyRectifier()
        self.head = nn.Linear(width, channels)
        self.limit = Bound(LARGEST_CORRECTION)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Predicts.

        Args:
            hidden: ``(..., hidden_channels)``.
            residual: What was coded, decoded value minus mean, ``(..., channels)``.

        Returns:
            What to add to the decoded values, ``(..., channels)``.
        """
        joined = torch.cat((hidden.to(residual.dtype), self.limit_residual(residual)), dim=-1)
        x = self.rectifier(self.expand(joined))
        with torch.autocast(x.device.type, enabled=False):
            return self.limit(self.head(x.to(residual.dtype)))
