"""Channel reweighting (CR): contexts are mixed channel by channel before distributions are made of them.

MLICv2 (arXiv 2504.19119) reweights the global contexts by attention among channels with a gate and a skip
connection. Here the scores are means over positions, see
:class:`~latentpress.models.mlic.attention.ChannelAttention`, and the gate is a limited rectifier in place of
a sigmoid.
"""

from __future__ import annotations

from torch import Tensor, nn

from latentpress.models.entropy.blocks import RectifiedProduct
from latentpress.models.mlic.attention import ChannelAttention


class ChannelReweighting(nn.Module):
    """Residual attention among the channels of a map.

    ::

        x -> query, key, value -> channel attention -> product -(+x)-> y
        x -> gate --------------------------------------^

    Args:
        channels: C.

    Example:
        >>> import torch
        >>> ChannelReweighting(8)(torch.zeros(1, 3, 5, 8)).shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)
        self.attention = ChannelAttention()
        self.product = RectifiedProduct()

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, h, w, C)`` to the same shape."""
        query, key, value = (layer(x).flatten(1, 2) for layer in (self.query, self.key, self.value))
        mixed = self.attention(query, key, value).unflatten(1, x.shape[1:3])
        return x + self.product(mixed, self.gate(x))
