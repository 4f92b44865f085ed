"""Parts of a field that are kept without loss: whole arrays, masks of NaN and infinities, exceptions."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CorruptStream, decode_varint, encode_varint

_NOT_FINITE = (np.nan, np.inf, -np.inf)


class Exceptions(NamedTuple):
    """Values that are sent as they are.

    Attributes:
        positions: Rising flat positions, int64.
        values: Of the field's type.
    """

    positions: NDArray[np.int64]
    values: NDArray[Any]


def pack_array(values: NDArray[Any]) -> bytes:
    """An array of floating-point numbers without loss: bytes of equal weight together, then deflate."""
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.dtype.itemsize)
    return zlib.compress(np.ascontiguousarray(raw.T).tobytes(), 6)


def unpack_array(data: bytes, count: int, dtype: str) -> NDArray[Any]:
    """Inverse of :func:`pack_array`, flat.

    Raises:
        CorruptStream: The data are no array of this size.
    """
    size = np.dtype(dtype).itemsize
    raw = _inflated(data, count * size)
    return np.frombuffer(raw, np.uint8).reshape(size, count).T.copy().view(dtype).ravel()


def pack_mask(values: NDArray[Any]) -> bytes:
    """Which values ``(C, ...)`` are NaN, +inf and -inf; masks that all components share are kept once."""
    classes = np.zeros(values.shape, np.uint8)
    for number, is_one in enumerate((np.isnan(values), np.isposinf(values), np.isneginf(values)), 1):
        classes[is_one] = number
    shared = bool((classes == classes[:1]).all())
    kept = classes[:1] if shared else classes
    planes = np.packbits(np.stack((kept & 1, kept >> 1)).reshape(2, -1), axis=1)
    return bytes([shared]) + zlib.compress(planes.tobytes(), 9)


def unpack_mask(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Inverse of :func:`pack_mask`: 0 for finite values, 1 for NaN, 2 for +inf, 3 for -inf.

    Raises:
        CorruptStream: The data are no mask of this shape.
    """
    if not data or data[0] > 1:
        raise CorruptStream("the mask of a field is damaged")
    kept = (1, *shape[1:]) if data[0] else shape
    count = int(np.prod(kept))
    planes = np.frombuffer(_inflated(data[1:], 2 * (-(-count // 8))), np.uint8).reshape(2, -1)
    bits = np.unpackbits(planes, axis=1, count=count)
    return np.broadcast_to((bits[0] | bits[1] << 1).reshape(kept), shape)


def restore_mask(values: NDArray[Any], classes: NDArray[np.uint8]) -> None:
    """Puts NaN and infinities where a mask has them, in place."""
    for number, value in enumerate(_NOT_FINITE, 1):
        values[classes == number] = value


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replaces what is not finite by something smooth, which costs little to code.

    From the known values outwards, every unknown one takes the mean of its known neighbours along the axes
    of space; after a few rounds the rest takes its component's mean.

    Args:
        values: ``(C, D, H, W)``.
    """
    known = np.isfinite(values)
    if known.all():
        return values
    found = np.where(known, values, 0.0)
    for _ in range(8):
        total, count = np.zeros_like(found), np.zeros(found.shape, np.int8)
        for axis in (1, 2, 3):
            for source, target in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
                here = [slice(None)] * 4
                there = list(here)
                here[axis], there[axis] = target, source
                total[tuple(here)] += found[tuple(there)]
                count[tuple(here)] += known[tuple(there)]
        reached = ~known & (count > 0)
        if not reached.any():
            break
        found[reached] = total[reached] / count[reached]
        known = known | reached
    for component, sure in zip(found, known, strict=True):
        component[~sure] = component[sure].mean() if sure.any() else 0.0
    return found


def pack_exceptions(exceptions: Exceptions) -> bytes:
    """Positions as distances and values, both deflated."""
    distances = np.diff(exceptions.positions, prepend=0).astype("<i8")
    return encode_varint(len(distances)) + zlib.compress(
        distances.tobytes() + np.ascontiguousarray(exceptions.values).tobytes(), 9
    )


def unpack_exceptions(data: bytes, size: int, dtype: str) -> Exceptions:
    """Inverse of :func:`pack_exceptions` for a field of ``size`` values.

    Raises:
        CorruptStream: The data are no exceptions of such a field.
    """
    count, offset = decode_varint(data)
    if count > size:
        raise CorruptStream(f"a field of {size} values cannot have {count} exceptions")
    raw = _inflated(data[offset:], count * (8 + np.dtype(dtype).itemsize))
    positions = np.cumsum(np.frombuffer(raw[: 8 * count], "<i8"))
    if count and (np.diff(positions) <= 0).any():
        raise CorruptStream("exceptions of a field are not in order")
    if count and not 0 <= int(positions[0]) <= int(positions[-1]) < size:
        raise CorruptStream("an exception is outside its field")
    return Exceptions(positions, np.frombuffer(raw[8 * count :], dtype))


def _inflated(data: bytes, size: int) -> bytes:
    """Decompresses exactly ``size`` bytes and never more."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, size) if size else stream.decompress(data, 1)
        rest = stream.decompress(stream.unconsumed_tail, 1) if not stream.eof else b""
    except zlib.error as error:
        raise CorruptStream(f"a lossless part of a field is damaged: {error}") from error
    if len(raw) != size or rest or not stream.eof or stream.unused_data:
        raise CorruptStream(f"a lossless part of a field does not hold {size} bytes")
    return raw
