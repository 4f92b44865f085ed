"""Makes the golden streams whose side information comes in four steps: run once, and never again.

    python tests/golden/make_side_information_golden.py

What it writes is kept for ever, see make_image_max_golden.py. The models are made up like the other ones of
their families, with larger side information, of which its context model has a lot to say that is noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from make_image_golden import CONFIG, make_state
from make_image_max_golden import METADATA, MODELS, make_network, write_golden

from latentpress.codecs.bitstream import gaussian_tables
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.entropy.hyperprior import SideInformationDesign
from latentpress.models.image.families import IMAGE, IMAGE_MAX
from latentpress.models.mlic.schedule import SliceSchedule
from latentpress.train.export import export_image

# Transforms without blocks: symbols are what matters here, and pictures beside the streams stay small.
SIZES = {"hyper_channels": 8, "depth": 0, "deep_depth": 0}

DEPTHS = {IMAGE: 2, IMAGE_MAX: 1}

LARGEST_SCALE = 3.0
"""Of the tables, in steps: they are small, and symbols escape."""

# Name: family, which is the name of its model, height, width, channels, options of compress.
CASES: dict[str, tuple[str, int, int, int, dict[str, Any]]] = {
    "grey_200x230_q100": (IMAGE, 200, 230, 1, {"quality": 100}),
    "rgb_1x1_q33.3": (IMAGE, 1, 1, 3, {"quality": 33.3}),
    "rgb_100x75_q0_effort": (IMAGE, 100, 75, 3, {"quality": 0, "effort": 1}),
    "grey_150x140_q60_tiled": (IMAGE, 150, 140, 1, {"quality": 60, "tile_size": 64}),
    "max_grey_300x210_q0": (IMAGE_MAX, 300, 210, 1, {"quality": 0}),
    "max_rgb_37x83_q71.9_metadata": (IMAGE_MAX, 37, 83, 3, {"quality": 71.9, "metadata": METADATA}),
    "max_grey_150x200_q33.3_tiled": (IMAGE_MAX, 150, 200, 1, {"quality": 33.3, "tile_size": 128}),
    "max_rgb_81x70_q80_effort": (IMAGE_MAX, 81, 70, 3, {"quality": 80, "effort": 1}),
    "max_grey_1x130_q100": (IMAGE_MAX, 1, 130, 1, {"quality": 100}),
}


def make_model(family: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and weights of a made-up model."""
    design = SideInformationDesign(channels=8, depth=DEPTHS[family])
    if family == IMAGE:
        state = make_state({**CONFIG, **SIZES, "side_information": design})
        config = {**CONFIG, **SIZES, "side_information": dataclasses.asdict(design)}
    else:
        options = {**MODELS["bare"], **SIZES, "schedule": SliceSchedule.grouped(3, core=1)}
        network = make_network(24, **options, side_information=design)
        state, config = network.state_dict(), network.config
    for name, tensor in state.items():
        if name.startswith("hyper_prior.context.heads"):
            tensor.add_(torch.randn(tensor.shape) * 0.3)
    state["hyper_analysis.head.linear.weight"].mul_(1.5)
    return config, state


def make_weights(family: str) -> WeightFile:
    """Weights of a made-up model."""
    tables = gaussian_tables(np.minimum(scale_table().numpy(), LARGEST_SCALE), tail_mass=2.0**-8)
    return export_image(*make_model(family), tables, family=family)


def main() -> None:
    """Writes the golden files."""
    write_golden("side_information", {family: make_weights(family) for family in DEPTHS}, CASES)


if __name__ == "__main__":
    main()
