"""Rays through a field, and what is seen along them."""

import pytest
import torch

from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.models.shape.radiance import RadianceField, camera_rays, composite, ray_weights, within_cube

SAMPLES = 24


@pytest.fixture(scope="module")
def field() -> RadianceField:
    """Noise of distances about nothing and of colours: something is seen along most rays."""
    torch.manual_seed(0)
    generator = (
        build_shape_autoencoder(4, 2, 32, 1, 8, 8, 8, 32, 32, 1).generator.eval().requires_grad_(False)
    )
    tokens = torch.randn(1, 64, 4), torch.randn(1, 64, 2)
    return RadianceField(generator, generator(*tokens), scale=0.5, centre=(0.1, 0.0, -0.2))


@pytest.fixture
def rays() -> tuple[torch.Tensor, torch.Tensor]:
    camera = torch.eye(4)
    camera[2, 3] = -2.0
    intrinsics = torch.tensor([[12.0, 0, 6], [0, 12, 6], [0, 0, 1]])
    origins, directions = camera_rays(camera, intrinsics, 12, 12)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def test_rays() -> None:
    intrinsics = torch.tensor([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]])
    origins, directions = camera_rays(torch.eye(4), intrinsics, 8, 8)
    assert origins.abs().max() == 0
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(8, 8))
    assert directions[0, 7, 0] > 0 > directions[0, 0, 1]


def test_compositing() -> None:
    step = torch.ones(1, 1)
    nothing = composite(ray_weights(torch.zeros(1, 3), step), torch.ones(1, 3, 3), torch.ones(1, 3))
    assert float(nothing[1]) == 0
    # Half of the light passes each of two layers.
    half = ray_weights(torch.full((1, 2), 0.6931472), step)
    torch.testing.assert_close(half, torch.tensor([[0.5, 0.25]]))
    _, opacity, _ = composite(half, torch.ones(1, 2, 3), torch.ones(1, 2))
    assert float(opacity) == pytest.approx(0.75)


def test_colours_left_out_are_not_seen(field, rays, monkeypatch) -> None:
    asked = []
    colour = RadianceField.colour

    def counted(self, points):
        asked.append(len(points))
        return colour(self, points)

    monkeypatch.setattr(RadianceField, "colour", counted)
    found = field.render_rays(*rays, SAMPLES)
    origins, directions = rays
    near, far = within_cube(origins - field.centre, directions, 1.1 * field.scale)
    depth = near + (far - near) * (torch.arange(SAMPLES) + 0.5) / SAMPLES
    points = (origins[:, None] + directions[:, None] * depth[..., None]).view(-1, 3)
    weight = ray_weights(field.density(points).view(depth.shape), (far - near) / SAMPLES)
    expected = composite(weight, field.colour(points).view(*depth.shape, 3), depth)
    assert 0 < asked[0] < 0.7 * asked[1]
    assert float(expected[1].max()) > 0.9 > 0.1 > float(expected[1].min())
    for one, same in zip(found, expected, strict=True):
        torch.testing.assert_close(one, same, atol=1e-4, rtol=0)


def test_gradients_reach_the_camera(field, rays) -> None:
    origins, directions = rays
    origins = origins.clone().requires_grad_(True)
    field.render_rays(origins, directions, SAMPLES)[0].sum().backward()
    assert origins.grad.isfinite().all()
    assert origins.grad.abs().sum() > 0


def test_rays_that_see_nothing(field) -> None:
    away = torch.tensor([[0.0, 0.0, -9.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    colour, opacity, _ = field.render_rays(*away, SAMPLES)
    assert not colour.any()
    assert not opacity.any()
