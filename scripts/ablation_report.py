"""What ablations found, for a reader: a table and a plot of one run, or of several together.

    python -m latentpress.scripts.ablation_report RUN/ablation.json ... --out DIR

A run is what :mod:`latentpress.scripts.ablation` wrote. Runs with one seed are parts of one comparison, as
when variants are spread over several GPUs. Every variant is held against the complete model of its own seed,
and the differences are averaged; how far they are apart says what a difference is worth.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.scripts.text_table import format_table
from latentpress.train.metrics.bd_rate import bd_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMPLETE = "complete"
_SAME_IN_ALL_RUNS = ("size", "steps", "batch_size", "lr", "pictures")


def difference(reference: Sequence[Mapping[str, float]], points: Sequence[Mapping[str, float]]) -> float:
    """Bits against a reference at equal PSNR, in percent.

    Args:
        reference: Fields of :class:`latentpress.train.short_run.Point`, one mapping a quality.
        points: The same of what is compared.

    Raises:
        ValueError: One of the curves does not rise, or they share no PSNR.

    Example:
        >>> curve = [{"quality": q, "bpp": 0.1 * 2**q, "psnr": 30.0 + q} for q in range(4)]
        >>> round(difference(curve, [{**p, "bpp": 1.1 * p["bpp"]} for p in curve]), 6)
        10.0
    """
    columns = [[p[name] for p in curve] for curve in (reference, points) for name in ("bpp", "psnr")]
    return bd_rate(*columns)


def add_bd_rates(records: Sequence[dict[str, Any]]) -> None:
    """Adds to each record its bits against its reference, or against the complete model without one.

    Args:
        records: Of variants of one seed, changed in place: ``bd_rate``, None with a ``bd_rate_note`` where
            there is none.
    """
    complete = next((r for r in records if r["variant"] == COMPLETE and "points" in r), None)
    for record in records:
        record["bd_rate"] = None
        reference = record.get("reference", complete["points"] if complete else None)
        if reference is None or "points" not in record:
            continue
        try:
            record["bd_rate"] = difference(reference, record["points"])
        except ValueError as error:
            record["bd_rate_note"] = str(error)


def join(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One report of several runs.

    Args:
        runs: Contents of ``ablation.json``.

    Returns:
        Settings of the first run, ``seeds``, and ``variants``: of each the means of what its records hold,
        and ``bd_rates``, one a seed.

    Raises:
        ValueError: The runs are not comparable, or a variant is there twice for one seed.
    """
    for name in _SAME_IN_ALL_RUNS:
        values = sorted({str(run[name]) for run in runs})
        if len(values) > 1:
            raise ValueError(f"runs differ in {name}: {', '.join(values)}")
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for run in runs:
        records = by_seed.setdefault(run["seed"], {})
        for record in run["variants"]:
            if record["variant"] in records:
                raise ValueError(f"{record['variant']!r} is there twice for the seed {run['seed']}")
            records[record["variant"]] = dict(record)
    for records in by_seed.values():
        add_bd_rates(list(records.values()))
    names = dict.fromkeys(name for records in by_seed.values() for name in records)
    ordered = sorted(names, key=lambda name: name != COMPLETE)
    found = [[records[name] for records in by_seed.values() if name in records] for name in ordered]
    settings = {name: value for name, value in runs[0].items() if name not in ("seed", "variants")}
    return {**settings, "seeds": sorted(by_seed), "variants": [_mean(records) for records in found]}


def _mean(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {"variant": records[0]["variant"]}
    for name in ("error", "bd_rate_note", "parameters", "steps"):
        values = [record[name] for record in records if name in record]
        if values:
            joined[name] = values[0]
    joined["bd_rates"] = [record["bd_rate"] for record in records if record["bd_rate"] is not None]
    joined["bd_rate"] = statistics.fmean(joined["bd_rates"]) if joined["bd_rates"] else None
    losses = [record["loss"] for record in records if "loss" in record]
    if losses:
        joined["loss"] = statistics.fmean(losses)
    speeds = [record["speed"] for record in records if "speed" in record]
    if speeds:
        joined["speed"] = {side: min(speed[side] for speed in speeds) for side in ("encode", "decode")}
    return joined


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The results for a reader.

    Args:
        records: Of one run, or the variants of a report.
    """
    rows = []
    for r in records:
        speed = r.get("speed")
        rates = r.get("bd_rates", [])
        cells = [
            r["variant"],
            "" if r.get("bd_rate") is None else f"{r['bd_rate']:+.2f}",
            f"{min(rates):+.2f} to {max(rates):+.2f}" if len(rates) > 1 else "",
            f"{r['parameters'] / 1e6:.2f}" if "parameters" in r else "",
            str(r.get("steps", "")),
            f"{r['loss']:.4f}" if "loss" in r else "",
            f"{speed['encode']:.3f}" if speed else "",
            f"{speed['decode']:.3f}" if speed else "",
            r.get("error", r.get("bd_rate_note", "")),
        ]
        rows.append(cells)
    head = [
        "variant",
        "BD-rate %",
        "of seeds",
        "M parameters",
        "steps",
        "loss",
        "encode s",
        "decode s",
        "note",
    ]
    kept = [i for i in range(len(head)) if i != 2 or any(row[2] for row in rows)]
    return format_table(
        [head[i] for i in kept], [[row[i] for i in kept] for row in rows], left=(0, len(kept) - 1)
    )


def plot(records: Sequence[Mapping[str, Any]], title: str) -> bytes | None:
    """A PNG file: bits against the complete model beside the time to decode.

    None without matplotlib, and if no variant has bits to show.

    Args:
        records: Of one run, or the variants of a report.
        title: Above both.
    """
    try:
        import io

        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    shown = [r for r in records if r.get("bd_rate") is not None]
    if not shown:
        return None
    figure = Figure(figsize=(13, 1.6 + 0.36 * max(4, len(shown))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _plot_bits(left, shown)
    _plot_seconds(right, shown)
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _plot_bits(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    values = [r["bd_rate"] for r in records]
    low, high = visible_range(values)
    axes.barh([r["variant"] for r in records], values, color="#93c5fd")
    for row, r in enumerate(records):
        rates = [rate for rate in r.get("bd_rates", [r["bd_rate"]]) if low < rate < high]
        axes.plot(rates, [row] * len(rates), "o", ms=4, color="#1d4ed8")
        if r["variant"] != COMPLETE:
            end = min(max(r["bd_rate"], *rates, 0) if rates else r["bd_rate"], high)
            beyond = end == high
            axes.annotate(
                f"{r['bd_rate']:+.1f}" + (" \u2192" if beyond else ""),
                (end, row),
                xytext=(-6 if beyond else 6, 0),
                textcoords="offset points",
                ha="right" if beyond else "left",
                va="center",
                fontsize=8,
            )
    axes.axvline(0, color="#64748b", lw=1)
    axes.set_xlim(low, high)
    axes.set_xlabel("bits against the complete model at equal PSNR, %; a point is a seed")


def _plot_seconds(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    for row, r in enumerate(records):
        if "speed" in r:
            axes.barh(row, r["speed"]["decode"], color="#be123c" if r["variant"] == COMPLETE else "#94a3b8")
    axes.set_xlabel("seconds to decode one picture on the CPU")


def visible_range(values: Sequence[float]) -> tuple[float, float]:
    """What an axis shows of differences: all of them, but for one that would leave no room for the others.

    Args:
        values: At least one.

    Returns:
        Ends of the axis, with zero between them.

    Example:
        >>> visible_range([-8.0, 2.0, 7.0])
        (-11, 10)
        >>> visible_range([-8.0, 2.0, 10.0, 69.0])  # the last one reaches out of the plot
        (-11, 13)
    """
    *others, most = sorted(values, key=abs)
    kept = others if others and abs(most) > 3 * abs(others[-1]) > 0 else list(values)
    low, high = min(0.0, *kept), max(0.0, *kept)
    margin = max((high - low) / 6, 0.5)
    return math.floor(low - margin), math.ceil(high + margin)


def write_report(out: Path, content: Mapping[str, Any], title: str) -> None:
    """Writes ``ablation.json``, a table and, where matplotlib is installed, a plot.

    Args:
        out: Folder, made if need be.
        content: With ``variants``.
        title: Of the plot.
    """
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "ablation.json.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    partial.replace(out / "ablation.json")
    (out / "ablation.txt").write_text(table(content["variants"]) + "\n", "utf-8")
    picture = plot(content["variants"], title)
    if picture is not None:
        (out / "ablation.png").write_bytes(picture)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0."""
    parser = argparse.ArgumentParser(prog="ablation_report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="FILE", help="ablation.json of each run")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        report = join([json.loads(path.read_text("utf-8")) for path in options.runs])
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    seeds = ", ".join(map(str, report["seeds"]))
    write_report(options.out, report, f"{report['size']}, {report['steps']} steps each, seeds {seeds}")
    print(table(report["variants"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
