"""What all codecs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentpress.codecs.bitstream import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[float, str], None]
"""Called with the fraction done, 0 to 1, and the name of the stage."""


def no_progress(fraction: float, stage: str) -> None:
    """The progress callback of those who gave none."""


@dataclass(frozen=True)
class SectionInfo:
    """A section of a stream.

    Attributes:
        name: Its registered name, such as ``payload``.
        bytes: Length of its content.
    """

    name: str
    bytes: int


@dataclass(frozen=True)
class Header:
    """What a stream says of itself, read without decoding.

    Attributes:
        codec: Name of the codec family, such as ``image``.
        codec_id: Its registered number.
        version: Version of the container format.
        fingerprint: Of the model that decodes the stream, 16 hexadecimal digits.
        total_bytes: Length of the stream.
        overhead_bytes: Bytes of the container itself.
        sections: Sections in order.
        parameters: What the codec wrote about the content: for images width, height, channels, quality.
    """

    codec: str
    codec_id: int
    version: int
    fingerprint: str
    total_bytes: int
    overhead_bytes: int
    sections: tuple[SectionInfo, ...]
    parameters: Mapping[str, int | float | str] = field(default_factory=dict)


class Codec(ABC):
    """Turns data into bytes and back.

    Attributes:
        name: The codec family.
        fingerprint: First 8 bytes of the SHA-256 of weights and tables; a stream names the model it needs.
    """

    name: str
    fingerprint: bytes

    @abstractmethod
    def compress(self, x: Tensor, **options: Any) -> bytes:
        """Compresses one item to a complete stream."""

    @abstractmethod
    def decompress(
        self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None
    ) -> Tensor:
        """Restores an item from a stream.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """

    @abstractmethod
    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes the symbols of a stream and checks every checksum, without restoring the item.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """

    def compress_batch(self, xs: Iterable[Tensor], **options: Any) -> list[bytes]:
        """Compresses several items, which may differ in size, to one stream each."""
        return [self.compress(x, **options) for x in xs]

    def decompress_batch(
        self, streams: Iterable[bytes], *, limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None
    ) -> list[Tensor]:
        """Restores several streams."""
        return [self.decompress(data, limits=limits, progress=progress) for data in streams]
