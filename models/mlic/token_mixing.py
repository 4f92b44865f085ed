"""Simple token mixing (STM): a block of the transforms whose mixing is depthwise and large, after MetaFormer.

MLICv2 (arXiv 2504.19119) replaces residual blocks by these and reports that high rates stop degrading. Here
they stand behind the DepthConv blocks, start as the identity, and so can be added to trained transforms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.layers import DepthwiseConv


class TokenMixingBlock(nn.Module):
    """Mixes positions, then gates channels, both residual.

    ::

        x -> norm -> (+ GELU'd depthwise 3x3 pair) -> depthwise 5x5 -> 1x1 -(+x)-> h
        h -> norm -> 1x1 -> GELU -> depthwise 3x3 -> GELU -> 1x1 -> gate;   y = h + h * gate

    The gate is ``tanh``, zero at first, where MLICv2 multiplies by a sigmoid.

    Args:
        channels: Channels in and out.

    Example:
        >>> block, x = TokenMixingBlock(8), torch.rand(1, 4, 4, 8)
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixing_norm = nn.LayerNorm(channels)
        self.first = DepthwiseConv(channels)
        self.second = DepthwiseConv(channels)
        self.wide = DepthwiseConv(channels, kernel_size=5)
        self.project = nn.Linear(channels, channels)
        self.gate_norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, channels)
        self.depthwise = DepthwiseConv(channels)
        self.gate = nn.Linear(channels, channels)
        for layer in (self.project, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, C)`` to the same shape."""
        mixed = self.mixing_norm(x)
        mixed = mixed + self.second(F.gelu(self.first(mixed)))
        x = x + self.project(self.wide(mixed)).to(x.dtype)
        gate = self.gate(F.gelu(self.depthwise(F.gelu(self.expand(self.gate_norm(x))))))
        return x + x * torch.tanh(gate).to(x.dtype)
