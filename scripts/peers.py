"""The codecs that everybody has, as something to compare with: JPEG, WebP and AVIF at a given size."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from latentpress.scripts.pictures import picture_bytes, read_flat_picture


class Peer(NamedTuple):
    """A codec with an integer quality.

    Attributes:
        name: As people call it.
        suffix: Of its files.
        low: Lowest quality.
        high: Highest quality.
        options: Options of Pillow that get small files out of it.
    """

    name: str
    suffix: str
    low: int
    high: int
    options: dict[str, Any]

    def describe(self) -> str:
        """The settings, for a reader who wants to repeat the comparison."""
        settings = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name} ({settings})"


class PeerResult(NamedTuple):
    """A file made by a peer.

    Attributes:
        peer: Who made it.
        quality: With which setting.
        data: The file.
        decoded: Its pixels, uint8, shape (C, H, W).
        encode_seconds: Time to make it.
        decode_seconds: Time to read it.
    """

    peer: Peer
    quality: int
    data: bytes
    decoded: torch.Tensor
    encode_seconds: float
    decode_seconds: float


PEERS = (
    Peer("JPEG", ".jpg", 1, 100, {"optimize": True, "progressive": True, "subsampling": "4:2:0"}),
    Peer("WebP", ".webp", 0, 100, {"lossless": False, "method": 6}),
    Peer("AVIF", ".avif", 0, 100, {"speed": 4, "subsampling": "4:2:0"}),
)


def around(size: Callable[[int], int], low: int, high: int, target: int) -> tuple[int, ...]:
    """Finds the settings whose files are just below and nearest to a size.

    Args:
        size: Bytes of the file at a setting; not falling.
        low: Lowest setting.
        high: Highest setting.
        target: Bytes.

    Returns:
        The highest setting whose file has at most `target` bytes, then the one nearest to `target` if that is
        another. Only the lowest if even its file is larger.

    Example:
        >>> around(lambda quality: quality * 100, 1, 100, 1290)
        (12, 13)
        >>> around(lambda quality: quality * 100, 1, 100, 1210)
        (12,)
    """
    size = cache(size)
    if size(low) > target:
        return (low,)
    below, above = low, high + 1
    while above - below > 1:
        middle = (below + above) // 2
        if size(middle) <= target:
            below = middle
        else:
            above = middle
    if above <= high and size(above) - target < target - size(below):
        return below, above
    return (below,)


def at_size(peer: Peer, pixels: torch.Tensor, target: int) -> tuple[PeerResult, ...]:
    """Compresses a picture to a size.

    Args:
        peer: With which codec.
        pixels: uint8, shape (C, H, W).
        target: Bytes.

    Returns:
        One or two files, as `around` chooses them.
    """

    @cache
    def encoded(quality: int) -> tuple[bytes, float]:
        start = time.perf_counter()
        data = picture_bytes(pixels, peer.suffix, None, quality=quality, **peer.options)
        return data, time.perf_counter() - start

    results = []
    for quality in around(lambda quality: len(encoded(quality)[0]), peer.low, peer.high, target):
        data, seconds = encoded(quality)
        start = time.perf_counter()
        # A grey picture comes back as colour from some formats, with three equal channels.
        decoded = read_flat_picture(data).pixels[: len(pixels)]
        results.append(PeerResult(peer, quality, data, decoded, seconds, time.perf_counter() - start))
    return tuple(results)
