"""Guided selective compression (GSC): elements that are not worth their bits are not coded at all.

MLICv2 (arXiv 2504.19119) predicts a map of elements to skip from scales, earlier slices and the hyperprior;
skipped elements take their mean. The decoder predicts the map again, so it must be the same to the last
element: here it is a comparison of integers.

A skip score starts as "the predicted scale is below a threshold" and learns a correction. MLICv2 trains in
two stages; here the decision passes its gradient on as if it were a sigmoid, to both sides: bits that are
saved pull towards skipping, errors of elements whose residual was not zero pull away from it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentpress.models.entropy.gaussian import INDEX_OFFSET, INDEX_SLOPE, LOG_SCALE_STEP, SCALE_MIN

_SLOPE = 2.0
"""Of the sigmoid that the gradient sees, per unit of the score."""


class SelectiveCompression(nn.Module):
    """Scores elements; those above zero are skipped.

    ::

        score = 1x1(hidden) - raw scale          skip where score > 0

    Args:
        hidden_channels: Channels of what the distribution is made of.
        channels: Channels of the slice.
        scale: Elements of a smaller predicted scale are skipped at first, in quantisation steps.

    Example:
        >>> layer = SelectiveCompression(8, 4, scale=0.2)
        >>> raw_scale = torch.tensor([-4.0, -3.0, -2.0, -1.0])
        >>> layer(torch.zeros(1, 8), raw_scale)[0] > 0
        tensor([ True,  True, False, False])
    """

    def __init__(self, hidden_channels: int, channels: int, scale: float) -> None:
        super().__init__()
        self.head = nn.Linear(hidden_channels, channels)
        index = math.log(scale / SCALE_MIN) / LOG_SCALE_STEP
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, (index - INDEX_OFFSET) / INDEX_SLOPE)

    def forward(self, hidden: Tensor, raw_scale: Tensor) -> Tensor:
        """Scores elements.

        Args:
            hidden: ``(..., hidden_channels)``.
            raw_scale: Predicted, ``(..., channels)``, see ``gaussian.scale_from_raw``.

        Returns:
            ``(..., channels)``.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(raw_scale.dtype)) - raw_scale.detach()


def coded_share(score: Tensor) -> Tensor:
    """One for elements that are coded, zero for those skipped; differentiable as a sigmoid is.

    Args:
        score: Of :class:`SelectiveCompression`, any shape.

    Example:
        >>> coded_share(torch.tensor([0.5, -0.5]))
        tensor([0., 1.])
    """
    soft = torch.sigmoid(-_SLOPE * score)
    hard = (score <= 0).to(soft.dtype)
    return soft + (hard - soft).detach()
