"""What a field stream says of its field, read without torch."""

from __future__ import annotations

from pathlib import Path

from latentpress.codecs.base import Header, SectionInfo
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    CorruptStream,
    Limits,
    TruncatedStream,
    UnsupportedVersion,
)
from latentpress.codecs.bitstream.container_file import find_payload
from latentpress.codecs.field_payload import Mode, read_field_header


def describe(payload: bytes, limits: Limits) -> dict[str, int | float | str]:
    """What a payload says of the field, for ``inspect``.

    Raises:
        StreamError: The header is damaged or too large.
    """
    from latentpress.codecs.field_blocks import describe_blocks, is_in_blocks

    if is_in_blocks(payload):
        return describe_blocks(payload, limits)
    header, _ = read_field_header(payload, limits)
    components, depth, height, width = header.shape
    found: dict[str, int | float | str] = {"components": components}
    if not header.flat:
        found["depth"] = depth
    found |= {"height": height, "width": width, "dtype": "float64" if header.double else "float32"}
    found["mode"] = header.mode.name.lower()
    if header.mode == Mode.NETWORK:
        found |= {"ratio": header.ratio, "quality": header.quality}
    if header.bound is not None:
        found["max_error"] = header.bound
    return found


def inspect_blocks(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Header | None:
    """What a file of a field in blocks says of itself; only its beginning is read, and no checksum verified.

    Args:
        path: Of any file.
        limits: Caps on what is accepted.

    Returns:
        None for files of anything else, sound or not.

    Raises:
        StreamError: The head of the blocks is damaged.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        if not file.seekable():
            return None
        try:
            place = find_payload(file, limits)
        except (CorruptStream, TruncatedStream, UnsupportedVersion):
            return None
        if place.preamble.codec_id != CodecId.FIELD:
            return None
        # It loads numpy, which takes longer than all the rest of looking at a header.
        from latentpress.codecs.field_blocks import LONGEST_HEAD, describe_blocks, is_in_blocks

        file.seek(place.start)
        start = file.read(min(place.length, LONGEST_HEAD))
        size = file.seek(0, 2)
    if not is_in_blocks(start):
        return None
    return Header(
        codec="field",
        codec_id=int(CodecId.FIELD),
        version=place.preamble.version,
        fingerprint=place.preamble.fingerprint.hex(),
        total_bytes=size,
        overhead_bytes=size - place.length,
        sections=(SectionInfo("payload", place.length),),
        parameters=describe_blocks(start, limits),
    )
