"""Meshes through the polygon coder: any triangles come back exactly, any bytes are refused or are a mesh."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import LimitExceeded, Limits, StreamError
from latentpress.codecs.polygon_channel import PricingChannel
from latentpress.codecs.polygon_coder import PolygonCoder, Polygons
from latentpress.codecs.polygon_colours import ColourCoder, from_levels, level_range, to_levels
from latentpress.codecs.polygon_payload import HALF_WIDTH, PolygonHeader, read_polygon_header
from latentpress.codecs.polygon_prediction import FRACTION, FREEDOM, student_row
from latentpress.codecs.polygon_stream import places_of, read_polygons, write_polygons
from latentpress.codecs.shape_payload import Pose, describe

LIMITS = Limits(max_vertices=2**12, max_faces=2**12)


def triangles(nodes, faces, colours=None):
    """Corners of triangles, each beginning with its least, in order: what must not change."""
    found = []
    for face in faces.tolist():
        corners = [(*nodes[v], *(() if colours is None else colours[v])) for v in face]
        first = min(range(3), key=lambda k: corners[k:] + corners[:k])
        found.append(tuple(tuple(int(x) for x in c) for c in corners[first:] + corners[:first]))
    return sorted(found)


def nodes_of(vertices, grid):
    above, below = HALF_WIDTH
    return np.rint((vertices.astype(np.float64) * below / above + 1) * grid / 2).astype(int)


def sphere(rings=6, around=9, grid=60):
    """A closed mesh."""
    points = [(0, 0, 1)]
    for i in range(1, rings):
        for j in range(around):
            a, b = np.pi * i / rings, 2 * np.pi * j / around
            points.append((np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)))
    points.append((0, 0, -1))
    last = len(points) - 1
    faces = []
    for j in range(around):
        k = (j + 1) % around
        faces.append((0, 1 + j, 1 + k))
        faces.append((last, last - around + k, last - around + j))
        for i in range(rings - 2):
            a, b = 1 + i * around, 1 + (i + 1) * around
            faces += [(a + j, b + j, b + k), (a + j, b + k, a + k)]
    nodes = np.rint((np.array(points) + 1.05) * grid / 2.1).astype(np.int64)
    return Polygons(nodes, np.array(faces, np.int64))


@st.composite
def soups(draw):
    """Any triangles: open, of several parts, no manifolds, the same one twice."""
    grid = draw(st.integers(8, 40))
    count = draw(st.integers(3, 12))
    node = st.tuples(*[st.integers(0, grid)] * 3)
    nodes = draw(st.lists(node, min_size=count, max_size=count))
    face = st.lists(st.integers(0, count - 1), min_size=3, max_size=3, unique=True)
    faces = draw(st.lists(face, min_size=1, max_size=24))
    return grid, Polygons(np.array(nodes, np.int64), np.array(faces, np.int64))


@given(soups())
@settings(max_examples=60, deadline=None)
def test_any_triangles_come_back(soup) -> None:
    grid, mesh = soup
    found = read_polygons(write_polygons(mesh, grid))
    assert triangles(nodes_of(found.vertices, grid), found.faces) == triangles(mesh.nodes, mesh.faces)


@given(soups(), st.integers(1, 255), st.randoms())
@settings(max_examples=30, deadline=None)
def test_colours_stay_at_their_corners(soup, step, random) -> None:
    grid, mesh = soup
    colours = np.array([[random.random() for _ in range(3)] for _ in mesh.nodes])
    levels = to_levels(colours, step)
    found = read_polygons(write_polygons(mesh, grid, levels, step))
    expected = triangles(mesh.nodes, mesh.faces, from_levels(levels, step))
    assert triangles(nodes_of(found.vertices, grid), found.faces, found.colours) == expected


def test_a_smooth_mesh_takes_few_bits() -> None:
    mesh = sphere()
    payload = write_polygons(mesh, 60)
    assert 8 * len(payload) < 18 * len(mesh.nodes)


def test_prices_are_those_of_the_stream() -> None:
    mesh, channel = sphere(), PricingChannel()
    PolygonCoder(channel, 60).code(mesh, len(mesh.faces))
    header = len(PolygonHeader(60, len(mesh.faces), None, Pose(), None, 0).to_bytes())
    assert abs(channel.bits / 8 + header - len(write_polygons(mesh, 60))) < 5


def test_levels_cover_their_colours() -> None:
    for step in (1, 7, 20, 255):
        corners = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], float)
        levels = to_levels(corners, step)
        for k in range(3):
            low, high = level_range(k, step)
            assert low <= levels[:, k].min() <= levels[:, k].max() <= high
    assert np.array_equal(from_levels(to_levels(corners, 1), 1), corners * 255)


def test_equal_colours_cost_nearly_nothing() -> None:
    mesh, channel = sphere(), PricingChannel()
    levels = np.tile([[5, 1, -1]], (len(mesh.nodes), 1))
    ColourCoder(channel, 20).code(levels, len(mesh.nodes), mesh.faces)
    assert channel.bits < 1.5 * len(mesh.nodes)


def test_header_and_description() -> None:
    header = PolygonHeader(90, 300, 20, Pose(100, (1, -2, 3)), "meters", 77)
    assert read_polygon_header(header.to_bytes(), LIMITS) == (header, len(header.to_bytes()))
    found = describe(write_polygons(sphere(), 60), LIMITS)
    assert (found["mode"], found["grid"], found["colour"]) == ("polygons", 60, "no")


@pytest.mark.parametrize(
    "payload",
    ["81", "825a0c0000", "a05a0c0000", "80070c0000", "80800a0c0000", "805a000000", "845a0c000000", "805a0c"],
)
def test_impossible_headers(payload) -> None:
    with pytest.raises(StreamError):
        read_polygon_header(bytes.fromhex(payload), LIMITS)


def test_too_many_faces_are_refused_at_once() -> None:
    header = PolygonHeader(90, 5000, None, Pose(), None, 0)
    with pytest.raises(LimitExceeded):
        read_polygons(header.to_bytes() + b"1234", LIMITS)


def test_every_truncation_is_refused() -> None:
    mesh = sphere(4, 5)
    payload = write_polygons(mesh, 60, np.tile([[5, 1, -1]], (len(mesh.nodes), 1)), 20)
    for end in range(len(payload)):
        with pytest.raises(StreamError):
            read_polygons(payload[:end], LIMITS)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_mutations_are_refused_or_a_mesh(data) -> None:
    mesh = sphere(4, 5)
    payload = bytearray(write_polygons(mesh, 60, np.tile([[5, 1, -1]], (len(mesh.nodes), 1)), 20))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload) - 1))
        payload[place] = data.draw(st.integers(0, 255))
    try:
        found = read_polygons(bytes(payload), LIMITS)
    except StreamError:
        return
    assert len(found.faces) <= LIMITS.max_faces
    assert np.isfinite(found.vertices).all()


def test_the_grid_reaches_beyond_the_cube() -> None:
    assert places_of(np.array([[0, 32, 64]]), 64).tolist() == [[-1.0625, 0.0, 1.0625]]


@pytest.mark.parametrize("mean", [2**31, 2**32, -(2**35), 2**70])
@pytest.mark.parametrize("spread", [1, 2**45, 2**60])
def test_means_that_are_far_off_leave_rows_exact(mean, spread) -> None:
    """Meshes made for it push means beyond what squares in 64 bits can hold."""
    nodes = np.arange(1024, dtype=np.int64) * FRACTION
    wide = min(FREEDOM * spread, 1 << 47)
    share = [(wide << 15) // (wide + (node - mean) ** 2) for node in nodes.tolist()]
    weights = [(x * x >> 15) ** 2 for x in share]
    whole = max(sum(weights), 1)
    assert student_row(nodes, mean, spread).tolist() == [w * (1 << 24) // whole + 1 for w in weights]
