"""Convolutions on integers: over the 3x3 neighbourhood of a grid, and over the six neighbours in a volume."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.fixed_point.units import ACTIVATION_LIMIT, UNIT, limited
from latentpress.models.entropy.fixed_point.weights import (
    FLOAT32_EXACT,
    FLOAT64_EXACT,
    filled,
    finest_shift,
    prove_below,
    rounded,
)
from latentpress.models.layers import DepthwiseConv
from latentpress.models.volume import NeighbourConv, neighbour_sum

_HALF_BITS = 10

# Numbers of a band of rows that are worked on together: they fit a core's cache.
_BAND = 2**17


def bands(height: int, row: int) -> Iterator[slice]:
    """Divides rows into bands of which all that is worked on stays in cache.

    Args:
        height: How many rows there are.
        row: Numbers in each.

    Example:
        >>> [(band.start, band.stop) for band in bands(5, 2**16)]
        [(0, 2), (2, 4), (4, 5)]
    """
    rows = max(1, _BAND // max(1, row))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


class FixedPointDepthwise(nn.Module):
    """A 3x3 depthwise convolution on integers.

    Args:
        channels: Channels in and out.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(channels, 1, 3, 3, dtype=torch.int16))
        self.register_buffer("bias", torch.zeros(channels, dtype=torch.int32))
        self.register_buffer("shift", torch.zeros(1, dtype=torch.int32))
        self._operands: tuple[Tensor, Tensor, float] | None = None
        self._taps: Tensor | None = None

    @classmethod
    def from_float(cls, layer: DepthwiseConv) -> FixedPointDepthwise:
        """Rounds a trained layer as finely as float32's 24 bits allow."""
        if layer.weight.shape[-1] != 3:
            raise TypeError("only depthwise convolutions of 3x3 have an integer counterpart")
        result = cls(layer.channels)
        weight = layer.weight.detach().double()
        for shift in range(13, 0, -1):
            result.shift.fill_(shift)
            if shift > 1 and torch.round(weight * 2**shift).abs().max() > 32767:
                continue
            result.weight.copy_(rounded(weight * 2**shift, torch.int16))
            if result.accumulator_bound() < FLOAT32_EXACT:
                break
        result.bias.copy_(rounded(layer.bias.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> DepthwiseConv:
        """The same layer on real numbers, which can be differentiated."""
        result = DepthwiseConv(self.weight.shape[0])
        return filled(
            result, weight=self.weight.float() * 2.0 ** -int(self.shift), bias=self.bias.float() / UNIT
        )

    def accumulator_bound(self) -> int:
        """The largest magnitude any partial sum over one half of an activation can have."""
        return int(self.weight.long().abs().sum(dim=(1, 2, 3)).max()) * 2**_HALF_BITS

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float32's 24 bits."""
        prove_below(self.accumulator_bound(), FLOAT32_EXACT, "float32")

    def forward(self, x: Tensor) -> Tensor:
        """Maps integers ``(B, H, W, C)`` to integers of the same shape, float64."""
        if x.device.type == "cpu":
            padded = F.pad(limited(x), (0, 0, 1, 1, 1, 1))
            return torch.cat([part for _, part in self.by_bands(padded)], dim=1)
        weight, bias, scale = self._prepared(x.device)
        x = limited(x)
        high = torch.floor(x * 2.0**-_HALF_BITS)
        low = x - high * 2.0**_HALF_BITS
        halves = torch.cat((high.float(), low.float())).permute(0, 3, 1, 2)
        # cuDNN might choose an algorithm that transforms its operands; PyTorch's own kernel sums products.
        with torch.backends.cudnn.flags(enabled=False):
            sums = F.conv2d(halves, weight, padding=1, groups=weight.shape[0])
        high, low = sums.permute(0, 2, 3, 1).double().chunk(2)
        return (high * 2.0**_HALF_BITS).add_(low).mul_(scale).add_(bias).floor_()

    def by_bands(self, padded: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The convolution as nine products each of a few rows, which are added up while they are in cache.

        A processor does that in less time than it takes to split activations into halves.

        Args:
            padded: Limited activations ``(B, H + 2, W + 2, C)``, zeros around them.

        Yields:
            Rows of the result, and what is there, ``(B, rows, W, C)``.
        """
        batch, height, width, channels = (
            padded.shape[0],
            padded.shape[1] - 2,
            padded.shape[2] - 2,
            padded.shape[3],
        )
        taps, (_, bias, _) = self.taps(), self._prepared(padded.device)
        for rows in bands(height, batch * width * channels):
            total = bias.repeat(batch, rows.stop - rows.start, width, 1)
            for number, tap in enumerate(taps):
                top, left = rows.start + number // 3, number % 3
                total.addcmul_(padded[:, top : top + total.shape[1], left : left + width], tap)
            yield rows, total.floor_()

    def taps(self) -> Tensor:
        """The nine factors of every channel in raster order, ``(9, C)``, float64, scaled."""
        if self._taps is None or self._taps.device != self.weight.device:
            self._taps = (self.weight.double().flatten(1) * 2.0 ** -int(self.shift)).mT.contiguous()
        return self._taps

    def _prepared(self, device: torch.device) -> tuple[Tensor, Tensor, float]:
        """Weight, bias and scale as they are used; made once, as reading the shift would stop a GPU."""
        if self._operands is None or self._operands[0].device != device:
            weight, bias = self.weight.to(device).float(), self.bias.to(device).double() + 0.5
            self._operands = weight, bias, 2.0 ** -int(self.shift)
        return self._operands


class FixedPointNeighbourConv(nn.Module):
    """A :class:`NeighbourConv` on integers: element-wise products and sums, in a fixed order.

    Args:
        channels: Channels in and out.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(7, channels, dtype=torch.int16))
        self.register_buffer("bias", torch.zeros(channels, dtype=torch.int32))
        self.register_buffer("shift", torch.zeros(1, dtype=torch.int32))
        self._operands: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_float(cls, layer: NeighbourConv) -> FixedPointNeighbourConv:
        """Rounds a trained layer: weights to 16 bits with one power of two as their unit."""
        result = cls(layer.channels)
        shift = finest_shift(layer.taps)
        result.shift.fill_(shift)
        result.weight.copy_(rounded(layer.taps.double() * 2**shift, torch.int16))
        result.bias.copy_(rounded(layer.bias.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> NeighbourConv:
        """The same layer on real numbers, which can be differentiated."""
        result = NeighbourConv(self.weight.shape[1])
        return filled(
            result, taps=self.weight.float() * 2.0 ** -int(self.shift), bias=self.bias.float() / UNIT
        )

    def accumulator_bound(self) -> int:
        """The largest magnitude any partial sum can have, in units of the product."""
        rows = self.weight.long().abs().sum(dim=0) * ACTIVATION_LIMIT
        offset = (self.bias.long().abs() + 1) << int(self.shift)
        return int((rows + offset).max())

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float64's 53 bits."""
        prove_below(self.accumulator_bound(), FLOAT64_EXACT, "float64")

    def forward(self, x: Tensor, periodic: Tensor) -> Tensor:
        """Maps integers ``(B, D, H, W, C)`` to integers of the same shape, float64."""
        return neighbour_sum(limited(x), *self._prepared(x.device), periodic).floor_()

    def _prepared(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weight and bias as they are used; made once, as reading the shift would stop a GPU."""
        if self._operands is None or self._operands[0].device != device:
            weight = self.weight.to(device).double() * 2.0 ** -int(self.shift)
            self._operands = weight, self.bias.to(device).double() + 0.5
        return self._operands
