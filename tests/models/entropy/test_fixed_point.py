"""Integer layers against exact integer arithmetic, and against the float layers they come from."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from latentpress.models.entropy.blocks import ContextBlock, LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.context import STEPS, ContextModel, step_mask
from latentpress.models.entropy.fixed_point import (
    ACTIVATION_LIMIT,
    UNIT,
    FixedPointDepthwise,
    FixedPointLinear,
    FixedPointProduct,
    FixedPointQualityVector,
    FixedPointRectifier,
    InexactLayer,
    convert,
    table_index,
    to_fixed_point,
)
from latentpress.models.entropy.hyperprior import HyperPrior, HyperSynthesis
from latentpress.models.layers import DepthwiseConv
from latentpress.models.quality import QualityVector

FEW = settings(max_examples=40)
LARGEST_GATE = 8 * UNIT
EXTREMES = (-ACTIVATION_LIMIT, ACTIVATION_LIMIT, -(2**25), 2**25, 0, 1, -1, 1023, 1024, -1024, -1025)


def exact(values):
    """Any array or tensor of whole numbers as unbounded Python integers."""
    array = np.asarray(values)
    return np.vectorize(int, otypes=[object])(array) if array.size else array.astype(object)


def limited(x):
    return np.clip(x, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def rounded_shift(total, shift: int):
    """floor(total / 2^shift + 1/2) on integers."""
    return (total + (1 << (shift - 1))) >> shift


def reference_linear(layer: FixedPointLinear, x):
    shift = int(layer.shift)
    sums = limited(exact(x)) @ exact(layer.weight).T
    return rounded_shift(sums + (exact(layer.bias) << shift), shift)


def reference_depthwise(layer: FixedPointDepthwise, x):
    shift = int(layer.shift)
    padded = np.pad(limited(exact(x)), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0)
    height, width = x.shape[1:3]
    weight = exact(layer.weight)[:, 0]
    sums = sum(
        padded[:, row : row + height, column : column + width] * weight[:, row, column]
        for row in range(3)
        for column in range(3)
    )
    return rounded_shift(sums + (exact(layer.bias) << shift), shift)


def reference_quality(layer: FixedPointQualityVector, tenths: int):
    knots = exact(layer.knots)
    position = tenths * (len(knots) - 1)
    index = min(position // 1000, len(knots) - 2)
    fraction = position - 1000 * index
    return (knots[index] * (1000 - fraction) + knots[index + 1] * fraction + 500) // 1000


def same(actual: torch.Tensor, expected) -> bool:
    assert actual.dtype == torch.float64
    return bool((exact(actual) == expected).all())


def activations(shape, seed: int) -> torch.Tensor:
    """Whole numbers of every magnitude, with those at and beyond the limits among them."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 24, shape)
    values = random.integers(-(2**24), 2**24, shape) >> bits
    extreme = random.choice(EXTREMES, shape)
    return torch.from_numpy(np.where(random.random(shape) < 0.3, extreme, values)).double()


def perturbed(module: nn.Module, seed: int, scale: float = 0.1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module


seeds = st.integers(0, 2**32 - 1)


class TestLayers:
    @FEW
    @given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 16))
    def test_linear(self, seed, channels_in, channels_out, shift):
        random = np.random.default_rng(seed)
        layer = FixedPointLinear(channels_in, channels_out)
        layer.weight.copy_(torch.from_numpy(random.integers(-32768, 32768, layer.weight.shape)))
        layer.bias.copy_(torch.from_numpy(random.integers(-(2**30), 2**30, layer.bias.shape)))
        layer.shift.fill_(shift)
        layer.prove_exact()
        x = activations((2, 3, channels_in), seed)
        assert same(layer(x), reference_linear(layer, x))

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_linear_at_every_extreme(self, sign):
        """The largest sum there can be, in as many terms as a wide network has."""
        layer = FixedPointLinear(1024, 2)
        layer.weight[0], layer.weight[1] = -32768, 32767
        layer.bias.fill_(sign * (2**31 - 1))
        layer.shift.fill_(1)
        layer.prove_exact()
        x = torch.full((3, 1024), sign * 2.0**30, dtype=torch.float64)
        x[1, ::2] *= -1
        x[2, 0] = 1
        assert same(layer(x), reference_linear(layer, x))

    @FEW
    @given(seeds, st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 13))
    def test_depthwise(self, seed, channels, height, width, shift):
        random = np.random.default_rng(seed)
        layer = FixedPointDepthwise(channels)
        layer.weight.copy_(torch.from_numpy(random.integers(-1800, 1801, layer.weight.shape)))
        layer.bias.copy_(torch.from_numpy(random.integers(-(2**30), 2**30, layer.bias.shape)))
        layer.shift.fill_(shift)
        layer.prove_exact()
        x = activations((2, height, width, channels), seed)
        assert same(layer(x), reference_depthwise(layer, x))

    @pytest.mark.parametrize("value", EXTREMES)
    def test_depthwise_just_within_the_bound(self, value):
        layer = FixedPointDepthwise(2)
        layer.weight[0] = -1820
        layer.weight[1] = 1820
        layer.shift.fill_(13)
        assert layer.accumulator_bound() == 9 * 1820 * 1024 < 2**24
        layer.prove_exact()
        x = torch.full((1, 4, 4, 2), float(value), dtype=torch.float64)
        assert same(layer(x), reference_depthwise(layer, x))

    @FEW
    @given(seeds)
    def test_rectifier(self, seed):
        x = activations((200,), seed)
        expected = np.array([v if v > 0 else v >> 3 for v in exact(x)], dtype=object)
        assert same(FixedPointRectifier()(x), expected)

    @FEW
    @given(seeds)
    def test_product(self, seed):
        value, gate = activations((200,), seed), activations((200,), seed ^ 1)
        expected = rounded_shift(limited(exact(value)) * np.clip(exact(gate), 0, LARGEST_GATE), 10)
        before = value.clone(), gate.clone()
        assert same(FixedPointProduct()(value, gate), expected)
        assert torch.equal(value, before[0])
        assert torch.equal(gate, before[1])

    @FEW
    @given(seeds, st.integers(0, 1000), st.integers(2, 21))
    @example(0, 0, 21)
    @example(0, 1000, 21)
    @example(0, 1000, 2)
    def test_quality_vector(self, seed, tenths, knots):
        random = np.random.default_rng(seed)
        layer = FixedPointQualityVector(5, knots)
        layer.knots.copy_(torch.from_numpy(random.integers(-(2**31), 2**31, layer.knots.shape)))
        found = layer(torch.tensor([tenths / 10]))
        assert same(found[0], reference_quality(layer, tenths))

    def test_every_quality_is_its_own(self):
        """No tenth is mistaken for its neighbour, although tenths are no binary fractions."""
        layer = FixedPointQualityVector(1, 2)
        layer.knots[1] = 1000
        tenths = torch.arange(1001)
        assert torch.equal(layer(tenths / 10)[:, 0], tenths.double())

    @FEW
    @given(st.integers(-(2**45), 2**45))
    @example(-(24 * 1024 + 512) // 8)
    @example(-(24 * 1024 + 512) // 8 - 1)
    def test_table_index(self, raw):
        expected = min(63, max(0, (8 * raw + 24 * 1024 + 512) >> 10))
        found = table_index(torch.tensor([raw], dtype=torch.float64))
        assert found.dtype == torch.uint8
        assert int(found) == expected

    @FEW
    @given(st.floats(-1000, 1000))
    def test_to_fixed_point(self, x):
        units = float(to_fixed_point(torch.tensor(x, dtype=torch.float64)))
        assert units == int(units)
        assert abs(units - x * UNIT) <= 0.5


class TestProofs:
    def test_linear_whose_sums_may_round(self):
        layer = nn.Linear(2**19, 1)
        nn.init.constant_(layer.weight, 1.5)
        with pytest.raises(InexactLayer, match=r"0: .*2\^53"):
            convert(nn.Sequential(layer))

    def test_depthwise_whose_sums_may_round(self):
        layer = DepthwiseConv(2)
        nn.init.constant_(layer.weight, 1000.0)
        with pytest.raises(InexactLayer, match=r"deep\.conv: .*24"):
            convert(nn.ModuleDict({"deep": nn.ModuleDict({"conv": layer})}))

    def test_bound_is_exact(self):
        """One unit of weight more, and the proof fails."""
        layer = FixedPointDepthwise(1)
        layer.shift.fill_(1)
        layer.weight.view(-1)[0] = 2**14 - 1
        layer.prove_exact()
        layer.weight.view(-1)[1] = 1
        with pytest.raises(InexactLayer):
            layer.prove_exact()

    @FEW
    @given(seeds, st.floats(1e-4, 100))
    def test_accumulators_stay_within_the_bound(self, seed, scale):
        linear = perturbed(nn.Linear(7, 5), seed, scale)
        layer = FixedPointLinear.from_float(linear)
        signs = exact(layer.weight).astype(np.int64)
        worst = np.where(signs < 0, -ACTIVATION_LIMIT, ACTIVATION_LIMIT).astype(object)
        sums = (worst * exact(layer.weight)).sum(axis=1) + (exact(layer.bias) << int(layer.shift))
        assert max(abs(sums)) <= layer.accumulator_bound() < 2**53

    def test_parameters_without_counterpart(self):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(2, 2)
                self.factor = nn.Parameter(torch.ones(2))

        with pytest.raises(TypeError, match=r"inner\.factor"):
            convert(nn.ModuleDict({"inner": Scaled()}))
        with pytest.raises(TypeError, match=r"0\.weight"):
            convert(nn.Sequential(nn.Conv2d(2, 2, 3)))

    def test_original_is_left_alone(self):
        block = ContextBlock(4)
        before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
        converted = convert(block)
        assert not converted.training
        assert not list(converted.parameters())
        assert isinstance(block.expand, nn.Linear)
        assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())


def networks(seed: int):
    """Every network that decides tables: name, float network, arguments and which of them are activations."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    quality = torch.tensor([float(torch.randint(0, 1001, (1,), generator=generator)) / 10])
    yield "block", perturbed(ContextBlock(8), seed), (draw(1, 5, 6, 8),)
    yield "prior", perturbed(HyperPrior(6), seed, 1.0), (quality,)
    yield "hyper synthesis", perturbed(HyperSynthesis(4, 8, 8), seed), (draw(1, 2, 3, 4).round(), quality)
    for step in range(STEPS):
        context = perturbed(ContextModel(8, 8, depth=2), seed)
        yield f"context {step}", context, (step, draw(1, 5, 6, 8), draw(1, 5, 6, 8) * 4)


def in_units(argument):
    if isinstance(argument, torch.Tensor) and argument.ndim == 4:
        return to_fixed_point(argument)
    return argument


def outputs(result):
    parts = result if isinstance(result, tuple) else (result,)
    return torch.cat([part.double().flatten() for part in parts])


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_networks_are_close_to_the_float_ones(seed):
    for name, network, arguments in networks(seed):
        with torch.inference_mode():
            expected = outputs(network(*arguments)) * UNIT
            found = outputs(convert(network)(*map(in_units, arguments)))
        assert torch.equal(found, found.round()), name
        assert float((found - expected).abs().max()) < 8, name


def test_block_is_the_composition_of_its_layers():
    block = convert(perturbed(ContextBlock(6), 3, 0.4))
    x = activations((1, 4, 5, 6), 3)
    hidden = reference_linear(block.expand, x)
    hidden = np.where(hidden > 0, hidden, hidden >> 3)
    hidden = exact(x) + reference_linear(block.project, reference_depthwise(block.depthwise, hidden))
    value, gate = limited(reference_linear(block.value, hidden)), reference_linear(block.gate, hidden)
    product = rounded_shift(value * np.clip(gate, 0, LARGEST_GATE), 10)
    with torch.inference_mode():
        assert same(block(x), hidden + reference_linear(block.output, product))


def test_threads_change_nothing():
    before = torch.get_num_threads()
    context = convert(perturbed(ContextModel(32, 32, depth=2), 5, 0.3))
    features, y_hat = activations((1, 24, 24, 32), 5), activations((1, 24, 24, 32), 6)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([outputs(context(step, features, y_hat)) for step in range(STEPS)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@FEW
@given(seeds, st.integers(1, 4))
def test_items_of_a_batch_do_not_touch(seed, count):
    block = convert(perturbed(ContextBlock(8), seed, 0.3))
    x = activations((count, 3, 5, 8), seed)
    together = block(x)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(block(x[order]), together[order])
    assert torch.equal(torch.cat([block(item[None]) for item in x]), together)


@FEW
@given(seeds, st.integers(1, 300))
def test_order_of_positions_does_not_matter(seed, count):
    layer = FixedPointLinear.from_float(perturbed(nn.Linear(33, 17), seed))
    x = activations((count, 33), seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    channels = torch.randperm(33, generator=torch.Generator().manual_seed(seed))
    permuted = FixedPointLinear(33, 17)
    permuted.load_state_dict({**layer.state_dict(), "weight": layer.weight[:, channels]})
    assert torch.equal(layer(x[order]), layer(x)[order])
    assert torch.equal(permuted(x[:, channels]), layer(x))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (2, 2), (5, 3)])
def test_masks(height, width):
    """The rule as docs/bitstream.md states it."""
    channels = 8
    for step, order in enumerate((0, 3, 2, 1)):
        mask = step_mask(step, height, width, channels)
        for row in range(height):
            for column in range(width):
                quarter = (2 * (row % 2) + column % 2) ^ order
                expected = [channel // (channels // 4) == quarter for channel in range(channels)]
                assert mask[row, column].tolist() == expected


def test_float_layers_that_become_integer_ones():
    assert isinstance(convert(LeakyRectifier()), FixedPointRectifier)
    assert isinstance(convert(RectifiedProduct()), FixedPointProduct)
    assert isinstance(convert(QualityVector(3)), FixedPointQualityVector)
