"""Fuzzes every decoder, each with a share of the inputs that fits its size, and says what came of it.

    python -m latentpress.scripts.fuzz_campaign --inputs 1000000 --minutes 90 --weights FOLDER --out FILE

FOLDER holds small weights as ``image_tiny.safetensors`` and so on, such as ``tests/golden/v1``; a target
whose weights neither lie there nor ship is named as skipped. Every target runs in a process of its own, one
after the other. Table and JSON file say for each how many inputs were run in how many seconds, how many edges
of the code they reached (and how many of these the seeds alone reach), the slowest input, the peak of memory,
and whether an input failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from latentpress.codecs.weights import shipped_weights
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.fuzz import FAMILIES, TARGETS
from latentpress.scripts.text_table import format_table

SHARES = {
    "container": 15,
    "symbols": 15,
    "weights": 6,
    "card": 2,
    "pillow": 4,
    "alpha": 2,
    "alpha-symbols": 2,
    "picture": 3,
    "field-blocks": 2,
    "field-energies": 1,
    "image": 5,
    "image-max": 3,
    "index": 6,
    "field": 11,
    "shape": 4,
    "image-symbols": 5,
    "image-max-symbols": 2,
    "index-symbols": 3,
    "field-symbols": 6,
    "shape-symbols": 3,
}
"""Per cent of the inputs: more for what any stream goes through, fewer where one takes a network's time."""

MOST_FAILURES = 3
"""Of a target, before it is left."""

HEAD = ("target", "inputs", "seconds", "edges", "of seeds", "slowest s", "peak MB", "failed")


class Outcome(NamedTuple):
    """What came of one target.

    Attributes:
        target: Its name.
        inputs: How many were run.
        seconds: For how long.
        edges: Of the instrumented code that were reached; 0 if nobody said.
        seed_edges: Of these, how many the seeds reach.
        slowest: Seconds of processor time of the slowest input; 0.1 stands for no more.
        peak_mb: Most memory of the process.
        failed: How many inputs ended a search.
        skipped: Why nothing was run; empty if something was.
    """

    target: str
    inputs: int = 0
    seconds: float = 0.0
    edges: int = 0
    seed_edges: int = 0
    slowest: float = 0.0
    peak_mb: int = 0
    failed: int = 0
    skipped: str = ""


def read_outcome(target: str, log: str, seconds: float, code: int) -> Outcome:
    r"""Reads what libFuzzer printed.

    Args:
        target: Its name.
        log: All of it.
        seconds: How long it took.
        code: Exit code of the process.

    Example:
        >>> log = "#9 INITED cov: 5 ft: 6\n#90 DONE cov: 7 ft: 9\nstat::number_of_executed_units: 90"
        >>> read_outcome("card", log, 1.5, 0)[:5]
        ('card', 90, 1.5, 7, 5)
    """
    edges = [int(found) for found in re.findall(r"cov: (\d+)", log)]
    started = re.search(r"INITED +cov: (\d+)", log)
    runs = [int(found) for found in re.findall(r"^#(\d+)\t", log, re.MULTILINE)]

    def stat(name: str) -> int:
        found = re.search(rf"stat::{name}: +(\d+)", log)
        return int(found[1]) if found else 0

    return Outcome(
        target,
        inputs=stat("number_of_executed_units") or max(runs, default=0),
        seconds=seconds,
        edges=max(edges, default=0),
        seed_edges=int(started[1]) if started else 0,
        slowest=max([0.1, *map(float, re.findall(r"slowest input so far: ([0-9.]+)", log))]),
        peak_mb=stat("peak_rss_mb"),
        failed=int(code != 0),
    )


def run_target(target: str, inputs: int, seconds: float, weights: Path | None, corpus: Path) -> Outcome:
    """Fuzzes one target until it has had its inputs or its time.

    Args:
        target: Its name.
        inputs: At most.
        seconds: At most.
        weights: Folder of small weights.
        corpus: Folder for corpora.
    """
    command = [sys.executable, "-m", "latentpress.scripts.fuzz", target]
    command += ["--runs", str(inputs), "--seconds", str(max(1, round(seconds)))]
    command += ["--corpus", str(corpus / target)]
    family = "image" if target == "picture" else target.removesuffix("-symbols").removesuffix("-blocks")
    if family in FAMILIES:
        small = None if weights is None else weights / f"{family}_tiny.safetensors"
        if small is not None and small.is_file():
            command += ["--weights", str(small)]
        elif family not in shipped_weights() and family != "field":
            return Outcome(target, skipped="no weights")
    start = time.perf_counter()
    found = Outcome(target)
    # An input that fails ends a search, but not the campaign.
    while found.failed < MOST_FAILURES:
        command[command.index("--runs") + 1] = str(inputs - found.inputs)
        command[command.index("--seconds") + 1] = str(max(1, round(seconds - found.seconds)))
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        one = read_outcome(target, done.stderr, 0.0, done.returncode)
        found = Outcome(
            target,
            inputs=found.inputs + one.inputs,
            seconds=time.perf_counter() - start,
            edges=max(found.edges, one.edges),
            seed_edges=found.seed_edges or one.seed_edges,
            slowest=max(found.slowest, one.slowest),
            peak_mb=max(found.peak_mb, one.peak_mb),
            failed=found.failed + one.failed,
        )
        if not done.returncode:
            break
        print(done.stderr[-4000:], file=sys.stderr)
    return found


def outcomes_of_others(path: Path | None, targets: Sequence[str]) -> list[Outcome]:
    """What an earlier campaign wrote to a file about other targets; a campaign can be run in parts."""
    if path is None or not path.is_file():
        return []
    found = [Outcome(**one) for one in json.loads(path.read_text("utf-8"))["outcomes"]]
    return [one for one in found if one.target not in targets]


def table(outcomes: Iterable[Outcome]) -> str:
    """The outcomes and their sum.

    Example:
        >>> print(table([Outcome("card", 90, 1.5, 7, 5), Outcome("shape", skipped="no weights")]))
        target  inputs  seconds  edges  of seeds  slowest s  peak MB      failed
        ------  ------  -------  -----  --------  ---------  -------  ----------
        card        90        2      7         5        0.0        0           0
        shape        0        0      0         0        0.0        0  no weights
        all         90        2                                                0
    """
    outcomes = list(outcomes)
    rows = [
        [
            one.target,
            f"{one.inputs:,}",
            f"{one.seconds:.0f}",
            str(one.edges),
            str(one.seed_edges),
            f"{one.slowest:.1f}",
            str(one.peak_mb),
            one.skipped or str(one.failed),
        ]
        for one in outcomes
    ]
    total = sum(one.inputs for one in outcomes)
    seconds = sum(one.seconds for one in outcomes)
    failed = sum(one.failed for one in outcomes)
    rows.append(["all", f"{total:,}", f"{seconds:.0f}", "", "", "", "", str(failed)])
    return format_table(HEAD, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaign.

    Args:
        arguments: None for those of the process.

    Returns:
        1 if an input failed or atheris is missing, otherwise 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.fuzz_campaign", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in all (default: 1000000)")
    parser.add_argument(
        "--minutes", type=float, default=90.0, help="in all; a target may use up its share (default: 90)"
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="default: all")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="of small weights (default: shipped)")
    parser.add_argument("--corpus", type=Path, default=Path("runs/fuzz"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of the outcomes")
    args = parser.parse_args(arguments)
    try:
        import atheris  # noqa: F401 - in the targets' processes it is too late to say so once
    except ModuleNotFoundError:
        print("fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 1
    outcomes = outcomes_of_others(args.out, args.targets)
    end = time.monotonic() + 60 * args.minutes
    whole = sum(SHARES[target] for target in args.targets)
    # Quick targets first: what they leave of the time goes to the others.
    order = sorted(args.targets, key=lambda target: target.removesuffix("-symbols") in FAMILIES)
    for number, target in enumerate(order):
        left = (end - time.monotonic()) / (len(order) - number)
        inputs = round(args.inputs * SHARES[target] / whole)
        outcomes.append(run_target(target, inputs, left, args.weights, args.corpus))
        print(f"{target}: {outcomes[-1].inputs:,} inputs in {outcomes[-1].seconds:.0f} s", flush=True)
        if args.out is not None:
            content = {"inputs": args.inputs, "outcomes": [one._asdict() for one in outcomes]}
            write_bytes(str(args.out), (json.dumps(content, indent=1) + "\n").encode(), force=True)
    print(table(outcomes))
    return int(any(one.failed for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
