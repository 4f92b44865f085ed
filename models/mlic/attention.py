"""Attention as operations without parameters, each on real numbers and, equally, on integers.

What a probability table depends on must come out the same on every machine. Attention can, because its
parts are sums of products, which are exact on integers, and quotients, of which IEEE arithmetic says what
they are. The exponential is the one function that differs between libraries; here it is either a table of
powers of two, or replaced by a feature map that is piecewise linear.

::

    window     softmax over a few neighbours     powers of two from a table of 1024 entries
    global     all positions at once             linear attention, features clamp(x, 0, 8) + 1/16
    channels   softmax over channels             powers of two

Every integer operation knows the largest sum it can make and is exact for maps of up to :data:`MAX_POSITIONS`
positions. The integer modules hold activations in units of ``1 / UNIT`` in float64, as all of
:mod:`latentpress.models.entropy.fixed_point` does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentpress.models.entropy.fixed_point import ACTIVATION_LIMIT, UNIT, InexactLayer

MAX_POSITIONS = 2**22
"""Largest number of positions that sums over a whole map are exact for: 2^30 pixels of an image."""

FEATURE_LIMIT = 8.0
FEATURE_OFFSET = 1 / 16
"""Features of linear attention are ``clamp(x, 0, FEATURE_LIMIT) + FEATURE_OFFSET``, so never zero."""

VALUE_LIMIT = 32.0
"""Largest magnitude of what is averaged over a map, and of queries and keys in a window."""

CORRELATION_LIMIT = 16.0
"""Largest magnitude of what is correlated over a map."""

WEIGHT_BITS = 16
"""Softmax weights are integers, the largest of a softmax is 2^WEIGHT_BITS."""

_SHARE_BITS = 14
_CORRELATION_GAIN_BITS = 2
# For numerators below this bound, floor(a / b + 1/2) in float64 is the exact integer, see rounded_quotient.
_QUOTIENT_EXACT = 2**51


def rounded_quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``floor(a / b + 1/2)``, exactly.

    If ``a / b + 1/2`` is no integer, it is at least ``1 / 2b`` away from one. The two roundings of float64
    move it by at most ``(2 |a| / b + 1) 2^-53``, which is less while ``2 (2 |a| + b) < 2^53``. If it is an
    integer, neither rounds.

    Args:
        numerator: Integers below 2^51 in magnitude, float64.
        denominator: Integers from 1 to 2^51.

    Example:
        >>> rounded_quotient(torch.tensor([5.0, -5.0, 7.0]).double(), torch.tensor([2.0]).double())
        tensor([ 3., -2.,  4.], dtype=torch.float64)
    """
    return (numerator / denominator).add_(0.5).floor_()


def powers_of_two() -> list[int]:
    """``2^(WEIGHT_BITS - k / UNIT)`` for k from 0 to UNIT - 1, rounded to integers, without floating point.

    Example:
        >>> powers_of_two()[0], powers_of_two()[512], round(2**15.5)
        (65536, 46341, 46341)
    """
    precision = 120
    root, roots = 1 << precision, []
    value = 1 << (precision - 1)  # 1/2
    for _ in range(10):
        value = math.isqrt(value << precision)
        roots.append(value)  # 2^(-1/2), 2^(-1/4), ... 2^(-1/1024)
    table = []
    for k in range(UNIT):
        product = root
        for bit in range(10):
            if k >> (9 - bit) & 1:
                product = product * roots[bit] >> precision
        table.append((product + (1 << (precision - WEIGHT_BITS - 1))) >> (precision - WEIGHT_BITS))
    return table


def features(x: Tensor) -> Tensor:
    """The positive features of linear attention, for real numbers."""
    return x.clamp(0, FEATURE_LIMIT) + FEATURE_OFFSET


class LinearAttention(nn.Module):
    """Averages values over a whole map, with weights that are products of features.

    ::

        keys, values -> for every feature of the keys, the average value it points at
        queries      -> for every position, the average of those by the query's features

    The form of Efficient Attention (Shen et al., arXiv 1812.01243), which MLIC++ uses with two softmaxes.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends.

        Args:
            query: ``(B, N, heads, D)``.
            key: ``(B, T, heads, D)``.
            value: ``(B, T, heads, E)``.

        Returns:
            ``(B, N, heads, E)``.
        """
        query, key = features(query), features(key)
        value = value.clamp(-VALUE_LIMIT, VALUE_LIMIT)
        found = torch.einsum("bthd,bthe->bhde", key, value)
        found = found / key.float().sum(1)[..., None]
        mixed = torch.einsum("bnhd,bhde->bnhe", query, found.to(query.dtype))
        return mixed / query.sum(-1, keepdim=True)

    def integer_counterpart(self) -> FixedPointLinearAttention:
        """The same on integers."""
        return FixedPointLinearAttention()


class FixedPointLinearAttention(nn.Module):
    """:class:`LinearAttention` on integers.

    The largest sum is one of ``2^22`` positions times 13.02 bits of a feature times 15 bits of a value.
    """

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` if a sum over the largest map could be inexact."""
        bound = MAX_POSITIONS * int((FEATURE_LIMIT + FEATURE_OFFSET) * UNIT) * int(VALUE_LIMIT * UNIT)
        if bound >= _QUOTIENT_EXACT:
            raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, quotients are exact below 2^51")

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends; shapes as for real numbers."""
        query, key = self._features(query), self._features(key)
        value = value.clamp(-VALUE_LIMIT * UNIT, VALUE_LIMIT * UNIT)
        sums = torch.matmul(key.permute(0, 2, 3, 1), value.permute(0, 2, 1, 3))
        found = rounded_quotient(sums, key.sum(1)[..., None])
        mixed = torch.matmul(query.permute(0, 2, 1, 3), found).permute(0, 2, 1, 3)
        return rounded_quotient(mixed, query.sum(-1, keepdim=True))

    def to_float(self) -> LinearAttention:
        """The same on real numbers."""
        return LinearAttention()

    @staticmethod
    def _features(x: Tensor) -> Tensor:
        return x.clamp(0, FEATURE_LIMIT * UNIT) + FEATURE_OFFSET * UNIT


class WindowSoftmax(nn.Module):
    """Averages values with softmax weights to the base of 2, over few neighbours and nothing.

    Nothing is a neighbour of score 0 and value 0, so that a position without neighbours has a result, and one
    whose neighbours are all unlike it may ignore them.
    """

    def forward(self, scores: Tensor, values: Tensor, inside: Tensor) -> Tensor:
        """Averages.

        Args:
            scores: ``(..., n, heads)``.
            values: ``(..., n, heads, D)``.
            inside: Which neighbours exist, boolean, broadcasts against the scores.

        Returns:
            ``(..., heads, D)``.
        """
        scores = scores.float().masked_fill(~inside, -torch.inf)
        largest = scores.amax(-2, keepdim=True).clamp(min=0).detach()
        weights = torch.exp2(scores - largest)
        total = weights.sum(-2) + torch.exp2(-largest.squeeze(-2))
        return (weights[..., None] * values).sum(-3) / total[..., None]

    def integer_counterpart(self) -> FixedPointWindowSoftmax:
        """The same on integers."""
        return FixedPointWindowSoftmax()


class FixedPointWindowSoftmax(nn.Module):
    """:class:`WindowSoftmax` on integers: weights of 16 bits times values of 20 bits, over up to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.powers = _PowersOfTwo()

    def forward(self, scores: Tensor, values: Tensor, inside: Tensor) -> Tensor:
        """Averages; shapes as for real numbers."""
        scores = scores.masked_fill(~inside, 0)
        largest = scores.amax(-2, keepdim=True).clamp_(min=0)
        weights = self.powers(largest - scores) * inside
        total = weights.sum(-2) + self.powers(largest.squeeze(-2))
        values = values.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        return rounded_quotient((weights[..., None] * values).sum(-3), total[..., None])

    def to_float(self) -> WindowSoftmax:
        """The same on real numbers."""
        return WindowSoftmax()


class ChannelAttention(nn.Module):
    """Mixes the channels of a map by how they correlate over all of it.

    ::

        score(c, d) = 4 * mean over positions of query[c] * key[d]
        out[c] = sum over d of softmax2(score(c, .))[d] * value[d]

    The mean in place of MLICv2's factor ``(H W)^(-1/2)`` makes the scores independent of the map's size.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mixes.

        Args:
            query: ``(B, N, C)``.
            key: Same shape.
            value: Same shape.

        Returns:
            Same shape.
        """
        query = query.clamp(-CORRELATION_LIMIT, CORRELATION_LIMIT)
        key = key.clamp(-CORRELATION_LIMIT, CORRELATION_LIMIT)
        scores = torch.matmul(query.mT, key).float() * (2**_CORRELATION_GAIN_BITS / query.shape[1])
        weights = torch.softmax(scores * math.log(2), dim=-1)
        return torch.matmul(value, weights.mT.to(value.dtype))

    def integer_counterpart(self) -> FixedPointChannelAttention:
        """The same on integers."""
        return FixedPointChannelAttention()


class FixedPointChannelAttention(nn.Module):
    """:class:`ChannelAttention` on integers: ``2^22`` positions times 14 bits times 14 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.powers = _PowersOfTwo()

    def prove_exact(self) -> None:
        """Raises :class:`InexactLayer` if a sum over the largest map could be inexact."""
        bound = MAX_POSITIONS * int(CORRELATION_LIMIT * UNIT) ** 2 * 2
        if bound > _QUOTIENT_EXACT:
            raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, quotients are exact below 2^51")

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mixes; shapes as for real numbers."""
        limit = CORRELATION_LIMIT * UNIT
        sums = torch.matmul(query.clamp(-limit, limit).mT, key.clamp(-limit, limit))
        positions = torch.tensor(float(query.shape[1]), dtype=torch.float64, device=query.device)
        scores = rounded_quotient(sums, positions * (UNIT / 2**_CORRELATION_GAIN_BITS))
        weights = self.powers(scores.amax(-1, keepdim=True) - scores)
        shares = rounded_quotient(weights * 2.0**_SHARE_BITS, weights.sum(-1, keepdim=True))
        mixed = torch.matmul(value.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT), shares.mT)
        return mixed.mul_(2.0**-_SHARE_BITS).add_(0.5).floor_()

    def to_float(self) -> ChannelAttention:
        """The same on real numbers."""
        return ChannelAttention()


class Bound(nn.Module):
    """Limits real numbers to ``[-limit, limit]``.

    Args:
        limit: A multiple of ``1 / UNIT``.
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        if limit * UNIT != int(limit * UNIT):
            raise ValueError(f"a limit must be a multiple of 1/{UNIT}, got {limit}")
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        """Maps any shape to the same shape."""
        return x.clamp(-self.limit, self.limit)

    def integer_counterpart(self) -> FixedPointBound:
        """The same on integers."""
        return FixedPointBound(self.limit)


class FixedPointBound(Bound):
    """:class:`Bound` on integers."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps any shape to the same shape."""
        return x.clamp(-self.limit * UNIT, self.limit * UNIT)

    def to_float(self) -> Bound:
        """The same on real numbers."""
        return Bound(self.limit)


class _PowersOfTwo(nn.Module):
    """``2^(WEIGHT_BITS - x)`` for x >= 0 in units, rounded down after the table: zero from x = 17 on."""

    table: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not saved: these are fixed numbers.
        self.register_buffer("table", torch.tensor(powers_of_two(), dtype=torch.float64), persistent=False)
        scale = [2.0**-k for k in range(WEIGHT_BITS + 1)] + [0.0]
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.floor(x * (1 / UNIT))
        fraction = (x - whole * UNIT).long()
        octaves = whole.clamp(max=WEIGHT_BITS + 1).long()
        return (self.table[fraction] * self.scale[octaves]).floor_()
