"""Writes what the training runs of the small families gave into ``docs/training.md``.

    python -m latentpress.scripts.training_tables

The figures are those that trainings wrote while they ran, of likelihoods and not of files; the curves lie in
``docs/curves``. To put other runs there, copy ``rate_points.jsonl``, ``realistic.jsonl``, ``rd_points.jsonl``
or ``points.jsonl`` from the log folder under the name of the run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpress.scripts.documentation_figures import with_blocks
from latentpress.scripts.file_io import write_bytes

FIELD_RATIOS = {"field-8": "64", "field-64": "512", "field-512": "2048"}
"""The byte ratio at which the error of a run is told."""

MAKER = "scripts/training_tables.py"

SCRATCH = "field-512-scratch"
"""The run without transfer; its peer is the run without the ending."""

Point = Mapping[str, Any]


def read_curve(path: Path) -> list[Point]:
    """The points of a run, in the order in which they were written."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def field_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """Errors of the faithful decoders on flows that no training saw."""
    rows = []
    for name, ratio in FIELD_RATIOS.items():
        for run in (name, f"{name}-scratch"):
            for step in sorted({point["step"] for point in curves.get(run, ())}):
                box, corner = (_point(curves[run], step, flow) for flow in ("box", "corner"))
                errors = (box["nrmse_at"], box["nrmse_solenoidal_at"], corner["nrmse_at"])
                rows.append([run, ratio, f"{step:,}", *(f"{error[ratio]:.4f}" for error in errors)])
    head = ("run", "byte ratio", "steps", "Re 60, box", "... free of divergence", "Re 100, corner")
    return _markdown(head, rows)


def transfer_line(curves: Mapping[str, Sequence[Point]]) -> str:
    """How soon the transferred run reaches what the run from scratch ends with."""
    transferred = SCRATCH.removesuffix("-scratch")
    ratio = FIELD_RATIOS[transferred]
    last = [point for point in curves[SCRATCH] if point["flow"] == "box"][-1]
    goal = last["nrmse_at"][ratio]
    reached = [p for p in curves[transferred] if p["flow"] == "box" and p["nrmse_at"][ratio] <= goal]
    if not reached:
        return (
            f"From scratch {goal:.4f} after {last['step']:,} steps, which the transferred run never reached."
        )
    first = reached[0]
    share = 100 * first["step"] / last["step"]
    return (
        f"From scratch {goal:.4f} after {last['step']:,} steps; with transfer "
        f"{first['nrmse_at'][ratio]:.4f} after {first['step']:,}, {share:.0f} % of them."
    )


def realistic_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """What the realistic decoders do to statistics, against the truth, at the middle quality."""
    rows = []
    for name in FIELD_RATIOS:
        for point in curves.get(f"{name}-realistic", ()):
            if point["quality"] != 50.0:
                continue
            true = point["truth"]
            for decoder in ("faithful", "realistic"):
                found = point[decoder]
                scales = "-"
                if "small_scales" in true:
                    scales = f"{found['small_scales'] / true['small_scales']:.2f}"
                rows.append(
                    [
                        f"{name}, {point['flow']}",
                        f"{point['ratio']:.0f}",
                        decoder,
                        f"{found['nrmse']:.4f}",
                        f"{100 * (found['gradient'] / true['gradient'] - 1):+.1f} %",
                        f"{found['skewness'] - true['skewness']:+.3f}",
                        f"{100 * (found['flatness'] / true['flatness'] - 1):+.1f} %",
                        scales,
                        f"{found['divergence'] / true['divergence']:.1f}",
                    ]
                )
    head = (
        "run, flow",
        "byte ratio",
        "decoder",
        "nrmse",
        "dissipation",
        "skewness",
        "flatness",
        "shells 24-40",
        "divergence",
    )
    return _markdown(head, rows)


def index_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """PSNR and Wasserstein distortion of the index codec's stages, from coarse indices to fine ones."""
    rows = []
    for stage in ("index-1", "index-2", "index-2-again"):
        for point in curves.get(stage, ()):
            pairs = zip(point["psnr"], point["wasserstein"], strict=True)
            values = [f"{psnr:.1f} dB, {distortion:.1f}" for psnr, distortion in pairs]
            rows.append([stage, f"{point['step']:,}", *values])
    last = curves["index-1"][-1]
    return _markdown(("stage", "steps", *(f"{bpp:.3f} bpp" for bpp in last["raw_bpp"])), rows)


def prior_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """Bits that the index prior needs, by what is coded."""
    last = curves["index-4"][-1]
    rows = []
    for raw, coded, saved in zip(last["raw_bpp"], last["bpp"], last["saved"], strict=True):
        rows.append([f"{raw:.4f}", f"{coded:.4f}", f"{100 * saved:.0f} %"])
    return _markdown(("log2 of the number of codes, bpp", "prior, bpp", "saved"), sorted(rows))


def shape_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """The bridge's error of truncated distance and its bits, by quality."""
    rows = []
    for point in curves["shape-bridge"]:
        cells = [
            f"{point[f'geometry_bits_{q}'] / 8:.0f} B, {point[f'truncated_{q}']:.4f}"
            for q in (0, 20, 40, 60, 80, 100)
        ]
        rows.append([f"{point['step']:,}", *cells])
    return _markdown(("steps", *(f"quality {q}" for q in (0, 20, 40, 60, 80, 100))), rows)


def blocks(curves: Mapping[str, Sequence[Point]]) -> dict[str, str]:
    """All blocks of the page, by name."""
    return {
        "field": f"{field_table(curves)}\n\n{transfer_line(curves)}",
        "realistic": realistic_table(curves),
        "index": f"{index_table(curves)}\n\n{prior_table(curves)}",
        "shape": shape_table(curves),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes them.

    Args:
        arguments: None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.training_tables", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="of the checkout")
    args = parser.parse_args(arguments)
    page = args.root / "docs" / "training.md"
    curves = dict(_curves(args.root / "docs" / "curves"))
    write_bytes(
        str(page), with_blocks(page.read_text("utf-8"), blocks(curves), maker=MAKER).encode(), force=True
    )
    return 0


def _curves(folder: Path) -> Iterator[tuple[str, list[Point]]]:
    for path in sorted(folder.glob("*.jsonl")):
        yield path.stem, read_curve(path)


def _point(points: Sequence[Point], step: int, flow: str) -> Point:
    return next(point for point in points if point["step"] == step and point["flow"] == flow)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    sys.exit(main())
