"""``latentpress eval``: rate, distortion and time of a codec on a folder of pictures, or on a flow."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentpress.scripts.codec_access import (
    add_machine_arguments,
    byte_ratios,
    effort,
    open_codec,
    positive_int,
    qualities,
)
from latentpress.scripts.failures import warn
from latentpress.scripts.fields import add_selection_arguments
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.package_versions import package_versions
from latentpress.scripts.progress import progress_bar
from latentpress.scripts.text_table import format_table

if TYPE_CHECKING:
    from latentpress import Codec
    from latentpress.scripts.rate_distortion import Mean, RateDifference, Row
    from latentpress.train.metrics.anchors import RatePoints

DEFAULT_BYTE_RATIOS = (64.0, 512.0, 2048.0)
DEFAULT_QUALITIES = tuple(float(quality) for quality in range(0, 101, 10))
REPORTED_PACKAGES = ("latentpress", "torch", "numpy", "constriction", "pillow", "pytorch-msssim")
HEAD = ("quality", "bpp", "estimated", "PSNR dB", "MS-SSIM", "encode s", "decode s")


class Evaluation(NamedTuple):
    """Everything that was measured.

    Attributes:
        rows: One for each picture and quality.
        curve: Averages by quality.
        differences: To each anchor.
        fingerprint: Of the weights that made the files, hexadecimal.
    """

    rows: list[Row]
    curve: list[Mean]
    differences: list[RateDifference]
    fingerprint: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb.

    Args:
        parser: Its parser.
    """
    parser.add_argument(
        "--codec", default="image", help="weights, by name or .safetensors path (default: image)"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="folder of pictures; of a field codec a file of a flow",
    )
    parser.add_argument(
        "--qualities",
        type=qualities,
        default=DEFAULT_QUALITIES,
        metavar="Q,Q,...",
        help="0 to 100 (default: every 10)",
    )
    parser.add_argument(
        "--effort", type=effort, default=0, metavar="N", help="0 to 10, of the encoder (default: 0)"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N pictures")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        help="JSON with the curves of other codecs on this data, or of an earlier evaluation of it (default: "
        "those of Kodak, if it is Kodak)",
    )
    parser.add_argument(
        "--out", default="latentpress-eval", metavar="FOLDER", help="default: latentpress-eval"
    )
    add_machine_arguments(parser)
    _add_field_arguments(parser.add_argument_group("of a field codec"))


def _add_field_arguments(group: argparse._ArgumentGroup) -> None:
    add_selection_arguments(group)
    group.add_argument(
        "--ratios",
        type=byte_ratios,
        default=DEFAULT_BYTE_RATIOS,
        metavar="R,R,...",
        help="byte ratios to compare at (default: 64,512,2048)",
    )
    group.add_argument("--periodic", action="store_true", help="the flow is a whole periodic box")
    group.add_argument("--name", help="of the written files (default: that of the data)")
    group.add_argument(
        "--no-curves", dest="curves", action="store_false", help="leave out errors over all ratios"
    )
    group.add_argument("--no-figures", dest="figures", action="store_false", help="leave out the plots")


def run(args: argparse.Namespace) -> int:
    """Measures, prints the table, writes JSON and a plot, and says where.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """
    from latentpress.scripts.rate_distortion import find_pictures
    from latentpress.scripts.rd_plot import rd_plot

    codec = open_codec(args.codec, args)
    if codec.name == "field":
        from latentpress.scripts.commands import evaluate_field

        return evaluate_field.run(args, codec)  # type: ignore[arg-type]
    pictures = find_pictures(args.data, args.limit)
    anchors = anchors_for(args.anchors, pictures)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)  # what cannot be written to is found before hours of measuring
    result = _evaluate(args, codec, pictures, anchors)
    print_evaluation(result, f"effort {args.effort}")
    stem = Path(args.codec).stem
    json_path, plot_path = out / f"{stem}.json", out / f"{stem}.png"
    write_bytes(str(json_path), json.dumps(_report(args, result), indent=1).encode(), force=True)
    title = f"{Path(args.data).resolve().name}, {len(pictures)} pictures, weights {result.fingerprint}"
    write_bytes(str(plot_path), rd_plot(result.curve, anchors, f"latentpress {stem}", title), force=True)
    print(f"written: {json_path}, {plot_path}")
    return 0


def print_evaluation(result: Evaluation, how: str) -> None:
    """Prints averages and differences.

    Args:
        result: What was measured.
        how: What the averages depend on besides the weights.
    """
    print(_table(result.curve))
    pictures = len({row.picture for row in result.rows})
    print(f"\n{pictures} pictures, weights {result.fingerprint}, {how}")
    _print_monotony(result)
    for difference in result.differences:
        print(_difference_line(difference))
    if not result.differences:
        print("no BD-rate: there are no anchors for these pictures (--anchors FILE)")


def anchors_for(path: str | None, pictures: Sequence[Path]) -> Mapping[str, RatePoints]:
    """The curves to compare with.

    Args:
        path: As of `read_anchors`, or None for those that ship.
        pictures: What is measured.

    Returns:
        Curves by name; none if there are none for these pictures.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is of no such form.
    """
    from latentpress.scripts.rate_distortion import is_kodak
    from latentpress.train.metrics.anchors import kodak_anchors

    if path is None:
        return kodak_anchors() if is_kodak(pictures) else {}
    return read_anchors(path)


def read_anchors(path: str) -> dict[str, RatePoints]:
    """Reads curves to compare with.

    Args:
        path: JSON of the form of the shipped one, or an earlier report.

    Returns:
        The curves by name.

    Raises:
        OSError: It cannot be read.
        ValueError: It is of no such form.
    """
    from latentpress.train.metrics.anchors import RatePoints

    try:
        content = json.loads(Path(path).read_text("utf-8"))
        codecs = content["codecs"] if "means" not in content else _curve_of_report(content)
        found = {
            str(name): RatePoints(tuple(map(float, points["bpp"])), tuple(map(float, points["psnr"])))
            for name, points in codecs.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected {{"codecs": {{name: {{"bpp": [...], "psnr": [...]}}}}}}: {error}'
        ) from error
    for name, points in found.items():
        if not points.bpp or len(points.bpp) != len(points.psnr):
            raise ValueError(f"{path}: '{name}' has {len(points.bpp)} rates and {len(points.psnr)} PSNRs")
    return found


def _curve_of_report(report: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The curve of an earlier evaluation, in the form of anchors."""
    means = [mean for mean in report["means"] if mean["psnr"] is not None]
    curve = {name: [mean[name] for mean in means] for name in ("bpp", "psnr")}
    return {f"{report['codec']} with effort {report.get('effort', 0)}": curve}


def _evaluate(
    args: argparse.Namespace, codec: Codec, pictures: Sequence[Path], anchors: Mapping[str, RatePoints]
) -> Evaluation:
    from latentpress.scripts.rate_distortion import measure

    rows: list[Row] = []
    total = len(pictures) * len(args.qualities)
    with tempfile.TemporaryDirectory() as folder, progress_bar("eval") as progress:
        for row in measure(codec, pictures, args.qualities, Path(folder), warn, args.effort):
            rows.append(row)
            if progress is not None:
                progress(len(rows) / total, f"{row.picture} at {row.quality:g}")
    return evaluation_of(rows, anchors, codec.fingerprint.hex())


def evaluation_of(rows: list[Row], anchors: Mapping[str, RatePoints], fingerprint: str) -> Evaluation:
    """Works out all that follows from the rows.

    Args:
        rows: One for each picture and quality.
        anchors: Curves to compare with, by name.
        fingerprint: Of the weights that made the files, hexadecimal.

    Returns:
        The rows with averages and differences.
    """
    from latentpress.scripts.rate_distortion import means, rate_difference

    curve = means(rows)
    differences = [rate_difference(name, anchor, curve) for name, anchor in anchors.items()]
    return Evaluation(rows, curve, differences, fingerprint)


def _table(curve: Sequence[Mean]) -> str:
    rows = [
        [
            f"{mean.quality:g}",
            f"{mean.bpp:.4f}",
            "-" if mean.estimated_bpp is None else f"{mean.estimated_bpp:.4f}",
            f"{mean.psnr:.3f}",
            "-" if mean.ms_ssim is None else f"{mean.ms_ssim:.5f}",
            f"{mean.encode_seconds:.3f}",
            f"{mean.decode_seconds:.3f}",
        ]
        for mean in curve
    ]
    return format_table(HEAD, rows, left=())


def _print_monotony(result: Evaluation) -> None:
    from latentpress.scripts.rate_distortion import falling_steps, is_monotone

    steps = falling_steps(result.rows)
    verdict = "bits and PSNR rise with every step" if is_monotone(result.curve) else "NOT monotone in quality"
    print(f"means: {verdict}; single pictures: {steps} steps where bytes or PSNR fall")


def _difference_line(difference: RateDifference) -> str:
    if difference.percent is None:
        return f"BD-rate to {difference.anchor}: none ({difference.reason})"
    where = f"{difference.low_psnr:.2f} to {difference.high_psnr:.2f} dB"
    return f"BD-rate to {difference.anchor}: {difference.percent:+.2f} % over {where}"


def _report(args: argparse.Namespace, result: Evaluation) -> dict[str, Any]:
    """What is written as JSON: enough to know later what was measured, on what and with what."""
    import torch

    return {
        "command": args.command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "codec": args.codec,
        "effort": args.effort,
        "fingerprint": result.fingerprint,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": package_versions(REPORTED_PACKAGES),
        **findings(result),
    }


def findings(result: Evaluation) -> dict[str, Any]:
    """The part of a report that says what was found, not where and with what.

    Args:
        result: The evaluation.

    Returns:
        Values for JSON by name.
    """
    from latentpress.scripts.rate_distortion import falling_steps, is_monotone

    return {
        "pictures": len({row.picture for row in result.rows}),
        "monotone": is_monotone(result.curve),
        "falling_steps": falling_steps(result.rows),
        "bd_rate": [_finite(difference) for difference in result.differences],
        "means": [_finite(mean) for mean in result.curve],
        "rows": [_finite(row) for row in result.rows],
    }


def _finite(record: NamedTuple) -> dict[str, Any]:
    """JSON has no infinity, which is the PSNR of equal pictures: it becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record._asdict().items()
    }
