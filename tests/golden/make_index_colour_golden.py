"""Makes the golden index streams with a COLOUR section: run once, and never again.

    python tests/golden/make_index_colour_golden.py

With the weights of the golden streams with residual indices, which get any colour wrong. It refuses to
overwrite anything, see make_index_golden.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from make_index_golden import FOLDER, digest
from PIL import Image
from torch import Tensor

from latentpress.codecs.bitstream import DEFAULT_LIMITS, SectionType, read_container
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_colours import read_section
from latentpress.codecs.weights import read_weight_file

HEIGHT, WIDTH = 75, 100

CASES: dict[str, dict[str, Any]] = {
    "rgb_75x100_q60_colour": {"quality": 60},
    "rgb_75x100_q70_colour_base": {"quality": 70, "packets": 4},
}


def make_saturated_picture() -> Tensor:
    """A blue slope and a red corner on white."""
    picture = torch.full((3, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    picture[:2, :, :60] = 0
    picture[1, :40, :60] = (torch.arange(60) // 2).to(torch.uint8)
    picture[:, 50:, 20:] = torch.tensor([230, 10, 30], dtype=torch.uint8)[:, None, None]
    return picture


def main() -> None:
    """Writes the streams, their pictures and what must be found in them."""
    names = ["index_colour.json", *(f"index_{name}.{kind}" for name in CASES for kind in ("lpz", "png"))]
    existing = [name for name in names if (FOLDER / name).exists()]
    if existing:
        raise SystemExit(f"golden files are never made again, and {FOLDER.name}/ has {', '.join(existing)}")
    codec = IndexCodec(read_weight_file(FOLDER / "index_tiny_residual.safetensors"))
    expected: dict[str, Any] = {}
    for name, options in CASES.items():
        data = codec.compress(make_saturated_picture(), **options)
        found = codec._receive(data, DEFAULT_LIMITS)
        section = read_container(data).get(SectionType.COLOUR)
        assert section is not None
        cells = read_section(section, (3, HEIGHT, WIDTH))
        expected[name] = {
            "height": HEIGHT,
            "width": WIDTH,
            "channels": 3,
            "packets": options.get("packets", 1),
            "split_sha256": digest(found.grains.split[0]),
            "fine_sha256": digest(found.grains.fine[0]),
            "indexes_sha256": [digest(index[0]) for index in found.indexes],
            "colours": cells.colours.tolist(),
            "colour_numbers": cells.numbers.tolist(),
            "stream_sha256": hashlib.sha256(data).hexdigest(),
            "metadata": {},
        }
        pixels = codec.decompress(data).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(FOLDER / f"index_{name}.png", optimize=True)
        (FOLDER / f"index_{name}.lpz").write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    content = json.dumps({"streams": expected}) + "\n"
    (FOLDER / "index_colour.json").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
