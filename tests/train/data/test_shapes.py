"""Shapes for training: samples that agree with the shapes, batches that stay shapes."""

import numpy as np
import pytest
import torch

from latentpress.train.data.analytic import Draw, analytic_shapes
from latentpress.train.data.shape_pool import (
    BatchSizes,
    ShapePool,
    cube_symmetries,
    load_samples,
    save_samples,
)
from latentpress.train.data.shape_sampling import SampleCounts, analytic_samples, mesh_samples
from latentpress.train.data.shapes import ShapeDataModule
from latentpress.train.data.surface_colour import procedural_colour

COUNTS = SampleCounts(surface=256, queries=256, dense=4096)


@pytest.fixture(scope="module")
def cube():
    """Samples of a box with sides 2, 1, 1."""
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 2)], np.float32)
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return mesh_samples([(corners, faces)], 1, COUNTS, "cpu", seed=0)


def box_distance(points: torch.Tensor) -> torch.Tensor:
    q = points.abs() - torch.tensor([1.0, 0.5, 0.5])
    return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)


def test_mesh_samples_are_those_of_the_mesh(cube) -> None:
    queries = cube.queries[0].float()
    assert (queries[:, 3] - box_distance(queries[:, :3])).abs().mean() < 4e-3
    assert box_distance(cube.surface[0, :, :3].float()).abs().max() < 2e-3


@pytest.mark.parametrize("seed", [2, 3, 9])
def test_analytic_samples_lie_on_the_surface(seed) -> None:
    batch = analytic_shapes(Draw(2, "cpu", seed), 512)
    assert batch.surface.usable.any()
    for k in batch.surface.usable.nonzero().flatten().tolist():
        position, normal = batch.surface.position, batch.surface.normal
        assert batch.function(position)[k].abs().median() < 1e-3
        outside = batch.function(position + 0.01 * normal)[k] > batch.function(position - 0.01 * normal)[k]
        assert outside.float().mean() > 0.9


def test_analytic_distances_have_the_right_sign() -> None:
    samples = analytic_samples(3, COUNTS, "cpu", seed=4)
    assert samples.surface.shape == (3, 256, 6)
    share = (samples.queries[..., 3] < 0).float().mean(1)
    assert ((share > 0.02) & (share < 0.9)).all()
    again = analytic_samples(3, COUNTS, "cpu", seed=4)
    assert all(torch.equal(a, b) for a, b in zip(samples, again, strict=True))


def test_batches_are_turned_and_stay_in_the_cube(cube) -> None:
    pool = ShapePool(cube)
    batch = pool.batch(BatchSizes(6, 100, 50, 120), torch.Generator().manual_seed(0))
    assert [tuple(x.shape) for x in batch] == [(6, 100, 9), (6, 50, 9), (6, 120, 4)]
    assert batch.points[..., :3].abs().max() <= 1 + 1e-3
    torch.testing.assert_close(batch.points[..., 3:6].norm(dim=-1), torch.ones(6, 100), atol=2e-3, rtol=0)
    # A turned box keeps its proportions: the nearest query's distance is that to the nearest points at least.
    gap = torch.cdist(batch.queries[..., :3], torch.cat((batch.points, batch.surface), dim=1)[..., :3]).amin(
        -1
    )
    assert (batch.queries[..., 3].abs() <= gap + 0.03).all()


def test_without_turning_the_first_samples_come(cube) -> None:
    pool = ShapePool(cube)
    batch = pool.take(torch.tensor([0]), BatchSizes(1, 10, 5, 20))
    torch.testing.assert_close(batch.points[0, :, :3], cube.surface[0, :10, :3].float(), atol=0.01, rtol=0)


def test_symmetries_of_the_cube() -> None:
    found = cube_symmetries()
    assert len(torch.unique(found, dim=0)) == 48
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(48, 3, 3))


def test_cache(cube, tmp_path) -> None:
    save_samples(cube, tmp_path / "a" / "cube.pt")
    again = load_samples(tmp_path / "a" / "cube.pt", "cpu")
    assert all(torch.equal(a, b) for a, b in zip(cube, again, strict=True))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["cube.pt"]


def test_colours_differ_between_shapes_and_places() -> None:
    colour = procedural_colour(torch.rand(12, 200, 3) * 2 - 1, torch.Generator().manual_seed(0))
    assert 0 <= colour.min() <= colour.max() <= 1
    assert (colour.mean(1).std(0) > 0.1).all()
    assert (colour.std(1).amax(-1) > 0.02).float().mean() > 0.5


def test_data_module_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="only 100 and"):
        ShapeDataModule(points=90, surface=20, surface_kept=100)
    with pytest.raises(ValueError, match="nothing to train on"):
        ShapeDataModule(analytic=0)._training_samples("cpu")
