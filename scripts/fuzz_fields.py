"""Fuzz targets of fields in blocks, whose table has checksums that are made right here, and of energies."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import (
    CodecId,
    SectionType,
    StreamError,
    crc32c,
    read_container,
    write_container,
)
from latentpress.codecs.bitstream.varint import decode_varint
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_blocks import pack_head, read_blocks_header, table_extent
from latentpress.codecs.field_energies import pack_energies, unpack_energies
from latentpress.codecs.field_payload import FieldHeader, Mode
from latentpress.codecs.registry import available, inspect, load
from latentpress.scripts.fuzz_codecs import LIMITS, Target, only

_CRC_BYTES = 4


def field_blocks_target(weights: str | None) -> Target:
    """Payloads in blocks: whole, by region, verified, and their header alone.

    Args:
        weights: Name or path; None for those that ship, or none.
    """
    import torch

    torch.set_num_threads(1)
    name = weights or "field"
    codec = FieldCodec() if name == "field" and name not in available() else load(name)
    assert isinstance(codec, FieldCodec)
    codec.refuses = False

    def run(data: bytes) -> None:
        for payload in (data, with_right_table(data)):
            for fingerprint in (bytes(8), bytes(codec.fingerprint)):
                stream = write_container(CodecId.FIELD, fingerprint, [(SectionType.PAYLOAD, payload)])
                only(StreamError, partial(inspect, stream))
                only(StreamError, partial(_corners, codec, stream))
                only(StreamError, partial(codec.decompress, stream, limits=LIMITS))
                only(StreamError, partial(codec.verify, stream, limits=LIMITS))

    return Target(run, _seeds(codec))


def field_energies_target(weights: str | None) -> Target:
    """The section of energies, and that what it says is written again as the same bytes.

    Args:
        weights: None are needed.
    """
    header = FieldHeader(Mode.NETWORK, (7, 32, 40, 32), flat=False, double=False)

    def run(data: bytes) -> None:
        found = only(StreamError, partial(unpack_energies, data, header))
        if found is not None:
            assert len(found) == 2
            assert all(np.isfinite(group).all() and (group > 0).all() for group in found)
            if min(map(np.min, found)) > 1e-11:
                assert pack_energies(found) == data

    spectra = [np.geomspace(first, last, 18) for first, last in ((60.0, 1e-4), (1.0, 1.0), (1e-11, 1e4))]
    return Target(run, [pack_energies([a, b]) for a in spectra for b in spectra])


def with_right_table(payload: bytes) -> bytes:
    """A payload whose blocks have the checksums that its table says, if it has a head and a table.

    Example:
        >>> with_right_table(b"none")
        b'none'
    """
    try:
        header, offset = read_blocks_header(payload, LIMITS)
        start, stop = table_extent(payload, offset, header, len(payload))
        lengths = []
        while start < stop:
            length, start = decode_varint(payload, start)
            start += _CRC_BYTES
            lengths.append(length)
    except StreamError:
        return payload
    rest, place, checksums = payload[stop + _CRC_BYTES :], 0, []
    for length in lengths:
        checksums.append(crc32c(rest[place : place + length]))
        place += length
    return pack_head(header, lengths, checksums) + rest


def _corners(codec: FieldCodec, stream: bytes) -> None:
    with codec.open(io.BytesIO(stream), limits=LIMITS) as field:
        first = field[(slice(0, 2),) * field.ndim]
        last = field[(slice(-2, None),) * field.ndim]
        assert first.ndim == last.ndim == field.ndim


def _seeds(codec: FieldCodec) -> list[bytes]:
    x = np.linspace(0, 6, 12)
    waves = np.stack([np.sin(x[:, None, None] * k + x[:, None] - x) for k in (1, 2, 3)]).astype(np.float32)
    holes = waves[:, 0].astype(np.float64)
    holes[0, 1:3] = np.nan
    seeds = []
    for field in (waves, holes):
        for bound in (0.0, 0.02):
            seeds.append(_payload(codec, field, max_error=bound))
    return [*seeds, *(_payload(codec, waves, ratio=ratio) for ratio in codec.ratios)]


def _payload(codec: FieldCodec, field: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    codec.compress_blocks(field, file, block=8, **options)
    return read_container(file.getvalue()).payload
