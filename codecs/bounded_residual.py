"""Arrays to bytes with a bound on the error of every value: prediction by interpolation, from coarse to fine.

The scheme of SZ3 (Zhao et al., "Optimizing error-bounded lossy compression for scientific data by dynamic
spline interpolation", ICDE 2021) with a context model in the place of its Huffman code:

::

    level by level, axis by axis: known values -> cubic interpolation -> prediction p of the points half-way
    between x - p -> multiple k of twice the bound -> range coder (table by level, neighbouring k and local
    curvature) p + k * 2 * bound -> known value for the next pass

Everything that decides a prediction or a table is integer arithmetic, or float64 arithmetic value by value,
which IEEE 754 makes the same on every machine. Tables are geometric distributions made by integer
recurrences. No torch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import (
    CorruptStream,
    SymbolDecoder,
    SymbolEncoder,
    TableSet,
    TruncatedStream,
)
from latentpress.codecs.bitstream.tables import TOTAL

Floats = NDArray[np.float64]

LARGEST_MULTIPLE = 2**30
"""Larger multiples are not coded; such values have to be sent otherwise."""

_ZERO, _LINEAR, _CUBIC = range(3)
_PREDICTORS = 3

# Finer levels have contexts of their own, coarser ones share one set: they have few points.
_OWN_LEVELS = 3
_GROUPS = 3 * _OWN_LEVELS + 1
_NEIGHBOUR_CLASSES = 4
_CURVATURE_CLASSES = 8
_CONTEXTS = _NEIGHBOUR_CLASSES * _CURVATURE_CLASSES

# Tables: probability of anything but zero, and of one multiple against all larger, fall by a quarter a step.
_ZERO_STEPS = 32
_TAIL_STEPS = 16
_LARGEST_SUPPORT = 2048
_HEAD_OFFSET = 4
_UNUSED = _ZERO_STEPS * _TAIL_STEPS

# Bounds of coarse levels, as fractions of the bound, from which so much else is predicted: name -> factor a
# level and the least of them.
_TIGHTENING = ((1.0, 1.0), (0.8, 0.4), (0.65, 0.2))


class CodedResidual(NamedTuple):
    """A coded array.

    Attributes:
        data: Everything :func:`decode_residual` needs besides shape and bound.
        decoded: What it will return.
    """

    data: bytes
    decoded: Floats


class _Pass(NamedTuple):
    """Points half-way between known ones, along one axis at one level.

    Attributes:
        level: 1 is the finest.
        axis: 1, 2 or 3.
        half: Distance to the nearest known points.
        known: Index of the known points of the lines that are filled.
        target: Index of the points to predict.
    """

    level: int
    axis: int
    half: int
    known: tuple[slice, ...]
    target: tuple[slice, ...]


def encode_residual(values: Floats, bound: float) -> CodedResidual:
    """Codes an array; the decoded one differs by at most ``bound`` wherever it could be coded.

    Values more than about 10^9 bounds from their prediction keep a larger error, and rounding in float64 is
    not accounted for: whoever needs the bound to hold strictly compares, and sends the exceptions in
    another way.

    Args:
        values: ``(C, D, H, W)`` float64, finite.
        bound: Positive and finite.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).cumsum(3)
        >>> coded = encode_residual(x, 0.25)
        >>> bool(np.abs(coded.decoded - x).max() <= 0.25)
        True
        >>> np.array_equal(decode_residual(coded.data, x.shape, 0.25), coded.decoded)
        True
    """
    trials = [_encode(values, bound, tightening, False) for tightening in range(len(_TIGHTENING))]
    best = min(trials, key=lambda trial: len(trial.data))
    if values.shape[1] > 1:
        sliced = _encode(values, bound, best.data[_HEAD_OFFSET], True)
        best = min(best, sliced, key=lambda trial: len(trial.data))
    return best


def _encode(values: Floats, bound: float, tightening: int, sliced: bool) -> CodedResidual:
    shape = values.shape
    values = values.reshape(_layout(shape, sliced))
    decoded = np.zeros_like(values)
    magnitudes = np.zeros(values.shape, np.int32)
    chosen: list[int] = []
    symbols: list[NDArray[np.int32]] = []
    contexts: list[NDArray[np.int32]] = []
    for step in _passes(values.shape[1:]):
        target = values[step.target]
        predictor = _best_predictor(values, step, target)
        width = _bin_width(bound, tightening, step.level)
        prediction, context = _predict(decoded, magnitudes, step, predictor, width)
        with np.errstate(over="ignore", invalid="ignore"):
            multiples = np.nan_to_num(np.rint((target - prediction) / width))
        multiples = multiples.clip(-LARGEST_MULTIPLE, LARGEST_MULTIPLE).astype(np.int32)
        decoded[step.target] = prediction + multiples * width
        magnitudes[step.target] = np.abs(multiples)
        chosen.append(predictor)
        symbols.append(multiples.ravel())
        contexts.append(context.ravel())
    tables = _fitted_tables(symbols, contexts)
    encoder = SymbolEncoder()
    content = _table_set(tables)
    rank = _ranks(tables)
    for multiples, context in zip(symbols, contexts, strict=True):
        encoder.put(multiples, rank[context], content)
    head = bytes([tightening | sliced << 2]) + _pack_predictors(chosen) + _pack_tables(tables)
    return CodedResidual(struct.pack("<I", len(head)) + head + encoder.finish(), decoded.reshape(shape))


def _layout(shape: tuple[int, ...], sliced: bool) -> tuple[int, ...]:
    """Shape that is coded: as it is, or with every slice along the first axis a component of its own."""
    return (shape[0] * shape[1], 1, *shape[2:]) if sliced else shape


def decode_residual(data: bytes, shape: tuple[int, ...], bound: float) -> Floats:
    """Restores an array.

    Args:
        data: Of :func:`encode_residual`.
        shape: ``(C, D, H, W)``.
        bound: As given to the encoder.

    Raises:
        StreamError: The data cannot be what an encoder wrote.
    """
    if len(data) < _HEAD_OFFSET:
        raise TruncatedStream("a coded residual ends before its header does")
    (length,) = struct.unpack_from("<I", data)
    head = data[_HEAD_OFFSET : _HEAD_OFFSET + length]
    if len(head) < max(1, length):
        raise TruncatedStream("a coded residual ends before its header does")
    tightening, sliced = head[0] & 3, bool(head[0] >> 2)
    if head[0] > 7 or tightening >= len(_TIGHTENING):
        raise CorruptStream("the header of a coded residual is damaged")
    coded_shape = _layout(shape, sliced)
    passes = list(_passes(coded_shape[1:]))
    predictor_bytes = -(-len(passes) // 4)
    if length < 1 + predictor_bytes:
        raise CorruptStream("the header of a coded residual is damaged")
    chosen = _unpack_predictors(head[1 : 1 + predictor_bytes], len(passes))
    tables = _unpack_tables(head[1 + predictor_bytes :])
    content, rank = _table_set(tables), _ranks(tables)
    decoder = SymbolDecoder(data[_HEAD_OFFSET + length :])
    decoded = np.zeros(coded_shape, np.float64)
    magnitudes = np.zeros(coded_shape, np.int32)
    for step, predictor in zip(passes, chosen, strict=True):
        width = _bin_width(bound, tightening, step.level)
        prediction, context = _predict(decoded, magnitudes, step, predictor, width)
        keys = rank[context.ravel()]
        if keys.size and int(keys.max()) >= len(content):
            raise CorruptStream("a coded residual lacks a table that it needs")
        multiples = decoder.get(keys, content).reshape(prediction.shape)
        if multiples.size and max(int(multiples.max()), -int(multiples.min())) > LARGEST_MULTIPLE:
            raise CorruptStream("a multiple is larger than any that is coded")
        decoded[step.target] = prediction + multiples * width
        magnitudes[step.target] = np.abs(multiples)
    decoder.finish()
    return decoded.reshape(shape)


def _passes(shape: tuple[int, ...]) -> Iterator[_Pass]:
    """The first point, then ever finer levels of all others; axes count from 1, after the components."""
    everything = slice(None)
    first = (everything, slice(0, 1), slice(0, 1), slice(0, 1))
    top = max(1, math.ceil(math.log2(max(shape)))) if max(shape) > 1 else 0
    yield _Pass(top + 1, 0, 0, first, first)
    for level in range(top, 0, -1):
        step, half = 2**level, 2 ** (level - 1)
        for axis in (1, 2, 3):
            if shape[axis - 1] <= half:
                continue
            along = [
                everything,
                *(slice(0, None, half if other < axis else step) for other in (1, 2, 3)),
            ]
            known, target = list(along), list(along)
            known[axis] = slice(0, None, step)
            target[axis] = slice(half, None, step)
            yield _Pass(level, axis, half, tuple(known), tuple(target))


def _bin_width(bound: float, tightening: int, level: int) -> float:
    factor, least = _TIGHTENING[tightening]
    share = 1.0
    for _ in range(level - 1):
        share = max(least, share * factor)
    return 2.0 * bound * share


def _stencil(known: NDArray[Any], axis: int, count: int) -> tuple[NDArray[Any], ...]:
    """The four known values around every point half-way, extrapolated where there are none."""
    size = known.shape[axis]

    def at(index: int) -> NDArray[Any]:
        return known.take([min(max(index, 0), size - 1)], axis)

    first = at(0) if size < 3 else 3 * (at(0) - at(1)) + at(2)
    last = at(size - 1) if size < 2 else 2 * at(size - 1) - at(size - 2)
    padded = np.concatenate((first, known, last, last), axis)
    index: list[NDArray[Any]] = []
    for offset in range(4):
        part = [slice(None)] * known.ndim
        part[axis] = slice(offset, offset + count)
        index.append(padded[tuple(part)])
    return index[0], index[1], index[2], index[3]


def _predict(
    decoded: Floats, magnitudes: NDArray[np.int32], step: _Pass, predictor: int, width: float
) -> tuple[Floats, NDArray[np.int32]]:
    """Predictions of a pass, and the context of each of its points."""
    shape = decoded[step.target].shape
    if step.axis == 0:
        return np.zeros(shape), np.full(shape, (_GROUPS - 1) * _CONTEXTS, np.int32)
    count = shape[step.axis]
    a, b, c, d = _stencil(decoded[step.known], step.axis, count)
    middle = b + c
    if predictor == _CUBIC:
        prediction = (9.0 * middle - (a + d)) * 0.0625
    else:
        prediction = middle * (0.5 if predictor == _LINEAR else 0.0)
    sizes = magnitudes[step.known]
    left = sizes.take(range(count), step.axis)
    right = sizes.take([min(j + 1, sizes.shape[step.axis] - 1) for j in range(count)], step.axis)
    # Far beyond any sensible multiple; sums must not wrap.
    beside = np.minimum(left, 64) + np.minimum(right, 64)
    neighbour_class = (beside > 0).astype(np.int32) + (beside > 2) + (beside > 6)
    curvature = np.abs((a + d) - middle) if predictor == _CUBIC else np.abs(c - b)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.nan_to_num(curvature / width, posinf=1e9)
    curvature_class = np.zeros(shape, np.int32)
    for threshold in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
        curvature_class += steps > threshold
    own = step.level <= _OWN_LEVELS
    group = 3 * (step.level - 1) + step.axis - 1 if own else _GROUPS - 1
    return prediction, group * _CONTEXTS + neighbour_class * _CURVATURE_CLASSES + curvature_class


def _best_predictor(values: Floats, step: _Pass, target: Floats) -> int:
    """The predictor with the smallest mean magnitude of what is left, from the values themselves."""
    if step.axis == 0:
        return _ZERO
    with np.errstate(over="ignore", invalid="ignore"):
        a, b, c, d = _stencil(values[step.known], step.axis, target.shape[step.axis])
        middle = b + c
        left = (target, target - 0.5 * middle, target - (9.0 * middle - (a + d)) * 0.0625)
        means = [float(np.nan_to_num(np.abs(x).mean(), nan=np.inf)) for x in left]
    return means.index(min(means))


def _pack_predictors(chosen: list[int]) -> bytes:
    """Two bits each."""
    packed = bytearray(-(-len(chosen) // 4))
    for number, predictor in enumerate(chosen):
        packed[number // 4] |= predictor << (2 * (number % 4))
    return bytes(packed)


def _unpack_predictors(packed: bytes, count: int) -> list[int]:
    chosen = [packed[number // 4] >> (2 * (number % 4)) & 3 for number in range(count)]
    if any(predictor >= _PREDICTORS for predictor in chosen) or _pack_predictors(chosen) != packed:
        raise CorruptStream("the predictors of a coded residual are damaged")
    return chosen


def _fitted_tables(symbols: list[NDArray[np.int32]], contexts: list[NDArray[np.int32]]) -> NDArray[np.int64]:
    """For each context the table under which its symbols take the fewest bits; unused contexts have none."""
    total = _GROUPS * _CONTEXTS
    counts, zeros, excess = (np.zeros(total) for _ in range(3))
    for multiples, context in zip(symbols, contexts, strict=True):
        magnitude = np.abs(multiples.astype(np.int64))
        counts += np.bincount(context, minlength=total)
        zeros += np.bincount(context, magnitude == 0, minlength=total)
        excess += np.bincount(
            context, np.minimum(magnitude, _LARGEST_SUPPORT) - (magnitude > 0), minlength=total
        )
    others = counts - zeros
    not_zero, ends = (np.array(_falling(n), np.float64) / TOTAL for n in (_ZERO_STEPS, _TAIL_STEPS))
    zero_cost = -(zeros[:, None] * np.log2(1 - not_zero) + others[:, None] * np.log2(not_zero))
    tail_cost = -(others[:, None] * np.log2(ends) + excess[:, None] * np.log2(1 - ends))
    found = zero_cost.argmin(1) * _TAIL_STEPS + tail_cost.argmin(1)
    return np.where(counts > 0, found, _UNUSED)


def _falling(count: int) -> list[int]:
    """Integers in units of 2^-24: 15/16, then each three quarters of the one before."""
    found = [TOTAL * 15 // 16]
    while len(found) < count:
        found.append(found[-1] * 3 // 4)
    return found


def _pack_tables(tables: NDArray[np.int64]) -> bytes:
    """A bit for every context that has a table, then two bytes for the table of each."""
    used = tables != _UNUSED
    names: bytes = tables[used].astype("<u2").tobytes()
    return np.packbits(used, bitorder="little").tobytes() + names


def _unpack_tables(packed: bytes) -> NDArray[np.int64]:
    total = _GROUPS * _CONTEXTS
    flags = np.frombuffer(packed[: total // 8], np.uint8)
    if len(flags) < total // 8:
        raise TruncatedStream("the tables of a coded residual are incomplete")
    used = np.unpackbits(flags, bitorder="little").astype(bool)
    rest = packed[total // 8 :]
    if len(rest) != 2 * int(used.sum()):
        raise CorruptStream("the tables of a coded residual are damaged")
    tables = np.full(total, _UNUSED, np.int64)
    tables[used] = np.frombuffer(rest, "<u2")
    if (tables > _UNUSED).any() or (tables[used] == _UNUSED).any():
        raise CorruptStream("a coded residual names a table that does not exist")
    return tables


def _ranks(tables: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Position of every context's table in the set of the tables that are used; beyond its end for none."""
    names = np.unique(tables[tables != _UNUSED])
    return np.where(tables == _UNUSED, len(names), np.searchsorted(names, tables)).astype(np.uint16)


def _table_set(tables: NDArray[np.int64]) -> TableSet:
    names = np.unique(tables[tables != _UNUSED]).tolist() or [0]
    parts = [_frequencies(name) for name in names]
    lengths = np.array([len(part) for part in parts])
    return TableSet(np.concatenate(parts), lengths, np.array([1 - length // 2 for length in lengths]))


@cache
def _frequencies(name: int) -> NDArray[np.int64]:
    """Frequencies of multiples -n to n, and of the escape: zero, then both signs falling geometrically."""
    not_zero = _falling(_ZERO_STEPS)[name // _TAIL_STEPS]
    end = _falling(_TAIL_STEPS)[name % _TAIL_STEPS]
    side: list[int] = []
    rest = not_zero // 2
    while len(side) < _LARGEST_SUPPORT and rest > 64:
        here = max(1, rest * end // TOTAL)
        side.append(here)
        rest -= here
    escape = max(1, 2 * rest)
    centre = TOTAL - 2 * sum(side) - escape
    return np.array([*reversed(side), centre, *side, escape], np.int64)
