"""Side information: sizes that are no multiple of its stride, and who depends on what."""

import pytest
import torch

from latentpress.models.entropy.hyperprior import HYPER_LIMIT, HyperAnalysis, HyperPrior, HyperSynthesis


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 8), (9, 2)])
def test_sizes(size) -> None:
    quality = torch.tensor([20.0, 80.0])
    z = HyperAnalysis(8, 6, 4)(torch.randn(2, *size, 8), quality)
    coarse = tuple(-(-side // 4) for side in size)
    assert z.shape == (2, *coarse, 4)
    features = HyperSynthesis(4, 6, 10)(z, quality)
    assert features.shape == (2, 4 * coarse[0], 4 * coarse[1], 10)
    assert HyperPrior(4)(quality).shape == (2, 4)


@torch.no_grad()
def test_padding_repeats_the_border() -> None:
    analysis = HyperAnalysis(4, 6, 4)
    y = torch.randn(1, 5, 6, 4)
    rows, columns = torch.arange(8).clamp(max=4), torch.arange(8).clamp(max=5)
    quality = torch.tensor([50.0])
    assert torch.equal(analysis(y, quality), analysis(y[:, rows][:, :, columns], quality))


@torch.no_grad()
def test_large_latents_keep_their_digits_under_autocast() -> None:
    analysis = HyperAnalysis(4, 6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert analysis(torch.randn(1, 4, 4, 4) * 100, torch.tensor([50.0])).dtype == torch.float32


def test_side_information_is_limited_and_pulled_back() -> None:
    analysis = HyperAnalysis(4, 6, 4)
    with torch.no_grad():
        analysis.head.linear.bias[0] = 1e6
    z = analysis(torch.randn(1, 4, 4, 4), torch.tensor([50.0]))
    assert float(z.detach().abs().max()) == HYPER_LIMIT
    z.square().sum().backward()
    assert float(analysis.head.linear.bias.grad[0]) > 0
