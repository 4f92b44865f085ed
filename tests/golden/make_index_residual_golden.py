"""Makes the golden index streams with residual indices: run once, and never again.

    python tests/golden/make_index_residual_golden.py

Its weights are those of the other golden index streams and an addition, patches of noise. So the others must
decode with them as well. It refuses to overwrite anything, see make_index_golden.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from make_index_golden import FOLDER, METADATA, digest, make_picture
from PIL import Image

from latentpress.codecs.bitstream import DEFAULT_LIMITS, read_container
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_payload import read_payload
from latentpress.codecs.index_residual import CLASSES, PATCH, ResidualBook
from latentpress.codecs.weights import read_weight_file
from latentpress.train.index_residual import tables_of_counts, with_residual_book

CODES = 24

CASES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "rgb_64x96_q93_residual": (64, 96, 3, {"quality": 93}),
    "grey_37x83_q100_residual": (37, 83, 1, {"quality": 100, "metadata": METADATA}),
    "rgb_80x112_q96_residual_packets": (80, 112, 3, {"quality": 96, "packets": 5}),
}


def make_weights() -> Any:
    """The other golden weights with patches of noise and made-up tables."""
    random = np.random.default_rng(22)
    patches = 0.2 * random.normal(size=(CODES, PATCH))
    patches[0] = 0
    patches = patches[np.argsort(np.square(patches).sum(axis=1))].astype(np.float16)
    counts = random.integers(1, 9000, (CLASSES, CODES)).astype(np.float64)
    book = ResidualBook(torch.from_numpy(patches), tables_of_counts(counts))
    return with_residual_book(read_weight_file(FOLDER / "index_tiny.safetensors"), book)


def main() -> None:
    """Writes the weight file, the streams, their pictures and what must be found in them."""
    names = ["index_tiny_residual.safetensors", "index_residual.json"]
    names += [f"index_{name}.{kind}" for name in CASES for kind in ("lpz", "png")]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    weights = make_weights()
    codec = IndexCodec(weights)
    expected: dict[str, Any] = {}
    for name, (height, width, channels, options) in CASES.items():
        data = codec.compress(make_picture(height, width, channels), **options)
        bodies = read_payload(read_container(data).payload, codec.extended_fingerprint, DEFAULT_LIMITS)
        found = codec._receive(data, DEFAULT_LIMITS)
        assert found.residuals is not None
        expected[name] = {
            "height": height,
            "width": width,
            "channels": channels,
            "packets": len(bodies),
            "residual_level": found.header.residual_level,
            "split_sha256": digest(found.grains.split[0]),
            "fine_sha256": digest(found.grains.fine[0]),
            "indexes_sha256": [digest(index[0]) for index in found.indexes],
            "marked_sha256": digest(torch.from_numpy(found.residuals.marked)),
            "residuals_sha256": digest(torch.from_numpy(found.residuals.indexes)),
            "stream_sha256": hashlib.sha256(data).hexdigest(),
            "metadata": {key: value.hex() for key, value in options.get("metadata", {}).items()},
        }
        pixels = codec.decompress(data).permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(
            FOLDER / f"index_{name}.png", optimize=True
        )
        (FOLDER / f"index_{name}.lpz").write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    (FOLDER / "index_tiny_residual.safetensors").write_bytes(weights.to_bytes())
    content = {
        "fingerprint": codec.fingerprint.hex(),
        "extended_fingerprint": codec.extended_fingerprint.hex(),
        "streams": expected,
    }
    (FOLDER / "index_residual.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
