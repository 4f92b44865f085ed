"""The image network as it is trained and validated."""

import pytest
import torch

from latentpress.models.image.network import build_image_network
from latentpress.models.image.transforms import AnalysisTransform, SynthesisTransform

TINY = {
    "channels": 16,
    "deep_channels": 16,
    "latent_channels": 8,
    "depth": 1,
    "deep_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 8,
    "context_depth": 1,
}

# What the weights may take on disk: transforms in float16, entropy networks in 16-bit integers.
LARGEST_FILE = 32 * 2**20
BYTES_PER_PARAMETER = 2


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_image_network(**TINY)


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (64, 32), (112, 16)])
@torch.no_grad()
def test_any_number_of_positions(network, size) -> None:
    quality = torch.tensor([10.0, 90.0])
    output = network.eval()(torch.rand(2, *size, 3), quality)
    assert output.image.shape == (2, *size, 3)
    assert output.y_bits.shape == output.z_bits.shape == (2,)
    assert bool((output.y_bits > 0).all())
    assert bool((output.z_bits > 0).all())
    assert output.image.dtype == torch.float32


@torch.no_grad()
def test_pictures_of_a_batch_do_not_mix(network) -> None:
    network.eval()
    image, quality = torch.rand(3, 48, 32, 3), torch.tensor([5.0, 50.0, 95.0])
    batch = network(image, quality)
    for k in range(3):
        alone = network(image[k : k + 1], quality[k : k + 1])
        torch.testing.assert_close(batch.image[k : k + 1], alone.image, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(batch.y_bits[k : k + 1], alone.y_bits, rtol=1e-3, atol=0.1)


@torch.no_grad()
def test_noise_in_training_rounding_in_evaluation(network) -> None:
    image, quality = torch.rand(1, 32, 32, 3), torch.tensor([90.0])
    network.eval()
    first, second = network(image, quality), network(image, quality)
    assert torch.equal(first.y_bits, second.y_bits)
    assert torch.equal(first.image, second.image)
    network.train()
    noisy = [network(image, quality) for _ in range(2)]
    assert not torch.equal(noisy[0].y_bits, noisy[1].y_bits)
    # Only the rate sees noise: the picture is made of rounded latents in both modes.
    assert torch.equal(noisy[0].image, noisy[1].image)
    assert torch.equal(noisy[0].image, first.image)
    average = torch.stack([network(image, quality).y_bits for _ in range(20)]).mean()
    assert float(average) == pytest.approx(float(first.y_bits), rel=0.25)


@torch.no_grad()
def test_evaluation_rounds_to_integers_around_the_mean(network) -> None:
    network.eval()
    seen = []
    bits = network._rate_proxy
    network._rate_proxy = lambda x: seen.append(bits(x)) or seen[-1]
    network(torch.rand(1, 32, 32, 3), torch.tensor([90.0]))
    assert len(seen) == 2  # z and y
    for residual in seen:
        assert torch.equal(residual, residual.round())


def test_gradients_reach_every_parameter(network) -> None:
    """Over all qualities, so that every knot is between two of them."""
    torch.manual_seed(1)
    quality = torch.linspace(0, 100, 21)
    output = network.train()(torch.rand(21, 32, 48, 3), quality)
    loss = (output.y_bits + output.z_bits).mean() + output.image.square().sum()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name
        if name.endswith("knots"):
            assert bool((parameter.grad.abs().sum(1) > 0).all()), name


def test_default_fits_its_file() -> None:
    with torch.device("meta"):
        network = build_image_network()
    numbers = sum(p.numel() for p in network.parameters()) * BYTES_PER_PARAMETER
    in_one_byte = ("deep_blocks.", *(f"blocks.{block}." for block in range(4, 8)))
    for transform in (network.analysis, network.synthesis):
        numbers -= sum(
            p.numel() for n, p in transform.named_parameters() if p.ndim == 2 and n.startswith(in_one_byte)
        )
    assert numbers < LARGEST_FILE
    # Widths were chosen to use the room there is.
    assert numbers > LARGEST_FILE / 4


def test_config_builds_the_same_network(network) -> None:
    assert network.config == {**TINY, "normalisation": "none"}
    again = build_image_network(**network.config)
    assert again.state_dict().keys() == network.state_dict().keys()
    again.load_state_dict(network.state_dict())


@torch.no_grad()
def test_higher_quality_starts_with_finer_steps(network) -> None:
    gain = network.gain(torch.tensor([0.0, 50.0, 100.0]))[:, 0]
    assert gain[0] < gain[1] < gain[2]
    torch.testing.assert_close(network.inverse_gain(torch.tensor([0.0, 50.0, 100.0]))[:, 0], 1 / gain)


@torch.no_grad()
def test_transforms_keep_float32_at_the_ends_under_autocast() -> None:
    g_a, g_s = AnalysisTransform(16, 16, 8, 1, 1), SynthesisTransform(16, 16, 8, 1, 1)
    quality = torch.tensor([50.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = g_a(torch.rand(1, 32, 48, 3), quality)
        image = g_s(y, quality)
    assert y.dtype == image.dtype == torch.float32
    assert y.shape == (1, 2, 3, 8)
    assert image.shape == (1, 32, 48, 3)


def test_unknown_normalisation() -> None:
    with pytest.raises(KeyError, match="batch"):
        build_image_network(**TINY, normalisation="batch")
