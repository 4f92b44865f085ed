"""What energies in a stream give realistic decoders: ``python -m latentpress.scripts.field_small_scales``.

Usage::

    python -m latentpress.scripts.field_small_scales re80.npy re58.npy --ends periodic open --json scales.json

Every flow is coded at some byte ratios and restored by the realistic decoder, without divergence: as the
stream says, and from the same stream without its energies, where weights have to guess. Limits that a row
misses are named: energy in the shells 24 to 40 within 25 % of the truth's, skewness within 0.08, flatness
within 10 %, dissipation within 5 %, divergence at most 3 times the truth's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latentpress.codecs import inspect
from latentpress.codecs.bitstream import SectionType, read_container, write_container
from latentpress.codecs.field import FieldCodec
from latentpress.scripts.failures import run_reported
from latentpress.scripts.field_evaluation import DEFAULT_RATIOS, Subject
from latentpress.scripts.field_measures import Measures
from latentpress.scripts.field_report import add_flow_arguments, field_codec, write_report
from latentpress.scripts.fields import read_field
from latentpress.scripts.text_table import format_table

LIMITS: dict[str, Callable[[Measures, Measures], bool]] = {
    "E 24-40": lambda found, true: abs(found.small_scales - 1) <= 0.25,
    "skewness": lambda found, true: abs(found.skewness - true.skewness) <= 0.08,
    "flatness": lambda found, true: abs(found.flatness / true.flatness - 1) <= 0.1,
    "dissipation": lambda found, true: abs(found.gradient - 1) <= 0.05,
    "div": lambda found, true: found.divergence <= 3 * true.divergence,
}
"""By name: whether what is decoded keeps it, beside the truth."""

HEAD = (
    "flow",
    "ends",
    "ratio",
    "bytes",
    "NRMSE",
    "dissip.",
    "skewness",
    "flatness",
    "div",
    "E 24-40",
    "missed",
    "guessed: NRMSE",
    "flatness",
    "div",
    "E 24-40",
    "missed",
)


class Row(NamedTuple):
    """One flow at one byte ratio.

    Attributes:
        flow: Name of the file.
        periodic: It was coded as a periodic box.
        ratio: Of bytes that was asked for.
        bytes: Of the stream.
        section: Bytes that it would be smaller without energies; 0 if it has none.
        setting: Ratio and quality of the network.
        true: Measures of the flow itself.
        found: Of what the stream becomes.
        guessed: Of what it becomes without energies.
    """

    flow: str
    periodic: bool
    ratio: float
    bytes: int
    section: int
    setting: str
    true: Measures
    found: Measures
    guessed: Measures

    def as_json(self) -> dict[str, Any]:
        """Everything, with what is missed."""
        content = self._asdict()
        for name in ("true", "found", "guessed"):
            content[name] = getattr(self, name)._asdict()
        return content | {
            "missed": missed(self.found, self.true),
            "guessed_missed": missed(self.guessed, self.true),
        }


def missed(found: Measures, true: Measures) -> list[str]:
    """Names of the limits that are not kept."""
    return [name for name, keeps in LIMITS.items() if not keeps(found, true)]


def without_energies(data: bytes) -> bytes:
    """The same stream with the section of energies left out."""
    container = read_container(data)
    kept = [section for section in container.sections if section.type != SectionType.ENERGIES]
    return write_container(container.codec_id, container.fingerprint, kept)


def measured(codec: FieldCodec, flow: str, subject: Subject, ratio: float) -> Row:
    """A flow at a byte ratio.

    Raises:
        ValueError: The ratio is not reached.
    """
    field, true = subject.field, subject.true
    data = codec.compress(field, target_bytes=int(field.nbytes / ratio), periodic=subject.periodic)
    plain = without_energies(data)
    parameters = inspect(data).parameters

    def restored(stream: bytes) -> Measures:
        return true.measure(codec.decompress(stream, decoder="realistic", divergence_free=True).numpy())

    return Row(
        flow=flow,
        periodic=subject.periodic,
        ratio=ratio,
        bytes=len(data),
        section=len(data) - len(plain),
        setting=f"ratio {parameters['ratio']}, quality {parameters['quality']:g}",
        true=true.measure(field),
        found=restored(data),
        guessed=restored(plain),
    )


def table(rows: Sequence[Row]) -> str:
    """All rows; flatness and divergence over the truth's."""
    return format_table(HEAD, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    found, guessed, true = row.found, row.guessed, row.true
    return [
        row.flow,
        "periodic" if row.periodic else "open",
        f"{row.ratio:g}",
        str(row.bytes),
        f"{found.nrmse:.4f}",
        f"{found.gradient:.3f}",
        f"{found.skewness:.3f} / {true.skewness:.3f}",
        f"{found.flatness / true.flatness:.3f}",
        f"{found.divergence / true.divergence:.1f}",
        f"{found.small_scales:.2f}",
        ", ".join(missed(found, true)) or "-",
        f"{guessed.nrmse:.4f}",
        f"{guessed.flatness / true.flatness:.3f}",
        f"{guessed.divergence / true.divergence:.1f}",
        f"{guessed.small_scales:.2f}",
        ", ".join(missed(guessed, true)) or "-",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--ends",
        nargs="+",
        choices=("periodic", "open"),
        default=["periodic", "open"],
        help="what the flows are coded as (default: both)",
    )
    add_flow_arguments(parser, DEFAULT_RATIOS)
    options = parser.parse_args(argv)
    return run_reported(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    codec = field_codec(options)
    rows: list[Row] = []
    for path in options.flows:
        field = read_field(path, options.variable, options.index)
        for ends in options.ends:
            subject = Subject.of(field, ends == "periodic")
            rows += [measured(codec, Path(path).stem, subject, ratio) for ratio in options.ratios]
            print(f"{path}, {ends}: measured", file=sys.stderr, flush=True)
    print(table(rows))
    if options.json:
        write_report(options.json, {"rows": [row.as_json() for row in rows]}, codec, options.device)


if __name__ == "__main__":
    sys.exit(main())
