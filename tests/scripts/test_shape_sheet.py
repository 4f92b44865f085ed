"""The sheet of shapes: what is on it, and that it says what the streams hold."""

import re

import numpy as np
import pytest

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("DracoPy")
pytest.importorskip("embreex")

from latentpress.scripts import shape_sheet  # noqa: E402
from latentpress.scripts.shape_sheet import SIDE, formula_shapes, portrait, row_of_panels  # noqa: E402


class Twin:
    """A codec whose streams are of a given size, and hold what was put in."""

    def __init__(self, size: int) -> None:
        self.size = size

    def compress(self, mesh, **options) -> bytes:
        self.options, self.mesh = options, mesh
        return bytes(self.size)

    def decompress(self, data: bytes):
        return self.mesh


@pytest.fixture(scope="module")
def ball():
    return trimesh.creation.icosphere(3)


def test_formulas_make_closed_shapes_of_length_two() -> None:
    shapes = formula_shapes()
    assert len(shapes) == 3
    for mesh in shapes.values():
        assert mesh.is_watertight
        assert mesh.volume > 0
        assert mesh.extents.max() == pytest.approx(2)
        assert not mesh.visual.defined


def test_flange_has_seven_holes() -> None:
    assert formula_shapes()["flange"].euler_number == 2 - 2 * 7


def test_row_says_bytes_and_errors(ball) -> None:
    codec = Twin(123)
    original, ours, rival = row_of_panels("ball", ball, codec, limit=200, effort=3)
    assert codec.options == {"target_bytes": 200, "effort": 3, "colour": False}
    assert original.title == "ball"
    assert ours.facts.startswith("123 bytes, Chamfer .0")
    assert int(re.match(r"\d+", rival.facts)[0]) <= 200
    np.testing.assert_array_equal(ours.picture, original.picture)
    assert np.abs(rival.picture - original.picture).mean() > 1e-3


def test_rival_without_a_stream_leaves_a_blank(ball) -> None:
    rival = row_of_panels("ball", ball, Twin(9), limit=10, effort=0)[2]
    assert rival.facts == "nothing within 10 bytes"
    assert rival.picture.min() == 1


def test_file(ball, tmp_path, monkeypatch, capsys) -> None:
    from PIL import Image

    monkeypatch.setattr(shape_sheet, "load", lambda name: Twin(50))
    ball.export(tmp_path / "a.ply")
    assert shape_sheet.main([str(tmp_path / "sheet.jpg"), str(tmp_path / "a.ply"), "--bytes", "150"]) == 0
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.width > 3 * SIDE
    assert "a; latentpress: 50 bytes" in capsys.readouterr().out


def test_portrait_of_nothing_is_white() -> None:
    empty = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), int))
    assert portrait(empty).min() == 1
