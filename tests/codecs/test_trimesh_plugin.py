"""Shape streams as files of trimesh."""

import importlib.util
from pathlib import Path

import pytest

trimesh = pytest.importorskip("trimesh")

from latentpress.codecs.shape import ShapeCodec  # noqa: E402
from latentpress.codecs.trimesh_plugin import register  # noqa: E402


def test_save_and_load(tmp_path) -> None:
    path = Path(__file__).with_name("shape_weights.py")
    spec = importlib.util.spec_from_file_location("shape_weights", path)
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    codec = ShapeCodec(helper.make_weights())
    register(codec, resolution=16, quality=30)
    ball = trimesh.creation.icosphere(2, radius=2.0)
    ball.export(tmp_path / "ball.lpz")
    assert codec.decompress((tmp_path / "ball.lpz").read_bytes(), resolution=8).vertices.size
    mesh = trimesh.load_mesh(tmp_path / "ball.lpz")
    assert len(mesh.faces)
    assert 1 < mesh.extents.max() < 6
