"""Finds codecs by name or file, and says what a stream is without decoding it. Imports torch only to load."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.codecs.base import Codec, Header, SectionInfo
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Limits,
    SectionType,
    read_container,
)
from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.extension import Family, extension_families, extension_weights, split_name
from latentpress.codecs.picture_sections import METADATA_SECTIONS, PictureSections
from latentpress.codecs.weights import read_weight_file, shipped_weights

if TYPE_CHECKING:
    import torch


_IMAGE = Family(
    CodecId.IMAGE, "latentpress.codecs.image:ImageCodec", "latentpress.codecs.image_payload:describe"
)

_FAMILIES = {
    "image": _IMAGE,
    "image-max": _IMAGE,
    "field": Family(
        CodecId.FIELD, "latentpress.codecs.field:FieldCodec", "latentpress.codecs.field_description:describe"
    ),
    "index": Family(
        CodecId.INDEX, "latentpress.codecs.index:IndexCodec", "latentpress.codecs.index_payload:describe"
    ),
    "shape": Family(
        CodecId.SHAPE, "latentpress.codecs.shape:ShapeCodec", "latentpress.codecs.shape_payload:describe"
    ),
}


def available() -> tuple[str, ...]:
    """Names of the weights that come with the library or with installed codecs, for :func:`load`.

    Example:
        >>> "image" in available()
        True
    """
    return tuple(_all_weights())


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
    weights = read_weight_file(weights_path(str(name)))
    family = _FAMILIES.get(weights.family) or extension_families(weights.family).get(weights.family)
    if family is None:
        raise ValueError(f"this version has no codec for weights of the family {weights.family!r}")
    try:
        codec: Codec = _imported(family.codec)(weights, device)
    except (TypeError, KeyError, AttributeError, ArithmeticError, AssertionError) as error:
        # Networks trust the arguments they are built with; here those come from a file.
        raise ValueError(f"{name} does not fit the family {weights.family!r}: {error}") from error
    except RuntimeError as error:
        # Subclasses and GPUs tell of the machine; plain ones on a CPU of shapes that do not fit.
        if type(error) is not RuntimeError or device.type != "cpu":
            raise
        raise ValueError(f"{name} does not fit the family {weights.family!r}: {error}") from error
    return codec


def weights_for(header: Header) -> str:
    """The name of the shipped weights that a stream needs, for :func:`load`.

    Args:
        header: Of the stream.

    Returns:
        The name of the weights with the stream's fingerprint. If none ship, the codec's name: loading those
        and decoding says which model is missing.
    """
    weights = _all_weights() if header.codec_id == CodecId.EXTENSION else shipped_weights()
    for name, path in weights.items():
        if not card_path(path).is_file():
            continue
        card = read_card(path)
        if header.fingerprint in (card.fingerprint, card.extended_fingerprint):
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
    name, payload = container.codec_id.name.lower(), container.payload
    if container.codec_id == CodecId.EXTENSION:
        name, payload = split_name(container)
        family = extension_families(name).get(name)
    else:
        family = next((f for f in _FAMILIES.values() if f.codec_id == container.codec_id), None)
    parameters = _imported(family.describe)(payload, limits) if family is not None else {}
    if container.codec_id in (CodecId.IMAGE, CodecId.INDEX):
        parameters = PictureSections.of(container).described(parameters)
    return Header(
        codec=name,
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
    found = {name: container.get(kind) for name, kind in METADATA_SECTIONS.items()}
    return {name: content for name, content in found.items() if content is not None}


def weights_path(name: str) -> Path:
    """The weight file of a name, or of a path of one.

    Raises:
        ValueError: The name is unknown.
    """
    # Other packages are only looked at for what is not here.
    found = shipped_weights().get(name)
    if found is None and Path(name).suffix == ".safetensors":
        return Path(name)
    if found is None:
        weights = _all_weights()
        found = weights.get(name)
        if found is None:
            raise ValueError(f"unknown codec {name!r}: available are {', '.join(weights) or 'none'}")
    return found


def _all_weights() -> dict[str, Path]:
    """Paths of weight files by name: those of the library, then those of installed codecs."""
    shipped = shipped_weights()
    others = extension_weights(extension_families())
    return shipped | {name: path for name, path in others.items() if name not in shipped}


def _imported(name: str) -> Any:
    """What ``module:name`` stands for."""
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)


def _section_name(number: int) -> str:
    try:
        return SectionType(number).name.lower()
    except ValueError:
        return f"unknown {number}"
