"""Upper bounds on what a stream may ask a decoder to do.

A few header bytes can announce an image of any size, so every announced size goes through one of these checks
before memory is allocated for it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, fields

from latentpress.codecs.bitstream.errors import LimitExceeded


@dataclass(frozen=True)
class Limits:
    """Caps that a decoder applies before it allocates.

    Attributes:
        max_pixels: width times height of an image, in pixels (not multiplied by channels).
        max_voxels: product of all dimensions of a field, in samples.
        max_vertices: vertices of a mesh, or points of a cloud.
        max_faces: faces of a mesh.
        max_sections: sections in one container.
        max_section_bytes: payload of one section, in bytes.

    Raises:
        TypeError: if a limit is not an integer.
        ValueError: if a limit is negative.

    Example:
        >>> Limits(max_pixels=1_000_000).check_pixels(640, 480)
        307200
        >>> try:
        ...     Limits(max_pixels=1_000_000).check_pixels(65535, 65535)
        ... except LimitExceeded as error:
        ...     print(error)
        4294836225 pixels exceed the limit of 1000000 (max_pixels)
    """

    max_pixels: int = 2**29
    max_voxels: int = 2**30
    max_vertices: int = 2**26
    max_faces: int = 2**27
    max_sections: int = 64
    max_section_bytes: int = 2**30

    def __post_init__(self) -> None:
        """Reject limits that are not counts."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} must be an int, got {type(value).__name__}")
            if value < 0:
                raise ValueError(f"{field.name} must be >= 0, got {value}")

    def check_pixels(self, height: int, width: int) -> int:
        """Return `height * width`, or raise `LimitExceeded` if that is more than `max_pixels`."""
        return self._check("pixels", "max_pixels", (height, width))

    def check_voxels(self, shape: Iterable[int]) -> int:
        """Return the product of `shape`, or raise `LimitExceeded` if that is more than `max_voxels`."""
        return self._check("voxels", "max_voxels", shape)

    def check_vertices(self, count: int) -> int:
        """Return `count`, or raise `LimitExceeded` if it is more than `max_vertices`."""
        return self._check("vertices", "max_vertices", (count,))

    def check_faces(self, count: int) -> int:
        """Return `count`, or raise `LimitExceeded` if it is more than `max_faces`."""
        return self._check("faces", "max_faces", (count,))

    def check_sections(self, count: int) -> int:
        """Return `count`, or raise `LimitExceeded` if it is more than `max_sections`."""
        return self._check("sections", "max_sections", (count,))

    def check_section_bytes(self, count: int) -> int:
        """Return `count`, or raise `LimitExceeded` if it is more than `max_section_bytes`."""
        return self._check("section bytes", "max_section_bytes", (count,))

    def _check(self, what: str, name: str, sizes: Iterable[int]) -> int:
        total = 1
        for size in sizes:
            # Fixed-width integers would wrap in the product and slip below the limit.
            exact = operator.index(size)
            if exact < 0:
                raise ValueError(f"a number of {what} cannot be negative, got {exact}")
            total *= exact
        limit: int = getattr(self, name)
        if total > limit:
            raise LimitExceeded(f"{total} {what} exceed the limit of {limit} ({name})")
        return total


DEFAULT_LIMITS: Limits = Limits()
