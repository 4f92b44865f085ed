"""Layers on integers that look at one position at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.blocks import GATE_LIMIT, LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.fixed_point.units import ACTIVATION_LIMIT, UNIT, limited
from latentpress.models.entropy.fixed_point.weights import (
    FLOAT64_EXACT,
    filled,
    finest_shift,
    prove_below,
    rounded,
)
from latentpress.models.entropy.volume import ChannelScale
from latentpress.models.quality import QUALITY_MAX, QualityVector

QUALITY_STEPS = 1000
"""Qualities are coded in tenths."""


class FixedPointLinear(nn.Module):
    """A 1x1 convolution on integers.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(channels_out, channels_in, dtype=torch.int16))
        self.register_buffer("bias", torch.zeros(channels_out, dtype=torch.int32))
        self.register_buffer("shift", torch.zeros(1, dtype=torch.int32))
        self._operands: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_float(cls, layer: nn.Linear) -> FixedPointLinear:
        """Rounds a trained layer: weights to 16 bits with one power of two as their unit."""
        result = cls(layer.in_features, layer.out_features)
        shift = finest_shift(layer.weight)
        result.shift.fill_(shift)
        result.weight.copy_(rounded(layer.weight.double() * 2**shift, torch.int16))
        if layer.bias is not None:
            result.bias.copy_(rounded(layer.bias.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> nn.Linear:
        """The same layer on real numbers, which can be differentiated."""
        result = nn.Linear(self.weight.shape[1], self.weight.shape[0])
        return filled(
            result, weight=self.weight.float() * 2.0 ** -int(self.shift), bias=self.bias.float() / UNIT
        )

    def accumulator_bound(self) -> int:
        """The largest magnitude any partial sum can have, in units of the product."""
        rows = self.weight.long().abs().sum(dim=1) * ACTIVATION_LIMIT
        offset = (self.bias.long().abs() + 1) << int(self.shift)
        return int((rows + offset).max())

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float64's 53 bits."""
        prove_below(self.accumulator_bound(), FLOAT64_EXACT, "float64")

    def forward(self, x: Tensor) -> Tensor:
        """Maps integers ``(..., channels_in)`` to integers ``(..., channels_out)``, float64."""
        return F.linear(limited(x), *self._prepared(x.device)).floor_()

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The channels ``start`` to ``stop`` of :meth:`forward` alone."""
        weight, bias = self._prepared(x.device)
        return F.linear(limited(x), weight[start:stop], bias[start:stop]).floor_()

    def grouped(self, x: Tensor, channels: Tensor) -> Tensor:
        """Channels of :meth:`forward`, other ones for each group of positions.

        Args:
            x: Integers ``(G, n, channels_in)``.
            channels: Which ones, ``(G, r)``.

        Returns:
            ``(G, n, r)``, float64.
        """
        weight, bias = self._prepared(x.device)
        return torch.baddbmm(bias[channels][:, None], limited(x), weight[channels].mT).floor_()

    def _prepared(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weight and bias as they are multiplied; made once, as reading the shift would stop a GPU."""
        if self._operands is None or self._operands[0].device != device:
            # Scaling by a power of two here saves a pass over the result and is exact as well.
            weight = self.weight.to(device).double() * 2.0 ** -int(self.shift)
            self._operands = weight, self.bias.to(device).double() + 0.5
        return self._operands


class FixedPointEmbedding(nn.Module):
    """A table of learned vectors on integers.

    Args:
        num_embeddings: Rows of the table.
        channels: Length of a vector.
    """

    weight: Tensor

    def __init__(self, num_embeddings: int, channels: int) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.register_buffer("weight", torch.zeros(num_embeddings, channels, dtype=torch.int16))

    @classmethod
    def from_float(cls, layer: nn.Embedding) -> FixedPointEmbedding:
        """Rounds a trained table."""
        result = cls(layer.num_embeddings, layer.embedding_dim)
        result.weight.copy_(rounded(layer.weight.double() * UNIT, torch.int16))
        return result

    def forward(self, index: Tensor) -> Tensor:
        """Maps row numbers ``(...)`` to integers ``(..., channels)``, float64."""
        return F.embedding(index, self.weight).double()


class FixedPointChannelScale(nn.Module):
    """A :class:`ChannelScale` on integers; shrunk latents are rounded to units.

    Args:
        channels: M.
    """

    exponent: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("exponent", torch.zeros(channels, dtype=torch.int32))

    @classmethod
    def from_float(cls, layer: ChannelScale) -> FixedPointChannelScale:
        """Takes over the powers of two."""
        result = cls(len(layer.exponent))
        result.exponent.copy_(layer.exponent)
        return result

    def to_float(self) -> ChannelScale:
        """The same on real numbers."""
        result = ChannelScale(len(self.exponent)).to(self.exponent.device)
        result.exponent.copy_(self.exponent)
        return result

    def shrink(self, y: Tensor) -> Tensor:
        """Integers ``(..., M)`` to integers, float64."""
        return torch.floor(y / self._powers() + 0.5)

    def grow(self, mean: Tensor, channels: Tensor | None = None) -> Tensor:
        """Integers ``(..., M)`` to integers, float64; see :meth:`ChannelScale.grow`."""
        powers = self._powers()
        return mean * (powers if channels is None else powers[channels])

    def _powers(self) -> Tensor:
        # Shifted integers rather than exp2, of which no standard says that it is exact.
        return (
            torch.ones_like(self.exponent, dtype=torch.int64)
            .bitwise_left_shift(self.exponent.long())
            .double()
        )


class FixedPointRectifier(nn.Module):
    """:class:`LeakyRectifier` on integers; ``x / 8`` is rounded down."""

    def to_float(self) -> LeakyRectifier:
        """The same on real numbers."""
        return LeakyRectifier()

    def forward(self, x: Tensor) -> Tensor:
        """Maps integers of any shape to integers of the same shape."""
        return torch.maximum(x, (x * 0.125).floor_())


class FixedPointProduct(nn.Module):
    """:class:`RectifiedProduct` on integers: 20 bits times 13 bits, rounded back to units."""

    def to_float(self) -> RectifiedProduct:
        """The same on real numbers."""
        return RectifiedProduct()

    def forward(self, value: Tensor, gate: Tensor) -> Tensor:
        """Multiplies two tensors of integers of one shape."""
        return (limited(value) * gate.clamp(0, GATE_LIMIT * UNIT)).mul_(1 / UNIT).add_(0.5).floor_()


class FixedPointQualityVector(nn.Module):
    """:class:`QualityVector` on integers, for qualities in tenths.

    Args:
        channels: Length of the vector.
        knots: Number of knots over [0, 100].
    """

    knots: Tensor

    def __init__(self, channels: int, knots: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.zeros(knots, channels, dtype=torch.int32))

    @classmethod
    def from_float(cls, layer: QualityVector) -> FixedPointQualityVector:
        """Rounds the knots of a trained vector."""
        result = cls(layer.knots.shape[1], layer.knots.shape[0])
        result.knots.copy_(rounded(layer.knots.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> QualityVector:
        """The same vector on real numbers."""
        result = QualityVector(self.knots.shape[1], self.knots.shape[0])
        return filled(result, knots=self.knots.float() / UNIT)

    def forward(self, quality: Tensor) -> Tensor:
        """Maps qualities ``(B,)``, multiples of 0.1 in [0, 100], to integers ``(B, channels)``, float64."""
        tenths = torch.round(quality.double() * (QUALITY_STEPS / QUALITY_MAX)).long()
        position = tenths * (self.knots.shape[0] - 1)
        index = (position // QUALITY_STEPS).clamp(max=self.knots.shape[0] - 2)
        fraction = (position - index * QUALITY_STEPS)[:, None]
        knots = self.knots.long()
        blend = knots[index] * (QUALITY_STEPS - fraction) + knots[index + 1] * fraction
        return ((blend + QUALITY_STEPS // 2) // QUALITY_STEPS).double()
