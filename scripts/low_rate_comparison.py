"""The index codec beside AVIF, half-size AVIF, WebP and JPEG XL at equal bytes, at a few very low rates.

``python -m latentpress.scripts.low_rate_comparison --data FOLDER --out FOLDER`` writes the measures of every
picture as JSON, prints their means, and draws a sheet for each picture that is named with ``--sheets``.

With much effort, encoding takes hours on a processor. ``--write-streams FOLDER --device cuda`` in the place
of ``--out`` only encodes, and ``--streams FOLDER`` measures what is there, on another machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from PIL import Image

import latentpress
from latentpress.scripts.codec_access import effort, effort_option
from latentpress.scripts.comparison_sheet import Box, Panel, centred, comparison_sheet
from latentpress.scripts.failures import run_reported
from latentpress.scripts.peers import PEERS, Peer, around
from latentpress.scripts.pictures import picture_bytes, read_flat_picture, to_image
from latentpress.scripts.rate_distortion import find_pictures
from latentpress.scripts.stored_streams import read_stream, write_stream
from latentpress.scripts.text_table import format_table
from latentpress.train.metrics.perceptual import Measure, measures

RATES = (0.03, 0.06, 0.12)
TOLERANCE = 1.02
"""A rival whose smallest file is larger than this times ours does not reach the rate."""

SHEET_BOX = 160
"""Side of the enlarged part of a sheet, in pixels."""

JXL_QUALITIES = 100


class Rival(NamedTuple):
    """Another codec.

    Attributes:
        name: As people call it.
        encode: A picture and a setting to a file.
        decode: A file and the picture's size to pixels.
        highest: Largest setting; the smallest is 0.
    """

    name: str
    encode: Callable[[torch.Tensor, int], bytes]
    decode: Callable[[bytes, tuple[int, int]], torch.Tensor]
    highest: int


class Row(NamedTuple):
    """A decoded picture.

    Attributes:
        picture: Name of its file.
        target_bpp: The rate that was asked for.
        codec: Who made it.
        bytes: Length of the file.
        bpp: Bits a pixel.
        measures: By name.
    """

    picture: str
    target_bpp: float
    codec: str
    bytes: int
    bpp: float
    measures: dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Compares, prints and writes.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--codec", default="index", help="weights, by name or path (default: index)")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="folder of pictures")
    parser.add_argument("--out", metavar="FOLDER", help="where results go")
    streams = parser.add_mutually_exclusive_group()
    streams.add_argument("--streams", metavar="FOLDER", help="take our streams from there")
    streams.add_argument("--write-streams", metavar="FOLDER", help="only write our streams there")
    parser.add_argument("--device", default="cpu", help="where the networks run (default: cpu)")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), metavar="R,R,...", help="bits a pixel")
    parser.add_argument("--effort", type=effort, default=0, metavar="N", help="0 to 10 (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--sheets", default="", metavar="NAME,...", help="pictures to draw, without suffix")
    args = parser.parse_args(argv)
    if bool(args.out) == bool(args.write_streams):
        parser.error("give one of --out and --write-streams")
    return run_reported(lambda: (_write_streams if args.write_streams else _compare)(args))


def _rates(args: argparse.Namespace) -> tuple[float, ...]:
    return tuple(float(rate) for rate in args.rates.split(","))


def _pictures(args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and pixels ``(3, H, W)`` of the pictures."""
    for path in find_pictures(args.data, args.limit):
        yield path.stem, read_flat_picture(path.read_bytes()).pixels.expand(3, -1, -1).contiguous()


def _write_streams(args: argparse.Namespace) -> None:
    """Only encodes."""
    codec = latentpress.load(args.codec, args.device)
    for name, pixels in _pictures(args):
        for rate in _rates(args):
            write_stream(_encoded(codec, args, pixels, rate), args.write_streams, name, rate)
        print(f"{name}: written", flush=True)


def _encoded(codec: latentpress.Codec, args: argparse.Namespace, pixels: torch.Tensor, rate: float) -> bytes:
    return codec.compress(pixels, target_bpp=rate, **effort_option(args.effort))


def _stream(
    codec: latentpress.Codec, args: argparse.Namespace, name: str, pixels: torch.Tensor, rate: float
) -> bytes:
    """Our stream of a picture, made now or before."""
    if not args.streams:
        return _encoded(codec, args, pixels, rate)
    return read_stream(args.streams, name, rate, (pixels.shape[1], pixels.shape[2]), codec)


def _compare(args: argparse.Namespace) -> None:
    codec = latentpress.load(args.codec, args.device)
    rates = _rates(args)
    found, skipped = measures()
    rivals, absent = available_rivals()
    for missing, reason in {**skipped, **absent}.items():
        print(f"skipped: {missing}, {reason}")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name, pixels in _pictures(args):
        panels: list[list[Panel]] = []
        for rate in rates:
            data = _stream(codec, args, name, pixels, rate)
            line = list(_at_rate(codec, data, rivals, found, name, pixels, rate))
            rows += [row for row, _ in line]
            panels.append([_panel(row, decoded) for row, decoded in line])
        if name in args.sheets.split(","):
            _sheet(name, pixels, panels, codec.fingerprint.hex()).save(
                out / f"index_{name}.png", optimize=True
            )
        print(f"{name}: {len(rows)} files so far", flush=True)
    print(means_table(rows, tuple(found)))
    print(f"\n{pairs_table(rows)}")
    content = {
        "codec": args.codec,
        "fingerprint": codec.fingerprint.hex(),
        "data": Path(args.data).name,
        "rates": rates,
        "effort": None if args.streams else args.effort,
        "skipped": {**skipped, **absent},
        "rows": [row._asdict() for row in rows],
    }
    (out / "index_low_rates.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _at_rate(
    codec: latentpress.Codec,
    data: bytes,
    rivals: Sequence[Rival],
    found: dict[str, Measure],
    name: str,
    pixels: torch.Tensor,
    rate: float,
) -> Iterator[tuple[Row, torch.Tensor]]:
    """Our file at a rate, then the best of every rival that is no larger."""
    yield _row(name, rate, "index", data, codec.decompress(data).cpu(), pixels, found)
    for rival in rivals:
        encoded = cache(partial(rival.encode, pixels))
        setting = around(partial(_size, encoded), 0, rival.highest, len(data))[0]
        if len(encoded(setting)) <= TOLERANCE * len(data):
            decoded = rival.decode(encoded(setting), (pixels.shape[1], pixels.shape[2]))
            yield _row(name, rate, rival.name, encoded(setting), decoded, pixels, found)


def _size(encoded: Callable[[int], bytes], setting: int) -> int:
    return len(encoded(setting))


def _row(
    name: str,
    rate: float,
    codec: str,
    data: bytes,
    decoded: torch.Tensor,
    pixels: torch.Tensor,
    found: dict[str, Measure],
) -> tuple[Row, torch.Tensor]:
    x, y = (image[None].float() / 255 for image in (pixels, decoded))
    values = {key: measure(x, y) for key, measure in found.items()}
    bpp = len(data) * 8 / (pixels.shape[1] * pixels.shape[2])
    return Row(name, rate, codec, len(data), bpp, values), decoded


def available_rivals() -> tuple[list[Rival], dict[str, str]]:
    """The codecs to compare with, and why others are missing."""
    avif, webp = (next(peer for peer in PEERS if peer.name == name) for name in ("AVIF", "WebP"))
    rivals = [_of_peer(avif), _half_size(avif), _of_peer(webp)]
    if importlib.util.find_spec("pillow_jxl") is None:
        return rivals, {"JPEG XL": "pillow-jxl-plugin is not installed"}
    return [*rivals, _jpeg_xl()], {}


def _of_peer(peer: Peer) -> Rival:
    def encode(pixels: torch.Tensor, setting: int) -> bytes:
        return picture_bytes(pixels, peer.suffix, None, quality=setting, **peer.options)

    return Rival(peer.name, encode, lambda data, _: _pixels_of(data), peer.high)


def _half_size(peer: Peer) -> Rival:
    """A picture at half its size, enlarged by the decoder."""

    def encode(pixels: torch.Tensor, setting: int) -> bytes:
        image = to_image(pixels)
        half = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)
        return picture_bytes(_from_image(half), peer.suffix, None, quality=setting, **peer.options)

    def decode(data: bytes, size: tuple[int, int]) -> torch.Tensor:
        image = to_image(_pixels_of(data))
        return _from_image(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))

    return Rival(f"{peer.name} at half size", encode, decode, peer.high)


def _jpeg_xl() -> Rival:
    import pillow_jxl  # noqa: F401 - registers the format

    def encode(pixels: torch.Tensor, setting: int) -> bytes:
        buffer = io.BytesIO()
        to_image(pixels).save(buffer, "JXL", quality=setting, effort=7)
        return buffer.getvalue()

    return Rival("JPEG XL", encode, lambda data, _: _pixels_of(data), JXL_QUALITIES)


def _pixels_of(data: bytes) -> torch.Tensor:
    return read_flat_picture(data).pixels.expand(3, -1, -1).contiguous()


def _from_image(image: Image.Image) -> torch.Tensor:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return _pixels_of(buffer.getvalue())


def _panel(row: Row, decoded: torch.Tensor) -> Panel:
    values = row.measures
    facts = f"{row.bpp:.3f} bpp, {values['psnr']:.1f} dB, WD {values['wasserstein']:.1f}"
    return Panel(row.codec, facts, decoded)


def _sheet(
    name: str, pixels: torch.Tensor, panels: Sequence[Sequence[Panel]], fingerprint: str
) -> Image.Image:
    height, width = pixels.shape[1:]
    corner = Box((width - SHEET_BOX) // 2, (height - SHEET_BOX) // 2, SHEET_BOX, SHEET_BOX)
    subtitle = f"codecs that reach the rate, at most our bytes; weights {fingerprint}"
    return comparison_sheet(pixels, panels, centred(corner, height, width), name, subtitle)


def means_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Means over the pictures, for every rate and codec.

    A codec that does not reach a rate with every picture has a mean over fewer, which its count tells.
    """
    lines = []
    for rate in sorted({row.target_bpp for row in rows}):
        for codec in dict.fromkeys(row.codec for row in rows):
            chosen = [row for row in rows if row.target_bpp == rate and row.codec == codec]
            if chosen:
                values = [sum(row.measures[name] for row in chosen) / len(chosen) for name in names]
                bpp = sum(row.bpp for row in chosen) / len(chosen)
                lines.append(
                    [f"{rate:g}", codec, str(len(chosen)), f"{bpp:.4f}", *(f"{v:.4f}" for v in values)]
                )
    return format_table(("rate", "codec", "pictures", "bpp", *names), lines, left=(1,))


def pairs_table(rows: Sequence[Row]) -> str:
    """Ours beside every rival, over the pictures with which the rival reaches the rate.

    The last column counts those with which our Wasserstein distortion is the lower one.
    """
    ours = {(row.picture, row.target_bpp): row.measures for row in rows if row.codec == "index"}
    lines = []
    for rate in sorted({row.target_bpp for row in rows}):
        for rival in dict.fromkeys(row.codec for row in rows if row.codec != "index"):
            theirs = [row for row in rows if (row.target_bpp, row.codec) == (rate, rival)]
            pairs = [(ours[row.picture, rate], row.measures) for row in theirs]
            if pairs:
                lower = sum(own["wasserstein"] < other["wasserstein"] for own, other in pairs)
                means = [
                    f"{fmean(pair[side][name] for pair in pairs):.2f}"
                    for name in ("wasserstein", "psnr")
                    for side in (0, 1)
                ]
                lines.append([f"{rate:g}", rival, str(len(pairs)), *means, f"{lower} of {len(pairs)}"])
    head = ("rate", "rival", "pictures", "our WD", "its WD", "our PSNR", "its PSNR", "lower WD")
    return format_table(head, lines, left=(1,))


if __name__ == "__main__":
    sys.exit(main())
