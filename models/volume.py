"""Layers for volumes in channels-last layout ``(B, D, H, W, C)``, periodic or not.

As in :mod:`latentpress.models.layers`, a 1x1x1 convolution is a matrix product over the channels. The one
layer that looks at neighbours is written with shifted copies instead of a library's 3D convolution: it is
bound by memory on every device, a compiler fuses it, and in integers its few sums are exact term by term.

``periodic`` is a boolean tensor ``(B, 3)``: whether a sample continues at its far end along D, H and W.
Where it does not, its border values are repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AXES = (1, 2, 3)
"""Dimensions of a channels-last volume that are axes of space."""


def fold(x: Tensor, factor: int) -> Tensor:
    """Moves each cube of ``factor`` positions a side into the channels.

    Args:
        x: ``(B, D, H, W, C)``, sides multiples of ``factor``.
        factor: Side of the cube, in positions.

    Returns:
        ``(B, D/factor, H/factor, W/factor, factor**3 * C)``; channels run over (depth, row, column, C).

    Example:
        >>> fold(torch.zeros(1, 4, 4, 6, 3), 2).shape
        torch.Size([1, 2, 2, 3, 24])
    """
    b, d, h, w, c = x.shape
    f = factor
    x = x.reshape(b, d // f, f, h // f, f, w // f, f, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, d // f, h // f, w // f, f**3 * c)


def unfold(x: Tensor, factor: int) -> Tensor:
    """Inverse of :func:`fold`.

    Example:
        >>> x = torch.rand(1, 4, 2, 6, 3)
        >>> torch.equal(unfold(fold(x, 2), 2), x)
        True
    """
    b, d, h, w, c = x.shape
    f = factor
    x = x.reshape(b, d, h, w, f, f, f, c // f**3).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, d * f, h * f, w * f, c // f**3)


def neighbours(x: Tensor, axis: int, periodic: Tensor) -> tuple[Tensor, Tensor]:
    """The values one position before and after, along an axis.

    Args:
        x: ``(B, D, H, W, C)``.
        axis: 1, 2 or 3.
        periodic: ``(B, 3)`` boolean.

    Returns:
        Two tensors of the shape of ``x``.

    Example:
        >>> x = torch.arange(3.0).view(1, 3, 1, 1, 1)
        >>> before, after = neighbours(x, 1, torch.tensor([[True, False, False]]))
        >>> before.flatten().tolist(), after.flatten().tolist()
        ([2.0, 0.0, 1.0], [1.0, 2.0, 0.0])
    """
    size = x.shape[axis]
    wraps = periodic[:, axis - 1].view(-1, 1, 1, 1, 1)
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, size - 1, 1)
    before = torch.cat((torch.where(wraps, last, first), x.narrow(axis, 0, size - 1)), axis)
    after = torch.cat((x.narrow(axis, 1, size - 1), torch.where(wraps, first, last)), axis)
    return before, after


def neighbour_sum(x: Tensor, taps: Tensor, bias: Tensor, periodic: Tensor) -> Tensor:
    """Weighted sum of every value and its six neighbours, every channel by itself; without gradients.

    On a processor it goes plane by plane, so that a plane stays in the cache for all its terms: a quarter of
    the time of whole volumes at 32^3 positions. Terms are added in one order everywhere.

    Args:
        x: ``(B, D, H, W, C)``.
        taps: ``(7, C)``: of the value itself, then of the one before and the one after along D, H and W.
        bias: ``(C,)``.
        periodic: ``(B, 3)`` boolean.

    Example:
        >>> x, taps = torch.rand(1, 2, 3, 4, 5), torch.zeros(7, 5)
        >>> taps[0] = 1
        >>> torch.equal(neighbour_sum(x, taps, torch.zeros(5), torch.zeros(1, 3, dtype=torch.bool)), x)
        True
    """
    if x.device.type != "cpu":
        y = x * taps[0] + bias
        for axis in AXES:
            before, after = neighbours(x, axis, periodic)
            y += before * taps[2 * axis - 1]
            y += after * taps[2 * axis]
        return y
    y = torch.empty_like(x)
    depth = x.shape[1]
    ends = [end[:, 0] for end in _ends(x, 1, periodic[:, 0])]
    for place in range(depth):
        plane, total = x[:, place], y[:, place]
        torch.mul(plane, taps[0], out=total)
        total += bias
        total += (x[:, place - 1] if place else ends[0]) * taps[1]
        total += (x[:, place + 1] if place + 1 < depth else ends[1]) * taps[2]
        for axis in (1, 2):
            before, after = taps[2 * axis + 1], taps[2 * axis + 2]
            others = plane.shape[axis] - 1
            first, last = _ends(plane, axis, periodic[:, axis])
            total.narrow(axis, 0, 1).add_(first * before)
            total.narrow(axis, 1, others).add_(plane.narrow(axis, 0, others) * before)
            total.narrow(axis, 0, others).add_(plane.narrow(axis, 1, others) * after)
            total.narrow(axis, others, 1).add_(last * after)
    return y


def _ends(x: Tensor, axis: int, periodic: Tensor) -> tuple[Tensor, Tensor]:
    """What is before the first and after the last position along an axis."""
    wraps = periodic.view(-1, *[1] * (x.ndim - 1))
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.where(wraps, last, first), torch.where(wraps, first, last)


class NeighbourConv(nn.Module):
    """Weighted sum of every value and its six neighbours, every channel by itself.

    Args:
        channels: C.

    Example:
        >>> NeighbourConv(4)(torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 3, dtype=torch.bool)).shape
        torch.Size([1, 2, 3, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.taps = nn.Parameter(torch.empty(7, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.taps, -0.2, 0.2)
        # Starting near the identity keeps deep stacks of blocks well conditioned without normalisation.
        with torch.no_grad():
            self.taps[0] += 1.0

    def forward(self, x: Tensor, periodic: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, C)`` to the same shape."""
        taps = self.taps.to(x.dtype)
        if not torch.is_grad_enabled():
            return neighbour_sum(x, taps, self.bias.to(x.dtype), periodic)
        y = x * taps[0] + self.bias.to(x.dtype)
        for axis in AXES:
            before, after = neighbours(x, axis, periodic)
            y = y + before * taps[2 * axis - 1] + after * taps[2 * axis]
        return y


class VolumeBlock(nn.Module):
    """Residual block: 1x1, SiLU, neighbours, 1x1; then a gated feed-forward network.

    ::

        x -> expand -> SiLU -> neighbours -> project -(+x)-> h
        h -> value, gate -> value * SiLU(gate) -> output -(+h)-> y

    The block of :class:`latentpress.models.layers.DepthConvBlock` for volumes. Under autocast the branches
    run in half precision and the sums stay in the precision of ``x``.

    Args:
        channels: Channels in and out.
        expansion: Width of the feed-forward network in multiples of ``channels``.

    Example:
        >>> VolumeBlock(8)(torch.zeros(1, 2, 2, 2, 8), torch.zeros(1, 3, dtype=torch.bool)).shape
        torch.Size([1, 2, 2, 2, 8])
    """

    def __init__(self, channels: int, expansion: int = 1) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.neighbours = NeighbourConv(channels)
        self.project = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, expansion * channels)
        self.gate = nn.Linear(channels, expansion * channels)
        self.output = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor, periodic: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, C)`` to the same shape."""
        x = x + self.project(self.neighbours(F.silu(self.expand(x)), periodic))
        return x + self.output(self.value(x) * F.silu(self.gate(x)))


class BoundaryFilter(nn.Module):
    """Mixes the samples on both sides of every boundary between blocks, along all three axes.

    A block transform after this filter, and its inverse before the inverse filter, is a lapped transform:
    basis functions reach into the neighbouring blocks and end there smoothly (Tran, Liang and Tu, "Lapped
    transform via time-domain pre- and post-filtering", IEEE Transactions on Signal Processing, 2003).

    ::

        ... a b c d | e f g h ...   the 4 + 4 samples around a boundary -> 8x8 matrix -> in their places again

    The ends of an axis that is not periodic are left as they are.

    Args:
        block: Side of the blocks, in samples; also the size of the matrix.

    Example:
        >>> x = torch.rand(1, 16, 8, 8, 3)
        >>> filtered = BoundaryFilter(8)(x, torch.ones(1, 3, dtype=torch.bool))
        >>> torch.allclose(filtered, x)  # starts as the identity
        True
    """

    def __init__(self, block: int = 8) -> None:
        super().__init__()
        self.block = block
        self.matrix = nn.Parameter(torch.eye(block))

    def forward(self, x: Tensor, periodic: Tensor) -> Tensor:
        """Filters ``(B, D, H, W, C)``, sides multiples of the block, in the precision of ``x``."""
        for axis in AXES:
            x = self._along(x, axis, periodic)
        return x

    def _along(self, x: Tensor, axis: int, periodic: Tensor) -> Tensor:
        half = self.block // 2
        size = x.shape[axis]
        wraps = periodic[:, axis - 1].view(-1, 1, 1, 1, 1)
        # Rolled by half a block, boundaries are in the middle; the last group holds both ends of the axis.
        rolled = torch.cat((x.narrow(axis, half, size - half), x.narrow(axis, 0, half)), axis)
        grouped = rolled.unflatten(axis, (size // self.block, self.block))
        mixed = (grouped.movedim(axis + 1, -1) @ self.matrix.to(x.dtype).T).movedim(-1, axis + 1)
        mixed = mixed.flatten(axis, axis + 1)
        inner = mixed.narrow(axis, 0, size - self.block)
        ends = torch.where(
            wraps,
            mixed.narrow(axis, size - self.block, self.block),
            rolled.narrow(axis, size - self.block, self.block),
        )
        right, left = ends.split(half, axis)
        return torch.cat((left, inner, right), axis)
