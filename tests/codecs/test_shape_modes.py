"""Meshes as polygons through the shape codec, and the choice between the two modes, with a tiny model."""

import numpy as np
import pytest
import torch

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("fast_simplification")

from latentpress.codecs import inspect  # noqa: E402
from latentpress.codecs.bitstream import LimitExceeded, Limits  # noqa: E402
from latentpress.codecs.polygon_encoding import Judge  # noqa: E402
from latentpress.codecs.polygon_views import look, pictures, views_around  # noqa: E402
from latentpress.codecs.shape_source import shape_source  # noqa: E402


@pytest.fixture(scope="module")
def codec(shape_codec):
    return shape_codec


@pytest.fixture(scope="module")
def mesh():
    """A box with a ball beside it, far from the origin, red and green."""
    box = trimesh.creation.box((4, 2, 2)).subdivide().subdivide()
    ball = trimesh.creation.icosphere(3, radius=1.0)
    ball.apply_translation((3, 0, 0))
    both = trimesh.util.concatenate([box, ball])
    rgba = np.tile(np.array([220, 30, 30, 255], np.uint8), (len(both.vertices), 1))
    rgba[len(box.vertices) :] = (20, 200, 40, 255)
    both = trimesh.Trimesh(both.vertices, both.faces, vertex_colors=rgba, process=False)
    both.apply_translation((10, -4, 2))
    both.units = "meters"
    return both


@pytest.fixture(scope="module")
def encoded(codec, mesh):
    return codec.encode(mesh, target_bytes=600, mode="polygons")


def test_report_and_stream_say_what_it_is(encoded) -> None:
    data, report = encoded
    assert len(data) == report.bytes <= 600
    assert (report.mode, report.quality, report.colour_quality) == ("polygons", None, None)
    found = inspect(data).parameters
    assert (found["mode"], found["kind"], found["colour"]) == ("polygons", "mesh", "yes")
    assert report.chamfer < 0.04


@pytest.mark.parametrize("target", [132, 150, 10**12])
def test_targets_are_kept_whatever_lengths_take(codec, target) -> None:
    data = codec.compress(trimesh.creation.icosphere(2), target_bytes=target, mode="polygons")
    assert len(data) <= target
    assert len(codec.decompress(data).faces)


def test_mesh_comes_back_where_it_was(codec, mesh, encoded) -> None:
    decoded = codec.decompress(encoded.data)
    assert np.abs(decoded.bounds - mesh.bounds).max() < 0.15
    assert decoded.units == "meters"
    assert decoded.visual.kind == "vertex"
    colours = np.asarray(decoded.visual.vertex_colors)[:, :3].astype(int)
    right = decoded.vertices[:, 0] > 13.3
    assert (colours[right, 1] > colours[right, 0]).mean() > 0.9


def test_points_lie_on_the_mesh(codec, mesh, encoded) -> None:
    points = codec.decompress(encoded.data, as_="points", count=300)
    assert points.shape == (300, 6)
    assert points.dtype == np.float32
    assert 0 <= points[:, 3:].min() <= points[:, 3:].max() <= 1
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, points[:100, :3])
    assert distance.max() < 0.4


def test_field_agrees(codec, mesh, encoded) -> None:
    field = codec.decompress(encoded.data, as_="field")
    inside = torch.tensor([[13.0, -4, 2], [10.0, -4, 2]])
    assert (field.signed_distance(inside) < 0).all()
    assert (field.density(inside) > field.density(inside + 20)).all()
    colour = field.colour(torch.tensor([[14.0, -4, 2], [8.0, -4, 2]]))
    assert colour[0, 1] > colour[0, 0]
    assert colour[1, 0] > colour[1, 1]
    camera = torch.eye(4)
    camera[:3, 3] = torch.tensor([11.0, -4.0, -8.0])
    intrinsics = torch.tensor([[24.0, 0, 12], [0, 24.0, 12], [0, 0, 1]])
    picture = field.render(camera, intrinsics, 24, 24, samples=32)
    assert float(picture.opacity[12, 12]) > 0.9
    assert float(picture.opacity[0, 0]) < 0.1


def test_the_better_mode_is_taken(codec, mesh) -> None:
    # The tiny model makes nothing but spheres.
    assert codec.encode(mesh, target_bytes=600, colour=False).report.mode == "polygons"
    assert codec.encode(mesh, target_bytes=600, mode="generator").report.mode == "generator"


def test_modes_are_checked(codec, mesh) -> None:
    with pytest.raises(ValueError, match="mode must be"):
        codec.encode(mesh, target_bytes=600, mode="triangles")
    with pytest.raises(ValueError, match="for target_bytes"):
        codec.encode(mesh, quality=30, mode="polygons")
    with pytest.raises(ValueError, match="for target_bytes"):
        codec.encode(np.random.default_rng(0).random((50, 3)), target_bytes=300, mode="polygons")
    with pytest.raises(ValueError, match="cannot be met"):
        codec.encode(mesh, target_bytes=30, mode="polygons")


def test_limits(codec, encoded) -> None:
    for limits in (Limits(max_faces=10), Limits(max_vertices=10)):
        with pytest.raises(LimitExceeded):
            codec.decompress(encoded.data, limits=limits)


@pytest.mark.parametrize(
    "faces", [[[0, 1, 2]], [[0, 1, 2], [0, 2, 3], [2, 1, 0]], [[0, 1, 2], [0, 0, 1], [3, 1, 0], [3, 0, 1]]]
)
def test_broken_meshes_are_coded(codec, faces) -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    data = codec.compress(trimesh.Trimesh(square, faces, process=False), target_bytes=300)
    assert np.isfinite(codec.decompress(data, resolution=8).vertices).all()


def test_effort_does_no_harm(codec, mesh) -> None:
    losses = [codec.encode(mesh, target_bytes=300, mode="polygons", colour=False, effort=e) for e in (0, 4)]
    assert losses[1].report.chamfer <= losses[0].report.chamfer + 1e-6


def test_a_mesh_loses_nothing_against_itself(mesh) -> None:
    source = shape_source(mesh, colour=True)
    judge = Judge(source)
    vertices = (np.asarray(mesh.vertices) - source.pose.centre) / source.pose.scale
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255.0
    assert judge.loss(vertices, np.asarray(mesh.faces), colours) < 1e-4
    assert judge.loss(vertices * 0.9, np.asarray(mesh.faces), colours) > 1e-3


def test_what_a_view_shows() -> None:
    view = views_around(1, 32)[0]
    ball = trimesh.creation.icosphere(2, radius=0.5)
    seen = look(ball.vertices, ball.faces, view)
    assert 0.5 < len(seen.pixel) / (np.pi * (0.5 / 3.2 * view.focal) ** 2) < 1.2
    places = (ball.vertices[ball.faces[seen.face]] * seen.weights[:, :, None]).sum(1)
    # What is seen is in front.
    assert ((places * view.origin).sum(1) > 0).all()
    shown = pictures(ball.vertices, ball.faces, lambda face, weights: np.zeros((len(face), 3)), [view])
    assert shown[0, 0].tolist() == [1.0, 1.0, 1.0]
    assert shown[0, 32 * 16 + 16].tolist() == [0.0, 0.0, 0.0]
