"""What decoding auxiliary slices together gains over decoding all slices one after the other.

    python -m latentpress.scripts.slice_benchmark --weights image-max

Two networks of the weights' size with random numbers in them, one with the weights' schedule, one with a
serial one, decode the latent of a photograph in turn. How long that takes hardly depends on the numbers. What
the grouping costs in bits is a question of training, which :mod:`latentpress.scripts.ablation` answers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from latentpress.codecs.bitstream import Limits
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import weights_path
from latentpress.codecs.weights import read_weight_file
from latentpress.models.image.families import build_from_config
from latentpress.models.mlic.schedule import SliceSchedule
from latentpress.scripts.benchmark import HEIGHT, WIDTH, Task, interleaved, photograph
from latentpress.scripts.codec_access import positive_int
from latentpress.scripts.failures import run_reported
from latentpress.scripts.text_table import format_table
from latentpress.train.export import exported

QUALITY = 50.0


def serial_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same network with one slice a stage.

    Args:
        config: Of a network with a slice-wise context model.

    Raises:
        ValueError: It has another context model.

    Example:
        >>> grouped = dataclasses.asdict(SliceSchedule.grouped(8, core=4))
        >>> len(grouped["stages"]), len(serial_config({"schedule": grouped})["schedule"]["stages"])
        (5, 8)
    """
    if "schedule" not in config:
        raise ValueError("these weights have no slices")
    serial = SliceSchedule.serial(SliceSchedule.from_config(config["schedule"]).slices)
    return {**config, "schedule": dataclasses.asdict(serial)}


def random_codec(family: str, config: Mapping[str, Any], seed: int = 1) -> ImageCodec:
    """A codec whose networks have the numbers that training starts from.

    Args:
        family: Of the network.
        config: Of the network.
        seed: Of the numbers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return exported(build_from_config(family, config))


def report(family: str, config: Mapping[str, Any], picture: torch.Tensor, repetitions: int) -> str:
    """Times both and makes a table.

    Args:
        family: Of the network.
        config: Of the grouped network.
        picture: uint8 ``(3, H, W)``.
        repetitions: How often each is timed.

    Raises:
        ValueError: The network has no slices.
    """
    codecs = [random_codec(family, found) for found in (config, serial_config(config))]
    streams = [codec.compress(picture, quality=QUALITY) for codec in codecs]

    def entropy_stage(side: int) -> object:
        return codecs[side]._decode_latent(streams[side], Limits())

    tasks = [
        Task("entropy stage", lambda: entropy_stage(0), lambda: entropy_stage(1)),
        Task(
            "whole decoding",
            lambda: codecs[0].decompress(streams[0]),
            lambda: codecs[1].decompress(streams[1]),
        ),
    ]
    rows = [
        [t.name, f"{t.ours:.3f}", f"{t.peer:.3f}", "s", f"{t.peer / t.ours:.2f}"]
        for t in interleaved(tasks, repetitions)
    ]
    return format_table(("what", "grouped", "serial", "unit", "serial / grouped"), rows, left=(0, 3))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 1 for weights without slices."""
    parser = argparse.ArgumentParser(prog="slice_benchmark", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="image-max", metavar="NAME", help="name or weight file")
    parser.add_argument("--threads", type=positive_int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--repetitions", type=positive_int, default=5, help="of each task (default: 5)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return run_reported(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    weights = read_weight_file(weights_path(options.weights))
    table = report(weights.family, weights.config, photograph(), options.repetitions)
    print(
        f"One photograph of {WIDTH} x {HEIGHT}, CPU, {options.threads} threads, networks of the size of "
        f"'{options.weights}', random numbers\n{table}"
    )


if __name__ == "__main__":
    sys.exit(main())
