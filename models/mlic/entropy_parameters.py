"""From contexts at a position to the distribution of the elements there. Only 1x1 layers, as in MLIC++."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.entropy.blocks import LeakyRectifier, RectifiedProduct
from latentpress.models.layers import DepthwiseConv


class Distribution(NamedTuple):
    """What is predicted of a slice's elements.

    Attributes:
        mean: ``(..., channels)``, in quantisation steps.
        raw_scale: Same shape, see ``gaussian.scale_from_raw``.
        hidden: ``(..., width)``, what both were made of.
    """

    mean: Tensor
    raw_scale: Tensor
    hidden: Tensor


class PositionBlock(nn.Module):
    """Residual block of the entropy networks that looks at one position only.

    ::

        x -> 1x1 -> leaky rectifier -> 1x1 -(+x)-> h
        h -> value, gate -> value * limited gate -> 1x1 -(+h)-> y

    Args:
        channels: Channels in and out.

    Example:
        >>> PositionBlock(8)(torch.zeros(2, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.rectifier = LeakyRectifier()
        self.project = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)
        self.product = RectifiedProduct()
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., channels)`` to the same shape."""
        x = x + self.project(self.rectifier(self.expand(x)))
        return x + self.output(self.product(self.value(x), self.gate(x)))

    @torch.no_grad()
    def pass_on(self) -> None:
        """Makes the block the identity, as one that is added to a trained network has to begin."""
        for layer in (self.project, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


class ChannelContext(nn.Module):
    """What earlier slices say of a position: 1x1, leaky rectifier, depthwise 3x3, 1x1.

    Args:
        channels_in: Channels of the earlier slices.
        channels: Channels of the context.

    Example:
        >>> ChannelContext(6, 8)(torch.zeros(1, 3, 5, 6)).shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels_in, channels)
        self.rectifier = LeakyRectifier()
        self.depthwise = DepthwiseConv(channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, seen: Tensor) -> Tensor:
        """Maps decoded slices ``(B, h, w, channels_in)`` to ``(B, h, w, channels)``."""
        # Large coefficients need more than bfloat16's 8 bits of mantissa.
        with torch.autocast(seen.device.type, enabled=False):
            x = self.expand(seen)
        return self.project(self.depthwise(self.rectifier(x)))


class EntropyParameters(nn.Module):
    """Predicts a slice's distribution from contexts, joined along the channels.

    ::

        contexts -> 1x1 -> [own block] -> [shared block] -> hidden -> 1x1 -> mean, raw scale

    Args:
        context_channels: Channels of all contexts together.
        width: Channels inside.
        channels: Channels of the slice.
        blocks: How many blocks of its own it has.

    Example:
        >>> layer = EntropyParameters(5, 8, 4)
        >>> layer([torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 3)], torch.float32).mean.shape
        torch.Size([1, 3, 2, 4])
    """

    def __init__(self, context_channels: int, width: int, channels: int, blocks: int = 1) -> None:
        super().__init__()
        self.fuse = nn.Linear(context_channels, width)
        self.blocks = nn.ModuleList(PositionBlock(width) for _ in range(blocks))
        self.head = nn.Linear(width, 2 * channels)
        # At first every mean is zero, so that trained transforms work with it before it is trained.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, contexts: Sequence[Tensor], dtype: torch.dtype, shared: Iterable[nn.Module] = ()
    ) -> Distribution:
        """Predicts.

        Args:
            contexts: ``(..., c)`` each.
            dtype: Of the result; full precision, whatever is used inside.
            shared: Blocks that others use as well.
        """
        hidden = self.fuse(torch.cat([x.to(contexts[0].dtype) for x in contexts], dim=-1))
        for block in (*self.blocks, *shared):
            hidden = block(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            mean, raw_scale = self.head(hidden.to(dtype)).chunk(2, dim=-1)
        return Distribution(mean, raw_scale, hidden)
