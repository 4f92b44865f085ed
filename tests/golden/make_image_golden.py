"""Makes the golden image streams of a format version: run once for a new version, and never again.

    python tests/golden/make_image_golden.py

What it writes is kept for ever: the streams are what files in the world look like. So it refuses to
overwrite anything. The model is made up, not trained: its latent is the picture's 8x8 block means, and all
other weights are noise, so that means and scales vary. Its tables are cut short, so that escaped symbols
occur.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentpress.codecs.bitstream import DEFAULT_LIMITS, FORMAT_VERSION, gaussian_tables, read_container
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_payload import read_image_header
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.image.network import build_image_network
from latentpress.train.export import export_image

FOLDER = Path(__file__).resolve().parent / f"v{FORMAT_VERSION}"

CONFIG: dict[str, Any] = {
    "channels": 3,
    "deep_channels": 12,
    "latent_channels": 12,
    "depth": 1,
    "deep_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 8,
    "context_depth": 2,
}

STEPS_PER_UNIT = 30.0

METADATA = {"icc": b"not a profile", "exif": b"Exif\0\0II*\0", "xmp": b"<x:xmpmeta/>"}

# Name: height, width, channels, options of compress.
CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "rgb_64x96_q50": (64, 96, 3, {"quality": 50}),
    "rgb_160x144_q100": (160, 144, 3, {"quality": 100}),
    "rgb_160x144_q0": (160, 144, 3, {"quality": 0}),
    "rgb_1x1_q33.3": (1, 1, 3, {"quality": 33.3}),
    "rgb_37x83_q71.9_metadata": (37, 83, 3, {"quality": 71.9, "metadata": METADATA}),
    "grey_75x50_q90": (75, 50, 1, {"quality": 90}),
    "grey_1x130_q12.7": (1, 130, 1, {"quality": 12.7}),
    "tiles_48x48_q100": (48, 48, 3, {"quality": 100}),
}


def make_state(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of a made-up model."""
    torch.manual_seed(20)
    state = build_image_network(**config).state_dict()
    latents = config["latent_channels"]
    for name, tensor in state.items():
        if name.endswith("gain.knots"):
            continue
        if name.startswith(("analysis", "synthesis")):
            tensor.copy_(
                torch.randn(tensor.shape) * (0.05 if "blocks" in name and "weight" in name else 0.002)
            )
        elif not name.startswith("hyper_analysis"):
            tensor.mul_(0.5).add_(torch.randn(tensor.shape) * 0.1)
    for colour in range(3):
        pixels = torch.arange(64) * 3 + colour
        state["analysis.stem.weight"][colour, pixels] += 1 / 64
        state["synthesis.head.weight"][pixels, colour] += 1
    state["analysis.down.linear.weight"] += torch.eye(latents)
    state["synthesis.up.linear.weight"] += torch.eye(latents)
    state["analysis.head.weight"].copy_(torch.eye(latents) * STEPS_PER_UNIT)
    state["synthesis.stem.weight"].copy_(torch.eye(latents) / STEPS_PER_UNIT)
    state["hyper_prior.raw_scale.knots"] += torch.linspace(-0.5, 1.5, 21)[:, None]
    for step in range(4):
        state[f"context.heads.{step}.bias"][latents:] += torch.randn(latents)
    return state


def make_picture(name: str, height: int, width: int, channels: int) -> torch.Tensor:
    """Slopes and an edge, or tiles of pure colours: uint8, (channels, height, width)."""
    if name.startswith("tiles"):
        tiles = np.random.default_rng(5).integers(0, 2, (channels, -(-height // 8), -(-width // 8))) * 255
        pixels = tiles.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    else:
        y, x = np.mgrid[0:height, 0:width]
        planes = [
            100 + 70 * np.sin(x / (17 + 3 * c)) + 50 * np.cos(y / (23 - 4 * c)) + 30 * (x > y + 5 * c)
            for c in range(channels)
        ]
        pixels = np.stack(planes).clip(0, 255)
    return torch.from_numpy(pixels.astype(np.uint8))


def main() -> None:
    """Writes the weight file, the streams, their pictures and what must be found in them."""
    names = ["image_tiny.safetensors", "image.json"]
    names += [f"image_{name}.{kind}" for name in CASES for kind in ("lpz", "png")]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    FOLDER.mkdir(exist_ok=True)
    tables = gaussian_tables(scale_table().numpy(), tail_mass=2.0**-8)
    weights = export_image(CONFIG, make_state(CONFIG), tables)
    codec = ImageCodec(weights)
    expected: dict[str, Any] = {}
    for name, (height, width, channels, options) in CASES.items():
        data = codec.compress(make_picture(name, height, width, channels), **options)
        container = read_container(data)
        header, offset = read_image_header(container.payload, DEFAULT_LIMITS)
        _, y_hat = codec._decode_latent(data, DEFAULT_LIMITS)
        units = (y_hat.double() * UNIT).numpy().astype("<f8") + 0.0
        expected[name] = {
            "height": header.height,
            "width": header.width,
            "channels": header.channels,
            "quality_tenths": header.quality_tenths,
            "symbols_crc32c": f"{header.checksum:08x}",
            "coded_offset": offset,
            "payload_bytes": len(container.payload),
            "stream_sha256": hashlib.sha256(data).hexdigest(),
            "y_hat_shape": list(y_hat.shape[1:]),
            "y_hat_sha256": hashlib.sha256(units.tobytes()).hexdigest(),
            "metadata": {key: value.hex() for key, value in options.get("metadata", {}).items()},
        }
        pixels = codec.decompress(data).permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(
            FOLDER / f"image_{name}.png", optimize=True
        )
        (FOLDER / f"image_{name}.lpz").write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    (FOLDER / "image_tiny.safetensors").write_bytes(weights.to_bytes())
    content = {"fingerprint": codec.fingerprint.hex(), "streams": expected}
    (FOLDER / "image.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
