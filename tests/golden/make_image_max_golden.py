"""Makes the golden streams of the family image-max, of a format version: run once, and never again.

    python tests/golden/make_image_max_golden.py

What it writes is kept for ever: the streams are what files in the world look like. So it refuses to
overwrite anything. The models are made up, not trained: their latent is the picture's 8x8 block means, and
all other weights are noise, so that every part of the entropy model acts. Tables are cut short, so that
escaped symbols occur.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentpress.codecs import image_transforms
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    FORMAT_VERSION,
    SectionType,
    gaussian_tables,
    read_container,
)
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.symbol_coders import InProcessCoders
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.image.families import IMAGE_MAX, build_image_max_network
from latentpress.models.image.network import ImageNetwork
from latentpress.models.mlic.design import (
    ChannelReweightingDesign,
    GlobalContextDesign,
    LocalAttentionDesign,
    ResidualPredictionDesign,
    SelectiveDesign,
    SliceContextDesign,
    TokenMixingDesign,
)
from latentpress.models.mlic.schedule import SliceSchedule, Stage
from latentpress.train.export import export_image

FOLDER = Path(__file__).resolve().parent / f"v{FORMAT_VERSION}"

LATENTS = 12

SIZES = {
    "channels": 3,
    "deep_channels": LATENTS,
    "latent_channels": LATENTS,
    "depth": 1,
    "deep_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 8,
}

STEPS_PER_UNIT = 30.0

SKIPPED_BELOW = -1.6
"""Raw scales below this are skipped, but for what the rest of the network adds."""

METADATA = {"icc": b"not a profile", "exif": b"Exif\0\0II*\0", "xmp": b"<x:xmpmeta/>"}

# Everything there is; parts left out as in the weights that ship; everything left out that can be.
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {
        "schedule": SliceSchedule.grouped(4, core=2),
        "context": SliceContextDesign(
            width=8,
            channel_context=8,
            local_attention=LocalAttentionDesign(16, heads=2),
            inter_slice=GlobalContextDesign(8, heads=2),
            intra_slice=GlobalContextDesign(8, heads=2),
            reweighting=ChannelReweightingDesign(2),
            hyper_correlation=GlobalContextDesign(8, heads=2),
            residual_prediction=ResidualPredictionDesign(8),
            selective=SelectiveDesign(),
            own_blocks=1,
            shared_blocks=1,
        ),
        "token_mixing": TokenMixingDesign(1, 1),
        "normalisation": "contrast",
    },
    "plain": {
        "schedule": SliceSchedule(
            6,
            (
                *SliceSchedule.serial(3).stages,
                Stage((3, 4), (0, 1, 2), part=1),
                Stage((5,), (0, 2), part=2),
            ),
        ),
        "context": SliceContextDesign(
            width=8,
            channel_context=8,
            local_attention=LocalAttentionDesign(16, heads=4),
            inter_slice=GlobalContextDesign(8, heads=4),
            intra_slice=GlobalContextDesign(8, heads=4),
            hyper_correlation=GlobalContextDesign(8, heads=4),
            residual_prediction=ResidualPredictionDesign(8),
            selective=None,
            shared_blocks=3,
        ),
        "branch_limits": (0.004, 0.01),
    },
    "bare": {
        "schedule": SliceSchedule(3, (Stage((0,)), Stage((1,)), Stage((2,), (1,)))),
        "context": SliceContextDesign(
            width=8,
            channel_context=8,
            local_attention=LocalAttentionDesign(4, heads=2, position="bias"),
            inter_slice=None,
            intra_slice=None,
            reweighting=None,
            hyper_correlation=None,
            residual_prediction=None,
            selective=None,
            shared_blocks=1,
        ),
    },
}

# Name: model, height, width, channels, options of compress.
CASES: dict[str, tuple[str, int, int, int, dict[str, Any]]] = {
    "rgb_64x96_q50": ("tiny", 64, 96, 3, {"quality": 50}),
    "rgb_160x144_q100": ("tiny", 160, 144, 3, {"quality": 100}),
    "rgb_160x144_q0": ("tiny", 160, 144, 3, {"quality": 0}),
    "rgb_1x1_q33.3": ("tiny", 1, 1, 3, {"quality": 33.3}),
    "rgb_37x83_q71.9_metadata": ("tiny", 37, 83, 3, {"quality": 71.9, "metadata": METADATA}),
    "rgb_90x112_q60_effort": ("tiny", 90, 112, 3, {"quality": 60, "effort": 1}),
    "rgb_150x200_q80_tiled": ("tiny", 150, 200, 3, {"quality": 80, "tile_size": 64}),
    "grey_75x50_q90": ("tiny", 75, 50, 1, {"quality": 90}),
    "grey_1x130_q12.7": ("tiny", 1, 130, 1, {"quality": 12.7}),
    "plain_rgb_100x70_q65": ("plain", 100, 70, 3, {"quality": 65}),
    "plain_rgb_128x81_q95_effort": ("plain", 128, 81, 3, {"quality": 95, "effort": 1}),
    "plain_grey_33x150_q20": ("plain", 33, 150, 1, {"quality": 20}),
    "bare_rgb_85x77_q85": ("bare", 85, 77, 3, {"quality": 85}),
    "bare_grey_140x60_q40": ("bare", 140, 60, 1, {"quality": 40}),
}


def _size_of_noise(name: str) -> float:
    """Of an array of the transforms: what blocks and mixers add is seen, and does not hide the picture."""
    if not name.endswith("weight") or not ("blocks" in name or "mixers" in name):
        return 0.002
    if "mixers" in name:
        return 0.01 if "project" in name or "gate" in name else 0.2
    return 0.15


def make_network(seed: int, **options: Any) -> ImageNetwork:
    """A made-up network."""
    torch.manual_seed(seed)
    network = build_image_max_network(**{**SIZES, **options})
    state = network.state_dict()
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape)
        if name.startswith(("analysis", "synthesis")) and not name.endswith("gain.knots"):
            if "norm" in name:
                tensor.add_(noise * 0.1)
            else:
                tensor.copy_(noise * _size_of_noise(name))
        elif name.endswith(("local_attention.query.weight", "local_attention.key.weight")):
            tensor.mul_(3)
        elif name.startswith("context"):
            tensor.add_(noise * (0.03 if "residual_prediction.head" in name else 0.1))
        elif name.startswith(("hyper_prior", "hyper_synthesis")):
            tensor.mul_(0.5).add_(noise * 0.1)
    for colour in range(3):
        pixels = torch.arange(64) * 3 + colour
        state["analysis.stem.weight"][colour, pixels] += 1 / 64
        state["synthesis.head.weight"][pixels, colour] += 1
    state["analysis.down.linear.weight"] += torch.eye(LATENTS)
    state["synthesis.up.linear.weight"] += torch.eye(LATENTS)
    state["analysis.head.weight"].copy_(torch.eye(LATENTS) * STEPS_PER_UNIT)
    state["synthesis.stem.weight"].copy_(torch.eye(LATENTS) / STEPS_PER_UNIT)
    state["hyper_prior.raw_scale.knots"] += torch.linspace(-0.5, 1.5, 21)[:, None]
    for stage in network.context.stages:
        for half in (stage.anchor, stage.other):
            bias = half.parameters_of.head.bias.data
            bias[len(bias) // 2 :] += torch.randn(len(bias) // 2)
            if half.selective is not None:
                half.selective.head.bias.data.fill_(SKIPPED_BELOW)
    return network


def make_weights(number: int, options: dict[str, Any]) -> WeightFile:
    """Weights of a made-up model."""
    network = make_network(20 + number, **options)
    tables = gaussian_tables(scale_table().numpy(), tail_mass=2.0**-8)
    return export_image(network.config, network.state_dict(), tables, family=IMAGE_MAX)


def make_picture(height: int, width: int, channels: int) -> torch.Tensor:
    """Slopes and an edge: uint8, (channels, height, width)."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        100 + 70 * np.sin(x / (17 + 3 * c)) + 50 * np.cos(y / (23 - 4 * c)) + 30 * (x > y + 5 * c)
        for c in range(channels)
    ]
    return torch.from_numpy(np.stack(planes).clip(0, 255).astype(np.uint8))


def latent_digest(codec: ImageCodec, data: bytes) -> str:
    """SHA-256 of y_hat in units, float64, tile after tile; also of a stream that was cut."""
    stream, _ = codec._read(data, DEFAULT_LIMITS, partial=True)
    decoder = codec._decoder(stream, InProcessCoders())
    found = hashlib.sha256()
    for tile in range(stream.header.grid.count):
        for _, latents in decoder._decode_tiles([tile]):
            units = (latents.double() * UNIT).numpy().astype("<f8") + 0.0
            found.update(units.tobytes())
    return found.hexdigest()


def facts_of(codec: ImageCodec, data: bytes) -> dict[str, Any]:
    """What must be found in a stream."""
    stream, _ = codec._read(data, DEFAULT_LIMITS)
    header = stream.header
    ends = codec.cut_points(data)
    return {
        "height": header.height,
        "width": header.width,
        "channels": header.channels,
        "quality_tenths": header.quality_tenths,
        "tile_size": header.tile_size,
        "payload_bytes": len(stream.payload),
        "tiles_bytes": len(read_container(data).get(SectionType.TILES) or b""),
        "symbols_crc32c": [[f"{place.checksum:08x}" for place in parts] for parts in stream.tiles],
        "cut_points": list(ends),
        "y_hat_sha256": [latent_digest(codec, data[:end]) for end in ends],
        "stream_sha256": hashlib.sha256(data).hexdigest(),
    }


def write_golden(
    prefix: str,
    weights: dict[str, WeightFile],
    cases: dict[str, tuple[str, int, int, int, dict[str, Any]]],
) -> None:
    """Writes weight files, streams, their pictures and what must be found in them, if none of them is there.

    Args:
        prefix: What their names begin with.
        weights: Of each model.
        cases: As :data:`CASES`.
    """
    names = [f"{prefix}.json", *(f"{prefix}_{model}.safetensors" for model in weights)]
    names += [f"{prefix}_{name}.{kind}" for name in cases for kind in ("lpz", "png")]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    FOLDER.mkdir(exist_ok=True)
    # Pictures are those of full precision, whatever this machine prefers.
    image_transforms.has_bfloat16_instructions = lambda: False
    codecs = {model: ImageCodec(found) for model, found in weights.items()}
    for model, found in weights.items():
        (FOLDER / f"{prefix}_{model}.safetensors").write_bytes(found.to_bytes())
    expected: dict[str, Any] = {}
    for name, (model, height, width, channels, options) in cases.items():
        codec = codecs[model]
        data = codec.compress(make_picture(height, width, channels), **options)
        metadata = {key: value.hex() for key, value in options.get("metadata", {}).items()}
        expected[name] = {"model": model, **facts_of(codec, data), "metadata": metadata}
        pixels = codec.decompress(data).permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(
            FOLDER / f"{prefix}_{name}.png", optimize=True
        )
        (FOLDER / f"{prefix}_{name}.lpz").write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    fingerprints = {model: codec.fingerprint.hex() for model, codec in codecs.items()}
    content = {"fingerprints": fingerprints, "streams": expected}
    (FOLDER / f"{prefix}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Writes the golden files of the family."""
    weights = {model: make_weights(number, options) for number, (model, options) in enumerate(MODELS.items())}
    write_golden("image-max", weights, CASES)


if __name__ == "__main__":
    main()
