"""Says in a line what is in the colour profile, EXIF and XMP that a file carries. No torch here."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

_EXIF_TAGS = (0x010F, 0x0110, 0x0132, 0x0112, 0x013B, 0x8298)
"""Maker, model, time, orientation, artist and copyright."""

_LABELS = {0x0112: "orientation ", 0x8298: "(c) "}
_CREATOR = re.compile(rb"(?:xmp:)?CreatorTool(?:=\"|>)([^\"<]{1,200})")
_LONGEST = 100


def metadata_lines(metadata: Mapping[str, bytes]) -> dict[str, str]:
    """Describes metadata.

    Args:
        metadata: ``icc``, ``exif`` and ``xmp`` blocks, as `read_metadata` returns them.

    Returns:
        A line for each: how many bytes, and what can be read in them.

    Example:
        >>> metadata_lines({"icc": b"no profile", "xmp": b"<x xmp:CreatorTool='a'/>"})
        {'icc': '10 bytes', 'xmp': '24 bytes'}
        >>> metadata_lines({"xmp": b'<x xmp:CreatorTool="a camera"/>'})
        {'xmp': '31 bytes: a camera'}
    """
    describe = {"icc": _profile_name, "exif": _exif_facts, "xmp": _xmp_creator}
    lines = {}
    for name, content in metadata.items():
        # Printed on a terminal, so what a stranger wrote must not steer it.
        text = "".join(x if x.isprintable() else " " for x in describe[name](content)).strip()
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}..."
        lines[name] = f"{len(content)} bytes" + (f": {text}" if text else "")
    return lines


def _profile_name(content: bytes) -> str:
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(content)))
    except (OSError, ImageCms.PyCMSError):
        return ""


def _exif_facts(content: bytes) -> str:
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(content)
        found = {tag: str(exif[tag]).strip() for tag in _EXIF_TAGS if tag in exif}
    except Exception:  # whatever damaged data make Pillow raise, which is no fault of the file as a whole
        return ""
    return ", ".join(f"{_LABELS.get(tag, '')}{text}" for tag, text in found.items() if text)


def _xmp_creator(content: bytes) -> str:
    found = _CREATOR.search(content)
    return found.group(1).decode("utf-8", "replace") if found else ""
