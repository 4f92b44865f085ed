"""What ``latentpress view`` does with pictures: keeps what was dropped, compresses it, measures, compares.

::

    file -> read_flat_picture -> Item -> codec -> stream -> codec -> Result (figures, decoded picture, stream)
                              |---> JPEG, WebP, AVIF at as many bytes -> Result

The bench knows nothing of HTTP. Another kind of data gets a bench of its own with the same methods, and a
renderer of its kind in ``page/page.js``.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from latentpress.codecs.bitstream import Limits
from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.registry import available, inspect, load
from latentpress.codecs.weights import shipped_weights
from latentpress.scripts.measures import Closeness, compare
from latentpress.scripts.peers import PEERS, at_size
from latentpress.scripts.pictures import picture_bytes, read_flat_picture

if TYPE_CHECKING:
    import torch

    from latentpress import Codec

KIND = "picture"
FAMILIES = ("image", "index")
"""Codec families that take pictures."""

OWN_LABEL = "latentpress"
KEPT_ITEMS = 4
KEPT_RESULTS = 24
# Fast to write; what is shown travels no further than this machine.
_SHOWN = {"compress_level": 1}
_WARM_UP_SIDE = 64

V = TypeVar("V")


@dataclass(frozen=True)
class Item:
    """A picture that was dropped.

    Attributes:
        id: Of the item, not to be guessed.
        name: Of the file.
        file_bytes: Size of the file.
        pixels: uint8, shape (C, H, W).
        metadata: What of ``icc``, ``exif`` and ``xmp`` the file held.
        notes: What the picture lost on the way from the file.
        shown: The pixels as PNG.
    """

    id: str
    name: str
    file_bytes: int
    pixels: torch.Tensor
    metadata: Mapping[str, bytes]
    notes: Sequence[str]
    shown: bytes

    def describe(self) -> dict[str, Any]:
        """What the page is told."""
        channels, height, width = self.pixels.shape
        return {
            "kind": KIND,
            "id": self.id,
            "name": self.name,
            "bytes": self.file_bytes,
            "width": width,
            "height": height,
            "channels": channels,
            "metadata": {name: len(content) for name, content in self.metadata.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Result:
    """A picture compressed and decoded.

    Attributes:
        id: Of the result, not to be guessed.
        item: What was compressed.
        label: Which codec.
        setting: Its quality.
        data: The file.
        picture_bytes: Of the file, without metadata.
        closeness: How close the decoded picture is.
        encode_seconds: Time to make the file.
        decode_seconds: Time to read it.
        filename: What a download is called.
        shown: The decoded picture as PNG.
    """

    id: str
    item: Item
    label: str
    setting: str
    data: bytes
    picture_bytes: int
    closeness: Closeness
    encode_seconds: float
    decode_seconds: float
    filename: str
    shown: bytes

    def describe(self) -> dict[str, Any]:
        """What the page is told."""
        _, height, width = self.item.pixels.shape
        psnr = self.closeness.psnr
        return {
            "kind": KIND,
            "id": self.id,
            "label": self.label,
            "setting": self.setting,
            "bytes": len(self.data),
            "bpp": len(self.data) * 8 / (height * width),
            "psnr": psnr if psnr != float("inf") else None,
            "ms_ssim": self.closeness.ms_ssim,
            "encode_seconds": self.encode_seconds,
            "decode_seconds": self.decode_seconds,
            "filename": self.filename,
        }


class Rate(NamedTuple):
    """What the page asks for.

    Attributes:
        codec: One of `PictureBench.codecs`.
        quality: 0 to 100, or None.
        target_bytes: Bytes at most, or None.
        keep_metadata: Whether colour profile, EXIF and XMP go into the file.
    """

    codec: str
    quality: float | None = None
    target_bytes: int | None = None
    keep_metadata: bool = False


class Superseded(Exception):
    """A newer result of the same picture has been asked for, so nobody waits for this one."""


class PictureBench:
    """Keeps a few pictures and results in memory, and does one thing at a time, so that times are true.

    Args:
        device: Where networks run.
        weights: Name or path of weights that are offered first; None for those that ship.
        limits: Cap on the number of pixels.
    """

    def __init__(self, device: str = "cpu", weights: str | None = None, limits: Limits | None = None) -> None:
        self._device = device
        self._limits = limits or Limits()
        self.codecs = _offered(weights)
        self._loaded: dict[str, Codec] = {}
        self._items: _Recent[Item] = _Recent(KEPT_ITEMS)
        self._results: _Recent[Result] = _Recent(KEPT_RESULTS)
        self._newest: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """What the page can offer."""
        return {
            "codecs": [{"name": name, "title": Path(name).stem, "kind": KIND} for name in self.codecs],
            "peers": [peer.name for peer in PEERS],
        }

    def add(self, name: str, content: bytes) -> Item:
        """Takes a picture file.

        Raises:
            PictureError: It is none that can be compressed.
        """
        picture = read_flat_picture(content, self._limits)
        shown = picture_bytes(picture.pixels, ".png", _colour(picture.metadata), **_SHOWN)
        item = Item(_new_id(), name, len(content), picture.pixels, picture.metadata, picture.notes, shown)
        self._items.keep(item.id, item)
        return item

    def item(self, key: str) -> Item:
        """A picture that was added.

        Raises:
            KeyError: It was never there, or is no longer.
        """
        return self._items[key]

    def result(self, key: str) -> Result:
        """A result that was made.

        Raises:
            KeyError: It was never there, or is no longer.
        """
        return self._results[key]

    def compress(self, key: str, rate: Rate) -> Result:
        """Compresses a picture, decodes it and measures.

        Args:
            key: Of the item.
            rate: How.

        Raises:
            KeyError: There is no such picture.
            ValueError: The codec is not offered, or the rate cannot be met.
            Superseded: While this waited, the page asked for another rate.
        """
        item = self._items[key]
        result_id = self._newest[key] = _new_id()
        with self._one_at_a_time:
            self._refuse_if_old(key, result_id)
            codec = self._codec(rate.codec)
            options: dict[str, Any] = {"quality": rate.quality, "target_bytes": rate.target_bytes}
            options = {name: value for name, value in options.items() if value is not None}
            metadata = dict(item.metadata) if rate.keep_metadata else {}
            start = time.perf_counter()
            data = codec.compress(item.pixels, metadata=metadata, **options)
            middle = time.perf_counter()
            decoded = codec.decompress(data).cpu()
            end = time.perf_counter()
            quality = inspect(data).parameters.get("quality")
            result = Result(
                result_id,
                item,
                OWN_LABEL,
                "" if quality is None else f"{quality:g}",
                data,
                len(data) - sum(map(len, metadata.values())),
                compare(item.pixels, decoded),
                middle - start,
                end - middle,
                f"{Path(item.name).stem}.lpz",
                picture_bytes(decoded, ".png", _colour(item.metadata), **_SHOWN),
            )
        self._results.keep(result_id, result)
        return result

    def at_equal_bytes(self, key: str, peer_name: str) -> Result:
        """Compresses the same picture with another codec, to no more bytes where that can be.

        Args:
            key: Of a result of `compress`.
            peer_name: One of JPEG, WebP and AVIF.

        Raises:
            KeyError: There is no such result or codec.
            Superseded: There is a newer result for this picture.
        """
        own = self._results[key]
        peer = {peer.name: peer for peer in PEERS}[peer_name]
        with self._one_at_a_time:
            self._refuse_if_old(own.item.id, key)
            made = at_size(peer, own.item.pixels, own.picture_bytes)[0]
            result = Result(
                _new_id(),
                own.item,
                peer.name,
                str(made.quality),
                made.data,
                len(made.data),
                compare(own.item.pixels, made.decoded),
                made.encode_seconds,
                made.decode_seconds,
                f"{Path(own.item.name).stem}{peer.suffix}",
                picture_bytes(made.decoded, ".png", _colour(own.item.metadata), **_SHOWN),
            )
        self._results.keep(result.id, result)
        return result

    def _refuse_if_old(self, item: str, result: str) -> None:
        if self._newest.get(item) != result:
            raise Superseded

    def _codec(self, name: str) -> Codec:
        if name not in self.codecs:
            raise ValueError(f"unknown codec '{name}': offered are {', '.join(self.codecs)}")
        if name not in self._loaded:
            import torch

            codec = load(name, device=self._device)
            # The first run of anything also pays for memory and threads that later runs find ready.
            codec.decompress(codec.compress(torch.zeros(3, _WARM_UP_SIDE, _WARM_UP_SIDE, dtype=torch.uint8)))
            self._loaded[name] = codec
        return self._loaded[name]


class _Recent(Generic[V]):
    """A few values, the newest; the one that was looked at longest ago makes room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, V] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, key: str, value: V) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def __getitem__(self, key: str) -> V:
        with self._lock:
            self._values.move_to_end(key)
            return self._values[key]


def _offered(weights: str | None) -> tuple[str, ...]:
    paths = shipped_weights()
    ship = [
        name
        for name in available()
        if name in paths and card_path(paths[name]).is_file() and read_card(paths[name]).family in FAMILIES
    ]
    first = [] if weights is None else [weights]
    return tuple(dict.fromkeys([*first, *ship]))


def _colour(metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """The colour profile alone, which a browser needs to show the pixels right."""
    return {name: content for name, content in metadata.items() if name == "icc"}


def _new_id() -> str:
    return secrets.token_urlsafe(12)
