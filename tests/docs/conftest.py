"""A folder in which what the documentation says can be done: small weights of every family, small files."""

import importlib.util
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.codecs import registry, weights
from latentpress.codecs.card import ModelCard
from latentpress.codecs.weights import read_weight_file
from latentpress.scripts import batch_pool

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1"


def loaded(path: str) -> ModuleType:
    """A module of the tests."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shipped(tmp_path_factory) -> dict[str, Path]:
    """Small weights of every family under the names of those that ship, with cards."""
    folder = tmp_path_factory.mktemp("weights")
    families = ("image", "image-max", "index", "shape")
    contents = {name: (GOLDEN / f"{name}_tiny.safetensors").read_bytes() for name in families}
    contents["field"] = loaded("codecs/tiny_field.py").make_weights().to_bytes()
    for name, content in contents.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(content)
        fingerprint = read_weight_file(path).fingerprint().hex()
        card = ModelCard(
            name, name, {}, fingerprint, 1, len(content), "2025-01-01", "MIT", "", "", (0.1, 1.0)
        )
        path.with_suffix(".json").write_text(card.to_json())
    return {name: folder / f"{name}.safetensors" for name in contents}


def photograph(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def workshop(shipped, tmp_path, monkeypatch) -> Path:
    """A folder with what the commands read, in which they run."""
    import trimesh

    monkeypatch.chdir(tmp_path)
    for module in (weights, registry):
        monkeypatch.setattr(module, "shipped_weights", lambda: dict(shipped))
    # In a thread, which knows of the small weights.
    monkeypatch.setattr(batch_pool, "_local_pool", ThreadPoolExecutor)
    # The same whatever else is installed.
    monkeypatch.setattr("latentpress.scripts.field_peers.Peer.installed", lambda peer: False)
    for folder in ("photos", "kodak", "data/images/kodak", "runs/shape", "docs/figures"):
        Path(folder).mkdir(parents=True)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for number, name in enumerate(["photos/a", "photos/b", "kodak/c", "data/images/kodak/kodim05", "photo"]):
        photograph(192, 176 + 16 * (number % 2), number).save(f"{name}.png")
    photograph(320, 240, 9).save("photo.jpg")
    module = loaded("codecs/tiny_field.py")
    for name in ("flow", "box"):
        np.save(f"{name}.npy", module.waves(3, 16, 16, 16))
    ball = trimesh.creation.icosphere(2)
    for name in ("bunny.obj", "spot.obj"):
        ball.export(name)
    ball.visual.vertex_colors = ((ball.vertices + 1) * 127).astype(np.uint8)
    for name in ("model.glb", "Duck.glb"):
        ball.export(name)
    stream = (GOLDEN / "index_rgb_80x112_q70_packets.lpz").read_bytes()
    Path("damaged.lpz").write_bytes(stream[:-3])
    return tmp_path


@pytest.fixture
def settings_of_the_process() -> Iterator[None]:
    """What a command sets for a whole process is set back."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)
