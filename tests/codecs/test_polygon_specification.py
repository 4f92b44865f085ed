"""Polygon streams are what docs/bitstream.md says: a second decoder, written from it, finds the same meshes.

Imports only core dependencies but for meshes that the shape codec makes itself.
"""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from latentpress.codecs import polygon_tables
from latentpress.codecs.bitstream import read_container
from latentpress.codecs.packed_words import packed_words
from latentpress.codecs.polygon_channel import CodedChannel
from latentpress.codecs.polygon_coder import Polygons
from latentpress.codecs.polygon_colours import level_range
from latentpress.codecs.polygon_stream import read_polygons, write_polygons
from latentpress.codecs.shape_payload import UNITS, Pose
from latentpress.codecs.symbol_channel import Sender

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
SPECIFICATION = Path(__file__).parents[2] / "docs" / "bitstream.md"
EXPECTED = json.loads((FOLDER / "polygons.json").read_text(encoding="utf-8"))["streams"]


def module_beside(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def second():
    """The second decoder."""
    return module_beside("second_polygon_decoder")


def golden(name: str) -> bytes:
    return (FOLDER / f"polygons_{name}.lpz").read_bytes()


def check(second, payload: bytes):
    """Decode a payload twice, vertex for vertex, face for face, colour for colour."""
    ours, theirs = second.decode_payload(payload), read_polygons(payload)
    assert np.array_equal(ours.in_cube().astype(np.float32), theirs.vertices)
    assert np.array_equal(ours.faces, theirs.faces)
    assert (ours.colours is None) == (theirs.colours is None)
    if ours.colours is not None:
        assert np.array_equal(ours.colours, theirs.colours)
    header = theirs.header
    assert (ours.grid, ours.step or None) == (header.grid, header.colour_step)
    assert (ours.scale, ours.centre) == (header.pose.scale, header.pose.centre_codes)
    assert (None if ours.unit is None else UNITS[ours.unit]) == header.unit
    return ours


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_streams(second, name) -> None:
    found = second.decode_stream(golden(name))
    assert (len(found.nodes), len(found.faces)) == (EXPECTED[name]["vertices"], EXPECTED[name]["faces"])
    digest = hashlib.sha256(found.in_cube().astype("<f4").tobytes() + np.array(found.faces, "<i8").tobytes())
    if found.colours is not None:
        digest.update(np.array(found.colours, np.uint8).tobytes())
    assert digest.hexdigest() == EXPECTED[name]["sha256"]
    check(second, read_container(golden(name)).payload)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_changed_symbol_is_noticed(second, name, monkeypatch) -> None:
    """The last one, on which nothing else depends."""
    original = second.parts.Symbols.finish

    def finish(self, checksum):
        self.coded[-1] += 1
        original(self, checksum)

    monkeypatch.setattr(second.parts.Symbols, "finish", finish)
    with pytest.raises(AssertionError, match="checksum"):
        second.decode_stream(golden(name))


def soup(seed: int) -> bytes:
    """Any triangles on any grid, with what whole meshes lack: vertices in one place, edges many times."""
    random = np.random.default_rng(seed)
    grid, count = int(random.choice([8, 9, 40, 200, 1023])), int(random.integers(3, 14))
    nodes = random.integers(0, grid + 1, (count, 3))
    if seed % 3 == 0:
        nodes[:, random.integers(3)] = random.integers(0, grid + 1)
    if seed % 4 == 0:
        nodes[random.integers(count)] = nodes[0]
    if seed % 5 == 0:
        nodes = nodes // (grid // 4) * (grid // 4)
    faces = np.array([random.permutation(count)[:3] for _ in range(random.integers(1, 30))])
    used, faces = np.unique(faces, return_inverse=True)
    levels, step = None, None
    if seed % 2:
        step = int(random.integers(1, 256))
        low, high = np.array([level_range(channel, step) for channel in range(3)]).T
        levels = random.integers(low, high + 1, (len(used), 3))
    pose = Pose(int(random.integers(-900, 900)), tuple(random.integers(-70, 70, 3).tolist()))
    unit = None if seed % 7 else UNITS[seed % 8]
    return write_polygons(Polygons(nodes[used], faces.reshape(-1, 3)), grid, levels, step, pose, unit)


@pytest.mark.parametrize("seed", range(40))
def test_any_triangles(second, seed) -> None:
    check(second, soup(seed))


def strip(count: int) -> np.ndarray:
    return np.array([(i, i + 1, i + 2) if i % 2 else (i + 1, i, i + 2) for i in range(count - 2)])


def tangle(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array([random.permutation(6)[:3] for _ in range(60)])


def unusual_meshes() -> dict[str, tuple[int, np.ndarray, np.ndarray]]:
    """Grid, nodes and faces where limits of the specification are reached."""
    random = np.random.default_rng(0)
    clusters = np.array([[3, 1000, 20], [1000, 40, 900]])[random.integers(0, 2, 60)]
    far = np.full((30, 3), (455, 551, 530))
    far[26:] = [[351, 968, 377], [673, 383, 460], [1011, 191, 647], [437, 690, 773]]
    alike = np.array([16, 41, 77, 276, 315, 400])
    return {
        "sizes that change a thousandfold": (1023, clusters + random.integers(-2, 3, (60, 3)), strip(60)),
        "vertices in one place, then none near": (1023, far, strip(30)),
        "edges of many triangles": (40, random.integers(0, 41, (6, 3)), tangle(1)),
        "all vertices in one place": (9, np.full((6, 3), 4), tangle(0)),
        "triangles of no size": (9, np.full((30, 3), 4), np.arange(30).reshape(-1, 3)),
        "few coordinates": (400, alike[random.integers(0, 6, (540, 3))], np.arange(540).reshape(-1, 3)),
    }


@pytest.mark.parametrize("name", unusual_meshes())
def test_unusual_meshes(second, name) -> None:
    grid, nodes, faces = unusual_meshes()[name]
    assert len(np.unique(faces)) == len(nodes)
    check(second, write_polygons(Polygons(nodes, faces), grid))


def test_what_is_left_goes_to_the_first_of_the_largest_frequencies(second) -> None:
    """Which is not the first of the largest weights, where these are beyond 2^24."""
    weights = np.array([2**27, 2**27 + 1, 3])
    sender = Sender()
    channel = CodedChannel(sender)
    symbols = [0, 1, 0, 1, 1, 2] * 50
    for symbol in symbols:
        channel.exchange(symbol, weights)
    receiver = second.Symbols(packed_words(sender.finish()))
    assert [receiver.take(weights.tolist()) for _ in symbols] == symbols
    receiver.finish(sender.checksum & 0xFFFF)


def shapes() -> dict:
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("fast_simplification")
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.visual.vertex_colors = ((ball.vertices + 1) * 127).astype(np.uint8)
    apart = trimesh.creation.icosphere(subdivisions=1)
    apart.apply_translation((3, 0.4, 0))
    u, v = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    sheet = np.stack([u, v, 0.3 * u * v], -1).reshape(-1, 3)
    corners = np.arange(81).reshape(9, 9)
    a, b, c, d = (
        part.reshape(-1) for part in (corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:])
    )
    return {
        "box": trimesh.creation.box((2, 1, 0.5)),
        "coloured": ball,
        "components": trimesh.util.concatenate([trimesh.creation.box(), apart]),
        "sheet": trimesh.Trimesh(sheet, np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])),
    }


@pytest.fixture(scope="module")
def codec(shape_codec):
    return shape_codec


@pytest.mark.parametrize("name", ["box", "coloured", "components", "sheet"])
def test_streams_of_the_shape_codec(second, codec, name) -> None:
    mesh = shapes()[name]
    data = codec.encode(mesh, mode="polygons", target_bytes=250).data
    found, decoded = check(second, read_container(data).payload), codec.decompress(data)
    np.testing.assert_allclose(found.in_place(), decoded.vertices, rtol=0, atol=1e-6 * found.scale)
    assert np.array_equal(found.faces, decoded.faces)
    assert (found.colours is not None) == (name == "coloured")
    if found.colours is not None:
        assert np.array_equal(found.colours, decoded.visual.vertex_colors[:, :3])


def test_the_constants_are_those_of_the_specification() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8").partition("### Constants of polygons\n")[2]
    found = {name: value for name, value in re.findall(r"^\| ([A-Z_]+) \| (.*) \|$", text, re.MULTILINE)}
    for name, (first, *_) in zip(
        ("BOUNDARY_COUNTS", "APEX_COUNTS"), re.findall(r"((^    \d.*\n)+)", text, re.MULTILINE), strict=True
    ):
        found[name] = ", ".join(f"({row})" for row in first.replace("\n", " ").split(";"))
    for name, value in vars(polygon_tables).items():
        if name.isupper():
            written = np.array(json.loads(f"[{found.pop(name)}]".replace("(", "[").replace(")", "]")))
            assert np.array_equal(written, np.atleast_1d(value)), name
    assert found == {}
