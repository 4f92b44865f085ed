"""What a stream of a picture carries beside its payload: metadata, alpha, depth of samples.

No torch here, and numpy only where samples are decoded: reading a header asks this module too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentpress.codecs.alpha_payload import read_alpha_header
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    Container,
    CorruptStream,
    CutContainer,
    Limits,
    SectionType,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

METADATA_SECTIONS = {"icc": SectionType.ICC, "exif": SectionType.EXIF, "xmp": SectionType.XMP}
"""Metadata that a stream can carry, by the name it has in ``compress(metadata=...)``."""

DEPTH_16 = bytes([16])
"""Content of the DEPTH section of a picture with 16 bits for each sample."""


@dataclass(frozen=True)
class PictureSections:
    """What the sections say of a picture.

    Attributes:
        bits: 8 or 16 for each sample.
        alpha: Content of the ALPHA section; None where there is none.
        colour: Content of the COLOUR section, which only the index codec looks at; None where there is none.
        lost: Whether the stream is so damaged that nothing is known of its sections.
    """

    bits: int = 8
    alpha: bytes | None = None
    colour: bytes | None = None
    lost: bool = False

    @classmethod
    def of(cls, container: Container | CutContainer) -> PictureSections:
        """Reads them.

        Raises:
            StreamError: The depth is none that there is, or the beginning of the alpha is wrong.
        """
        depth, alpha = container.get(SectionType.DEPTH), container.get(SectionType.ALPHA)
        if depth not in (None, DEPTH_16):
            raise CorruptStream("the depth section does not say 16 bits")
        if alpha is not None:
            read_alpha_header(alpha)
        return cls(8 if depth is None else 16, alpha, container.get(SectionType.COLOUR))

    def alpha_samples(
        self,
        height: int,
        width: int,
        limits: Limits = DEFAULT_LIMITS,
        region: tuple[int, int, int, int] | None = None,
    ) -> NDArray[Any]:
        """Decodes the alpha.

        Args:
            height: Of the picture.
            width: Of the picture.
            limits: Cap on the picture's size.
            region: Part to decode: y, x, height and width; None for all.

        Returns:
            ``(H, W)`` with as many bits as the colour, uint8 or uint16, whatever it was coded with.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        from latentpress.codecs.alpha_coder import Region, decode_alpha

        assert self.alpha is not None
        part = None if region is None else Region(*region)
        return with_bits(decode_alpha(self.alpha, height, width, limits, part), self.bits)

    def check(self, height: int, width: int, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes the alpha, where there is one, to see that it can be.

        Raises:
            StreamError: It cannot.
        """
        from latentpress.codecs.alpha_coder import decode_alpha

        if self.alpha is not None:
            decode_alpha(self.alpha, height, width, limits)

    def described(self, parameters: Mapping[str, int | float | str]) -> dict[str, int | float | str]:
        """What a header says of the picture, by what the payload says of the colour."""
        found = dict(parameters)
        if isinstance(channels := found.get("channels"), int) and self.alpha is not None:
            found["channels"] = channels + 1
        return {**found, "bits": self.bits}


def with_bits(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """Brings samples to 8 or 16 bits, the nearest value of the same share of the largest.

    Args:
        samples: uint8 or uint16.
        bits: 8 or 16.

    Example:
        >>> import numpy as np
        >>> with_bits(np.array([0, 128, 129, 65535], np.uint16), 8).tolist()
        [0, 0, 1, 255]
        >>> with_bits(np.array([1, 255], np.uint8), 16).tolist()
        [257, 65535]
    """
    import numpy as np

    if samples.dtype == np.uint8:
        return samples if bits == 8 else samples.astype(np.uint16) * np.uint16(257)
    return samples if bits == 16 else ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
