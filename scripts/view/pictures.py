"""Pictures on the page: a decoded one behind the original, JPEG, WebP and AVIF at as many bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latentpress.codecs.bitstream import Limits
from latentpress.codecs.registry import inspect
from latentpress.scripts.measures import Closeness, compare
from latentpress.scripts.peers import PEERS, at_size
from latentpress.scripts.pictures import picture_bytes, read_flat_picture
from latentpress.scripts.view.kinds import OWN_LABEL, Content, Item, Kind, Notify, Rate, Result, new_id
from latentpress.scripts.view.offer import PICTURE

if TYPE_CHECKING:
    import torch

# Fast to write; what is shown travels no further than this machine.
_SHOWN = {"compress_level": 1}
_WARM_UP_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class PictureItem(Item):
    """A picture that was dropped.

    Attributes:
        pixels: uint8, shape (C, H, W).
        metadata: What of ``icc``, ``exif`` and ``xmp`` the file held.
        shown: The pixels as PNG.
    """

    kind: ClassVar[str] = PICTURE

    pixels: torch.Tensor
    metadata: Mapping[str, bytes]
    shown: bytes

    def facts(self) -> Mapping[str, Any]:
        """Size in pixels and bytes of metadata."""
        channels, height, width = self.pixels.shape
        return {
            "width": width,
            "height": height,
            "channels": channels,
            "metadata": {name: len(content) for name, content in self.metadata.items()},
        }

    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """The picture itself."""
        return _shown(self.shown, name)


@dataclass(frozen=True, kw_only=True)
class PictureResult(Result[PictureItem]):
    """A picture compressed and decoded.

    Attributes:
        picture_bytes: Of the file, without metadata.
        closeness: How close the decoded picture is.
        shown: The decoded picture as PNG.
    """

    picture_bytes: int
    closeness: Closeness
    shown: bytes

    def figures(self) -> Mapping[str, Any]:
        """Bits a pixel, PSNR (None if infinite) and MS-SSIM (None for small pictures)."""
        _, height, width = self.item.pixels.shape
        psnr = self.closeness.psnr
        return {
            "bpp": len(self.data) * 8 / (height * width),
            "psnr": None if math.isinf(psnr) else psnr,
            "ms_ssim": self.closeness.ms_ssim,
        }

    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """The decoded picture."""
        return _shown(self.shown, name)


class PictureKind(Kind[PictureItem, PictureResult]):
    """Pictures of all formats that Pillow reads.

    Args:
        limits: Cap on the number of pixels.
    """

    name = PICTURE

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def takes(self, name: str) -> bool:
        """Everything that no other kind takes: pictures are known by their content."""
        return True

    def peers(self) -> tuple[str, ...]:
        """Those that everybody has."""
        return tuple(peer.name for peer in PEERS)

    def read(self, name: str, content: bytes) -> PictureItem:
        """Reads a picture file, as `latentpress encode` does."""
        picture = read_flat_picture(content, self._limits)
        return PictureItem(
            id=new_id(),
            name=name,
            file_bytes=len(content),
            notes=tuple(picture.notes),
            pixels=picture.pixels,
            metadata=picture.metadata,
            shown=_png(picture.pixels, picture.metadata),
        )

    def warm_up(self, codec: Any) -> None:
        """Compresses a small black picture."""
        import torch

        codec.decompress(codec.compress(torch.zeros(3, _WARM_UP_SIDE, _WARM_UP_SIDE, dtype=torch.uint8)))

    def compress(
        self, result: str, item: PictureItem, codec: Any, rate: Rate, notify: Notify
    ) -> PictureResult:
        """Compresses to a quality or a number of bytes."""
        metadata = dict(item.metadata) if rate.keep_metadata else {}
        options = rate.options("target_bytes", "effort")
        if rate.quality is not None:
            options["quality"] = rate.quality
        start = time.perf_counter()
        data = codec.compress(item.pixels, metadata=metadata, progress=notify, **options)
        middle = time.perf_counter()
        decoded = codec.decompress(data).cpu()
        end = time.perf_counter()
        quality = inspect(data).parameters.get("quality", rate.quality)
        return PictureResult(
            id=result,
            item=item,
            label=OWN_LABEL,
            setting=_setting(quality, rate.effort),
            data=data,
            encode_seconds=middle - start,
            decode_seconds=end - middle,
            picture_bytes=len(data) - sum(map(len, metadata.values())),
            closeness=compare(item.pixels, decoded),
            shown=_png(decoded, item.metadata),
        )

    def against(self, own: PictureResult, peer: str) -> PictureResult:
        """Pillow's file that is the largest that is not larger, without metadata."""
        found = {one.name: one for one in PEERS}[peer]
        made = at_size(found, own.item.pixels, own.picture_bytes)[0]
        return PictureResult(
            id=new_id(),
            item=own.item,
            label=found.name,
            setting=f"quality {made.quality}",
            data=made.data,
            encode_seconds=made.encode_seconds,
            decode_seconds=made.decode_seconds,
            suffix=found.suffix,
            picture_bytes=len(made.data),
            closeness=compare(own.item.pixels, made.decoded),
            shown=_png(made.decoded, own.item.metadata),
        )


def _setting(quality: float | str | None, effort: int) -> str:
    parts = [] if quality is None else [f"quality {quality:g}"]
    return ", ".join([*parts, *([f"effort {effort}"] if effort else [])])


def _png(pixels: torch.Tensor, metadata: Mapping[str, bytes]) -> bytes:
    """A PNG with the colour profile, which a browser needs to show the pixels right, and nothing else."""
    profile = {name: content for name, content in metadata.items() if name == "icc"}
    return picture_bytes(pixels, ".png", profile, **_SHOWN)


def _shown(png: bytes, name: str) -> Content:
    if name != "shown.png":
        raise KeyError(name)
    return Content(png, "image/png")
