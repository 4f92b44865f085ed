"""Whether the lead over SPERR lasts on other flows: ``python -m latentpress.scripts.field_advantage``.

Usage::

    python -m latentpress.scripts.field_advantage --periodic re60.npy re100.npy --json advantage.json

The first file is a flow like those that the weights were trained on; each of the others is held against it.
What is compared is the error of the codec over that of SPERR in as many bytes: 0.4 is an advantage of a
factor of 2.5, and if it becomes 0.5 on another flow, a fifth of that factor is lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from latentpress.codecs.field import FieldCodec
from latentpress.scripts.failures import run_reported
from latentpress.scripts.field_evaluation import DEFAULT_RATIOS, Subject, evaluate_codec, evaluate_peer
from latentpress.scripts.field_peers import sperr
from latentpress.scripts.field_report import add_flow_arguments, field_codec, write_report
from latentpress.scripts.fields import read_field
from latentpress.scripts.text_table import format_table

DECODER = "divergence-free"
"""Ending of the name of the decoder that is compared: velocities have no divergence."""


class Lead(NamedTuple):
    """Errors of the codec and of SPERR in as many bytes.

    Attributes:
        flow: Name of the file.
        ratio: Of bytes that was asked for.
        found: That of the codec's stream.
        nrmse: Of the codec.
        sperr: Of SPERR, in so many bytes or a few more.
    """

    flow: str
    ratio: float
    found: float
    nrmse: float
    sperr: float

    @property
    def share(self) -> float:
        """The codec's error over SPERR's."""
        return self.nrmse / self.sperr


def leads(
    codec: FieldCodec, flow: str, subject: Subject, ratios: Sequence[float], threads: int
) -> list[Lead]:
    """Errors on one flow at some byte ratios.

    Raises:
        ValueError: A ratio is not reached.
    """
    found = []
    for ratio in ratios:
        own = next(r for r in evaluate_codec(codec, subject, ratio) if r.codec.endswith(DECODER))
        peer = evaluate_peer(sperr(threads), subject, own.ratio)
        found.append(Lead(flow, ratio, own.ratio, own.measures.nrmse, peer.measures.nrmse))
    return found


def lost(first: Lead, other: Lead) -> float:
    """The share of the first flow's factor that is not there on the other.

    Example:
        >>> round(lost(Lead("a", 64, 64, 0.4, 1.0), Lead("b", 64, 64, 0.5, 1.0)), 6)
        0.2
    """
    return 1 - first.share / other.share


def table(rows: Sequence[Lead]) -> str:
    """Everything found, the first flow's rows first."""
    first = {row.ratio: row for row in rows if row.flow == rows[0].flow}
    head = ("flow", "ratio", "found", "NRMSE", "SPERR", "share", "lost")
    body = [
        (
            row.flow,
            f"{row.ratio:g}",
            f"{row.found:.0f}",
            f"{row.nrmse:.5f}",
            f"{row.sperr:.5f}",
            f"{row.share:.3f}",
            "" if row.flow == rows[0].flow else f"{100 * lost(first[row.ratio], row):.1f} %",
        )
        for row in rows
    ]
    return format_table(head, body)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--periodic", action="store_true", help="they are whole periodic boxes")
    add_flow_arguments(parser, DEFAULT_RATIOS)
    options = parser.parse_args(argv)
    return run_reported(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    codec = field_codec(options)
    rows: list[Lead] = []
    for path in options.flows:
        subject = Subject.of(read_field(path, options.variable, options.index), options.periodic)
        rows += leads(codec, Path(path).stem, subject, options.ratios, options.threads)
        print(f"{path}: measured", file=sys.stderr, flush=True)
    print(table(rows))
    if options.json:
        content = {"periodic": options.periodic, "rows": [row._asdict() for row in rows]}
        write_report(options.json, content, codec, options.device)


if __name__ == "__main__":
    sys.exit(main())
