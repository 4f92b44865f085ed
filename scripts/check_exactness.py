"""Shows that streams decode wherever they were made: encode here, verify there.

    python -m latentpress.scripts.check_exactness encode --data kodak --out streams --device cuda
    python -m latentpress.scripts.check_exactness verify streams --device cpu --threads 1

``verify`` decodes every symbol through the integer networks and compares their checksum with the encoder's,
so one different table anywhere is found. Combine with ``ATEN_CPU_CAPABILITY=default`` for other instruction
sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from latentpress.codecs.whole_files import write_whole

if TYPE_CHECKING:
    from latentpress.codecs import Codec

DEFAULT_QUALITIES = (5.0, 30.0, 50.0, 75.0, 100.0)

_codec: Codec


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if every stream is right, else 1."""
    parser = argparse.ArgumentParser(prog="check_exactness", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    encode = verbs.add_parser("encode", help="make streams of all pictures in a folder")
    encode.add_argument("--data", type=Path, required=True, help="folder of pictures")
    encode.add_argument("--out", type=Path, required=True, help="folder for the streams")
    encode.add_argument("--qualities", type=float, nargs="+", default=DEFAULT_QUALITIES)
    verify = verbs.add_parser("verify", help="decode all symbols of the streams in a folder")
    verify.add_argument("folder", type=Path)
    for verb in (encode, verify):
        verb.add_argument("--weights", default="image", help="shipped name or path of a weight file")
        verb.add_argument("--device", default="cpu")
        verb.add_argument("--threads", type=int, default=2, help="threads of a process")
        verb.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    if options.verb == "encode":
        options.out.mkdir(parents=True, exist_ok=True)
        pictures = sorted(p for p in options.data.iterdir() if p.is_file())
        tasks = [(str(p), q, str(options.out)) for p in pictures for q in options.qualities]
        results = _run(_encode, tasks, options)
        print(f"encoded {len(results)} streams, {sum(map(int, results))} bytes, on {_where(options)}")
        return 0
    streams = sorted(options.folder.glob("*.lpz"))
    results = _run(_verify, [(str(p),) for p in streams], options)
    wrong = [line for line in results if line]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"verified {len(streams)} streams on {_where(options)}: {len(wrong)} mismatches")
    return int(bool(wrong) or not streams)


def _run(work: Callable[..., str], tasks: list[tuple], options: argparse.Namespace) -> list[str]:
    settings = (options.weights, options.device, options.threads)
    if options.jobs == 1:
        _start(*settings)
        return [work(*task) for task in tasks]
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), _start, settings) as pool:
        return list(pool.map(work, *zip(*tasks, strict=True)))


def _start(weights: str, device: str, threads: int) -> None:
    """Loads the codec of this process."""
    import torch

    from latentpress.codecs import load

    torch.set_num_threads(threads)
    global _codec
    _codec = load(weights, device=device)


def _encode(picture: str, quality: float, out: str) -> str:
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(picture) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    data = _codec.compress(pixels, quality=quality)
    write_whole(Path(out) / f"{Path(picture).stem}-{quality:g}.lpz", data)
    return str(len(data))


def _verify(stream: str) -> str:
    from latentpress.codecs.bitstream import StreamError

    try:
        _codec.verify(Path(stream).read_bytes())
    except StreamError as error:
        return f"{stream}: {type(error).__name__}: {error}"
    return ""


def _where(options: argparse.Namespace) -> str:
    import torch

    on_cpu = options.device == "cpu"
    kind = torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name()
    return f"{options.device} ({kind}, {options.threads} threads, torch {torch.__version__})"


if __name__ == "__main__":
    sys.exit(main())
