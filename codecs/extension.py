"""Codecs of other packages: how they are found, and how their streams say whose they are.

A package makes its codecs known with entry points of the group ``latentpress.codecs``::

    [project.entry-points."latentpress.codecs"]
    harp = "harp_codec:FAMILY"

The name is that of the codec family; it points to a `Family`. ``docs/extending.md`` is a whole example.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Container,
    CorruptStream,
    Limits,
    SectionType,
    TruncatedStream,
    UnknownModel,
    read_container,
    write_container,
)

ENTRY_POINT_GROUP = "latentpress.codecs"
MAX_NAME_BYTES = 64

_NAME = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)


class Family(NamedTuple):
    """Where the code of a codec family is. Named, not imported, because most programs need one family only.

    Attributes:
        codec_id: Registered number in its streams; families whose payloads begin alike may share one.
        codec: ``module:class``, made from a weight file and a device.
        describe: ``module:function``, from a payload and limits to what the codec wrote about the content.
        weights: Package whose folder holds the ``NAME.safetensors`` that ship with the codec; none if empty.
    """

    codec_id: CodecId
    codec: str
    describe: str
    weights: str = ""


def write_extension(
    name: str,
    fingerprint: bytes,
    payload: bytes,
    sections: Iterable[tuple[int, bytes]] = (),
) -> bytes:
    """Writes a stream of a codec of another package.

    Args:
        name: Of the codec family: lower-case letters, digits and hyphens.
        fingerprint: 8 bytes, of the weights.
        payload: What the codec made.
        sections: Further sections, as of `write_container`.

    Raises:
        ValueError: The name has another form, or is longer than 64 characters.

    Example:
        >>> stream = write_extension("harp", bytes(8), b"tones")
        >>> read_extension(stream, "harp", bytes(8))
        b'tones'
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
        raise ValueError(f"a codec's name is lower-case letters, digits and hyphens, got {name!r}")
    head = bytes([len(name)]) + name.encode()
    return write_container(CodecId.EXTENSION, fingerprint, [*sections, (SectionType.PAYLOAD, head + payload)])


def read_extension(
    data: bytes, name: str, fingerprint: bytes | None = None, limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """Reads a stream of a codec of another package.

    Args:
        data: A complete stream.
        name: Of the codec family that reads it.
        fingerprint: Of the weights that decode it; None for any.
        limits: Caps on what is accepted.

    Returns:
        What the codec made.

    Raises:
        CorruptStream: It is no stream of this codec.
        UnknownModel: It needs other weights.
        StreamError: Anything else is wrong with the bytes.
    """
    container = read_container(data, limits)
    if container.codec_id != CodecId.EXTENSION:
        raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not {name}")
    found, payload = split_name(container)
    if found != name:
        raise CorruptStream(f"this is a stream of the codec {found}, not {name}")
    if fingerprint is not None and container.fingerprint != fingerprint:
        raise UnknownModel(
            f"the stream needs the model {container.fingerprint.hex()}, this codec is {fingerprint.hex()}"
        )
    return payload


def split_name(container: Container) -> tuple[str, bytes]:
    """Name and content of the payload of an extension.

    Raises:
        TruncatedStream: The payload ends inside the name.
        CorruptStream: The name has another form.
    """
    payload = container.payload
    length = payload[0] if payload else 0
    raw = payload[1 : 1 + length]
    if not payload or len(raw) < length:
        raise TruncatedStream("the stream ends inside the name of its codec")
    name = raw.decode("ascii", "replace")
    if not _NAME.fullmatch(name) or length > MAX_NAME_BYTES:
        raise CorruptStream(f"{name!r} is no name of a codec")
    return name, payload[1 + length :]


def extension_families(name: str | None = None) -> dict[str, Family]:
    """The codec families of other packages that are installed, by name.

    One that cannot be imported leaves a warning and is left out, and so is one with a name that is none.

    Args:
        name: Of the only one that is wanted, so that no other is imported; None for all.
    """
    found: dict[str, Family] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if name is not None and point.name != name:
            continue
        family = _loaded(point)
        if family is not None:
            found.setdefault(point.name, family)
    return found


def extension_weights(families: Mapping[str, Family]) -> dict[str, Path]:
    """Paths of the weight files that ship with other packages, by name."""
    found: dict[str, Path] = {}
    for family in families.values():
        if family.weights:
            folder = Path(str(resources.files(family.weights)))
            found |= {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    return found


def _loaded(point: EntryPoint) -> Family | None:
    if not _NAME.fullmatch(point.name) or len(point.name) > MAX_NAME_BYTES:
        warnings.warn(f"the codec {point.name!r} is left out: that is no name of a codec", stacklevel=3)
        return None
    try:
        family = point.load()
    except Exception as error:
        warnings.warn(f"the codec {point.name!r} cannot be imported: {error!r}", stacklevel=3)
        return None
    if not isinstance(family, Family):
        warnings.warn(f"the codec {point.name!r} is left out: {point.value} is no Family", stacklevel=3)
        return None
    return family
