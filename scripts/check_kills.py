"""Kills ``latentpress encode`` at random moments and looks for half a file under the final name.

    python -m latentpress.scripts.check_kills --kills 50

A picture is encoded once, undisturbed. Then the same command is started again and again and killed with
SIGKILL: every other time at any moment of its run, otherwise within milliseconds of its beginning to write,
where half a file could come from. Half of the time there is an older file under the name already. What is
found there afterwards has to be nothing or all of the new file, or, if there was one, the old or the new.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from latentpress.codecs.whole_files import remove_abandoned
from latentpress.scripts.check_batch import draw_pictures
from latentpress.scripts.codec_access import positive_int

OLD = b"an older file"

_LONGEST_WRITE = 0.004
"""Seconds after the beginning of writing within which a process is killed."""


class Kill(NamedTuple):
    """One kill and what it left.

    Attributes:
        seconds: After the start of the process.
        aimed: Whether it was aimed at the moment of writing.
        left: ``nothing``, ``old``, ``new`` or ``half a file``.
        unfinished: Whether a temporary file was left.
        alive: Whether the process was still running.
    """

    seconds: float
    aimed: bool
    left: str
    unfinished: bool
    alive: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if there never was half a file, else 1."""
    parser = argparse.ArgumentParser(prog="check_kills", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="image", help="shipped name or path of a weight file")
    parser.add_argument("--kills", type=positive_int, default=50)
    parser.add_argument("--width", type=positive_int, default=256)
    parser.add_argument("--height", type=positive_int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        draw_pictures(Path(name) / "pictures", 1, options.width, options.height, options.seed)
        picture = next((Path(name) / "pictures").rglob("*.png"))
        out = Path(name) / "out" / "picture.lpz"
        command = [sys.executable, "-m", "latentpress.scripts.cli", "encode", str(picture), "-o", str(out)]
        command += ["--force", "--codec", options.weights]
        kills = kill_again_and_again(command, out, options.kills, options.seed)
        cleaned = not list(out.parent.glob(".latentpress-*"))
    for left in sorted({kill.left for kill in kills}):
        print(f"{left}: {sum(kill.left == left for kill in kills)}")
    halves = sum(kill.left == "half a file" for kill in kills)
    print(
        f"{len(kills)} kills after {min(kills).seconds:.2f} to {max(kills).seconds:.2f} s, "
        f"{sum(kill.alive for kill in kills)} of a running process, "
        f"{sum(kill.unfinished for kill in kills)} left a temporary file, "
        f"{'removed as by a next run' if cleaned else 'NOT ALL REMOVED'}; half a file: {halves}"
    )
    return int(bool(halves) or not cleaned)


def kill_again_and_again(command: Sequence[str], out: Path, count: int, seed: int) -> list[Kill]:
    """Kills a command and looks at what it should have written.

    Args:
        command: It writes the same bytes every time.
        out: Where to, in a folder of its own.
        count: How many times.
        seed: Decides the moments.

    Returns:
        What each left.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, new = time.perf_counter() - start, out.read_bytes()
    moments = random.Random(seed)
    kills = []
    for number in range(count):
        old = OLD if number // 2 % 2 else None
        out.unlink(missing_ok=True)
        if old is not None:
            out.write_bytes(old)
        aimed = bool(number % 2)
        moment = moments.uniform(0, _LONGEST_WRITE if aimed else 1.1 * seconds)
        alive, taken = _run_and_kill(command, moment, _writing(out.parent) if aimed else None)
        content = out.read_bytes() if out.exists() else None
        left = {None: "nothing", OLD: "old", new: "new"}.get(content, "half a file")
        if content is None and old is not None:
            left = "half a file"  # the old one has gone, and the new one is not there
        unfinished = remove_abandoned(out.parent) > 0
        kills.append(Kill(taken, aimed, left, unfinished, alive))
    return kills


def _run_and_kill(
    command: Sequence[str], moment: float, begins: Callable[[], bool] | None
) -> tuple[bool, float]:
    """Whether a process was still alive when it was killed, and after how many seconds that was.

    Args:
        command: To run.
        moment: When to kill it, in seconds after its start or after what ``begins`` says.
        begins: Asked again and again; None for the start of the process.
    """
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while begins is not None and process.poll() is None and not begins():
            pass  # every millisecond counts
        time.sleep(moment)
        alive = process.poll() is None
        process.kill()
    return alive, time.perf_counter() - start


def _writing(folder: Path) -> Callable[[], bool]:
    return lambda: any(folder.glob(".latentpress-*.part"))


if __name__ == "__main__":
    sys.exit(main())
