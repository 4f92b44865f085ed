"""Finds codecs by name or file, and says what a stream is without decoding it. Imports torch only to load."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentpress.codecs.base import Codec, Header, SectionInfo
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Limits,
    SectionType,
    read_container,
)
from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.weights import read_weight_file, shipped_weights

if TYPE_CHECKING:
    import torch


class _Family(NamedTuple):
    """Where the code of a codec family is. Named, not imported, because most programs need one family only.

    Attributes:
        codec_id: Registered number in its streams; families whose payloads begin alike may share one.
        codec: ``module:class``, made from a weight file and a device.
        describe: ``module:function``, from a payload and limits to what the codec wrote about the content.
    """

    codec_id: CodecId
    codec: str
    describe: str


_FAMILIES = {
    "image": _Family(
        CodecId.IMAGE, "latentpress.codecs.image:ImageCodec", "latentpress.codecs.image_payload:describe"
    ),
    "shape": _Family(
        CodecId.SHAPE, "latentpress.codecs.shape:ShapeCodec", "latentpress.codecs.shape_payload:describe"
    ),
}


def available() -> tuple[str, ...]:
    """Names of the weights that come with the library, for :func:`load`.

    Example:
        >>> "image" in available()
        True
    """
    return tuple(shipped_weights())


def load(name: str | Path, device: torch.device | str = "cpu") -> Codec:
    """Loads a codec with its weights.

    Args:
        name: One of :func:`available`, or the path of a ``.safetensors`` weight file.
        device: ``"cpu"``, ``"cuda"``, any torch device, or ``"auto"`` for the GPU where there is one.

    Raises:
        ValueError: The name is unknown, the file is not a weight file, or the device does not exist.
        FileNotFoundError: There is no such file.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {str(device)!r}: {error}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r} was asked for, torch sees {torch.cuda.device_count()} GPUs")
    shipped = shipped_weights()
    looks_like_path = Path(name).suffix == ".safetensors"
    if str(name) not in shipped and not looks_like_path:
        raise ValueError(f"unknown codec {str(name)!r}: available are {', '.join(shipped) or 'none'}")
    weights = read_weight_file(shipped.get(str(name), Path(name)))
    family = _FAMILIES.get(weights.family)
    if family is None:
        raise ValueError(f"this version has no codec for weights of the family {weights.family!r}")
    codec: Codec = _imported(family.codec)(weights, device)
    return codec


def weights_for(header: Header) -> str:
    """The name of the shipped weights that a stream needs, for :func:`load`.

    Args:
        header: Of the stream.

    Returns:
        The name of the weights with the stream's fingerprint. If none ship, the codec's name: loading those
        and decoding says which model is missing.
    """
    for name, path in shipped_weights().items():
        if card_path(path).is_file() and read_card(path).fingerprint == header.fingerprint:
            return name
    return header.codec


def inspect(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Reads what a stream says of itself; checks the container's checksums, decodes nothing.

    Args:
        data: A complete stream.
        limits: Caps on what is accepted.

    Raises:
        StreamError: Anything is wrong with the bytes.
    """
    container = read_container(data, limits)
    describe = next((f.describe for f in _FAMILIES.values() if f.codec_id == container.codec_id), None)
    parameters = _imported(describe)(container.payload, limits) if describe is not None else {}
    return Header(
        codec=container.codec_id.name.lower(),
        codec_id=int(container.codec_id),
        version=container.version,
        fingerprint=container.fingerprint.hex(),
        total_bytes=len(data),
        overhead_bytes=container.overhead,
        sections=tuple(SectionInfo(_section_name(s.type), len(s.payload)) for s in container.sections),
        parameters=parameters,
    )


def read_metadata(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    """The ``icc``, ``exif`` and ``xmp`` blocks that a stream carries.

    Raises:
        StreamError: Anything is wrong with the bytes.
    """
    container = read_container(data, limits)
    found = {
        kind.name.lower(): container.get(kind)
        for kind in (SectionType.ICC, SectionType.EXIF, SectionType.XMP)
    }
    return {name: content for name, content in found.items() if content is not None}


def _imported(name: str) -> Any:
    """What ``module:name`` stands for."""
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)


def _section_name(number: int) -> str:
    try:
        return SectionType(number).name.lower()
    except ValueError:
        return f"unknown {number}"
