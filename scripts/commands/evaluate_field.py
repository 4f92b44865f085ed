"""``latentpress eval`` with a codec of fields: the measuring of one flow, its report and its plots."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from latentpress.scripts.failures import warn
from latentpress.scripts.file_io import write_bytes

if TYPE_CHECKING:
    from latentpress.codecs.field import FieldCodec


def run(args: argparse.Namespace, codec: FieldCodec) -> int:
    """Measures, prints the table, writes JSON and plots, and says where.

    Args:
        args: Arguments of ``latentpress eval``.
        codec: The codec to measure.

    Returns:
        The exit code.

    Raises:
        ValueError: The file holds no velocity field.
    """
    from latentpress.scripts.field_evaluation import Subject, compare, crossover, curves, table
    from latentpress.scripts.field_report import report_bytes
    from latentpress.scripts.fields import read_field

    field = read_field(args.data, args.variable, args.index)
    subject = Subject.of(field, args.periodic)
    name = args.name or Path(args.data).stem
    truth = subject.true.measure(subject.field)
    rows = compare(codec, subject, args.ratios, lambda text: warn(args.data, text))
    print(table(rows, truth))
    points = curves(codec, subject) if args.curves else []
    crossing = crossover(points)
    fingerprint = codec.fingerprint.hex()
    print(f"\n{name}, {' x '.join(map(str, field.shape))}, weights {fingerprint}, {args.device}")
    if points:
        where = "never" if crossing is None else f"from a byte ratio of {crossing:.0f} on"
        print(f"a smaller error than every installed codec: {where}")
    report = {
        "command": args.command,
        "codec": args.codec,
        "field": name,
        "shape": list(field.shape),
        "periodic": args.periodic,
        "truth": truth._asdict(),
        "rows": [row.as_json() for row in rows],
        "curves": [point._asdict() for point in points],
        "crossover": crossing,
    }
    out = Path(args.out)
    written = [out / f"{name}.json"]
    write_bytes(str(written[0]), report_bytes(report, fingerprint, str(codec.device)), force=True)
    if args.figures:
        from latentpress.scripts.field_figures import figures

        for kind, picture in figures(subject, rows, points, f"{name}, weights {fingerprint}").items():
            written.append(out / f"{name}-{kind}.png")
            write_bytes(str(written[-1]), picture, force=True)
    print(f"written: {', '.join(map(str, written))}")
    return 0
