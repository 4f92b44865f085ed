"""Entropy networks in exact integer arithmetic.

A range decoder needs the very tables the encoder used: one different bit and everything after it is lost. So
every network that decides a table runs on integers, whose sums do not depend on the order of summation, the
instruction set, the number of threads or the device. The integers are held in floating point, where matrix
products are fast: float64 holds all integers below 2^53 exactly, float32 all below 2^24, and each layer
proves from its weights that no sum can reach that bound.

::

    activations   integers in units of 2^-10, limited to 20 bits and sign before every layer
    Linear        16-bit weights, sums below 2^53 in float64
    depthwise     the activation split into two 10-bit halves, sums below 2^24 in float32; on a CPU nine
                  terms added one by one in float64, sums below 2^53
    neighbours    16-bit weights, seven terms added one by one in float64
    after a sum   scaled by a power of two and rounded down at one half: floor(s + 1/2)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.blocks import GATE_LIMIT, LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.gaussian import INDEX_OFFSET, INDEX_SLOPE, SCALE_COUNT
from latentpress.models.entropy.volume import ChannelScale
from latentpress.models.layers import DepthwiseConv
from latentpress.models.quality import QUALITY_MAX, QualityVector
from latentpress.models.volume import NeighbourConv, neighbour_sum

FRACTION_BITS = 10
UNIT = 2**FRACTION_BITS
"""Activations are integers in units of ``1 / UNIT``."""

ACTIVATION_LIMIT = 2**20 - 1
"""Largest magnitude of an activation where a layer reads it, in units."""

QUALITY_STEPS = 1000
"""Qualities are coded in tenths."""

_HALF_BITS = 10
_FLOAT64_EXACT = 2**53
_FLOAT32_EXACT = 2**24

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


class InexactLayer(ValueError):
    """A layer's weights allow sums that floating point would round."""


def to_fixed_point(x: Tensor) -> Tensor:
    """Rounds real values to integers in units of ``1 / UNIT``, held in float64.

    Example:
        >>> to_fixed_point(torch.tensor([0.5, -1.0]))
        tensor([  512., -1024.], dtype=torch.float64)
    """
    return torch.floor(x.double() * UNIT + 0.5)


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds trained values to an integer type, which would wrap around silently where they do not fit.

    Raises:
        InexactLayer: They do not fit, or are not finite.
    """
    integers = torch.round(values.detach().double())
    largest = float(integers.abs().max()) if integers.numel() else 0.0
    if not largest <= torch.iinfo(dtype).max:
        raise InexactLayer(f"weights reach {largest:g}, {dtype} ends at {torch.iinfo(dtype).max}")
    return integers.to(dtype)


def _limit(x: Tensor) -> Tensor:
    return x.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


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
        largest = max(float(layer.weight.detach().abs().max()), 1e-6)
        shift = max(1, min(16, math.floor(math.log2(32767 / largest)))) if largest < math.inf else 1
        result.shift.fill_(shift)
        result.weight.copy_(_rounded(layer.weight.double() * 2**shift, torch.int16))
        if layer.bias is not None:
            result.bias.copy_(_rounded(layer.bias.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> nn.Linear:
        """The same layer on real numbers, which can be differentiated."""
        result = nn.Linear(self.weight.shape[1], self.weight.shape[0])
        return _filled(
            result, weight=self.weight.float() * 2.0 ** -int(self.shift), bias=self.bias.float() / UNIT
        )

    def accumulator_bound(self) -> int:
        """The largest magnitude any partial sum can have, in units of the product."""
        rows = self.weight.long().abs().sum(dim=1) * ACTIVATION_LIMIT
        offset = (self.bias.long().abs() + 1) << int(self.shift)
        return int((rows + offset).max())

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float64's 53 bits."""
        bound = self.accumulator_bound()
        if bound >= _FLOAT64_EXACT:
            raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, float64 is exact below 2^53")

    def forward(self, x: Tensor) -> Tensor:
        """Maps integers ``(..., channels_in)`` to integers ``(..., channels_out)``, float64."""
        return F.linear(_limit(x), *self._prepared(x.device)).floor_()

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The channels ``start`` to ``stop`` of :meth:`forward` alone."""
        weight, bias = self._prepared(x.device)
        return F.linear(_limit(x), weight[start:stop], bias[start:stop]).floor_()

    def grouped(self, x: Tensor, channels: Tensor) -> Tensor:
        """Channels of :meth:`forward`, other ones for each group of positions.

        Args:
            x: Integers ``(G, n, channels_in)``.
            channels: Which ones, ``(G, r)``.

        Returns:
            ``(G, n, r)``, float64.
        """
        weight, bias = self._prepared(x.device)
        return torch.baddbmm(bias[channels][:, None], _limit(x), weight[channels].mT).floor_()

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
        result.weight.copy_(_rounded(layer.weight.double() * UNIT, torch.int16))
        return result

    def forward(self, index: Tensor) -> Tensor:
        """Maps row numbers ``(...)`` to integers ``(..., channels)``, float64."""
        return F.embedding(index, self.weight).double()


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
            result.weight.copy_(_rounded(weight * 2**shift, torch.int16))
            if result.accumulator_bound() < _FLOAT32_EXACT:
                break
        result.bias.copy_(_rounded(layer.bias.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> DepthwiseConv:
        """The same layer on real numbers, which can be differentiated."""
        result = DepthwiseConv(self.weight.shape[0])
        return _filled(
            result, weight=self.weight.float() * 2.0 ** -int(self.shift), bias=self.bias.float() / UNIT
        )

    def accumulator_bound(self) -> int:
        """The largest magnitude any partial sum over one half of an activation can have."""
        return int(self.weight.long().abs().sum(dim=(1, 2, 3)).max()) * 2**_HALF_BITS

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float32's 24 bits."""
        bound = self.accumulator_bound()
        if bound >= _FLOAT32_EXACT:
            raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, float32 is exact below 2^24")

    def forward(self, x: Tensor) -> Tensor:
        """Maps integers ``(B, H, W, C)`` to integers of the same shape, float64."""
        if x.device.type == "cpu":
            padded = F.pad(_limit(x), (0, 0, 1, 1, 1, 1))
            return torch.cat([part for _, part in self.by_bands(padded)], dim=1)
        weight, bias, scale = self._prepared(x.device)
        x = _limit(x)
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
        largest = max(float(layer.taps.detach().abs().max()), 1e-6)
        shift = max(1, min(16, math.floor(math.log2(32767 / largest)))) if largest < math.inf else 1
        result.shift.fill_(shift)
        result.weight.copy_(_rounded(layer.taps.double() * 2**shift, torch.int16))
        result.bias.copy_(_rounded(layer.bias.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> NeighbourConv:
        """The same layer on real numbers, which can be differentiated."""
        result = NeighbourConv(self.weight.shape[1])
        return _filled(
            result, taps=self.weight.float() * 2.0 ** -int(self.shift), bias=self.bias.float() / UNIT
        )

    def accumulator_bound(self) -> int:
        """The largest magnitude any partial sum can have, in units of the product."""
        rows = self.weight.long().abs().sum(dim=0) * ACTIVATION_LIMIT
        offset = (self.bias.long().abs() + 1) << int(self.shift)
        return int((rows + offset).max())

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float64's 53 bits."""
        bound = self.accumulator_bound()
        if bound >= _FLOAT64_EXACT:
            raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, float64 is exact below 2^53")

    def forward(self, x: Tensor, periodic: Tensor) -> Tensor:
        """Maps integers ``(B, D, H, W, C)`` to integers of the same shape, float64."""
        return neighbour_sum(_limit(x), *self._prepared(x.device), periodic).floor_()

    def _prepared(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weight and bias as they are used; made once, as reading the shift would stop a GPU."""
        if self._operands is None or self._operands[0].device != device:
            weight = self.weight.to(device).double() * 2.0 ** -int(self.shift)
            self._operands = weight, self.bias.to(device).double() + 0.5
        return self._operands


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
        return (_limit(value) * gate.clamp(0, GATE_LIMIT * UNIT)).mul_(1 / UNIT).add_(0.5).floor_()


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
        result.knots.copy_(_rounded(layer.knots.double() * UNIT, torch.int32))
        return result

    def to_float(self) -> QualityVector:
        """The same vector on real numbers."""
        result = QualityVector(self.knots.shape[1], self.knots.shape[0])
        return _filled(result, knots=self.knots.float() / UNIT)

    def forward(self, quality: Tensor) -> Tensor:
        """Maps qualities ``(B,)``, multiples of 0.1 in [0, 100], to integers ``(B, channels)``, float64."""
        tenths = torch.round(quality.double() * (QUALITY_STEPS / QUALITY_MAX)).long()
        position = tenths * (self.knots.shape[0] - 1)
        index = (position // QUALITY_STEPS).clamp(max=self.knots.shape[0] - 2)
        fraction = (position - index * QUALITY_STEPS)[:, None]
        knots = self.knots.long()
        blend = knots[index] * (QUALITY_STEPS - fraction) + knots[index + 1] * fraction
        return ((blend + QUALITY_STEPS // 2) // QUALITY_STEPS).double()


def convert(module: nn.Module) -> nn.Module:
    """Copies an entropy network with every layer replaced by its integer counterpart.

    Args:
        module: Made of 1x1 and depthwise convolutions, leaky rectifiers, rectified products, embeddings,
            quality vectors, and modules whose method ``integer_counterpart()`` returns what stands for them.

    Returns:
        A network on integers, in evaluation mode, on the CPU.

    Raises:
        InexactLayer: The weights of a layer would allow inexact sums.
        TypeError: The module holds trained parameters that have no integer counterpart.

    Example:
        >>> from latentpress.models.entropy.blocks import ContextBlock
        >>> block = convert(ContextBlock(4))
        >>> x = to_fixed_point(torch.randn(1, 3, 3, 4))
        >>> bool((block(x) == block(x).round()).all())
        True
    """
    converted = _convert_layer(copy.deepcopy(module).cpu())
    for name, layer in converted.named_modules():
        prove: Any = getattr(layer, "prove_exact", None)
        if prove is not None:
            try:
                prove()
            except InexactLayer as error:
                raise InexactLayer(f"{name}: {error}") from None
    remaining = [name for name, _ in converted.named_parameters()]
    if remaining:
        raise TypeError(f"no integer counterpart for {', '.join(remaining)}")
    return converted.eval()


def _convert_layer(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Linear):
        return FixedPointLinear.from_float(module)
    if isinstance(module, DepthwiseConv):
        return FixedPointDepthwise.from_float(module)
    if isinstance(module, NeighbourConv):
        return FixedPointNeighbourConv.from_float(module)
    if isinstance(module, ChannelScale):
        return FixedPointChannelScale.from_float(module)
    if isinstance(module, nn.Embedding):
        return FixedPointEmbedding.from_float(module)
    if isinstance(module, LeakyRectifier):
        return FixedPointRectifier()
    if isinstance(module, RectifiedProduct):
        return FixedPointProduct()
    if isinstance(module, QualityVector):
        return FixedPointQualityVector.from_float(module)
    counterpart: Any = getattr(module, "integer_counterpart", None)
    if counterpart is not None:
        return counterpart()
    for name, child in module.named_children():
        setattr(module, name, _convert_layer(child))
    return module


def to_float(module: nn.Module) -> nn.Module:
    """Copies an integer network with every layer replaced by its counterpart on real numbers.

    The inverse of :func:`convert`, for what has to be differentiated: the weights are those of the integers,
    but activations are neither rounded nor limited, and are numbers instead of multiples of ``1 / UNIT``.

    Args:
        module: What :func:`convert` returns: its layers have a method ``to_float()``.

    Returns:
        A network on float32, in evaluation mode, without gradients of its weights, on the module's device.

    Example:
        >>> from latentpress.models.entropy.blocks import ContextBlock
        >>> integers = convert(ContextBlock(4))
        >>> x = torch.randn(1, 3, 3, 4)
        >>> bool((to_float(integers)(x) - integers(to_fixed_point(x)) / UNIT).abs().max() < 0.01)
        True
    """
    # Layers are made with random weights before they get theirs; nobody's random numbers shall notice.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return _float_layer(module).eval()


def _float_layer(module: nn.Module) -> nn.Module:
    counterpart: Any = getattr(module, "to_float", None)
    if counterpart is not None:
        result: nn.Module = counterpart()
        return result
    # A shallow copy with children of its own: apart from its layers, a network is its code.
    copied = copy.copy(module)
    copied._modules = {
        name: None if child is None else _float_layer(child) for name, child in module._modules.items()
    }
    return copied


_LayerT = TypeVar("_LayerT", bound=nn.Module)


def _filled(layer: _LayerT, **values: Tensor) -> _LayerT:
    """Gives a layer its values as frozen parameters."""
    for name, value in values.items():
        setattr(layer, name, nn.Parameter(value.float(), requires_grad=False))
    return layer


def table_index(raw_scale: Tensor) -> Tensor:
    """The scale table index that a raw output stands for, from integers to integers.

    Args:
        raw_scale: Integers in units, any shape, float64; see ``gaussian.INDEX_SLOPE``.

    Returns:
        uint8, same shape, in [0, SCALE_COUNT).

    Example:
        >>> table_index(to_fixed_point(torch.tensor([-9.0, 0.0, 9.0])))
        tensor([ 0, 24, 63], dtype=torch.uint8)
    """
    index = torch.floor((raw_scale * INDEX_SLOPE + (INDEX_OFFSET + 0.5) * UNIT) * (1 / UNIT))
    return index.clamp_(0, SCALE_COUNT - 1).to(torch.uint8)
