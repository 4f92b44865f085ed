"""Makes the golden index streams of a format version: run once for a new version, and never again.

    python tests/golden/make_index_golden.py

What it writes is kept for ever: the streams are what files in the world look like. So it refuses to
overwrite anything. The model is made up, not trained: its weights are noise, so that indices and their
predictions vary.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentpress.codecs.bitstream import DEFAULT_LIMITS, FORMAT_VERSION, read_container
from latentpress.codecs.grain_map_coder import TABLES_EACH, tables_from_counts
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_payload import read_payload
from latentpress.models.index.model import build_index_model
from latentpress.models.index.quantiser import unit_vectors
from latentpress.train.export_index import export_index

FOLDER = Path(__file__).resolve().parent / f"v{FORMAT_VERSION}"

WIDTHS = [f"{part}_{width}" for part in ("encoder", "decoder") for width in ("coarse", "medium", "fine")]

CONFIG = {
    "codes": 64,
    "code_channels": 4,
    "condition_channels": 2,
    **{f"{name}_channels": 4 for name in WIDTHS},
    **{f"{name}_depth": 1 for name in WIDTHS},
    "prior_coarse_channels": 8,
    "prior_medium_channels": 6,
    "prior_fine_channels": 4,
    "prior_coarse_depth": 2,
    "prior_medium_depth": 1,
    "prior_fine_depth": 1,
}

METADATA = {"icc": b"not a profile", "xmp": b"<x:xmpmeta/>"}

# Name: height, width, channels, options of compress.
CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "rgb_64x96_q0": (64, 96, 3, {"quality": 0}),
    "rgb_96x80_q9": (96, 80, 3, {"quality": 9}),
    "rgb_1x1_q14": (1, 1, 3, {"quality": 14}),
    "rgb_80x112_q60": (80, 112, 3, {"quality": 60}),
    "rgb_37x83_q100_metadata": (37, 83, 3, {"quality": 100, "metadata": METADATA}),
    "grey_75x50_q80": (75, 50, 1, {"quality": 80}),
    "rgb_80x112_q70_packets": (80, 112, 3, {"quality": 70, "packets": 5}),
}


def make_weights() -> Any:
    """Weights of the made-up model."""
    torch.manual_seed(21)
    model = build_index_model(**CONFIG)
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    codes = unit_vectors(torch.randn(64, 4))
    model.books.fill(codes, torch.rand(64), model.encoder.heads[0])
    counts = np.random.default_rng(21).integers(0, 40, (2 * TABLES_EACH, 2)).astype(np.float64)
    return export_index(model.config, model.state_dict(), tables_from_counts(counts))


def make_picture(height: int, width: int, channels: int) -> torch.Tensor:
    """Slopes, an edge and a rough corner: uint8, (channels, height, width)."""
    y, x = np.mgrid[0:height, 0:width]
    rough = np.random.default_rng(5).normal(0, 40, (height, width)) * ((x > width / 2) & (y > height / 2))
    planes = [
        100 + 70 * np.sin(x / (17 + 3 * c)) + 50 * np.cos(y / (23 - 4 * c)) + 30 * (x > y + 5 * c) + rough
        for c in range(channels)
    ]
    return torch.from_numpy(np.stack(planes).clip(0, 255).astype(np.uint8))


def digest(array: torch.Tensor) -> str:
    """SHA-256 of an array's values as little-endian int32, in raster order."""
    return hashlib.sha256(array.cpu().numpy().astype("<i4").tobytes()).hexdigest()


def main() -> None:
    """Writes the weight file, the streams, their pictures and what must be found in them."""
    names = ["index_tiny.safetensors", "index.json"]
    names += [f"index_{name}.{kind}" for name in CASES for kind in ("lpz", "png")]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    weights = make_weights()
    codec = IndexCodec(weights)
    expected: dict[str, Any] = {}
    for name, (height, width, channels, options) in CASES.items():
        data = codec.compress(make_picture(height, width, channels), **options)
        payload = read_container(data).payload
        bodies = read_payload(payload, codec.fingerprint, DEFAULT_LIMITS)
        found = codec._receive(data, DEFAULT_LIMITS)
        expected[name] = {
            "height": height,
            "width": width,
            "channels": channels,
            "packets": len(bodies),
            "book": found.header.book,
            "split_level": found.header.split_level,
            "fine_level": found.header.fine_level,
            "symbols_crc32c": [f"{body.checksum:08x}" for body in bodies],
            "split_sha256": digest(found.grains.split[0]),
            "fine_sha256": digest(found.grains.fine[0]),
            "indexes_sha256": [digest(index[0]) for index in found.indexes],
            "stream_sha256": hashlib.sha256(data).hexdigest(),
            "metadata": {key: value.hex() for key, value in options.get("metadata", {}).items()},
        }
        pixels = codec.decompress(data).permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(
            FOLDER / f"index_{name}.png", optimize=True
        )
        (FOLDER / f"index_{name}.lpz").write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    (FOLDER / "index_tiny.safetensors").write_bytes(weights.to_bytes())
    content = {"fingerprint": codec.fingerprint.hex(), "streams": expected}
    (FOLDER / "index.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
