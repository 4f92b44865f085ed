"""The measures that shapes are compared by, and the rival's best effort."""

import numpy as np
import pytest

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("DracoPy")

from latentpress.scripts.mesh_rendering import picture_psnr, render  # noqa: E402
from latentpress.scripts.shape_comparison import (  # noqa: E402
    DracoRival,
    Result,
    compare,
    decoded_draco,
    sampled,
    table,
)


@pytest.fixture(scope="module")
def ball():
    return trimesh.creation.icosphere(3)


def test_measures(ball) -> None:
    surface = sampled(ball.vertices, ball.faces, seed=0)
    same = compare(surface, sampled(ball.vertices, ball.faces, seed=1))
    assert same[0] < 0.02
    assert same[1] > 0.9
    assert same[2] > 0.99
    grown = compare(surface, sampled(ball.vertices * 1.1, ball.faces, seed=1))
    assert grown[0] == pytest.approx(0.1, abs=0.01)
    assert grown[1] < 0.01


def test_rival_takes_the_best_that_fits(ball) -> None:
    rival, original = DracoRival(ball), sampled(ball.vertices, ball.faces, seed=0)

    def judge(stream: bytes) -> float:
        return compare(original, decoded_draco(stream))[0]

    small, large = (rival.best(limit, judge) for limit in (220, 500))
    assert len(small) <= 220
    assert len(large) <= 500
    assert judge(large) < judge(small)
    assert rival.best(60, judge) is None


def test_table_counts_wins() -> None:
    rows = [("a", "latentpress", 0.02), ("a", "decimation + Draco", 0.03), ("b", "latentpress", 0.05)]
    rows += [("b", "decimation + Draco", 0.04), ("c", "latentpress", 0.01)]
    results = [Result(mesh, codec, 100, 99, chamfer, 0.5, 0.9, 1.0) for mesh, codec, chamfer in rows]
    assert "lower Chamfer distance on 2 of 3 meshes" in table(results)
    assert "  0.0267" in table(results)


def test_pictures(ball) -> None:
    pytest.importorskip("embreex")
    small = ball.copy()
    small.apply_scale(0.8)
    small.visual.vertex_colors = np.tile(np.array([255, 0, 0, 255], np.uint8), (len(small.vertices), 1))
    pictures = render(small, views=2, size=32)
    assert pictures.shape == (2, 32, 32, 3)
    assert pictures[0, 0, 0].tolist() == [1, 1, 1]
    middle = pictures[1, 16, 16]
    assert middle[0] > 0.9
    assert middle[1] == 0
    assert picture_psnr(pictures, pictures) > 100
    assert picture_psnr(pictures, np.ones_like(pictures)) < 20
