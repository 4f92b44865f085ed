"""Measures what folders promise: two processes are faster than one, and kills cost nothing but time.

    python -m latentpress.scripts.check_batch --weights image

Pictures are generated from a fixed seed. First the folder is encoded with one process and with two. Then a
run with two processes is killed again and again at random moments, every other time with its workers, and
resumed; at the end every file must be there, no finished one may have been made twice, and all must verify.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from latentpress.scripts.batch_pool import default_threads
from latentpress.scripts.codec_access import positive_int

WANTED_SPEEDUP = 1.7


@dataclass(frozen=True)
class Kills:
    """What was left after all kills and the last, undisturbed run.

    Attributes:
        finished: How many files there were after each kill.
        files: How many there were at the end.
        remade: How many were made again although they were finished.
        verified: Whether all verify.
        unfinished: How many temporary files were left.
    """

    finished: list[int]
    files: int
    remade: int
    verified: bool
    unfinished: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if everything that was promised holds, else 1."""
    parser = argparse.ArgumentParser(prog="check_batch", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="image", help="shipped name or path of a weight file")
    parser.add_argument("--files", type=positive_int, default=200)
    parser.add_argument("--kills", type=positive_int, default=10)
    parser.add_argument("--width", type=positive_int, default=256)
    parser.add_argument("--height", type=positive_int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        draw_pictures(pictures, options.files, options.width, options.height, options.seed)
        print(
            f"{options.files} pictures of {options.width} x {options.height}, weights {options.weights}, "
            f"{default_threads(1)} cores"
        )
        one, two = _measure_speed(pictures, Path(folder), options)
        kills = _measure_kills(pictures, Path(folder) / "killed", options)
    speedup = one / two
    whole = kills.files == options.files and kills.verified and not kills.remade and not kills.unfinished
    print(f"two processes are {speedup:.2f} times as fast as one (wanted: {WANTED_SPEEDUP})")
    print(
        f"{options.kills} kills left {', '.join(map(str, kills.finished))} files; at the end {kills.files}, "
        f"{'all verify' if kills.verified else 'NOT ALL VERIFY'}, {kills.remade} made twice, "
        f"{kills.unfinished} temporary files"
    )
    return int(speedup < WANTED_SPEEDUP or not whole)


def draw_pictures(folder: Path, count: int, width: int, height: int, seed: int) -> None:
    """Writes pictures with waves, steps and noise, the same for the same seed, into ten folders.

    Args:
        folder: Where.
        count: How many.
        width: Of each.
        height: Of each.
        seed: Decides what is in them.
    """
    random_numbers = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    for k in range(count):
        slope, noise = random_numbers.uniform(4, 40, (3, 2)), random_numbers.normal(0, 12, (height, width))
        waves = [127 + 90 * np.sin(x / a) * np.cos(y / b) for a, b in slope]
        steps = 50 * ((x // 37 + y // 29 + k) % 2) * (x > width // 2)
        pixels = np.stack([wave + steps + noise * (y > height // 2) for wave in waves], axis=-1)
        path = folder / f"{k % 10}" / f"{k:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def _measure_speed(pictures: Path, folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of whole runs, start of the processes included: one process, and two; a thread in each."""
    seconds: list[float] = []
    for jobs, extra in ((1, ["--threads", "1"]), (2, ["--threads", "1"]), (1, [])):
        out = folder / f"out-{jobs}-{len(extra)}"
        start, used = time.perf_counter(), _processor_seconds()
        done = subprocess.run(_encode(pictures, out, jobs, options.weights, *extra), stdout=subprocess.PIPE)
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise SystemExit(done.returncode)
        threads = extra[1] if extra else default_threads(jobs)
        rate, used = options.files / seconds[-1], _processor_seconds() - used
        print(
            f"{jobs} processes of {threads} threads: {seconds[-1]:.1f} s, {rate:.2f} files/s, "
            f"{used:.1f} s of processor time",
            flush=True,
        )
        shutil.rmtree(out)
    return seconds[0], seconds[1]


def _measure_kills(pictures: Path, out: Path, options: argparse.Namespace) -> Kills:
    moments = random.Random(options.seed)
    command = _encode(pictures, out, 2, options.weights)
    before: dict[str, int] = {}
    finished: list[int] = []
    remade: set[str] = set()
    for k in range(options.kills):
        # Without stderr, where Python says that the killed process had semaphores.
        quiet = subprocess.DEVNULL
        run = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
        # Counted in files, so that a slow machine is not only killed while it starts; 0 is somewhere there.
        share = moments.randint(0, 2 * options.files // (options.kills + 1))
        while share and run.poll() is None and len(_times(out)) < min(len(before) + share, options.files):
            time.sleep(0.001)
        with suppress(subprocess.TimeoutExpired):
            run.wait(moments.uniform(0.0, 0.1 if share else 3.0))
        with suppress(ProcessLookupError):  # it may just have finished
            os.killpg(run.pid, signal.SIGKILL) if k % 2 else run.kill()
        run.wait()
        _wait_for_workers(run.pid)
        after = _times(out)
        remade |= {name for name in before if after.get(name) != before[name]}
        before = after
        finished.append(len(after))
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    after = _times(out)
    remade |= {name for name in before if after.get(name) != before[name]}
    verify = [sys.executable, "-m", "latentpress.scripts.cli", "verify", "--codec", options.weights]
    files = [str(out / name) for name in after]
    verified = subprocess.run([*verify, *files], stdout=subprocess.DEVNULL).returncode == 0
    return Kills(finished, len(after), len(remade), verified, len(list(out.rglob("*.part"))))


def _encode(pictures: Path, out: Path, jobs: int, weights: str, *extra: str) -> list[str]:
    command = [sys.executable, "-m", "latentpress.scripts.cli", "encode", str(pictures), "--out", str(out)]
    return [*command, "--jobs", str(jobs), "--codec", weights, *extra]


def _processor_seconds() -> float:
    """What ended children have used: on a machine that does something else too, time passes without it."""
    used = os.times()
    return used.children_user + used.children_system


def _times(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.rglob("*.lpz"))}


def _wait_for_workers(group: int) -> None:
    """Workers end by themselves when their parent does, and may finish a file until then."""
    with suppress(ProcessLookupError):
        for _ in range(3000):
            os.killpg(group, 0)
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
