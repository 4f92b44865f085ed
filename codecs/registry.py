"""Finds codecs by name or file, and says what a stream is without decoding it. Imports torch only to load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentpress.codecs.base import Codec, Header, SectionInfo
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Limits,
    SectionType,
    read_container,
)
from latentpress.codecs.image_payload import read_image_header
from latentpress.codecs.weights import read_weight_file, shipped_weights

if TYPE_CHECKING:
    import torch


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

    from latentpress.codecs.image import ImageCodec

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
    if weights.family != ImageCodec.name:
        raise ValueError(f"this version has no codec for weights of the family {weights.family!r}")
    return ImageCodec(weights, device)


def inspect(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Reads what a stream says of itself; checks the container's checksums, decodes nothing.

    Args:
        data: A complete stream.
        limits: Caps on what is accepted.

    Raises:
        StreamError: Anything is wrong with the bytes.
    """
    container = read_container(data, limits)
    parameters: dict[str, int | float | str] = {}
    if container.codec_id == CodecId.IMAGE:
        image, _ = read_image_header(container.payload, limits)
        parameters = {
            "width": image.width,
            "height": image.height,
            "channels": image.channels,
            "quality": image.quality,
        }
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


def _section_name(number: int) -> str:
    try:
        return SectionType(number).name.lower()
    except ValueError:
        return f"unknown {number}"
