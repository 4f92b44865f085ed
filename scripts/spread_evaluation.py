"""Evaluates a codec with several processes, one a GPU, and goes on where it was stopped.

    python -m latentpress.scripts.spread_evaluation --data FOLDER --out DIR --effort 10 --gpus 0 1 2 3

::

    pictures -> a free process each: latentpress eval -> DIR/parts/PICTURE.json -> join -> DIR/CODEC.json

A part is kept as soon as it is there, so nothing that was measured is lost when a process or the machine
is. The same command later measures what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from latentpress.codecs.registry import weights_path
from latentpress.codecs.weights import read_weight_file
from latentpress.scripts.codec_access import effort, positive_int, qualities
from latentpress.scripts.commands.evaluate import (
    DEFAULT_QUALITIES,
    anchors_for,
    print_evaluation,
)
from latentpress.scripts.failures import run_reported, warn
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.join_evaluations import joined, read_part, report_of
from latentpress.scripts.rate_distortion import find_pictures


class Settings(NamedTuple):
    """What is the same for every picture.

    Attributes:
        codec: Weights, by name or path.
        fingerprint: Theirs, hexadecimal.
        qualities: 0 to 100 each.
        effort: 0 to 10.
        threads: CPU threads of a process; None for all cores.
    """

    codec: str
    fingerprint: str
    qualities: tuple[float, ...]
    effort: int
    threads: int | None

    @property
    def report_name(self) -> str:
        """What ``latentpress eval`` calls its report."""
        return f"{Path(self.codec).stem}.json"


class PartFailed(Exception):
    """A picture could not be measured; the message is what the process said last."""


def is_measured(part: Path, picture: Path, settings: Settings) -> bool:
    """Whether a part is there and answers the question that is asked now.

    Args:
        part: Where it would be.
        picture: Which picture it is of.
        settings: What is asked.
    """
    try:
        found = read_part(part)
    except (OSError, ValueError):
        return False
    wanted = {(picture.name, quality) for quality in settings.qualities}
    return (
        found["fingerprint"] == settings.fingerprint
        and found["effort"] == settings.effort
        and {(row.picture, row.quality) for row in found["rows"]} == wanted
    )


def measure_picture(picture: Path, part: Path, settings: Settings, gpu: int | None) -> None:
    """Measures one picture in a process of its own.

    Args:
        picture: To measure.
        part: Where the report goes, whole or not at all.
        settings: How.
        gpu: Number of the only GPU that the process sees; None for the CPU.

    Raises:
        PartFailed: The process failed.
        OSError: The report cannot be written.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=part.parent) as place:
        alone = Path(place, "picture")
        alone.mkdir()
        (alone / picture.name).symlink_to(picture.resolve())
        command = _command(settings, alone, Path(place), gpu)
        environment = {**os.environ, **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise PartFailed(said[-1] if said else f"exit code {done.returncode}")
        Path(place, settings.report_name).replace(part)


def _command(settings: Settings, data: Path, out: Path, gpu: int | None) -> list[str]:
    options = {
        "--codec": settings.codec,
        "--data": str(data),
        "--qualities": ",".join(f"{quality:g}" for quality in settings.qualities),
        "--effort": str(settings.effort),
        "--device": "cpu" if gpu is None else "cuda",
        "--out": str(out),
    }
    if settings.threads is not None:
        options["--threads"] = str(settings.threads)
    words = [word for pair in options.items() for word in pair]
    return [sys.executable, "-m", "latentpress.scripts.cli", "eval", *words]


def measure_all(
    pictures: Sequence[Path], folder: Path, settings: Settings, places: Sequence[int | None]
) -> tuple[list[Path], int]:
    """Measures what is not measured yet, a picture at a time in each place.

    Args:
        pictures: With different names.
        folder: Of the parts.
        settings: How.
        places: GPUs, or None for each process on the CPU.

    Returns:
        The parts, in the order of the pictures, and how many are missing because they failed.
    """
    parts = {picture: folder / f"{picture.name}.json" for picture in pictures}
    todo = [picture for picture in pictures if not is_measured(parts[picture], picture, settings)]
    print(f"{len(pictures)} pictures, {len(pictures) - len(todo)} of them measured before", flush=True)
    free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for place in places:
        free.put(place)

    def work(picture: Path) -> None:
        place = free.get()
        try:
            measure_picture(picture, parts[picture], settings, place)
        finally:
            free.put(place)

    failed = 0
    with ThreadPoolExecutor(len(places)) as pool:
        running = {pool.submit(work, picture): picture for picture in todo}
        for future in as_completed(running):
            error = future.exception()
            if error is None:
                print(f"measured: {running[future].name}", flush=True)
            elif isinstance(error, PartFailed | OSError):
                failed += 1
                warn(running[future].name, str(error))
            else:
                pool.shutdown(cancel_futures=True)
                raise error
    return list(parts.values()), failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a picture failed, after the others were measured."""
    parser = argparse.ArgumentParser(prog="spread_evaluation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--codec", default="image", help="weights, by name or path (default: image)")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="of pictures")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--qualities", type=qualities, default=DEFAULT_QUALITIES, metavar="Q,Q,...")
    parser.add_argument("--effort", type=effort, default=0, metavar="N")
    parser.add_argument("--anchors", metavar="FILE", help="as of 'latentpress eval'")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads of each process")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--gpus", type=int, nargs="+", metavar="K", help="a process on each of these")
    where.add_argument("--jobs", type=positive_int, default=1, help="processes on the CPU (default: 1)")
    options = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "latentpress.scripts.spread_evaluation", *words])
    return run_reported(lambda: _run(options, command))


def _run(options: argparse.Namespace, command: str) -> int:
    fingerprint = read_weight_file(weights_path(options.codec)).fingerprint().hex()
    settings = Settings(options.codec, fingerprint, tuple(options.qualities), options.effort, options.threads)
    pictures = find_pictures(options.data)
    anchors = anchors_for(options.anchors, pictures)
    places = options.gpus or [None] * options.jobs
    paths, failed = measure_all(pictures, options.out / "parts", settings, places)
    if failed:
        print(f"{failed} of {len(pictures)} pictures failed: no report; the same command tries them again")
        return 1
    parts = [read_part(path) for path in paths]
    whole = joined(parts, anchors)
    print_evaluation(whole, f"effort {settings.effort}")
    target = options.out / settings.report_name
    report = report_of(parts, whole, command)
    write_bytes(str(target), json.dumps(report, indent=1).encode(), force=True)
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
