"""The values of a field from a stream or a payload, however they were coded.

::

    stream -> container -> blocks, each by itself ---------------------------------------> values
                        -> payload -> networks, residual or all bits -> offsets, type, mask -> values
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    TruncatedStream,
    UnknownModel,
    read_container,
)
from latentpress.codecs.bounded_residual import decode_residual
from latentpress.codecs.field_blocks import BlocksHeader, is_in_blocks
from latentpress.codecs.field_energies import unpack_energies
from latentpress.codecs.field_exact import restore_mask, unpack_array, unpack_exceptions, unpack_mask
from latentpress.codecs.field_networks import Decoder, write_scaled
from latentpress.codecs.field_payload import (
    ANY_MODEL,
    GROUP,
    FieldHeader,
    Mode,
    read_field_header,
    split_parts,
)
from latentpress.models.field.projection import solenoidal

if TYPE_CHECKING:
    from latentpress.codecs.field import FieldCodec


class Decoding(NamedTuple):
    """How to decode a stream without a bound.

    Attributes:
        decoder: Which.
        divergence_free: Divergence will be removed from what it makes.
        energies: Of small scales, of each whole group of components, as the stream says them; empty if it
            says none.
    """

    decoder: Decoder = "faithful"
    divergence_free: bool = False
    energies: Sequence[NDArray[np.float64]] = ()


FAITHFUL = Decoding()


def check_decoder(decoder: Decoder) -> None:
    """Complains about a decoder that there is not.

    Raises:
        ValueError: It is one.
    """
    if decoder not in ("faithful", "realistic"):
        raise ValueError(f"decoder must be faithful or realistic, got {decoder!r}")


def decode_stream(
    codec: FieldCodec, data: bytes, decoder: Decoder, limits: Limits, divergence_free: bool = False
) -> tuple[NDArray[Any], FieldHeader | BlocksHeader]:
    """Restores the values of a complete stream.

    Args:
        codec: Of the stream's model, if it needs one.
        data: The stream.
        decoder: For streams without a bound.
        limits: Caps, checked before anything is allocated.
        divergence_free: Remove the divergence of a velocity field of three components.

    Returns:
        Values ``(C, D, H, W)``, and what the stream says of them.

    Raises:
        StreamError: Anything is wrong with the bytes.
        ValueError: The decoder is unknown or not in the weights, or the field has no divergence to remove.

    Example:
        >>> from latentpress.codecs.bitstream import DEFAULT_LIMITS
        >>> from latentpress.codecs.field import FieldCodec
        >>> codec = FieldCodec()
        >>> data = codec.compress(np.eye(3, dtype="float32")[None], max_error=0.0)
        >>> values, header = decode_stream(codec, data, "faithful", DEFAULT_LIMITS)
        >>> values.shape, header.bound
        ((1, 1, 3, 3), 0.0)
    """
    check_decoder(decoder)
    container = read_container(data, limits)
    if container.codec_id != CodecId.FIELD:
        raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not field")
    if is_in_blocks(container.payload):
        with codec.open(io.BytesIO(data), decoder=decoder, limits=limits) as field:
            values = field[...]
            values = values[:, None] if field.header.flat else values
            values = _sharpened(codec, values, field.header, decoder)
            return (_solenoidal(values, field.header) if divergence_free else values), field.header
    header, offset = read_field_header(container.payload, limits)
    expected = codec.fingerprint if header.mode == Mode.NETWORK else ANY_MODEL
    if container.fingerprint != expected:
        raise UnknownModel(
            f"the stream needs the model {container.fingerprint.hex()}, "
            f"this codec is {codec.fingerprint.hex()}"
        )
    section = container.get(SectionType.ENERGIES)
    energies = () if section is None else unpack_energies(section, header)
    decoding = Decoding(decoder, divergence_free, energies)
    values = decode_payload(header, container.payload, offset, codec, decoding)
    # Without energies, and by the faithful decoder, streams become the same values as ever.
    to_ends = decoder == "realistic" and len(energies) > 0
    return (_solenoidal(values, header, to_ends) if divergence_free else values), header


def _solenoidal(
    values: NDArray[Any], header: FieldHeader | BlocksHeader, to_ends: bool = False
) -> NDArray[Any]:
    if header.shape[0] != GROUP or header.bound is not None:
        raise ValueError("only a field of three components, without a bound, is made divergence-free")
    found: NDArray[Any] = solenoidal(torch.from_numpy(values), header.periodic, to_ends).numpy()
    return found


def _sharpened(
    codec: FieldCodec, values: NDArray[Any], header: BlocksHeader, decoder: Decoder
) -> NDArray[Any]:
    """A field of joint blocks with the realistic decoder's gain, which works on whole fields alone.

    A field with gaps stays as it is: they would be taken for small scales.
    """
    if not header.has_network or decoder == "faithful" or not bool(np.isfinite(values).all()):
        return values
    model = codec.model(header.ratio)
    if model.gain_of(header.periodic) is None:
        return values
    for group in range(header.shape[0] // GROUP):
        part = slice(group * GROUP, (group + 1) * GROUP)
        offsets = np.array(header.offsets[part])[:, None, None, None]
        scale = header.scales[group]
        with np.errstate(all="ignore"):
            base = ((values[part] - offsets) / scale).astype(np.float32)
            unit = torch.from_numpy(base).to(codec.device)
            found = model.sharpened(unit, header.quality_tenths, header.periodic).cpu().numpy()
            values[part] += (found.astype(np.float64) - base) * scale
    return values


def decode_payload(
    header: FieldHeader,
    payload: bytes,
    offset: int,
    codec: FieldCodec,
    decoding: Decoding = FAITHFUL,
) -> NDArray[Any]:
    """Restores the values of a payload, ``(C, D, H, W)`` in the type they came in.

    Args:
        header: Of the payload.
        payload: The whole payload.
        offset: Where the header ends.
        codec: Of the stream's model, if its mode needs one.
        decoding: For streams without a bound.

    Raises:
        StreamError: The payload is damaged.
    """
    bounded = header.bound is not None and header.mode != Mode.LOSSLESS
    groups = header.groups if header.mode == Mode.NETWORK else 0
    count = header.masked + groups + 2 * bounded + (header.mode == Mode.LOSSLESS)
    parts = split_parts(payload, offset, count)
    classes = unpack_mask(parts.pop(0), header.shape) if header.masked else None
    if header.mode == Mode.LOSSLESS:
        values = unpack_array(parts[0], math.prod(header.shape), header.dtype).reshape(header.shape)
        return values.astype(values.dtype.newbyteorder("="))
    if bounded:
        values = _within_bound(header, parts, codec)
    else:
        values = _network_values(header, parts, codec, decoding)
    if classes is not None:
        restore_mask(values, classes)
    return values


def _network_values(
    header: FieldHeader, groups: list[bytes], codec: FieldCodec, decoding: Decoding
) -> NDArray[Any]:
    """The values of a stream without a bound."""
    values = np.empty(header.shape, np.dtype(header.dtype).newbyteorder("="))
    for part, unit, scale in _decoded_groups(header, groups, codec, decoding):
        write_scaled(values[part], unit, scale, header.offsets[part])
    return values


def _within_bound(header: FieldHeader, parts: list[bytes], codec: FieldCodec) -> NDArray[Any]:
    """The values of a stream with a bound: a network's or zeros, what is missing from them, exceptions."""
    *groups, residual, packed_exceptions = parts
    base = network_base(header, groups, codec) if header.mode == Mode.NETWORK else np.zeros(header.shape)
    if len(residual) < 8:
        raise TruncatedStream("a coded residual ends before its width does")
    (width,) = struct.unpack_from("<d", residual)
    if not 0 < width < math.inf:
        raise CorruptStream(f"a residual cannot have the width {width}")
    base += decode_residual(residual[8:], header.shape, width)
    exceptions = unpack_exceptions(packed_exceptions, math.prod(header.shape), header.dtype)
    values = finished(header, base)
    values.ravel()[exceptions.positions] = exceptions.values
    return values


def network_base(header: FieldHeader, groups: list[bytes], codec: FieldCodec) -> NDArray[np.float64]:
    """What the networks make of a field, ``(C, D, H, W)`` without its offsets."""
    base = np.empty(header.shape)
    for part, unit, scale in _decoded_groups(header, groups, codec, FAITHFUL):
        write_scaled(base[part], unit, scale)
    return base


def finished(header: FieldHeader, centred: NDArray[np.float64]) -> NDArray[Any]:
    """Adds the offsets and gives the values their type."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = centred + np.array(header.offsets)[:, None, None, None]
        typed: NDArray[Any] = values.astype(np.float64 if header.double else np.float32)
        return typed


def _decoded_groups(
    header: FieldHeader, groups: list[bytes], codec: FieldCodec, decoding: Decoding
) -> Iterator[tuple[slice, Tensor, float]]:
    """For each group which components it has, these of unit variance on their device, and its scale."""
    components = header.shape[0]
    model = codec.model(header.ratio)
    for number, (data, scale) in enumerate(zip(groups, header.scales, strict=True)):
        found = model.decode(data, header.shape[1:], header.quality_tenths, header.periodic, decoding.decoder)
        part = slice(number * GROUP, (number + 1) * GROUP)
        if decoding.decoder == "realistic" and part.stop <= components:
            if decoding.energies:
                energies = decoding.energies[number]
                found = model.matched(found, energies, header.periodic, decoding.divergence_free)
            else:
                found = model.sharpened(found, header.quality_tenths, header.periodic)
        yield part, found, scale
