"""Kills ``latentpress encode`` at random moments and looks for half a file under the final name.

    python -m latentpress.scripts.check_kills --kills 50

A picture is encoded once, undisturbed. Then the same command is started again and again and ends by SIGKILL:
every other time when it has used a random share of the processor time that it takes, otherwise just before
one of the operations on files by which it writes: open, lock, set the mode, rename. Half of the time there is
an older file under the name already. What is found there afterwards has to be nothing or all of the new file,
or, if there was one, the old or the new. It needs Linux, for the processor time of another process.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from latentpress.codecs.whole_files import remove_abandoned
from latentpress.scripts.check_batch import draw_pictures
from latentpress.scripts.codec_access import positive_int

OLD = b"an older file"

OPERATIONS = 5
"""On files, from the opening of the temporary one to its renaming."""

# Runs the command line and is killed before an operation on files; 0 for none.
_KILLED_WHILE_WRITING = """
import os
import signal
import sys

seen = 0


def notice(event, arguments):
    global seen
    if seen or (event == "open" and str(arguments[0]).endswith(".part")):
        seen += 1
        if seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(notice)
from latentpress.scripts.cli import main

sys.exit(main(sys.argv[2:]))
"""


class Kill(NamedTuple):
    """One kill and what it left.

    Attributes:
        left: ``nothing``, ``old``, ``new`` or ``half a file``.
        unfinished: Whether a temporary file was left.
        alive: Whether the process was still running when it was killed.
    """

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
        arguments = ["encode", str(picture), "-o", str(out), "--force", "--codec", options.weights]
        kills = kill_again_and_again(arguments, out, options.kills, options.seed)
        cleaned = not list(out.parent.glob(".latentpress-*"))
    for left in sorted({kill.left for kill in kills}):
        print(f"{left}: {sum(kill.left == left for kill in kills)}")
    halves = sum(kill.left == "half a file" for kill in kills)
    print(
        f"{len(kills)} kills, {sum(kill.alive for kill in kills)} of a running process, "
        f"{sum(kill.unfinished for kill in kills)} left a temporary file, "
        f"{'removed as by a next run' if cleaned else 'NOT ALL REMOVED'}; half a file: {halves}"
    )
    return int(bool(halves) or not cleaned)


def kill_again_and_again(
    arguments: Sequence[str], out: Path, count: int, seed: int, program: str = _KILLED_WHILE_WRITING
) -> list[Kill]:
    """Kills a command and looks at what it should have written.

    Args:
        arguments: Of the program; it writes the same bytes every time.
        out: Where to, in a folder of its own.
        count: How many times.
        seed: Decides the moments.
        program: In Python; gets the number of the operation before which it has to be killed, then the
            arguments.

    Returns:
        What each left.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    start = [sys.executable, "-c", program]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*start, "0", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, new = _processor_seconds(after) - _processor_seconds(before), out.read_bytes()
    moments = random.Random(seed)
    kills = []
    for number in range(count):
        old = OLD if number // 2 % 2 else None
        out.unlink(missing_ok=True)
        if old is not None:
            out.write_bytes(old)
        operation = moments.randint(1, OPERATIONS) if number % 2 else 0
        moment = math.inf if operation else moments.uniform(0, seconds)
        alive = _run_and_kill([*start, str(operation), *arguments], moment)
        content = out.read_bytes() if out.exists() else None
        left = {None: "nothing", OLD: "old", new: "new"}.get(content, "half a file")
        if content is None and old is not None:
            left = "half a file"  # the old one has gone, and the new one is not there
        kills.append(Kill(left, remove_abandoned(out.parent) > 0, alive))
    return kills


def _run_and_kill(command: Sequence[str], moment: float) -> bool:
    """Runs a command that kills itself, or kills it when it has used some seconds of processor time.

    Returns:
        Whether it was killed rather than done.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and _used_by(process.pid) < moment:
            time.sleep(0.001)
        process.kill()
    return process.returncode == -signal.SIGKILL


def _used_by(pid: int) -> float:
    """Processor time of a process in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor_seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
