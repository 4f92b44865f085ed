"""Properties of the shape networks that hold untrained."""

import pytest
import torch

from latentpress.models.entropy.fixed_point import UNIT, convert
from latentpress.models.shape.bridge import CodeQuality, build_shape_bridge
from latentpress.models.shape.code_prior import CodePrior
from latentpress.models.shape.extraction import extract_mesh
from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.models.shape.implicit import sample_surface
from latentpress.models.shape.layers import GridConv, sample_grid
from latentpress.models.shape.point_encoder import build_implicit_autoencoder


@pytest.fixture(scope="module")
def bridge():
    torch.manual_seed(0)
    network = build_shape_bridge(16, 4, 2, 6, 3, 4, 2, 32, 1, 1, 32, 1, 8, 1)
    return network.eval().requires_grad_(False)


def levels(value: float, batch: int = 1) -> CodeQuality:
    return CodeQuality(torch.full((batch,), value), torch.full((batch,), value))


def test_convolution_over_a_grid_is_one() -> None:
    layer = GridConv(3, 5)
    x = torch.randn(2, 4, 6, 5, 3)
    weight = layer.conv.weight.view(5, 3, 3, 3, 3).transpose(1, 2)
    expected = torch.nn.functional.conv3d(x.permute(0, 4, 1, 2, 3), weight, layer.conv.bias, padding=1)
    torch.testing.assert_close(layer(x), expected.permute(0, 2, 3, 4, 1))


def test_grids_are_read_where_they_are() -> None:
    line = torch.linspace(-1.1, 1.1, 5)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    points = torch.rand(1, 20, 3) * 2 - 1
    found = sample_grid(torch.stack((x, y, z), dim=-1)[None], points)
    torch.testing.assert_close(found, points)


def test_geometry_does_not_depend_on_colour() -> None:
    network = build_shape_autoencoder(4, 2, 32, 1, 8, 8, 8, 32, 32, 1).eval()
    tokens = torch.randn(1, 64, 4)
    plain = network.generator(tokens)
    painted = network.generator(tokens, torch.randn(1, 64, 2))
    assert torch.equal(plain.geometry, painted.geometry)
    with pytest.raises(ValueError, match="no colour"):
        network.generator.colour_at(plain, torch.zeros(1, 1, 3))


def test_encoders_do_not_depend_on_the_order_of_points() -> None:
    points = torch.rand(1, 60, 9) - 0.5
    shuffled = points[:, torch.randperm(60)]
    own = build_shape_autoencoder(4, 2, 32, 1, 8, 8, 8, 32, 32, 1).encoder
    other = build_implicit_autoencoder(32, 8, 8, 1, 8).encoder
    torch.testing.assert_close(own(points).mean, own(shuffled).mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other(points), other(shuffled), atol=1e-4, rtol=1e-4)


def test_groups_that_are_not_sent_cost_nothing_and_change_nothing(bridge) -> None:
    """The decoder's values depend on the groups that are sent alone."""
    code = torch.randn(1, 64, 6) * 4
    other = code.clone()
    other[..., 2:] = torch.randn(1, 64, 4) * 4
    sent = torch.tensor([1.0])
    first, second = (bridge.quantise_geometry(c, levels(50), sent) for c in (code, other))
    assert torch.equal(first.value, second.value)
    everything = bridge.quantise_geometry(code, levels(50), torch.tensor([3.0]))
    assert 0 < float(first.bits) < float(everything.bits)
    assert torch.equal(first.value[..., :2], everything.value[..., :2])


def test_values_differ_from_the_code_by_half_a_step_at_most(bridge) -> None:
    code = torch.randn(2, 64, 6) * 4
    found = bridge.quantise_geometry(code, levels(20, 2), torch.tensor([3.0, 3.0]))
    assert float((found.value - code).abs().max()) <= 0.5 + 1e-5


def test_integer_prior_follows_the_float_one() -> None:
    torch.manual_seed(1)
    prior = CodePrior(6, 3, 2, 8, 1)
    exact = convert(prior)
    code, known = torch.randint(-3, 4, (1, 64, 6)).float(), torch.ones(1, 64, 6)
    context, quality = torch.randint(-3, 4, (1, 64, 2)).float(), torch.tensor([40.0])
    expected = prior(code, known, context, quality, quality)
    units = [x.double() * UNIT for x in (code, known, context)]
    found = exact(*units, quality, quality)
    assert (found.mean == found.mean.round()).all()
    torch.testing.assert_close((found.mean / UNIT).float(), expected.mean, atol=0.02, rtol=0.02)
    torch.testing.assert_close((found.raw_scale / UNIT).float(), expected.raw_scale, atol=0.02, rtol=0.02)


def ball(points: torch.Tensor) -> torch.Tensor:
    return points.norm(dim=-1) - 0.7


def test_marching_cubes_finds_a_ball_near_its_surface_only() -> None:
    asked = 0

    def counted(points: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += points.shape[1]
        return ball(points)

    mesh = extract_mesh(counted, 64, "cpu")
    radii = torch.from_numpy(mesh.vertices).norm(dim=1)
    assert (radii - 0.7).abs().max() < 2e-3
    assert asked < 0.5 * 65**3
    corners = mesh.vertices[mesh.faces].astype("float64")
    volume = (
        corners[:, 0] * torch.linalg.cross(*map(torch.from_numpy, corners.transpose(1, 0, 2)[1:])).numpy()
    )
    assert volume.sum() / 6 == pytest.approx(4 / 3 * 3.14159 * 0.343, rel=0.01)


def test_marching_cubes_without_a_surface() -> None:
    assert not len(extract_mesh(lambda p: ball(p) + 10, 16, "cpu").vertices)


def test_surface_samples_lie_on_the_surface() -> None:
    candidates = torch.rand(2, 3000, 3) * 2 - 1
    found = sample_surface(ball, candidates, 400, 1.0)
    assert found.usable.all()
    torch.testing.assert_close(found.position.norm(dim=-1), torch.full((2, 400), 0.7), atol=5e-3, rtol=0)
    torch.testing.assert_close(found.normal, found.position / 0.7, atol=2e-2, rtol=0)
