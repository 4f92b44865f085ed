"""What each part of the slice-wise codec is worth: the same short training with and without it.

    python -m latentpress.scripts.ablation --data PHOTOS --val KODAK --out ablation --minutes 2

Every variant leaves one part out of the complete model, or puts another in its place, and is trained equally
long at a small size. Results are written after each variant, so an interrupted run keeps what it has:
``ablation.json``, ``ablation.txt`` and, where matplotlib is installed, ``ablation.png``.

Rates of the curves are likelihoods with true rounding, bytes and seconds those of real streams on the CPU.
Short trainings at a small size say which parts help early, not what a part is worth in the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentpress.codecs.image import ImageCodec
from latentpress.models.image.families import build_image_max_network
from latentpress.models.image.network import ImageNetwork, build_image_network
from latentpress.models.mlic.design import LocalAttentionDesign, SliceContextDesign, TokenMixingDesign
from latentpress.models.mlic.schedule import SliceSchedule
from latentpress.scripts.text_table import format_table
from latentpress.train.data.images import ImageDataModule, ImagePool, find_images, read_rgb
from latentpress.train.export import export_image
from latentpress.train.metrics.bd_rate import bd_rate
from latentpress.train.short_run import Point, ShortRunSettings, train_shortly, validate

COMPLETE = "complete"
QUALITIES = (0.0, 25.0, 50.0, 75.0, 100.0)
TIMED_QUALITY = 50.0


class Size(NamedTuple):
    """Widths and depths of all variants, arguments of the functions that build them."""

    channels: int
    deep_channels: int
    latent_channels: int
    depth: int
    deep_depth: int
    hyper_channels: int
    hyper_width: int
    context_channels: int


SIZES: Mapping[str, tuple[Size, int, int]] = {
    "tiny": (Size(16, 16, 16, 1, 1, 4, 8, 8), 16, 8),
    "small": (Size(128, 192, 128, 2, 1, 64, 96, 128), 128, 32),
    "shipped": (Size(288, 384, 256, 4, 2, 128, 192, 256), 224, 64),
}
"""Sizes by name, each with the widths of the slice-wise entropy model and of its contexts."""

PARTS: Mapping[str, Mapping[str, Any]] = {
    COMPLETE: {},
    "no token mixing": {"token_mixing": None},
    "no local attention": {"local_attention": None},
    "bias instead of rotations": {"position": "bias"},
    "no channel reweighting": {"reweighting": None},
    "no hyper correlation": {"hyper_correlation": None},
    "no global contexts": {"inter_slice": None, "intra_slice": None},
    "no residual prediction": {"residual_prediction": None},
    "no selective compression": {"selective": None},
    "no grouping: all slices serial": {"serial": True},
    "four-step context model": {"family": "image"},
}
"""Variants by name, and how they differ from the complete model."""


def build_variant(name: str, size: str) -> ImageNetwork:
    """Makes the network of a variant.

    Args:
        name: Of :data:`PARTS`.
        size: Of :data:`SIZES`.

    Example:
        >>> build_variant("no local attention", "tiny").context.stages[1].local_attention is None
        True
    """
    change = dict(PARTS[name])
    widths, entropy_width, context_width = SIZES[size]
    if change.pop("family", None) == "image":
        return build_image_network(**widths._asdict(), context_depth=2)
    heads = max(1, context_width // 16)
    position = change.pop("position", "rotary")
    complete = SliceContextDesign(
        entropy_width, context_width, LocalAttentionDesign(context_width, heads, position)
    )
    for part in ("inter_slice", "intra_slice", "hyper_correlation"):
        wanted = dataclasses.replace(getattr(complete, part), channels=context_width, heads=heads)
        complete = dataclasses.replace(complete, **{part: wanted})
    token_mixing = change.pop("token_mixing", TokenMixingDesign(1, 1))
    schedule = SliceSchedule.serial(8) if change.pop("serial", False) else SliceSchedule.grouped(8, 4)
    return build_image_max_network(
        **widths._asdict(),
        schedule=schedule,
        context=dataclasses.replace(complete, **change),
        token_mixing=token_mixing,
    )


class Speed(NamedTuple):
    """Of a codec on the CPU, for one picture.

    Attributes:
        encode: Seconds, median.
        decode: Seconds, median.
        bytes: Of the stream.
        pixels: Of the picture.
    """

    encode: float
    decode: float
    bytes: int
    pixels: int


def measure_speed(network: ImageNetwork, picture: Tensor, repeats: int = 3) -> Speed:
    """Exports a network and times the codec on the CPU.

    Args:
        network: A trained network.
        picture: ``(H, W, 3)`` uint8.
        repeats: Measurements, after one that does not count.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    codec = ImageCodec(export_image(network.config, state, family=network.family))
    planes = picture.cpu().permute(2, 0, 1).contiguous()
    data = codec.compress(planes, quality=TIMED_QUALITY)
    codec.decompress(data)
    encode, decode = [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        codec.compress(planes, quality=TIMED_QUALITY)
        middle = time.perf_counter()
        codec.decompress(data)
        encode.append(middle - begin)
        decode.append(time.perf_counter() - middle)
    pixels = planes.shape[1] * planes.shape[2]
    return Speed(statistics.median(encode), statistics.median(decode), len(data), pixels)


def run_variant(
    name: str,
    size: str,
    pool: ImagePool,
    pictures: Sequence[Tensor],
    settings: ShortRunSettings,
    repeats: int,
) -> dict[str, Any]:
    """Trains and measures one variant; what goes wrong is part of the record."""
    record: dict[str, Any] = {"variant": name}
    try:
        torch.manual_seed(settings.seed)
        network = build_variant(name, size).to(pool.device)
        record["parameters"] = sum(p.numel() for p in network.parameters())
        record.update(train_shortly(network, pool, settings)._asdict())
        record["points"] = [point._asdict() for point in validate(network, pictures, QUALITIES)]
        record["speed"] = measure_speed(network, pictures[0], repeats)._asdict()
    except Exception as error:  # the other variants are worth having all the same
        record["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return record


def add_bd_rates(records: Sequence[dict[str, Any]]) -> None:
    """Adds to each record its bits against the complete model at equal PSNR, in percent."""
    complete = next((r for r in records if r["variant"] == COMPLETE and "points" in r), None)
    for record in records:
        record["bd_rate"] = None
        if complete is None or "points" not in record:
            continue
        curves = [[Point(**point) for point in r["points"]] for r in (complete, record)]
        try:
            record["bd_rate"] = bd_rate(
                *(list(column) for c in curves for column in list(zip(*c, strict=True))[1:])
            )
        except ValueError as error:
            record["bd_rate_note"] = str(error)


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The results for a reader."""
    rows = []
    for r in records:
        speed = r.get("speed")
        cells = [
            r["variant"],
            "" if r.get("bd_rate") is None else f"{r['bd_rate']:+.2f}",
            f"{r['parameters'] / 1e6:.2f}" if "parameters" in r else "",
            str(r.get("steps", "")),
            f"{r['loss']:.4f}" if "loss" in r else "",
            f"{speed['encode']:.3f}" if speed else "",
            f"{speed['decode']:.3f}" if speed else "",
            r.get("error", r.get("bd_rate_note", "")),
        ]
        rows.append(cells)
    head = ["variant", "BD-rate %", "M parameters", "steps", "loss", "encode s", "decode s", "note"]
    return format_table(head, rows, left=(0, 7))


def plot(records: Sequence[Mapping[str, Any]], title: str) -> bytes | None:
    """A PNG file: bits against the complete model, and decoding time over bits. None without matplotlib."""
    try:
        import io

        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    shown = [r for r in records if r.get("bd_rate") is not None and r["variant"] != COMPLETE]
    figure = Figure(figsize=(13, 1.6 + 0.42 * max(4, len(shown))), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.barh([r["variant"] for r in shown], [r["bd_rate"] for r in shown], color="#1d4ed8")
    left.axvline(0, color="#64748b", lw=1)
    left.invert_yaxis()
    left.set_xlabel("bits against the complete model at equal PSNR, %")
    for r in records:
        if r.get("bd_rate") is None or "speed" not in r:
            continue
        complete = r["variant"] == COMPLETE
        right.scatter(r["speed"]["decode"], r["bd_rate"], color="#be123c" if complete else "#1d4ed8")
        right.annotate(r["variant"], (r["speed"]["decode"], r["bd_rate"]), fontsize=8)
    right.set_xlabel("seconds to decode one picture on the CPU")
    right.set_ylabel("bits against the complete model, %")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def write_results(out: Path, head: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Writes what there is so far."""
    add_bd_rates(records)
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps({**head, "variants": list(records)}, indent=1)
    partial = out / "ablation.json.partial"
    partial.write_text(content + "\n", "utf-8")
    partial.replace(out / "ablation.json")
    (out / "ablation.txt").write_text(table(records) + "\n", "utf-8")
    picture = plot(records, f"{head['size']}, {head['minutes']:g} minutes each on {head['device']}")
    if picture is not None:
        (out / "ablation.png").write_bytes(picture)


def read_pictures(folder: str, limit: int, device: torch.device) -> list[Tensor]:
    """Pictures for validation, cut to multiples of 16."""
    found = []
    for path in find_images(folder)[:limit]:
        pixels = torch.from_numpy(read_rgb(path).copy())
        height, width = (side // 16 * 16 for side in pixels.shape[:2])
        found.append(pixels[:height, :width].to(device))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if every variant was measured, else 1."""
    parser = argparse.ArgumentParser(prog="ablation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="pictures to train on")
    parser.add_argument("--val", required=True, metavar="DIR", help="pictures to measure")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, each variant; default: 2")
    parser.add_argument("--steps", type=int, help="equally many steps instead, within these minutes")
    parser.add_argument(
        "--budget", type=float, help="minutes for everything; variants that do not fit are left out"
    )
    parser.add_argument("--variants", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=24, help="at most so many are measured")
    parser.add_argument("--repeats", type=int, default=3, help="timings of the codec")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    device = torch.device(options.device)
    if device.type == "cuda":
        # As in real training, matrix products outside autocast may use TF32; the CPU's codec never does.
        torch.set_float32_matmul_precision("high")
    data = ImageDataModule(options.data, crop_size=options.crop_size)
    pool = data.build_pool(device)
    pictures = read_pictures(options.val, options.pictures, device)
    settings = ShortRunSettings(
        options.minutes,
        options.steps,
        options.batch_size,
        options.lr,
        seed=options.seed,
        bfloat16=device.type == "cuda",
    )
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    head = {"size": options.size, "device": where, "pictures": len(pictures), **settings._asdict()}
    print(f"pool ready after {time.monotonic() - begin:.0f} s", flush=True)
    # The complete model first: all others are held against it.
    names = sorted(options.variants, key=lambda name: name != COMPLETE)
    records: list[dict[str, Any]] = []
    longest = 60 * options.minutes
    for name in names:
        started = time.monotonic()
        if options.budget is not None and started - begin + longest > 60 * options.budget:
            print(f"no time left for: {name}", flush=True)
            records.append({"variant": name, "error": "no time left"})
            write_results(options.out, head, records)
            continue
        records.append(run_variant(name, options.size, pool, pictures, settings, options.repeats))
        write_results(options.out, head, records)
        longest = max(longest, time.monotonic() - started)
        print(table(records[-1:]).splitlines()[-1], flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(table(records))
    return int(any("error" in record for record in records))


if __name__ == "__main__":
    sys.exit(main())
