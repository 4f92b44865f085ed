"""Measures what large pictures promise: little memory, quick regions, no seams.

    python -m latentpress.scripts.check_large_picture --data PHOTOS --out FOLDER

A photograph of 20000 x 15000 pixels is put together from a folder of smaller ones, in rows of random heights,
so that their edges are not those of tiles. The commands ``encode`` and ``decode`` run on it in processes of
their own, whose peak memory is measured. Then regions are decoded, and the error near the borders of tiles is
compared with that of all other pixels; to tell a seam from chance, so is the error near lines half a tile
away. Times are those of the clock, with the processor's behind them: on a busy machine the clock measures
the others.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import latentpress
from latentpress.codecs.image import ImageCodec
from latentpress.scripts.codec_access import positive_int, quality
from latentpress.scripts.pictures import PICTURE_SUFFIXES
from latentpress.scripts.png_rows import PngWriter

WANTED_GIB = 4.0
WANTED_SECONDS = 2.0
WANTED_DB = 0.2

REGION = 512
"""Side of the regions that are decoded, in pixels."""

BAND = 16
"""Width of the band around borders whose error is measured, in pixels."""

_ROW_HEIGHTS = (500, 950)
_REGIONS = 8
_CROP = 256

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Run:
    """A command that has run.

    Attributes:
        seconds: Wall-clock time.
        processor_seconds: Of all its threads.
        peak_gib: Largest resident memory, in GiB.
    """

    seconds: float
    processor_seconds: float
    peak_gib: float


@dataclass
class ErrorSum:
    """Squared errors of some pixels.

    Attributes:
        total: Their sum.
        samples: Their number.
    """

    total: float = 0.0
    samples: int = 0

    def add(self, errors: NDArray[np.int32]) -> None:
        """Adds squared errors."""
        self.total += float(errors.sum(dtype=np.float64))
        self.samples += errors.size

    @property
    def psnr(self) -> float:
        """In dB."""
        return 10 * math.log10(255**2 * self.samples / self.total) if self.total else math.inf


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if everything that was promised holds, else 1."""
    parser = argparse.ArgumentParser(prog="check_large_picture", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, which are kept")
    parser.add_argument("--weights", default="image", help="shipped name or path of a weight file")
    parser.add_argument("--width", type=positive_int, default=20000)
    parser.add_argument("--height", type=positive_int, default=15000)
    parser.add_argument("--quality", type=quality, default=50.0)
    parser.add_argument("--threads", type=positive_int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    photo, packed, restored = (options.out / name for name in ("photo.png", "photo.lpz", "restored.png"))
    draw_photo(photo, options.data, options.width, options.height, options.seed)
    pixels = options.width * options.height
    print(f"{options.width} x {options.height} pixels, {photo.stat().st_size} bytes of PNG", flush=True)
    common = ["--threads", str(options.threads), "--codec", options.weights, "--force"]
    rate = ["--quality", f"{options.quality:g}"]
    encoding = _run("encode", str(photo), "-o", str(packed), *rate, *common)
    bpp = packed.stat().st_size * 8 / pixels
    print(f"encode: {_facts(encoding)}, {packed.stat().st_size} bytes, {bpp:.3f} bpp", flush=True)
    decoding = _run("decode", str(packed), "-o", str(restored), *common)
    print(f"decode: {_facts(decoding)}", flush=True)
    slowest = measure_regions(packed, options.weights, options.threads, options.seed)
    seam = measure_seams(photo, restored, packed, options.out)
    held = (
        max(encoding.peak_gib, decoding.peak_gib) <= WANTED_GIB
        and slowest <= WANTED_SECONDS
        and seam >= -WANTED_DB
    )
    print(
        f"wanted: {WANTED_GIB:g} GiB, {WANTED_SECONDS:g} s, {WANTED_DB:g} dB:", "held" if held else "NOT HELD"
    )
    return int(not held)


def draw_photo(path: Path, data: Path, width: int, height: int, seed: int) -> None:
    """Writes a large photograph as PNG, row of photographs after row.

    Args:
        path: Where to.
        data: Folder of photographs, looked for below it too.
        width: Of the picture.
        height: Of the picture.
        seed: Decides which photographs are where.
    """
    photos = sorted(found for found in data.rglob("*") if found.suffix.lower() in PICTURE_SUFFIXES)
    if not photos:
        raise SystemExit(f"there are no pictures in {data}")
    random = np.random.default_rng(seed)
    order = _forever(photos, random)
    with open(path, "wb") as file:
        writer = PngWriter(file, width, height, channels=3)
        left = height
        while left:
            rows = min(left, int(random.integers(*_ROW_HEIGHTS)))
            writer.write(_row_of_photos(order, rows, width).transpose(2, 0, 1))
            left -= rows
        writer.finish()


def measure_regions(packed: Path, weights: str, threads: int, seed: int) -> float:
    """Decodes regions, one that begins where a tile does and some anywhere.

    Args:
        packed: A compressed file.
        weights: Of the codec.
        threads: CPU threads.
        seed: Decides where regions are.

    Returns:
        Seconds of the slowest.
    """
    torch.set_num_threads(threads)
    codec = latentpress.load(weights)
    assert isinstance(codec, ImageCodec)
    data = packed.read_bytes()
    say = latentpress.inspect(data).parameters
    random = np.random.default_rng(seed)
    size, room = int(say["tile_size"]), [int(say[name]) - REGION for name in ("height", "width")]
    places = [(room[0] // 2 // size * size, room[1] // 2 // size * size)]
    places += [
        (int(random.integers(room[0] + 1)), int(random.integers(room[1] + 1))) for _ in range(_REGIONS)
    ]
    codec.decompress(data, region=(*places[0], 64, 64))  # what is made on first use
    seconds, processor = [], []
    for place in places:
        start, used = time.perf_counter(), time.process_time()
        codec.decompress(data, region=(*place, REGION, REGION))
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    print(
        f"a region of {REGION} x {REGION}: {seconds[0]:.2f} s where a tile begins, elsewhere "
        f"{min(seconds[1:]):.2f} to {max(seconds[1:]):.2f} s, {threads} threads; {min(processor):.2f} to "
        f"{max(processor):.2f} s of processor time",
        flush=True,
    )
    return max(seconds)


def measure_seams(photo: Path, restored: Path, packed: Path, out: Path) -> float:
    """Compares the error near borders of tiles with that elsewhere, and keeps crops of a border.

    Args:
        photo: The original.
        restored: What was decoded of it.
        packed: The compressed file.
        out: Folder for the crops.

    Returns:
        PSNR near the borders minus that of the rest, in dB.
    """
    size = int(latentpress.inspect(packed.read_bytes()).parameters["tile_size"])
    found: dict[str, ErrorSum] = {}
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(photo) as original, Image.open(restored) as decoded:
        width, height = original.size
        for top in range(0, height, size):
            box = (0, top, width, min(top + size, height))
            rows = [np.asarray(image.crop(box)).astype(np.int32) for image in (original, decoded)]
            errors = np.square(rows[0] - rows[1])
            for name, shift in (("borders", 0), ("halfway", size // 2)):
                inside = _near(np.arange(box[1], box[3]), size, shift, height)[:, None] | _near(
                    np.arange(width), size, shift, width
                )
                found.setdefault(f"at {name}", ErrorSum()).add(errors[inside])
                found.setdefault(f"not at {name}", ErrorSum()).add(errors[~inside])
        corner = (width // 2 // size * size, height // 2 // size * size)
        box = (corner[0] - _CROP // 2, corner[1] - _CROP // 2, corner[0] + _CROP // 2, corner[1] + _CROP // 2)
        for name, image in (("original", original), ("decoded", decoded)):
            image.crop(box).resize((4 * _CROP, 4 * _CROP), Image.Resampling.NEAREST).save(
                out / f"corner_{name}.png"
            )
    differences = []
    for name in ("borders", "halfway"):
        near, rest = found[f"at {name}"].psnr, found[f"not at {name}"].psnr
        differences.append(near - rest)
        lines = "borders of tiles" if name == "borders" else "lines half a tile away"
        print(f"PSNR within {BAND} pixels around {lines}: {near:.3f} dB, elsewhere {rest:.3f} dB", flush=True)
    return differences[0]


def _run(*command: str) -> Run:
    """Runs a verb of the command line."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "latentpress.scripts.cli", *command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} has failed")
    seconds = time.perf_counter() - start
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def _facts(run: Run) -> str:
    return (
        f"{run.seconds:.0f} s ({run.processor_seconds:.0f} s of processor time), "
        f"{run.peak_gib:.2f} GiB of memory at most"
    )


def _forever(photos: Sequence[Path], random: np.random.Generator) -> Iterator[Path]:
    while True:
        yield from (photos[k] for k in random.permutation(len(photos)))


def _row_of_photos(photos: Iterator[Path], height: int, width: int) -> Pixels:
    """Photographs side by side, cropped or enlarged to a height, ``(height, width, 3)``."""
    row = np.empty((height, width, 3), np.uint8)
    left = 0
    while left < width:
        with Image.open(next(photos)) as image:
            photo = image.convert("RGB")
        if photo.height < height:
            scale = height / photo.height
            photo = photo.resize((max(1, round(photo.width * scale)), height), Image.Resampling.LANCZOS)
        top = (photo.height - height) // 2
        columns = min(photo.width, width - left)
        row[:, left : left + columns] = np.asarray(photo.crop((0, top, columns, top + height)))
        left += columns
    return row


def _near(positions: NDArray[np.int64], size: int, shift: int, end: int) -> NDArray[np.bool_]:
    """Which positions are within the band around a line between two tiles, or around one that is shifted."""
    nearest = (positions - shift + size // 2) // size * size + shift
    lines = (nearest > 0) & (nearest < end)
    near: NDArray[np.bool_] = lines & (positions >= nearest - BAND // 2) & (positions < nearest + BAND // 2)
    return near


if __name__ == "__main__":
    sys.exit(main())
