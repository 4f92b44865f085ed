"""Attention of the second half of the checkerboard to the decoded anchors around each position.

MLIC++'s local context attends inside 5x5 windows of a map that is half empty. Here each position asks, with a
query made of what is known at it before the anchors are, only the twelve anchors in its window. Positions
enter as MLICv2 has them, by rotations of queries and keys in two dimensions (RoPE, arXiv 2104.09864) with
learnt frequencies; as only differences of positions matter and there are twelve, they are small tables.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from latentpress.models.entropy.fixed_point import UNIT, InexactLayer
from latentpress.models.mlic.attention import VALUE_LIMIT, WindowSoftmax
from latentpress.models.mlic.checkerboard import anchors_around, anchors_inside, window_offsets

RADIUS = 2
"""The window has 2 * RADIUS + 1 positions a side."""

FREQUENCY_BASE = 1e4
"""Initial base of the rotations' frequencies, one for rows and one for columns of every head."""

_ROTATION_BITS = 14
_FLOAT64_EXACT = 2**53

Position = Literal["rotary", "bias"]


class RotaryScores(nn.Module):
    """Products of queries with keys that are rotated by their distance.

    Channels come in pairs. The first half of a head's pairs turns with the rows between query and key, the
    second half with the columns; pair p of P turns by ``base^(-p/P)`` a position, base is learnt. Rotating
    both by their positions, as RoPE is usually written, gives the same products.

    Args:
        heads: Number of heads.
        channels: Channels of a head, a multiple of 4.
    """

    distance: Tensor

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"a head must have a multiple of 4 channels, got {channels}")
        self.heads, self.channels = heads, channels
        self.log_base = nn.Parameter(torch.full((heads, 2), math.log(FREQUENCY_BASE)))
        # Made once: a recorded training step must not copy from the processor's memory.
        distance = torch.tensor(window_offsets(RADIUS), dtype=torch.float32)
        self.register_buffer("distance", distance, persistent=False)

    def angles(self) -> Tensor:
        """The rotation of every pair of channels, ``(n, heads, channels / 2)``, in radians."""
        pairs = self.channels // 4
        exponent = torch.arange(pairs, device=self.log_base.device) / pairs
        frequency = torch.exp(-self.log_base[..., None] * exponent)
        return (self.distance[:, None, :, None] * frequency).flatten(2)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Multiplies.

        Args:
            query: ``(..., heads, D)``.
            keys: ``(..., n, heads, D)``.

        Returns:
            ``(..., n, heads)``, divided by about the square root of D.
        """
        query = query.clamp(-VALUE_LIMIT, VALUE_LIMIT)
        keys = keys.clamp(-VALUE_LIMIT, VALUE_LIMIT)
        angles = self.angles()
        return _rotated_products(query, keys, angles.cos(), angles.sin()) * 2.0 ** -_scale_bits(self.channels)

    def integer_counterpart(self) -> FixedPointRotaryScores:
        """The same on integers."""
        return FixedPointRotaryScores.from_float(self)


class FixedPointRotaryScores(nn.Module):
    """:class:`RotaryScores` on integers; sines and cosines are part of the weights.

    Args:
        heads: Number of heads.
        channels: Channels of a head.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        shape = (len(window_offsets(RADIUS)), heads, channels // 2)
        self.register_buffer("cosine", torch.zeros(shape, dtype=torch.int16))
        self.register_buffer("sine", torch.zeros(shape, dtype=torch.int16))

    @classmethod
    def from_float(cls, layer: RotaryScores) -> FixedPointRotaryScores:
        """Rounds the rotations of a trained layer."""
        result = cls(layer.heads, layer.channels)
        angles = layer.angles().detach().double()
        result.cosine.copy_(torch.round(angles.cos() * 2**_ROTATION_BITS))
        result.sine.copy_(torch.round(angles.sin() * 2**_ROTATION_BITS))
        return result

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` unless every sum fits float64's 53 bits."""
        turns = self.cosine.long().abs() + self.sine.long().abs()
        bound = int(turns.sum(-1).max()) * 2 * int(VALUE_LIMIT * UNIT) ** 2
        if bound >= _FLOAT64_EXACT:
            raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, float64 is exact below 2^53")

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Multiplies; shapes as for real numbers."""
        limit = VALUE_LIMIT * UNIT
        products = _rotated_products(
            query.clamp(-limit, limit), keys.clamp(-limit, limit), self.cosine.double(), self.sine.double()
        )
        # From products of two activations and a rotation, back to units.
        shift = _ROTATION_BITS + 10 + _scale_bits(self.channels)
        return products.mul_(2.0**-shift).add_(0.5).floor_()

    def to_float(self) -> _TabulatedRotaryScores:
        """The same on real numbers, with the rounded rotations."""
        return _TabulatedRotaryScores(self)


class _TabulatedRotaryScores(RotaryScores):
    """:class:`RotaryScores` whose angles were rounded before."""

    def __init__(self, integers: FixedPointRotaryScores) -> None:
        super().__init__(integers.heads, integers.channels)
        del self.log_base
        self._angles = torch.atan2(integers.sine.float(), integers.cosine.float())

    def angles(self) -> Tensor:
        return self._angles


class BiasedScores(nn.Module):
    """Products of queries with keys plus a learnt number for each distance, as in MLIC++.

    Args:
        heads: Number of heads.
        channels: Channels of a head.
    """

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        self.bias = nn.Parameter(torch.zeros(len(window_offsets(RADIUS)), heads))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Multiplies; shapes as for :class:`RotaryScores`."""
        query = query.clamp(-VALUE_LIMIT, VALUE_LIMIT)
        keys = keys.clamp(-VALUE_LIMIT, VALUE_LIMIT)
        return (query.unsqueeze(-3) * keys).sum(-1) * 2.0 ** -_scale_bits(self.channels) + self.bias

    def integer_counterpart(self) -> FixedPointBiasedScores:
        """The same on integers."""
        return FixedPointBiasedScores.from_float(self)


class FixedPointBiasedScores(nn.Module):
    """:class:`BiasedScores` on integers; a head of 64 channels has sums of 36 bits.

    Args:
        heads: Number of heads.
        channels: Channels of a head.
    """

    bias: Tensor

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        self.register_buffer("bias", torch.zeros((len(window_offsets(RADIUS)), heads), dtype=torch.int32))

    @classmethod
    def from_float(cls, layer: BiasedScores) -> FixedPointBiasedScores:
        """Rounds the numbers of a trained layer."""
        result = cls(layer.heads, layer.channels)
        result.bias.copy_(torch.round(layer.bias.detach().double().clamp(-VALUE_LIMIT, VALUE_LIMIT) * UNIT))
        return result

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Multiplies; shapes as for real numbers."""
        limit = VALUE_LIMIT * UNIT
        products = (query.clamp(-limit, limit).unsqueeze(-3) * keys.clamp(-limit, limit)).sum(-1)
        scaled = products.mul_(2.0 ** -(10 + _scale_bits(self.channels))).add_(0.5).floor_()
        return scaled + self.bias.double()

    def to_float(self) -> BiasedScores:
        """The same on real numbers."""
        result = BiasedScores(self.heads, self.channels)
        result.bias = nn.Parameter(self.bias.float() / UNIT, requires_grad=False)
        return result


class LocalAttention(nn.Module):
    """What the anchors around say of each other position.

    ::

        known at the position -> query ---> scores -> softmax -> average of values -> (B,h,columns,C)
        anchors around        -> keys ------^                       ^
                              -> values ----------------------------

    Args:
        query_channels: Channels of what is known at a position before the anchors are.
        anchor_channels: Channels of the anchors.
        channels: C.
        heads: Number of heads; each has ``C / heads`` channels, a multiple of 4 with rotations.
        position: How the distance enters: by rotations, or by a number added to scores.

    Example:
        >>> layer = LocalAttention(6, 4, channels=16, heads=2)
        >>> layer(torch.zeros(1, 3, 2, 6), torch.zeros(1, 3, 2, 4), width=3).shape
        torch.Size([1, 3, 2, 16])
    """

    def __init__(
        self,
        query_channels: int,
        anchor_channels: int,
        channels: int,
        heads: int,
        position: Position = "rotary",
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
        kinds = {"rotary": RotaryScores, "bias": BiasedScores}
        self.heads = heads
        self.query = nn.Linear(query_channels, channels)
        self.key = nn.Linear(anchor_channels, channels)
        self.value = nn.Linear(anchor_channels, channels)
        self.scores = kinds[position](heads, channels // heads)
        self.softmax = WindowSoftmax()

    def forward(self, known: Tensor, anchor: Tensor, width: int) -> Tensor:
        """Attends.

        Args:
            known: ``(B, h, columns, query_channels)`` at the other half's positions.
            anchor: ``(B, h, columns, anchor_channels)`` decoded.
            width: Columns of the whole map.

        Returns:
            ``(B, h, columns, C)`` at the other half's positions.
        """
        query = self.query(known).unflatten(-1, (self.heads, -1))
        # Decoded latents may be large, and a quantisation step of them still matters.
        with torch.autocast(anchor.device.type, enabled=False):
            keys, values = self.key(anchor), self.value(anchor)
        keys = anchors_around(keys, RADIUS).unflatten(-1, (self.heads, -1))
        values = anchors_around(values, RADIUS).unflatten(-1, (self.heads, -1))
        inside = anchors_inside(known.shape[1], width, RADIUS, known.device)[..., None]
        return self.softmax(self.scores(query, keys), values, inside).flatten(-2)


def _scale_bits(channels: int) -> int:
    """The power of two next to the square root of a head's channels."""
    return round(math.log2(channels) / 2)


def _rotated_products(query: Tensor, keys: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Products of queries with rotated keys, ``(..., n, heads)``; pairs are channels p and p + D/2."""
    first, second = query.unsqueeze(-3).chunk(2, dim=-1)
    key_first, key_second = keys.chunk(2, dim=-1)
    aligned = first * key_first + second * key_second
    crossed = second * key_first - first * key_second
    return (aligned * cosine + crossed * sine).sum(-1)
