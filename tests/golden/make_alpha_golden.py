"""Makes the golden files of alpha and of 16-bit pictures: run once for a new version, and never again.

    python tests/golden/make_alpha_golden.py

What it writes is kept for ever, so it refuses to overwrite anything. ``alpha_*.bin`` are contents of ALPHA
sections, made from integers only; ``picture_*.lpz`` are whole streams of ``image_tiny.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentpress.codecs.alpha_coder import decode_alpha, encode_alpha
from latentpress.codecs.bitstream import FORMAT_VERSION
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import inspect
from latentpress.codecs.weights import read_weight_file

FOLDER = Path(__file__).resolve().parent / f"v{FORMAT_VERSION}"


def disc(height: int, width: int, radius: int, softness: int, top: int) -> np.ndarray:
    """Opaque in the middle, transparent outside; squares in place of roots, so that all is in integers."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    inside = radius**2 - (2 * y - height) ** 2 // 4 - (2 * x - width) ** 2 // 4
    values = (inside * top // (softness * radius) + top // 2).clip(0, top)
    return values.astype(np.uint8 if top == 255 else np.uint16)


def noise(height: int, width: int, top: int) -> np.ndarray:
    """Numbers of a small generator, among them many transparent and opaque ones."""
    state, values = 1, []
    for _ in range(height * width):
        state = (state * 1103515245 + 12345) % 2**31
        values.append(min(max((state >> 8) % (2 * top) - top // 2, 0), top))
    return np.array(values, np.uint8 if top == 255 else np.uint16).reshape(height, width)


def one_value(value: int, kind: type = np.uint8) -> np.ndarray:
    """A picture of one value."""
    return np.full((31, 45), value, kind)


def several_tiles() -> np.ndarray:
    """A tile that is transparent, one that is opaque, and others."""
    alpha = np.zeros((600, 1100), np.uint8)
    alpha[:, 512:1024] = 255
    alpha[520:, 900:] = disc(80, 200, 35, 5, 255)
    return alpha


# Name: values and largest error.
SECTIONS: dict[str, tuple[np.ndarray, int]] = {
    "opaque": (one_value(255), 0),
    "constant_16": (one_value(4660, np.uint16), 0),
    "hard_disc": (disc(50, 70, 20, 1, 255) // 128 * 255, 0),
    "disc_0": (disc(50, 70, 20, 6, 255), 0),
    "disc_2": (disc(50, 70, 20, 6, 255), 2),
    "wide_disc_5": (disc(64, 80, 35, 60, 255), 5),
    "noise": (noise(23, 19, 255), 0),
    "column": (noise(70, 1, 255), 1),
    "row": (noise(1, 3, 255), 0),
    "tiles_2": (several_tiles(), 2),
    "disc_16": (disc(40, 60, 18, 30, 65535), 0),
    "disc_16_514": (disc(40, 60, 18, 30, 65535), 514),
    "noise_16": (noise(17, 15, 65535), 0),
}


def layers(channels: int, deep: bool) -> torch.Tensor:
    """A picture with alpha: slopes under a soft disc."""
    y, x = np.mgrid[0:41, 0:60]
    planes = [(40 * c + 3 * x + 2 * y) % 256 for c in range(channels - 1)]
    picture = np.stack([*planes, disc(41, 60, 17, 5, 255)]).astype(np.uint8)
    if deep:
        return torch.from_numpy(picture.astype(np.int32) * 257 - 100 * (picture > 0)).to(torch.uint16)
    return torch.from_numpy(picture)


# Name: picture and options of compress.
STREAMS: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {
    "rgba_q60": (layers(4, False), {"quality": 60}),
    "grey_alpha_q30_exact": (layers(2, False), {"quality": 30, "alpha_max_error": 0}),
    "rgba16_q100": (layers(4, True), {"quality": 100}),
    "rgb16_q80": (layers(4, True)[:3], {"quality": 80}),
}


def main() -> None:
    """Writes sections, streams, what they decode to, and what is known of them."""
    names = [f"alpha_{name}.bin" for name in SECTIONS]
    names += ["alpha.json", *(f"picture_{name}.lpz" for name in STREAMS)]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    facts: dict[str, Any] = {"sections": {}, "streams": {}}
    for name, (alpha, error) in SECTIONS.items():
        section = encode_alpha(alpha, error)
        values = decode_alpha(section, *alpha.shape)
        (FOLDER / f"alpha_{name}.bin").write_bytes(section)
        little = values.astype(values.dtype.newbyteorder("<"))
        facts["sections"][name] = {
            "height": alpha.shape[0],
            "width": alpha.shape[1],
            "bits": 8 * alpha.dtype.itemsize,
            "values_sha256": hashlib.sha256(little.tobytes()).hexdigest(),
            "section_sha256": hashlib.sha256(section).hexdigest(),
        }
        print(f"alpha {name}: {len(section)} bytes")
    codec = ImageCodec(read_weight_file(FOLDER / "image_tiny.safetensors"))
    for name, (picture, options) in STREAMS.items():
        data = codec.compress(picture, **options)
        (FOLDER / f"picture_{name}.lpz").write_bytes(data)
        np.save(FOLDER / f"picture_{name}.npy", codec.decompress(data).numpy())
        facts["streams"][name] = {
            "parameters": dict(inspect(data).parameters),
            "sections": [section.name for section in inspect(data).sections],
            "stream_sha256": hashlib.sha256(data).hexdigest(),
        }
        print(f"picture {name}: {len(data)} bytes")
    (FOLDER / "alpha.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
