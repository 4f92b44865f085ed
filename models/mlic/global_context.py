"""What is decoded anywhere in the picture, for every position: linear attention over whole maps.

Three uses of one operation, after MLIC++ (arXiv 2307.15421, inter-slice and intra-slice global contexts) and
MLICv2 (arXiv 2504.19119, hyperprior-guided global correlation prediction, which MLIC++ has nothing for in the
first slice).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentpress.models.entropy.blocks import RectifiedProduct
from latentpress.models.layers import DepthwiseConv
from latentpress.models.mlic.attention import LinearAttention
from latentpress.models.mlic.checkerboard import split


class InterSliceContext(nn.Module):
    """Global context of slices that are decoded at all positions.

    ::

        earlier slices -> 1x1 -> depthwise 3x3 -> query, key, value -> linear attention -> (B,h,w,C)

    Args:
        channels_in: Channels of the earlier slices.
        channels: C.
        heads: Number of heads.

    Example:
        >>> InterSliceContext(6, 8, heads=2)(torch.zeros(1, 3, 5, 6)).shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(self, channels_in: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(channels_in, 3 * channels)
        self.depthwise = DepthwiseConv(3 * channels)
        self.attention = LinearAttention()

    def forward(self, seen: Tensor) -> Tensor:
        """Maps decoded slices ``(B, h, w, channels_in)`` to ``(B, h, w, C)``."""
        with torch.autocast(seen.device.type, enabled=False):
            projected = self.project(seen)
        parts = self.depthwise(projected).chunk(3, dim=-1)
        query, key, value = (_heads(part, self.heads) for part in parts)
        return self.attention(query, key, value).flatten(-2).unflatten(1, seen.shape[1:3])


class IntraSliceContext(nn.Module):
    """Global context of the slice that is being decoded, at the positions that are not.

    How positions relate is taken from the earlier slices, what they hold from the anchors of this one.

    ::

        earlier slices, other half -> query ----v
        earlier slices, anchors    -> key    -> linear attention -> (B,h,columns,C)
        this slice, anchors        -> value ----^

    Args:
        channels_in: Channels of the earlier slices.
        anchor_channels: Channels of this slice.
        channels: C.
        heads: Number of heads.

    Example:
        >>> layer = IntraSliceContext(6, 4, 8, heads=2)
        >>> layer(torch.zeros(1, 3, 5, 6), torch.zeros(1, 3, 3, 4)).shape
        torch.Size([1, 3, 3, 8])
    """

    def __init__(self, channels_in: int, anchor_channels: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(channels_in, 2 * channels)
        self.depthwise = DepthwiseConv(2 * channels)
        self.value = nn.Linear(anchor_channels, channels)
        self.attention = LinearAttention()

    def forward(self, seen: Tensor, anchor: Tensor) -> Tensor:
        """Attends.

        Args:
            seen: Decoded slices, ``(B, h, w, channels_in)``.
            anchor: Decoded anchors of this slice, ``(B, h, columns, anchor_channels)``.

        Returns:
            ``(B, h, columns, C)`` at the other half's positions.
        """
        with torch.autocast(seen.device.type, enabled=False):
            projected, value = self.project(seen), self.value(anchor)
        query, key = self.depthwise(projected).chunk(2, dim=-1)
        found = self.attention(
            _heads(split(query).other, self.heads),
            _heads(split(key).anchor, self.heads),
            _heads(value, self.heads),
        )
        return found.flatten(-2).unflatten(1, anchor.shape[1:3])


class HyperCorrelation(nn.Module):
    """Hyperprior-guided global correlation prediction: a global context for a slice without earlier ones.

    ::

        features at anchors         -> query ------v
        features at the other half  -> key, value -> linear attention -> 1x1 -v
        features at anchors         -> gate -------------------------------> product -> (B,h,columns,C)

    Args:
        channels_in: Channels of the hyperprior's features.
        channels: C.
        heads: Number of heads.

    Example:
        >>> HyperCorrelation(6, 8, heads=2)(torch.zeros(1, 3, 5, 6)).shape
        torch.Size([1, 3, 3, 8])
    """

    def __init__(self, channels_in: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels_in, channels)
        self.key = nn.Linear(channels_in, channels)
        self.value = nn.Linear(channels_in, channels)
        self.project = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels_in, channels)
        self.attention = LinearAttention()
        self.product = RectifiedProduct()
        nn.init.ones_(self.gate.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features of the hyperprior ``(B, h, w, channels_in)`` to anchors ``(B, h, columns, C)``."""
        anchor, other = split(features)
        found = self.attention(
            _heads(self.query(anchor), self.heads),
            _heads(self.key(other), self.heads),
            _heads(self.value(other), self.heads),
        )
        found = found.flatten(-2).unflatten(1, anchor.shape[1:3])
        return self.product(self.project(found), self.gate(anchor))


def _heads(x: Tensor, heads: int) -> Tensor:
    """``(B, h, w, C)`` as positions and heads, ``(B, h w, heads, C / heads)``."""
    return x.flatten(1, 2).unflatten(-1, (heads, -1))
