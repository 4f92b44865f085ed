"""Polygon streams of format version 1 decode to the same mesh for ever. Imports only core dependencies."""

import hashlib
import json
from pathlib import Path

import pytest

from latentpress.codecs.bitstream import read_container
from latentpress.codecs.polygon_stream import read_polygons
from latentpress.codecs.registry import inspect, load

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "polygons.json").read_text(encoding="utf-8"))

names = pytest.mark.parametrize("name", EXPECTED["streams"])


def stream(name: str) -> bytes:
    return (FOLDER / f"polygons_{name}.lpz").read_bytes()


@names
def test_header(name) -> None:
    expected, found = EXPECTED["streams"][name], inspect(stream(name))
    assert found.total_bytes == expected["bytes"]
    assert found.fingerprint == EXPECTED["fingerprint"]
    assert found.parameters["mode"] == "polygons"
    assert found.parameters["faces"] == expected["faces"]


@names
def test_the_same_mesh(name) -> None:
    expected, found = EXPECTED["streams"][name], read_polygons(read_container(stream(name)).payload)
    assert (len(found.vertices), len(found.faces)) == (expected["vertices"], expected["faces"])
    digest = hashlib.sha256(found.vertices.astype("<f4").tobytes() + found.faces.astype("<i8").tobytes())
    if found.colours is not None:
        digest.update(found.colours.tobytes())
    assert digest.hexdigest() == expected["sha256"]


@names
def test_the_codec_accepts_it(name) -> None:
    load(FOLDER / "shape_tiny.safetensors").verify(stream(name))
