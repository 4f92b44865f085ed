"""Makes the golden index streams whose packets share a base: run once, and never again.

    python tests/golden/make_index_base_golden.py

With the weights of the golden streams with residual indices. It refuses to overwrite anything, see
make_index_golden.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from make_index_golden import FOLDER, digest, make_picture
from PIL import Image

from latentpress.codecs.bitstream import DEFAULT_LIMITS
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.weights import read_weight_file

CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "rgb_80x112_q60_base": (80, 112, 3, {"quality": 60, "packets": 5}),
    "rgb_64x64_q5_base": (64, 64, 3, {"quality": 5, "packets": 4}),
    "grey_75x50_q95_residual_base": (75, 50, 1, {"quality": 95, "packets": 3}),
}


def main() -> None:
    """Writes the streams, their pictures and what must be found in them."""
    names = ["index_base.json", *(f"index_{name}.{kind}" for name in CASES for kind in ("lpz", "png"))]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    codec = IndexCodec(read_weight_file(FOLDER / "index_tiny_residual.safetensors"))
    expected: dict[str, Any] = {}
    for name, (height, width, channels, options) in CASES.items():
        data = codec.compress(make_picture(height, width, channels), **options)
        found = codec._receive(data, DEFAULT_LIMITS)
        expected[name] = {
            "height": height,
            "width": width,
            "channels": channels,
            "packets": options["packets"],
            "base_bytes": found.header.base_bytes,
            "split_sha256": digest(found.grains.split[0]),
            "fine_sha256": digest(found.grains.fine[0]),
            "indexes_sha256": [digest(index[0]) for index in found.indexes],
            "stream_sha256": hashlib.sha256(data).hexdigest(),
            "metadata": {},
        }
        if found.residuals is not None:
            expected[name] |= {
                "residual_level": found.header.residual_level,
                "marked_sha256": digest(torch.from_numpy(found.residuals.marked)),
                "residuals_sha256": digest(torch.from_numpy(found.residuals.indexes)),
            }
        pixels = codec.decompress(data).permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(
            FOLDER / f"index_{name}.png", optimize=True
        )
        (FOLDER / f"index_{name}.lpz").write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    content = {"streams": expected}
    (FOLDER / "index_base.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
