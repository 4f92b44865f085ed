"""Shape streams as files of trimesh."""

import pytest

trimesh = pytest.importorskip("trimesh")

from latentpress.codecs.trimesh_plugin import register  # noqa: E402


def test_save_and_load(shape_codec, tmp_path) -> None:
    register(shape_codec, resolution=16, quality=30)
    ball = trimesh.creation.icosphere(2, radius=2.0)
    ball.export(tmp_path / "ball.lpz")
    assert shape_codec.decompress((tmp_path / "ball.lpz").read_bytes(), resolution=8).vertices.size
    mesh = trimesh.load_mesh(tmp_path / "ball.lpz")
    assert len(mesh.faces)
    assert 1 < mesh.extents.max() < 6
