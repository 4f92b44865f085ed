"""The examples in Python of README and docs/ run, one after the other within a page."""

import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentpress
from latentpress.codecs import registry
from latentpress.models.image.network import build_image_network

ROOT = Path(__file__).resolve().parent.parent.parent


def loaded(path: str) -> ModuleType:
    """A module of the tests."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Blocks that are not run, by a part of them, and why.
NOT_RUN = {
    ">>>": "a doctest, which another test runs",
    "zarr.create_array": "needs zarr; tests/codecs/test_zarr_codec.py",
}
# Lines that need what a test does not have, and what takes their place.
REPLACED = {
    'codec = from_pretrained("owner/name", revision="COMMIT")': "pass",
    "target_bytes=1000": "target_bytes=2000",
    "max_error=0.02": "max_error=0.9",
    "target_bytes=50_000": "target_bytes=1_200",
    "target_bytes=9_000": "target_bytes=6_000",
    "target_psnr=35.0": "target_psnr=15.0",
    "target_bpp=0.06": "target_bpp=0.2",
    "effort=5": "effort=1",
    "effort=3": "effort=1",
    "ratio=512": "ratio=8",
    "core=64": "core=16",
    # Listed as one way among others; it is for streams of periodic flows without a bound.
    "decompress(data, divergence_free": "decompress(codec.compress(flow, periodic=True), divergence_free",
}


def runnable(text: str) -> list[str]:
    return [block for block in BLOCK.findall(text) if not any(part in block for part in NOT_RUN)]


PAGES = {
    path.relative_to(ROOT).as_posix(): blocks
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if (blocks := runnable(path.read_text("utf-8")))
}


@pytest.fixture
def namespace(workshop, shipped, monkeypatch) -> dict[str, Any]:
    """What the examples speak of without having made it."""
    import trimesh

    def load(name: str, device: str = "cpu") -> Any:
        # Names of files in the examples stand for weights of that name.
        return registry.load(shipped.get(Path(name).stem, name), device)

    monkeypatch.setitem(latentpress.__dict__, "load", load)
    photograph = np.asarray(Image.open("photo.png").convert("RGB"))
    picture = torch.from_numpy(photograph.copy()).permute(2, 0, 1)
    flow = np.load("flow.npy")
    ball = trimesh.creation.icosphere(2)
    index = registry.load("index")
    stream = index.compress(picture, quality=70, packets=10)
    fields = registry.load("field")
    for name in ("image", "model"):
        Path(f"{name}.safetensors").write_bytes(shipped["image"].read_bytes())
    helpers = loaded("codecs/conftest.py")
    Path("photo.lpz").write_bytes(registry.load("image").compress(picture))
    camera = np.eye(4, dtype=np.float32)
    camera[2, 3] = 3.0
    return {
        "image": picture,
        "picture": picture,
        "network": build_image_network(**helpers.CONFIG),
        "flow": flow,
        "later": fields.compress(flow + 0.01, ratio=64),
        "mesh": ball,
        "damaged": stream[:-4],
        "camera_to_world": torch.from_numpy(camera),
        "intrinsics": torch.tensor([[200.0, 0, 128], [0, 200, 128], [0, 0, 1]]),
        "Image": Image,
        "io": io,
    }


def test_there_are_examples():
    assert {"README.md", "docs/image.md", "docs/field.md", "docs/shape.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_examples(page, namespace, settings_of_the_process):
    for block in PAGES[page]:
        for text, other in REPLACED.items():
            block = block.replace(text, other)
        exec(compile(block, page, "exec"), namespace)
