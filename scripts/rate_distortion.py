"""Rate and distortion measured from files: every figure comes from bytes on disk and decoded 8-bit pixels."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentpress.scripts.codec_access import effort_option
from latentpress.scripts.failures import PictureError
from latentpress.scripts.measures import compare
from latentpress.scripts.pictures import PICTURE_SUFFIXES, read_flat_picture

if TYPE_CHECKING:
    import torch

    from latentpress import Codec
    from latentpress.train.metrics.anchors import RatePoints


class Row(NamedTuple):
    """One picture at one quality.

    Attributes:
        picture: Name of its file.
        width: Pixels.
        height: Pixels.
        quality: What was asked for, 0 to 100.
        bytes: Size of the file on disk, container included.
        bpp: Bits of that file a pixel.
        estimated_bpp: Bits a pixel by the probabilities symbols are coded with; None if the codec is silent.
        psnr: dB; infinite for equal pixels.
        ms_ssim: None for pictures that are too small for it.
        encode_seconds: Time of `compress`.
        decode_seconds: Time of `decompress`.
    """

    picture: str
    width: int
    height: int
    quality: float
    bytes: int
    bpp: float
    estimated_bpp: float | None
    psnr: float
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float


class Mean(NamedTuple):
    """Averages over the pictures at one quality, each picture counting the same.

    Attributes:
        quality: 0 to 100.
        bpp: Bits a pixel.
        estimated_bpp: None unless known for every picture.
        psnr: dB.
        ms_ssim: None unless defined for every picture.
        encode_seconds: A picture.
        decode_seconds: A picture.
    """

    quality: float
    bpp: float
    estimated_bpp: float | None
    psnr: float
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float


class RateDifference(NamedTuple):
    """Bjontegaard rate difference to one anchor.

    Attributes:
        anchor: Its name.
        percent: Negative if fewer bits are needed; None if it cannot be computed.
        low_psnr: Lower end of the range both curves cover, dB.
        high_psnr: Upper end, dB.
        reason: Why it cannot be computed; empty if it can.
    """

    anchor: str
    percent: float | None
    low_psnr: float
    high_psnr: float
    reason: str


def find_pictures(folder: str, limit: int | None = None) -> list[Path]:
    """Lists the pictures directly in a folder.

    Args:
        folder: The folder.
        limit: At most so many; None for all.

    Returns:
        Paths in the order of their names.

    Raises:
        NotADirectoryError: There is no such folder.
        PictureError: It holds no picture.
    """
    place = Path(folder)
    if not place.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise PictureError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    return found[:limit]


def is_kodak(pictures: Sequence[Path]) -> bool:
    """Tells whether these are the 24 pictures of the Kodak set, by their names.

    Args:
        pictures: Paths.

    Returns:
        Whether anchors measured on Kodak apply.
    """
    return [path.name for path in pictures] == [f"kodim{k:02}.png" for k in range(1, 25)]


def measure(
    codec: Codec,
    pictures: Iterable[Path],
    qualities: Sequence[float],
    folder: Path,
    warn: Callable[[str, str], None],
    effort: int = 0,
) -> Iterator[Row]:
    """Compresses every picture at every quality into a file and measures it.

    Args:
        codec: The codec.
        pictures: Paths of pictures.
        qualities: 0 to 100.
        folder: Where the files go; they are removed again.
        warn: Called with a path and a line for everything a picture lost when it was read.
        effort: 0 to 10. With any, the rows have no estimates, which are of the picture without it.

    Yields:
        A row for each picture and quality, pictures outermost.

    Raises:
        PictureError: A picture cannot be read.
        StreamError: A file cannot be decoded.
    """
    warm = False
    for path in pictures:
        try:
            picture = read_flat_picture(path.read_bytes())
        except PictureError as error:
            raise PictureError(f"{path}: {error}") from error
        for note in picture.notes:
            warn(str(path), note)
        if not warm:
            # The first run of anything also pays for memory and threads that later runs find ready.
            codec.decompress(codec.compress(picture.pixels, quality=qualities[0]))
            warm = True
        for quality in qualities:
            yield _measure_one(codec, path, picture.pixels, quality, effort, folder)


def _measure_one(
    codec: Codec, path: Path, pixels: torch.Tensor, quality: float, effort: int, folder: Path
) -> Row:
    file = folder / f"{path.stem}-{quality:g}.lpz"
    start = time.perf_counter()
    data = codec.compress(pixels, quality=quality, **effort_option(effort))
    encode_seconds = time.perf_counter() - start
    information_bits = None if effort else getattr(codec, "information_bits", None)
    estimated_bits = None if information_bits is None else information_bits(pixels, quality)
    file.write_bytes(data)
    size = file.stat().st_size
    stored = file.read_bytes()
    file.unlink()
    start = time.perf_counter()
    decoded = codec.decompress(stored).cpu()
    decode_seconds = time.perf_counter() - start
    closeness = compare(pixels, decoded)
    _, height, width = pixels.shape
    area = height * width
    return Row(
        picture=path.name,
        width=width,
        height=height,
        quality=quality,
        bytes=size,
        bpp=size * 8 / area,
        estimated_bpp=None if estimated_bits is None else float(estimated_bits) / area,
        psnr=closeness.psnr,
        ms_ssim=closeness.ms_ssim,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
    )


def means(rows: Sequence[Row]) -> list[Mean]:
    """Averages rows by quality.

    Args:
        rows: From `measure`.

    Returns:
        One for each quality, rising.
    """
    found = []
    for quality in sorted({row.quality for row in rows}):
        part = [row for row in rows if row.quality == quality]
        found.append(
            Mean(
                quality,
                statistics.fmean(row.bpp for row in part),
                _mean_if_known([row.estimated_bpp for row in part]),
                statistics.fmean(row.psnr for row in part),
                _mean_if_known([row.ms_ssim for row in part]),
                statistics.fmean(row.encode_seconds for row in part),
                statistics.fmean(row.decode_seconds for row in part),
            )
        )
    return found


def is_monotone(curve: Sequence[Mean]) -> bool:
    """Tells whether more quality always costs more and gives more.

    Args:
        curve: Averages, rising in quality.

    Returns:
        Whether both bits and PSNR rise strictly.
    """
    return all(a.bpp < b.bpp and a.psnr < b.psnr for a, b in pairwise(curve))


def falling_steps(rows: Sequence[Row]) -> int:
    """Counts where a single picture gets larger without getting better, or smaller, as quality rises.

    Args:
        rows: From `measure`.

    Returns:
        Number of neighbouring qualities of one picture of which the higher has fewer bytes or a lower PSNR.
    """
    count = 0
    for name in {row.picture for row in rows}:
        own = sorted((row for row in rows if row.picture == name), key=lambda row: row.quality)
        count += sum(b.bytes < a.bytes or b.psnr < a.psnr for a, b in pairwise(own))
    return count


def rate_difference(name: str, anchor: RatePoints, curve: Sequence[Mean]) -> RateDifference:
    """Compares with an anchor.

    Args:
        name: The anchor's name.
        anchor: Its points.
        curve: Averages, rising in quality.

    Returns:
        The difference over the range both cover, or why there is none.
    """
    from latentpress.train.metrics.bd_rate import bd_rate

    finite = [point for point in curve if math.isfinite(point.psnr)]
    if not finite:
        return RateDifference(name, None, math.nan, math.nan, "no points")
    low = max(min(anchor.psnr), min(point.psnr for point in finite))
    high = min(max(anchor.psnr), max(point.psnr for point in finite))
    try:
        percent = bd_rate(
            anchor.bpp, anchor.psnr, [point.bpp for point in finite], [point.psnr for point in finite]
        )
    except ValueError as error:
        return RateDifference(name, None, low, high, str(error))
    return RateDifference(name, percent, low, high, "")


def _mean_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
