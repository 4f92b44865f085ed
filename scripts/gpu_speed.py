"""How much a batch is faster than one by one: ``python -m latentpress.scripts.gpu_speed --device cuda``.

Two tables: pictures a second of every codec, 64 pictures of 768 x 512 as one batch beside one by one, and
frames a second of 1920 x 1080 of the image codec. Pictures come from the processor's memory, as files do, and
decoded ones stay on the device. Everything is run once before, every time is the median of several.

The codecs have no choice of precision; other precisions than float32 are autocast around the calls, which
entropy networks switch off for themselves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentpress.codecs.base import Codec
from latentpress.scripts.codec_access import add_machine_arguments, open_codec, positive_int
from latentpress.scripts.failures import run_reported
from latentpress.scripts.field_report import report_bytes
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.text_table import format_table

WANTED_SPEEDUP = 4.0
"""Times as many pictures a second as one by one."""

PRECISIONS = ("float32", "bfloat16", "float16")

_UNBATCHED = 8
"""Pictures that are enough where a batch is coded one by one in any case."""

_SINGLES = 16


class Speed(NamedTuple):
    """Pictures a second of one codec.

    Attributes:
        codec: Its name.
        action: ``encode`` or ``decode``.
        precision: Of the transforms.
        width: Of the pictures.
        height: Of the pictures.
        batch: Pictures of a batch.
        batched: Whether the codec does more with a batch than to go through it.
        bpp: Bits per pixel of the streams.
        single: Pictures a second one by one.
        together: Pictures a second as one batch.
    """

    codec: str
    action: str
    precision: str
    width: int
    height: int
    batch: int
    batched: bool
    bpp: float
    single: float
    together: float

    @property
    def ratio(self) -> float:
        """How many times as fast the batch is."""
        return self.together / self.single


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code: 1 if on a GPU a batch was less than four times as fast as one by one.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.gpu_speed", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--codecs", nargs="*", default=["image", "index"], help="weights, by name or path")
    parser.add_argument("--frames", default="image", help="weights for frames; '' for none (default: image)")
    parser.add_argument("--pictures", type=positive_int, default=64, help="of a batch (default: 64)")
    parser.add_argument("--frame-batch", type=positive_int, default=8, help="frames of one (default: 8)")
    parser.add_argument("--size", type=_size, default=(768, 512), help="of pictures (default: 768x512)")
    parser.add_argument("--frame-size", type=_size, default=(1920, 1080), help="default: 1920x1080")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float32", "float16"],
                        help="for frames (default: float32 float16)")  # fmt: skip
    parser.add_argument("--quality", type=float, default=50.0, help="default: 50")
    parser.add_argument("--data", metavar="FOLDER", help="pictures to take; without, they are made")
    parser.add_argument("--repetitions", type=positive_int, default=5, help="of each at most (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="no more of each after (default: 4)")
    parser.add_argument("--out", metavar="FILE", help="JSON file for the rows")
    add_machine_arguments(parser)
    args = parser.parse_args(argv)
    return run_reported(lambda: _measure_all(args))


def _measure_all(args: argparse.Namespace) -> int:
    opened: dict[str, Any] = {}
    for name in [*args.codecs, *[name for name in [args.frames] if name]]:
        opened.setdefault(name, open_codec(name, args))
    pictures = some_pictures(args.pictures, args.size, args.data) if args.codecs else []
    rows = [row for name in args.codecs for row in measure(name, opened[name], pictures, args, "float32")]
    frame_rows: list[Speed] = []
    if rows:
        print(f"{args.pictures} pictures of {_by(args.size)}, pictures a second\n\n{table(rows)}\n")
    if args.frames:
        frames = some_pictures(args.frame_batch, args.frame_size, args.data)
        for precision in args.precisions:
            frame_rows += measure(args.frames, opened[args.frames], frames, args, precision)
        print(f"{args.frame_batch} frames of {_by(args.frame_size)}, frames a second\n\n{table(frame_rows)}")
    device = next(iter(opened.values())).device.type if opened else "cpu"
    if args.out:
        content = {"rows": [{**row._asdict(), "ratio": row.ratio} for row in [*rows, *frame_rows]]}
        fingerprints = " ".join(codec.fingerprint.hex() for codec in opened.values())
        write_bytes(args.out, report_bytes(content, fingerprints, device), force=True)
        print(f"\nwritten: {args.out}")
    slow = [row for row in rows if row.ratio < WANTED_SPEEDUP]
    if device == "cpu" or not slow:
        return 0
    print(f"\nless than {WANTED_SPEEDUP:g} times: {', '.join(f'{row.codec} {row.action}' for row in slow)}")
    return 1


def measure(
    name: str, codec: Any, pictures: Sequence[Tensor], args: argparse.Namespace, precision: str
) -> list[Speed]:
    """Times one codec, encoding and decoding.

    Args:
        name: What to call the codec.
        codec: The codec.
        pictures: Of one size, uint8 ``(3, H, W)`` in the processor's memory.
        args: Of :func:`main`: quality, repetitions and seconds.
        precision: Of the transforms, one of :data:`PRECISIONS`.

    Returns:
        A row for each of the two.
    """
    batched = type(codec).compress_batch is not Codec.compress_batch
    some = list(pictures if batched else pictures[:_UNBATCHED])
    pixels = some[0].shape[1] * some[0].shape[2]

    def together(work: Callable[[], Any]) -> tuple[float, Any]:
        seconds, result = median_seconds(work, codec.device, args.repetitions, args.seconds)
        return len(some) / seconds, result

    def singly(work: Callable[[Any], Any], items: Sequence[Any]) -> float:
        few = items[:_SINGLES]
        seconds, _ = median_seconds(
            lambda: [work(item) for item in few], codec.device, args.repetitions, args.seconds
        )
        return len(few) / seconds

    with torch.autocast(codec.device.type, getattr(torch, precision), enabled=precision != "float32"):
        encode, streams = together(lambda: codec.compress_batch(some, quality=args.quality))
        encode_one = singly(lambda picture: codec.compress(picture, quality=args.quality), some)
        decode, _ = together(lambda: codec.decompress_batch(streams))
        decode_one = singly(codec.decompress, streams)
    bpp = 8 * sum(map(len, streams)) / (pixels * len(streams))
    size = (some[0].shape[2], some[0].shape[1])
    return [
        Speed(Path(name).stem, action, precision, *size, len(some), batched, bpp, one, many)
        for action, one, many in (("encode", encode_one, encode), ("decode", decode_one, decode))
    ]


def median_seconds(
    work: Callable[[], Any], device: torch.device, repetitions: int, seconds: float
) -> tuple[float, Any]:
    """Times something after a first run that does not count.

    Args:
        work: What to do.
        device: Whose work has to be done when time is taken.
        repetitions: How often at most, at least once.
        seconds: After so many no other is begun.

    Returns:
        The median, and what the last run has returned.

    Example:
        >>> median_seconds(lambda: 3, torch.device("cpu"), 3, 1.0)[1]
        3
    """
    result, found = work(), list[float]()
    while not found or (len(found) < repetitions and sum(found) < seconds):
        _wait(device)
        start = time.perf_counter()
        result = work()
        _wait(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found), result


def some_pictures(count: int, size: tuple[int, int], folder: str | None = None) -> list[Tensor]:
    """Pictures of one size, uint8 ``(3, height, width)``.

    Args:
        count: How many.
        size: Width and height of each.
        folder: Where pictures are to be scaled to that, and repeated if they are few; None for made ones, in
            which amplitudes fall with frequency as those of photographs do.

    Raises:
        FileNotFoundError: There are none in the folder.

    Example:
        >>> [tuple(picture.shape) for picture in some_pictures(2, (32, 16))]
        [(3, 16, 32), (3, 16, 32)]
    """
    if folder is None:
        random_numbers = np.random.default_rng(1)
        found = [_made(random_numbers, *size) for _ in range(count)]
    else:
        # Here, because it needs what is installed for training.
        from latentpress.train.data.images import find_images, read_rgb

        found = [
            np.array(Image.fromarray(read_rgb(path)).resize(size, Image.Resampling.LANCZOS))
            for path in find_images(folder)[:count]
        ]
    tensors = [torch.from_numpy(pixels).permute(2, 0, 1).contiguous() for pixels in found]
    return [tensors[number % len(tensors)] for number in range(count)]


def table(rows: Sequence[Speed]) -> str:
    """Rows as text."""
    body = []
    for row in rows:
        batch = f"{row.batch}" if row.batched else f"{row.batch}, a loop"
        speeds = (f"{speed:.2f}" for speed in (row.single, row.together, row.ratio))
        body.append([row.codec, row.action, row.precision, batch, f"{row.bpp:.3f}", *speeds])
    head = ("codec", "action", "precision", "batch", "bpp", "one by one", "as a batch", "ratio")
    return format_table(head, body, left=(0, 1, 2))


def _made(random_numbers: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / max(width, height)) ** 1.2
    noise = np.fft.rfft2(random_numbers.standard_normal((3, height, width)))
    planes = np.fft.irfft2(noise * falling, (height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    # Colours vary less than brightness does.
    pixels = 120 + 48 * planes[:1] + 14 * planes * np.array([[[1]], [[0]], [[-1]]])
    made: NDArray[np.uint8] = pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(made)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return positive_int(width), positive_int(height)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


if __name__ == "__main__":
    sys.exit(main())
