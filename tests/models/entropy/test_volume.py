"""Entropy networks of volumes: a partition, no look into the future, and the same in integers."""

import pytest
import torch

from latentpress.models.entropy.context import STEPS
from latentpress.models.entropy.fixed_point import (
    ACTIVATION_LIMIT,
    UNIT,
    FixedPointNeighbourConv,
    InexactLayer,
    convert,
    to_fixed_point,
)
from latentpress.models.entropy.latent_model import CodingStep
from latentpress.models.entropy.volume import (
    ChannelScale,
    VolumeContextModel,
    neighbourhood,
    volume_scale_from_raw,
    volume_scale_table,
    volume_step_mask,
)
from latentpress.models.entropy.volume_hyperprior import VolumeHyperSynthesis
from latentpress.models.volume import NeighbourConv

SHAPES = [(1, 1, 1), (2, 3, 5), (4, 4, 4), (1, 7, 2)]
PERIODIC = torch.tensor([[True, False, True]])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [4, 12])
def test_masks_partition_the_latent(shape, channels) -> None:
    masks = torch.stack([volume_step_mask(step, shape, channels) for step in range(STEPS)])
    assert torch.equal(masks.sum(0), torch.ones(*shape, channels, dtype=torch.long))


def test_neighbours_are_coded_in_other_steps() -> None:
    steps = sum(step * volume_step_mask(step, (4, 4, 4), 4)[..., 0].int() for step in range(STEPS))
    for axis in range(3):
        assert (steps != steps.roll(1, axis)).all()
    for step in range(STEPS):
        assert int((steps == step).sum()) == 16


def test_scales_and_tables_agree() -> None:
    raw = (torch.arange(64.0) - 24) / 8
    assert torch.allclose(volume_scale_from_raw(raw).double(), volume_scale_table(), rtol=1e-5)


def test_channel_scale_round_trip_in_integers() -> None:
    scale = ChannelScale(3)
    scale.exponent.copy_(torch.tensor([0, 3, 11]))
    integer = convert(scale)
    y = torch.randint(-(2**22), 2**22, (5, 3)).double()
    shrunk = integer.shrink(y)
    assert torch.equal(shrunk, shrunk.round())
    assert torch.allclose(shrunk, scale.shrink(y), atol=0.5)
    assert torch.equal(integer.grow(shrunk), shrunk * torch.tensor([1.0, 8.0, 2048.0], dtype=torch.float64))


@torch.no_grad()
def test_neighbour_conv_in_integers_is_close_and_integer() -> None:
    torch.manual_seed(0)
    layer = NeighbourConv(6)
    x = torch.randn(1, 3, 4, 5, 6)
    found = convert(layer)(to_fixed_point(x), PERIODIC)
    assert torch.equal(found, found.round())
    assert float((found / UNIT - layer(x, PERIODIC)).abs().max()) < 0.01


def test_neighbour_conv_at_its_limits_is_exact() -> None:
    layer = FixedPointNeighbourConv(2)
    layer.weight.fill_(32767)
    layer.bias.fill_(2**20)
    layer.shift.fill_(16)
    layer.prove_exact()
    x = torch.full((1, 2, 2, 2, 2), float(ACTIVATION_LIMIT), dtype=torch.float64)
    expected = (7 * 32767 * ACTIVATION_LIMIT + (2**20 << 16) + (1 << 15)) >> 16
    assert layer(x, PERIODIC).unique().tolist() == [expected]
    layer.bias.fill_(2**31 - 1)
    layer.shift.fill_(30)
    with pytest.raises(InexactLayer):
        layer.prove_exact()


def test_networks_do_not_depend_on_the_order_of_channels_in_memory() -> None:
    torch.manual_seed(1)
    network = convert(VolumeHyperSynthesis(4, 8, 8))
    z = torch.randint(-3, 4, (1, 1, 2, 1, 4)).double() * UNIT
    quality = torch.tensor([37.3])
    once = network(z, quality, PERIODIC)
    again = network(z.permute(4, 0, 1, 2, 3).contiguous().permute(1, 2, 3, 4, 0), quality, PERIODIC)
    assert once.shape == (1, 4, 8, 4, 8)
    assert torch.equal(once, again)
    assert torch.equal(once, once.round())


def test_a_step_depends_on_earlier_steps_only() -> None:
    torch.manual_seed(2)
    model = VolumeContextModel(8, 8, depth=1)
    for predictor in model.predictors:
        torch.nn.init.normal_(predictor.weight)
    shape = (3, 4, 2)
    features, y = torch.randn(1, *shape, 8), torch.randn(1, *shape, 8)

    def run(y: torch.Tensor) -> list[torch.Tensor]:
        y_hat, found = torch.zeros_like(y), []
        for step in range(STEPS):
            mask = volume_step_mask(step, shape, 8)
            found.append(model(step, features, y_hat, PERIODIC).mean[0][mask])
            y_hat = torch.where(mask, y, y_hat)
        return found

    with torch.no_grad():
        before = run(y)
        for later in range(STEPS):
            changed = torch.where(volume_step_mask(later, shape, 8), y + 1, y)
            after = run(changed)
            for step in range(later + 1):
                assert torch.equal(before[step], after[step])
            if later + 1 < STEPS:
                assert not torch.equal(before[later + 1], after[later + 1])


def test_neighbourhood_order() -> None:
    x = torch.arange(8.0).view(1, 2, 2, 2, 1)
    found = neighbourhood(x, torch.zeros(1, 3, dtype=torch.bool))[0, 0, 0, 0]
    assert found.tolist() == [0, 0, 4, 0, 2, 0, 1]


def test_latent_channels_must_be_divisible() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        VolumeContextModel(8, 6, 1)


@pytest.mark.parametrize("shape", [(2, 4, 6), (3, 5, 4), (1, 1, 1)])
def test_coding_computes_a_steps_elements_alone(shape) -> None:
    """And finds for them what the whole prediction has in their places."""
    torch.manual_seed(4)
    model = VolumeContextModel(8, 40, depth=1)
    model.scale.exponent.copy_(torch.arange(40, dtype=torch.int32) % 5)
    for predictor in model.predictors:
        torch.nn.init.normal_(predictor.weight, std=0.3)
    model = convert(model)
    features = to_fixed_point(torch.randn(1, *shape, 8))
    y_hat, step = torch.zeros(1, *shape, 40, dtype=torch.float64), 0

    def exchange(coded: CodingStep) -> torch.Tensor:
        nonlocal y_hat, step
        mask = volume_step_mask(step, shape, 40)[None]
        expected = model(step, features, y_hat, PERIODIC)
        assert torch.equal(coded.positions, mask.flatten().nonzero().flatten())
        assert torch.equal(coded.mean, expected.mean[mask])
        assert torch.equal(coded.raw_scale, expected.raw_scale[mask])
        residual = torch.randint(-3, 4, coded.mean.shape).double() * UNIT
        y_hat[mask] = residual + coded.mean
        step += 1
        return residual

    assert torch.equal(model.code(features, exchange, PERIODIC), y_hat)
    assert step == STEPS
