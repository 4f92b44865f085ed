"""Speed as a ratio to a named peer, both measured in turn in one run.

``python -m latentpress.scripts.benchmark`` times entropy coding against CompressAI's rANS coder on the same
Gaussian symbols, and the image codec on the CPU against CompressAI's ``mbt2018-mean`` at its highest quality.
Absolute times say more about a machine than about a codec, so the ratios are what counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

import latentpress
from latentpress.codecs.bitstream import SymbolDecoder, SymbolEncoder, gaussian_tables
from latentpress.scripts import compressai_peer
from latentpress.scripts.codec_access import positive_int
from latentpress.scripts.failures import run_reported
from latentpress.scripts.text_table import format_table

SYMBOLS = 1_200_000
WIDTH, HEIGHT = 768, 512
HEAD = ("what", "ours", "peer", "unit", "ours / peer")
SEED = 1


class Task(NamedTuple):
    """Something that both sides do.

    Attributes:
        name: What it is.
        ours: Does it once.
        peer: Does it once.
    """

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]


class Timing(NamedTuple):
    """Medians over the repetitions.

    Attributes:
        name: Of the task.
        ours: Seconds.
        peer: Seconds.
    """

    name: str
    ours: float
    peer: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("coding", "codec", "serial", "all"), default="all")
    parser.add_argument("--codec", default="image", help="weights, by name or path (default: image)")
    parser.add_argument(
        "--quality", type=float, help="of the codec (default: the highest whole one within the peer's bytes)"
    )
    parser.add_argument("--threads", type=positive_int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--repetitions", type=positive_int, default=7, help="of each task (default: 7)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    return run_reported(lambda: _benchmark(args))


def _benchmark(args: argparse.Namespace) -> None:
    if args.part in ("coding", "all"):
        benchmark_coding(args.repetitions)
    if args.part in ("codec", "all"):
        benchmark_codec(args.codec, args.repetitions, args.threads, args.quality)
    if args.part == "serial":  # takes minutes, so only where it is asked for
        benchmark_serial(args.codec, args.threads, 50.0 if args.quality is None else args.quality)


def interleaved(tasks: Sequence[Task], repetitions: int) -> list[Timing]:
    """Times tasks in turn, so that whatever else the machine does hits both sides alike.

    Args:
        tasks: What to time; each side is run once before.
        repetitions: How often.

    Returns:
        Medians.
    """
    for task in tasks:
        task.ours()
        task.peer()
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(repetitions):
        for task in tasks:
            for side, action in (("ours", task.ours), ("peer", task.peer)):
                start = time.perf_counter()
                action()
                seconds.setdefault((task.name, side), []).append(time.perf_counter() - start)
    return [
        Timing(
            task.name,
            statistics.median(seconds[task.name, "ours"]),
            statistics.median(seconds[task.name, "peer"]),
        )
        for task in tasks
    ]


def benchmark_coding(repetitions: int) -> None:
    """Times both entropy coders on the same symbols, and checks that both give them back.

    Args:
        repetitions: How often each task is timed.

    Raises:
        RuntimeError: A coder does not return its symbols.
    """
    scales = compressai_peer.scale_table()
    coder = compressai_peer.gaussian_conditional()
    tables = gaussian_tables(scales)
    rng = np.random.default_rng(SEED)
    indexes = rng.integers(0, len(scales), SYMBOLS).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(SYMBOLS) * np.array(scales)[indexes]).astype(np.int32)
    peer_symbols = torch.from_numpy(symbols).float()[None]
    peer_indexes = torch.from_numpy(indexes.astype(np.int32))[None]

    def encode() -> bytes:
        encoder = SymbolEncoder()
        encoder.put(symbols, indexes, tables)
        return encoder.finish()

    def decode() -> np.ndarray:
        decoder = SymbolDecoder(data)
        found = decoder.get(indexes, tables)
        decoder.finish()
        return found

    data = encode()
    (peer_data,) = coder.compress(peer_symbols, peer_indexes)
    if not np.array_equal(decode(), symbols):
        raise RuntimeError("our coder does not return its symbols")
    if not torch.equal(coder.decompress([peer_data], peer_indexes), peer_symbols):
        raise RuntimeError("the peer's coder does not return its symbols")
    tasks = [
        Task("encode", encode, lambda: coder.compress(peer_symbols, peer_indexes)),
        Task("decode", decode, lambda: coder.decompress([peer_data], peer_indexes)),
    ]
    print(
        f"Entropy coding: {SYMBOLS} Gaussian symbols over {len(scales)} tables of standard deviation "
        f"{scales[0]:g} to {scales[-1]:g},\nevery table as often; ours range coding with checks, the peer "
        f"CompressAI's rANS coder (GaussianConditional).\n{len(data)} bytes ours, {len(peer_data)} peer."
    )
    rows = []
    for timing in interleaved(tasks, repetitions):
        ours, peer = SYMBOLS / timing.ours / 1e6, SYMBOLS / timing.peer / 1e6
        rows.append([timing.name, f"{ours:.2f}", f"{peer:.2f}", "million symbols/s", f"{ours / peer:.2f}"])
    print(format_table(HEAD, rows, left=(0, 3)) + "\n(more is faster)\n")


def benchmark_codec(name: str, repetitions: int, threads: int, quality: float | None = None) -> None:
    """Times the image codec and the peer's network on one picture, at about equal bits.

    Args:
        name: Weights, by name or path.
        repetitions: How often each task is timed.
        threads: CPU threads, for the report.
        quality: Of the codec; None for the highest whole one whose file is not larger than the peer's.
    """
    from latentpress.train.metrics.anchors import kodak_anchors

    pixels = photograph()
    area = HEIGHT * WIDTH
    peer_bpp = kodak_anchors()[compressai_peer.PEER_MODEL].bpp[-1]
    scaled = pixels[None].float() / 255.0
    peer = compressai_peer.realistic_model(scaled, peer_bpp)
    codec = latentpress.load(name, device="cpu")
    with torch.inference_mode():
        packed = peer.compress(scaled)
        peer_bytes = sum(len(strings[0]) for strings in packed["strings"])
        if quality is None:
            quality = _quality_for(codec, pixels, peer_bytes)
        data = codec.compress(pixels, quality=quality)
        tasks = [
            Task("encode", lambda: codec.compress(pixels, quality=quality), lambda: peer.compress(scaled)),
            Task(
                "decode",
                lambda: codec.decompress(data),
                lambda: peer.decompress(packed["strings"], packed["shape"]),
            ),
        ]
        timings = interleaved(tasks, repetitions)
    print(
        f"Codec: one photograph of {WIDTH} x {HEIGHT}, CPU, {threads} threads; ours '{name}' "
        f"({latentpress.inspect(data).fingerprint}) at quality {quality:g},\n{len(data) * 8 / area:.3f} bpp; "
        f"the peer CompressAI's {compressai_peer.PEER_MODEL} quality {compressai_peer.PEER_QUALITY}, "
        f"{peer_bytes * 8 / area:.3f} bpp. Its weights are random, with the\nlatents scaled by channel "
        f"so that it writes about the {peer_bpp:g} bpp that the trained model needs on Kodak."
    )
    rows = [[t.name, f"{t.ours:.3f}", f"{t.peer:.3f}", "s", f"{t.ours / t.peer:.3f}"] for t in timings]
    print(format_table(HEAD, rows, left=(0, 3)) + "\n(less is faster)")


def benchmark_serial(name: str, threads: int, quality: float) -> None:
    """Times one decoding by a network whose context model goes from position to position.

    Args:
        name: Weights, by name or path.
        threads: CPU threads, for the report.
        quality: Of the codec.
    """
    pixels = photograph()
    codec = latentpress.load(name, device="cpu")
    serial = compressai_peer.serial_model()
    with torch.inference_mode():
        packed = serial.compress(pixels[None].float() / 255.0)
        data = codec.compress(pixels, quality=quality)
        codec.decompress(data)
        start = time.perf_counter()
        codec.decompress(data)
        middle = time.perf_counter()
        serial.decompress(packed["strings"], packed["shape"])
        ours, theirs = middle - start, time.perf_counter() - middle
    print(
        f"Decoding one photograph of {WIDTH} x {HEIGHT} once, CPU, {threads} threads; ours '{name}' at "
        f"quality {quality:g},\nthe peer CompressAI's cheng2020-attn quality "
        f"{compressai_peer.SERIAL_QUALITY}, random weights."
    )
    print(
        format_table(
            HEAD, [["decode", f"{ours:.3f}", f"{theirs:.1f}", "s", f"{ours / theirs:.4f}"]], left=(0, 3)
        )
    )


def photograph() -> torch.Tensor:
    """A photograph of the size of Kodak's, uint8 (3, 512, 768)."""
    import skimage.data
    from PIL import Image

    image = Image.fromarray(skimage.data.coffee()).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _quality_for(codec: Any, pixels: torch.Tensor, size: int) -> int:
    """The highest whole quality whose file is not larger than the peer's."""
    low, high = 0, 101
    while high - low > 1:
        middle = (low + high) // 2
        if len(codec.compress(pixels, quality=middle)) <= size:
            low = middle
        else:
            high = middle
    return low


if __name__ == "__main__":
    sys.exit(main())
