"""The published curves that ship."""

import json
from importlib import resources
from itertools import pairwise

import pytest

from latentpress.train.metrics.anchors import kodak_anchors
from latentpress.train.metrics.bd_rate import bd_rate


def test_curves_are_whole_and_rise() -> None:
    anchors = kodak_anchors()
    assert "vtm" in anchors
    for name, points in anchors.items():
        assert len(points.bpp) == len(points.psnr) >= 4, name
        for values in points:
            assert all(a < b for a, b in pairwise(values)), name
        assert 0 < points.bpp[0] < points.bpp[-1] < 24, name
        assert 15 < points.psnr[0] < points.psnr[-1] < 60, name


def test_file_names_its_sources() -> None:
    text = resources.files("latentpress.assets").joinpath("data/kodak_anchors.json").read_text("utf-8")
    content = json.loads(text)
    assert content["source"]
    assert "Kodak" in content["dataset"]
    assert set(content["codecs"]) == set(kodak_anchors())


def test_codecs_stand_in_the_order_they_are_known_for() -> None:
    anchors = kodak_anchors()
    vtm, hm = anchors["vtm"], anchors["hm"]
    assert bd_rate(*hm, *vtm) == pytest.approx(-18, abs=8)
