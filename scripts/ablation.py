"""What each part of the slice-wise codec is worth: the same short training with and without it.

    python -m latentpress.scripts.ablation --data PHOTOS --val KODAK --out ablation --minutes 2

Every variant leaves one part out of the complete model, or puts another in its place, and is trained equally
long at a small size. Results are written after each variant, so an interrupted run keeps what it has:
``ablation.json``, ``ablation.txt`` and, where matplotlib is installed, ``ablation.png``. Several runs, with
other seeds or other variants, are put together by :mod:`latentpress.scripts.ablation_report`.

Skipping (GSC) is added to the complete model, not left out of it: in a short training it does so much harm
that nothing else would be told apart beside it.

Rates of the curves are likelihoods with true rounding, bytes and seconds those of real streams on the CPU.
With ``--effort`` the complete model's streams are refined for each picture, too, and held against its streams
as they are, all of real files. Short trainings at a small size say which parts help early, not what a part is
worth in the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
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
from latentpress.models.mlic.design import (
    LocalAttentionDesign,
    SelectiveDesign,
    SliceContextDesign,
    TokenMixingDesign,
)
from latentpress.models.mlic.schedule import SliceSchedule
from latentpress.scripts.ablation_report import COMPLETE, add_bd_rates, table, write_report
from latentpress.train.data.images import ImageDataModule, ImagePool, find_images, read_rgb
from latentpress.train.export import exported
from latentpress.train.short_run import Point, ShortRunSettings, train_shortly, validate

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
    "with selective compression": {"selective": SelectiveDesign()},
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
        entropy_width, context_width, LocalAttentionDesign(context_width, heads, position), selective=None
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


def measure_speed(codec: ImageCodec, picture: Tensor, repeats: int = 3) -> Speed:
    """Times a codec on the CPU.

    Args:
        codec: On the CPU.
        picture: ``(H, W, 3)`` uint8.
        repeats: Measurements, after one that does not count.
    """
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


def measure_files(codec: ImageCodec, pictures: Sequence[Tensor], effort: int) -> list[Point]:
    """Rate-distortion points of real streams, means over pictures.

    Args:
        codec: On the device of the pictures.
        pictures: ``(H, W, 3)`` uint8 each.
        effort: 0 to 10.
    """
    points = []
    for quality in QUALITIES:
        rates, psnrs = [], []
        for picture in pictures:
            planes = picture.permute(2, 0, 1)
            data = codec.compress(planes, quality=quality, effort=effort)
            error = (codec.decompress(data).to(planes.device).double() - planes).square().mean()
            rates.append(8 * len(data) / planes[0].numel())
            psnrs.append(10 * math.log10(255**2 / float(error)))
        points.append(Point(quality, statistics.fmean(rates), statistics.fmean(psnrs)))
    return points


class Measurements(NamedTuple):
    """What is measured of a trained variant.

    Attributes:
        pictures: ``(H, W, 3)`` uint8 each, on the device that trains.
        repeats: Timings of the codec.
        effort: Of the complete model's streams, 1 to 10; 0 for none.
        effort_pictures: How many of the pictures are refined.
    """

    pictures: Sequence[Tensor]
    repeats: int = 3
    effort: int = 0
    effort_pictures: int = 4


def run_variant(
    name: str, size: str, pool: ImagePool, settings: ShortRunSettings, measured: Measurements
) -> list[dict[str, Any]]:
    """Trains and measures one variant; what goes wrong is part of the record.

    Returns:
        A record, and behind that of the complete model one of its refined streams, if they are asked for.
    """
    record: dict[str, Any] = {"variant": name}
    records = [record]
    try:
        torch.manual_seed(settings.seed)
        network = build_variant(name, size).to(pool.device)
        record["parameters"] = sum(p.numel() for p in network.parameters())
        record.update(train_shortly(network, pool, settings)._asdict())
        record["points"] = [point._asdict() for point in validate(network, measured.pictures, QUALITIES)]
        record["speed"] = measure_speed(exported(network), measured.pictures[0], measured.repeats)._asdict()
        if name == COMPLETE and measured.effort:
            records.append({"variant": f"effort {measured.effort}"})
            records[-1].update(_refined(exported(network, pool.device), measured))
    except Exception as error:  # the other variants are worth having all the same
        records[-1]["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return records


def _refined(codec: ImageCodec, measured: Measurements) -> dict[str, Any]:
    pictures = measured.pictures[: measured.effort_pictures]
    plain, refined = (
        [point._asdict() for point in measure_files(codec, pictures, effort)]
        for effort in (0, measured.effort)
    )
    return {"points": refined, "reference": plain}


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
    parser.add_argument("--effort", type=int, default=0, help="measure the complete model with it, too")
    parser.add_argument("--effort-pictures", type=int, default=4, help="at most so many are refined")
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
    title = f"{options.size}, {options.minutes:g} minutes each on {where}"
    measured = Measurements(pictures, options.repeats, options.effort, options.effort_pictures)
    print(f"pool ready after {time.monotonic() - begin:.0f} s", flush=True)

    def write(records: Sequence[dict[str, Any]]) -> None:
        add_bd_rates(records)
        write_report(options.out, {**head, "variants": list(records)}, title)

    # The complete model first: all others are held against it.
    names = sorted(options.variants, key=lambda name: name != COMPLETE)
    records: list[dict[str, Any]] = []
    longest = 60 * options.minutes
    for name in names:
        started = time.monotonic()
        if options.budget is not None and started - begin + longest > 60 * options.budget:
            print(f"no time left for: {name}", flush=True)
            records.append({"variant": name, "error": "no time left"})
            write(records)
            continue
        records += run_variant(name, options.size, pool, settings, measured)
        write(records)
        longest = max(longest, time.monotonic() - started)
        print(table(records[-1:]).splitlines()[-1], flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(table(records))
    return int(any("error" in record for record in records))


if __name__ == "__main__":
    sys.exit(main())
