"""Makes one report of the parts of an evaluation that was spread over several GPUs.

    python -m latentpress.scripts.join_evaluations PART.json ... --out FILE.json [--anchors ANCHORS.json]

A part is what ``latentpress eval`` wrote about some of the pictures or some of the qualities. What follows
from the rows is worked out again, as if all had been measured at once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpress.scripts.commands.evaluate import Evaluation, evaluation_of, findings, read_anchors
from latentpress.scripts.failures import UsageError, run_reported
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.rate_distortion import Row
from latentpress.train.metrics.anchors import RatePoints

SAME_IN_ALL_PARTS = ("codec", "effort", "fingerprint", "device", "versions")
# In the order of the reports of `latentpress eval`.
_CONDITIONS = ("codec", "effort", "fingerprint", "device", "threads", "python", "machine", "versions")


def read_part(path: Path) -> dict[str, Any]:
    """Reads a report, its rows as :class:`~latentpress.scripts.rate_distortion.Row`.

    Args:
        path: JSON that ``latentpress eval`` wrote.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no report on pictures.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        part = {name: content[name] for name in ("date", *_CONDITIONS, "rows")}
        part["rows"] = [_row(row) for row in part["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no report of 'latentpress eval' on pictures: {error!r}") from error
    return part


def joined(parts: Sequence[Mapping[str, Any]], anchors: Mapping[str, RatePoints]) -> Evaluation:
    """One evaluation of several parts, as if all had been measured at once.

    Args:
        parts: From `read_part`, at least one.
        anchors: Curves to compare with, by name; may be empty.

    Raises:
        ValueError: The parts do not belong together, or rows are there twice or missing.
    """
    for name in SAME_IN_ALL_PARTS:
        check_same(name, [part[name] for part in parts])
    rows = sorted((row for part in parts for row in part["rows"]), key=lambda row: (row.picture, row.quality))
    check_complete(rows)
    return evaluation_of(rows, anchors, parts[0]["fingerprint"])


def report_of(parts: Sequence[Mapping[str, Any]], whole: Evaluation, command: str) -> dict[str, Any]:
    """The report of parts that were joined.

    Args:
        parts: What was joined.
        whole: What `joined` made of them.
        command: What the report says it was made by.

    Returns:
        A report of the form ``latentpress eval`` writes. What may differ, as ``threads``, is None if it does.
    """
    return {
        "command": command,
        "date": max((part["date"] for part in parts), key=datetime.datetime.fromisoformat),
        **{name: _common([part[name] for part in parts]) for name in _CONDITIONS},
        **findings(whole),
    }


def check_same(name: str, values: Sequence[object]) -> None:
    """Refuses values that are not all equal.

    Args:
        name: What they are, for the message.
        values: One of each part.

    Raises:
        ValueError: They differ.

    Example:
        >>> check_same("effort", [0, 0, 3])
        Traceback (most recent call last):
        ValueError: the parts differ in effort: 0 and 3
    """
    for value in values:
        if value != values[0]:
            raise ValueError(f"the parts differ in {name}: {values[0]} and {value}")


def check_complete(rows: Sequence[Row]) -> None:
    """Refuses rows that are not every picture at every quality, once.

    Args:
        rows: Of all parts.

    Raises:
        ValueError: A row is there twice, or one is missing: averages would be over different pictures.
    """
    qualities: dict[str, set[float]] = {}
    for row in rows:
        own = qualities.setdefault(row.picture, set())
        if row.quality in own:
            raise ValueError(f"{row.picture} at quality {row.quality:g} is there twice")
        own.add(row.quality)
    everything = set().union(*qualities.values())
    for picture, own in qualities.items():
        missing = ", ".join(f"{quality:g}" for quality in sorted(everything - own))
        if missing:
            raise ValueError(f"{picture} lacks quality {missing}, which other pictures have")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a file cannot be read, 2 if the parts do not belong together."""
    parser = argparse.ArgumentParser(prog="join_evaluations", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="+", type=Path, metavar="PART", help="JSON of 'latentpress eval'")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSON of the whole")
    parser.add_argument("--anchors", type=Path, metavar="FILE", help="as of that command (default: none)")
    options = parser.parse_args(arguments)
    return run_reported(lambda: _join_files(options))


def _join_files(options: argparse.Namespace) -> None:
    anchors = read_anchors(str(options.anchors)) if options.anchors else {}
    parts = [read_part(path) for path in options.parts]
    try:
        report = report_of(parts, joined(parts, anchors), _command(options))
    except ValueError as error:
        raise UsageError(str(error)) from error
    write_bytes(str(options.out), json.dumps(report, indent=1).encode(), force=True)
    print(f"written: {options.out}, {report['pictures']} pictures at {len(report['means'])} qualities")


def _command(options: argparse.Namespace) -> str:
    """The command with names of files only: folders say nothing to who reads the report elsewhere."""
    words = ["python", "-m", "latentpress.scripts.join_evaluations", *(path.name for path in options.parts)]
    words += ["--out", options.out.name]
    return shlex.join(words + (["--anchors", options.anchors.name] if options.anchors else []))


def _common(values: Sequence[object]) -> object:
    return values[0] if all(value == values[0] for value in values) else None


def _row(record: Mapping[str, Any]) -> Row:
    """The row as it was measured: null stands for the PSNR of equal pictures, which is infinite."""
    return Row(**{**record, "psnr": math.inf if record["psnr"] is None else record["psnr"]})


if __name__ == "__main__":
    sys.exit(main())
