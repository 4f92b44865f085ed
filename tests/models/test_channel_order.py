"""Reordering latent channels changes nothing else, and what orders them is deterministic."""

import copy

import pytest
import torch

from latentpress.codecs.bitstream import gaussian_tables
from latentpress.codecs.image_transforms import INTEGER_PARTS
from latentpress.codecs.latent_coder import LatentCoder
from latentpress.models.channel_order.permutation import (
    ChangesPredictions,
    permute_latent,
    preserves_predictions,
    preserving_order,
)
from latentpress.models.channel_order.ports import Role, ports_of
from latentpress.models.channel_order.saliency import (
    channel_statistics,
    energy_score,
    group_channels,
    order_channels,
    plain_score,
    variance_score,
)
from latentpress.models.entropy.context import STEPS, step_mask
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.image.network import build_image_network
from latentpress.scripts.check_channel_order import ablation, main

TINY = {
    "channels": 16,
    "deep_channels": 16,
    "latent_channels": 16,
    "depth": 1,
    "deep_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 8,
    "context_depth": 1,
}
CHANNELS = TINY["latent_channels"]
QUALITY = 80.0


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network():
    """Random weights with latents of several steps, side information and gains that differ by channel."""
    torch.manual_seed(0)
    network = build_image_network(**TINY).eval().requires_grad_(False)
    for vector in (network.gain, network.inverse_gain, network.hyper_prior.raw_scale):
        vector.knots += 0.3 * torch.randn_like(vector.knots)
    network.analysis.head.weight *= 8
    network.analysis.head.bias += torch.randn(CHANNELS)
    network.hyper_analysis.head.linear.weight *= 8
    return network


@pytest.fixture
def within():
    """Shuffles every quarter."""
    generator = torch.Generator().manual_seed(3)
    width = CHANNELS // STEPS
    return torch.cat([k * width + torch.randperm(width, generator=generator) for k in range(STEPS)])


@pytest.fixture
def across():
    return torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(4))


def permuted(model, order, **options):
    result = copy.deepcopy(model)
    permute_latent(result, order, **options)
    return result


@pytest.fixture
def in_float64(monkeypatch, network):
    """The network asks for float32 where bfloat16 would not do; here that is to mean float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return network.double()


def picture():
    return torch.rand(1, 96, 80, 3, generator=torch.Generator().manual_seed(1))


def with_integer_parts(network):
    result = copy.deepcopy(network)
    for part in INTEGER_PARTS:
        setattr(result, part, convert(getattr(result, part)))
    return result


# What an order preserves


def test_within_quarters_the_whole_network_computes_the_same(in_float64, within) -> None:
    image, quality = picture().double(), torch.tensor([QUALITY], dtype=torch.float64)
    before, after = in_float64(image, quality), permuted(in_float64, within)(image, quality)
    assert before.image.dtype == torch.float64
    assert float(before.y_bits) > 100
    torch.testing.assert_close(after.y_bits, before.y_bits, rtol=1e-12, atol=0)
    torch.testing.assert_close(after.z_bits, before.z_bits, rtol=1e-12, atol=0)
    torch.testing.assert_close(after.image, before.image, rtol=0, atol=1e-12)


def test_under_any_order_transforms_and_side_information_are_the_same(in_float64, across) -> None:
    other = permuted(in_float64, across, allow_retraining=True)
    image, quality = picture().double(), torch.tensor([QUALITY], dtype=torch.float64)

    def ends(net):
        y = net.analysis(image, quality) * net.gain(quality)[:, None, None, :]
        scaled = torch.round(y) * net.inverse_gain(quality)[:, None, None, :]
        return y, net.hyper_analysis(y, quality), net.synthesis(scaled, quality)

    (y, z, image_hat), (other_y, other_z, other_image) = ends(in_float64), ends(other)
    assert float(z.abs().max()) > 0.5
    torch.testing.assert_close(other_y, y[..., across], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other_z, z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other_image, image_hat, rtol=1e-12, atol=1e-12)


def coder(network):
    tables = gaussian_tables(scale_table().numpy())
    parts = (network.hyper_prior, network.hyper_synthesis, network.context)
    return LatentCoder(*parts, tables, CHANNELS)


def coded(network, y, z):
    """Symbols and table indexes of y, ``(h, w, M)`` each, those of z, and what the decoder will have."""
    quality, seen = torch.tensor([QUALITY]), []
    result = coder(network).encode(y, z, quality, seen.append)
    height, width = y.shape[1:3]
    symbols = torch.zeros(height, width, CHANNELS, dtype=torch.int32)
    indexes = torch.zeros(height, width, CHANNELS, dtype=torch.uint8)
    for step, group in enumerate(seen[1:]):
        mask = step_mask(step, height, width, CHANNELS)
        symbols[mask] = torch.from_numpy(group.symbols)
        indexes[mask] = torch.from_numpy(group.indexes)
    return symbols, indexes, torch.from_numpy(seen[0].symbols), result


def test_within_quarters_the_coded_symbols_are_equal(network, within) -> None:
    generator = torch.Generator().manual_seed(6)
    y = 6 * torch.randn(1, 7, 10, CHANNELS, generator=generator)
    z = 3 * torch.randn(1, 2, 3, TINY["hyper_channels"], generator=generator)
    integer = with_integer_parts(network)
    other = permuted(integer, within)
    symbols, indexes, side, result = coded(integer, y, z)
    other_symbols, other_indexes, other_side, other_result = coded(other, y[..., within], z)
    assert len(symbols.unique()) > 10
    assert len(indexes.unique()) > 3
    assert torch.equal(other_side, side)
    assert torch.equal(other_symbols, symbols[..., within])
    assert torch.equal(other_indexes, indexes[..., within])
    assert torch.equal(other_result.y_hat, result.y_hat[..., within])
    # The same symbols with the same tables in another sequence.
    assert abs(len(other_result.data) - len(result.data)) <= 8
    decoded = coder(other).decode(other_result.data, other_result.checksum, 7, 10, torch.tensor([QUALITY]))
    assert torch.equal(decoded, other_result.y_hat)


def test_integer_layers_forget_their_old_operands(network, within) -> None:
    """An integer layer keeps its weights in floating point once it has run."""
    integer = with_integer_parts(network)
    y, z = torch.randn(1, 4, 4, CHANNELS), torch.zeros(1, 1, 1, TINY["hyper_channels"])
    first = coded(integer, y, z)
    permute_latent(integer, within)
    assert torch.equal(coded(integer, y[..., within], z)[0], first[0][..., within])


def test_converting_and_permuting_commute(network, within) -> None:
    first = with_integer_parts(permuted(network, within)).state_dict()
    second = permuted(with_integer_parts(network), within).state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_an_order_and_its_inverse_cancel(network, across) -> None:
    there = permuted(network, across, allow_retraining=True)
    back = permuted(there, torch.argsort(across), allow_retraining=True)
    for (name, old), new in zip(network.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(old, new), name
    assert any(
        not torch.equal(old, new)
        for old, new in zip(network.state_dict().values(), there.state_dict().values(), strict=True)
    )


def test_every_tensor_with_the_channels_is_listed(network) -> None:
    """16 and 8 channels elsewhere would hide a tensor, so the latent gets a number of its own."""
    network = build_image_network(**{**TINY, "latent_channels": 20})
    listed = {
        f"{name}.{port.name}"
        for port in ports_of(network).ports()
        for name, module in network.named_modules()
        if module is port.module
    }
    sizes = {20, 40, TINY["context_channels"] + 20}
    assert listed == {name for name, tensor in network.named_parameters() if sizes & set(tensor.shape)}


# What is refused


def test_across_quarters_is_refused(network, across) -> None:
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ChangesPredictions, match="trained again"):
        permute_latent(network, across)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@torch.no_grad()
def test_across_quarters_predictions_do_change(network, across) -> None:
    """Otherwise there would be nothing to refuse; moving whole quarters is no exception."""
    width = CHANNELS // STEPS
    quarters = torch.arange(CHANNELS).view(STEPS, width)[[q ^ 1 for q in range(STEPS)]].flatten()
    bits = network(picture(), torch.tensor([QUALITY])).y_bits
    for order in (across, quarters):
        other = permuted(network, order, allow_retraining=True)
        assert abs(float(other(picture(), torch.tensor([QUALITY])).y_bits - bits)) > 1e-3 * float(bits)


@pytest.mark.parametrize("order", [[0] * CHANNELS, list(range(CHANNELS - 1)), list(range(1, CHANNELS + 1))])
def test_no_permutation(network, order) -> None:
    with pytest.raises(ValueError, match="every channel"):
        permute_latent(network, order)


def test_unknown_network() -> None:
    with pytest.raises(TypeError, match="Linear"):
        ports_of(torch.nn.Linear(2, 2))


def test_preserving_order_keeps_the_ranking_inside_quarters(network, across) -> None:
    ports = ports_of(network)
    order = preserving_order(ports, across)
    assert preserves_predictions(ports, order)
    assert not preserves_predictions(ports, across)
    rank = torch.argsort(across)
    for block in ports.interchangeable:
        ranks = rank[order[block.start : block.stop]]
        assert torch.equal(ranks, ranks.sort().values)


# Saliency and groups


def test_statistics_by_hand(network) -> None:
    statistics = channel_statistics(ports_of(network), QUALITY)
    gain = network.gain(torch.tensor([QUALITY]))[0]
    inverse_gain = network.inverse_gain(torch.tensor([QUALITY]))[0]
    row = network.analysis.head.weight[5] * gain[5]
    column = network.synthesis.stem.weight[:, 5] * inverse_gain[5]
    assert float(statistics.weight_variance[5]) == pytest.approx(float(row.var(correction=0)), rel=1e-5)
    assert float(statistics.bias[5]) == pytest.approx(float((network.analysis.head.bias[5] * gain[5]).abs()))
    assert float(statistics.column_energy[5]) == pytest.approx(float(column.square().sum()), rel=1e-5)
    rows, columns = network.analysis.head.weight, network.synthesis.stem.weight.T
    expected = (rows.double().corrcoef().abs() + columns.double().corrcoef().abs()) / 2
    torch.testing.assert_close(statistics.correlation, expected)


def test_float_and_integer_networks_say_nearly_the_same(network) -> None:
    floating = channel_statistics(ports_of(network), QUALITY)
    integer = channel_statistics(ports_of(with_integer_parts(network)), QUALITY)
    torch.testing.assert_close(
        integer.prior.variance, floating.prior.variance, rtol=0.1, atol=0.01, check_dtype=False
    )
    for score in (variance_score, plain_score, energy_score):
        torch.testing.assert_close(score(integer), score(floating), rtol=0.1, atol=0.01, check_dtype=False)


@pytest.mark.parametrize("scores", [variance_score, plain_score, energy_score])
def test_scores_follow_the_channels(network, within, scores) -> None:
    score = scores(channel_statistics(ports_of(network), QUALITY))
    other = scores(channel_statistics(ports_of(permuted(network, within)), QUALITY))
    torch.testing.assert_close(other, score[within], rtol=1e-4, atol=1e-7)
    assert float(score.min()) >= 0


def test_a_channel_that_nothing_reads_comes_last(network) -> None:
    network.synthesis.stem.weight[:, 9] = 0
    assert int(energy_score(channel_statistics(ports_of(network))).argmin()) == 9


def test_a_channel_that_never_moves_is_auxiliary(network) -> None:
    network.analysis.head.weight[9] = 0
    groups = order_channels(network)
    assert int(variance_score(channel_statistics(ports_of(network))).argmin()) == 9
    assert 9 in groups.auxiliary.tolist()


def test_groups_by_hand() -> None:
    score = torch.tensor([1.0, 5.0, 5.0, 2.0, 0.5])
    correlation = torch.eye(5)
    for a, b, value in [(0, 1, 0.2), (0, 2, 0.6), (3, 1, 0.9), (3, 2, 0.1), (4, 1, 0.4), (4, 2, 0.4)]:
        correlation[a, b] = correlation[b, a] = value
    groups = group_channels(score, correlation, core=2)
    assert groups.core.tolist() == [1, 2]
    assert groups.auxiliary.tolist() == [3, 4, 0]
    assert groups.anchor.tolist() == [1, 1, 2]
    assert groups.order.tolist() == [1, 2, 3, 4, 0]


def test_equal_channels_keep_their_numbers() -> None:
    groups = group_channels(torch.ones(6), torch.ones(6, 6), core=2)
    assert groups.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert groups.anchor.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("core", [0, 7])
def test_impossible_core(core) -> None:
    with pytest.raises(ValueError, match="1 to 6"):
        group_channels(torch.ones(6), torch.ones(6, 6), core)


def test_the_same_order_every_time(network) -> None:
    first, second = order_channels(network), order_channels(network)
    assert torch.equal(first.order, second.order)
    assert torch.equal(first.anchor, second.anchor)
    assert len(first.core) == CHANNELS // 4


# Networks of CompressAI


@pytest.fixture(params=["mean-scale", "autoregressive", "cheng2020"])
def foreign(request, compressai_models):
    """Random weights with biases that differ by channel and several steps of latent."""
    torch.manual_seed(0)
    makers = {
        "mean-scale": lambda: compressai_models.MeanScaleHyperprior(12, 18),
        "autoregressive": lambda: compressai_models.JointAutoregressiveHierarchicalPriors(12, 18),
        "cheng2020": lambda: compressai_models.Cheng2020Anchor(12),
    }
    model = makers[request.param]().eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += 0.05 * torch.randn_like(parameter).abs()
    model.g_a[-1].weight *= 30
    return model


def foreign_order(model):
    channels = ports_of(model).latent_channels
    return torch.randperm(channels, generator=torch.Generator().manual_seed(8))


def test_any_order_preserves_a_foreign_network(foreign) -> None:
    foreign = foreign.double()
    order = foreign_order(foreign)
    other = permuted(foreign, order)
    image = torch.rand(1, 3, 128, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = foreign.g_a(image)
    assert len(torch.round(y).unique()) > 4
    torch.testing.assert_close(other.g_a(image), y[:, order], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other.h_a(y[:, order]), foreign.h_a(y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other.g_s(y[:, order]), foreign.g_s(y), rtol=1e-10, atol=1e-10)
    before, after = foreign(image), other(image)
    torch.testing.assert_close(after["x_hat"], before["x_hat"], rtol=1e-9, atol=1e-9)
    likelihoods = before["likelihoods"]["y"][:, order]
    torch.testing.assert_close(after["likelihoods"]["y"], likelihoods, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(after["likelihoods"]["z"], before["likelihoods"]["z"], rtol=1e-8, atol=1e-10)


def test_foreign_networks_have_statistics(foreign) -> None:
    ports = ports_of(foreign)
    channels = ports.latent_channels
    assert {port.role for port in ports.ports()} >= {Role.ANALYSIS_WEIGHT, Role.SYNTHESIS_WEIGHT}
    score = energy_score(channel_statistics(ports))
    assert score.shape == (channels,)
    assert bool(torch.isfinite(score).all())
    order = foreign_order(foreign)
    other = energy_score(channel_statistics(ports_of(permuted(foreign, order))))
    torch.testing.assert_close(other, score[order], rtol=1e-3, atol=1e-6)
    groups = order_channels(foreign)
    assert groups.order.sort().values.tolist() == list(range(channels))


def test_a_foreign_network_put_together_otherwise_is_refused(foreign) -> None:
    foreign.g_s = torch.nn.Sequential(torch.nn.Sequential(foreign.g_s[0]), *foreign.g_s[1:])
    with pytest.raises(TypeError, match="not known"):
        ports_of(foreign)
    foreign.extra = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match="not known"):
        ports_of(foreign)


# Brute force to hold the scores against


def test_ablation_of_a_linear_synthesis() -> None:
    """Channels of a linear synthesis onto separate planes: the rise is the energy that is taken away."""
    latent = torch.tensor([0.1, 0.2, 0.4]).expand(1, 4, 6, 3).clone()
    latent[0, :2, :, 2] = 0.2
    target = latent[0].permute(2, 0, 1)[:, :, :5]
    rises = ablation(lambda y: y[0].permute(2, 0, 1), latent, target)
    expected = torch.tensor([0.01, 0.04, 0.10], dtype=torch.float64) * 255**2 / 3
    torch.testing.assert_close(rises, expected, rtol=1e-5, atol=0)
    rises = ablation(lambda y: y[0].permute(2, 0, 1), latent, target, "mean")
    expected = torch.tensor([0.0, 0.0, 0.01], dtype=torch.float64) * 255**2 / 3
    torch.testing.assert_close(rises, expected, rtol=1e-5, atol=1e-6)


def test_the_check_runs(repository, tmp_path, capsys) -> None:
    from PIL import Image

    pixels = (picture()[0, :40, :33] * 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    weights = repository / "tests" / "golden" / "v1" / "image_tiny.safetensors"
    arguments = ["--weights", str(weights), "--data", str(tmp_path), "--qualities", "90", "--threads", "1"]
    assert main([*arguments, "--bar", "-1"]) == 0
    assert main([*arguments, "--bar", "1.1"]) == 1
    printed = capsys.readouterr().out
    assert "noise.png" in printed
    assert "energy score" in printed
