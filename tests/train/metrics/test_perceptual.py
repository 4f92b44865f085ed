"""Wasserstein distortion, MS-SSIM and the table of perceptual measures."""

import importlib.util

import pytest
import torch
from torch.nn import functional as F

from latentpress.models.wasserstein import oriented_bands, wasserstein_distortion
from latentpress.train.metrics import perceptual
from latentpress.train.metrics.structural_similarity import MultiScaleSimilarity
from latentpress.train.reconstruction_loss import ReconstructionLoss


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def texture(seed: int, size: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.15 * torch.randn(1, 3, size, size, generator=generator)


def blurred(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 5, 1)


def test_zero_for_equal_pictures_and_symmetric() -> None:
    x, y = texture(0), texture(1)
    assert float(wasserstein_distortion(x, x)) == 0
    assert float(wasserstein_distortion(x, y)) > 0
    torch.testing.assert_close(wasserstein_distortion(x, y), wasserstein_distortion(y, x))


def test_another_sample_of_a_texture_is_closer_than_its_blur() -> None:
    """What sets it apart from the squared error, which says the opposite."""
    x, other, blur = texture(0), texture(1), blurred(texture(0))
    assert (x - other).square().mean() > (x - blur).square().mean()
    assert float(wasserstein_distortion(x, other)) < 0.5 * float(wasserstein_distortion(x, blur))


def test_a_shift_in_brightness_counts_as_its_square() -> None:
    x = torch.full((1, 3, 64, 64), 0.4)
    found = float(wasserstein_distortion(x, x + 0.1))
    # Bands do not see a constant; luma moves by 0.1 in the residual, which averages three channels.
    assert found == pytest.approx(0.01 / 3, rel=1e-3)


def test_bands_rotate_into_each_other() -> None:
    """A picture turned by a quarter has first and second derivatives exchanged: the bands are steerable."""
    x = texture(3, 32)[:, :1]
    y, x_, yy, xy, xx = oriented_bands(x).unbind(1)
    turned = oriented_bands(x.transpose(2, 3))
    ty, tx, tyy, txy, txx = (band.transpose(1, 2) for band in turned.unbind(1))
    for a, b in ((x_, ty), (y, tx), (xx, tyy), (yy, txx), (xy, txy)):
        torch.testing.assert_close(a, b)


def test_gradients_are_finite_everywhere() -> None:
    for x in (torch.zeros(1, 64, 64, 3), torch.rand(2, 64, 64, 3)):
        x.requires_grad_()
        loss = ReconstructionLoss()
        loss.total(loss(x, torch.full_like(x, 0.5))).backward()
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() > 0


def test_small_and_odd_pictures() -> None:
    assert float(wasserstein_distortion(texture(0, 9), texture(1, 9))) > 0
    assert wasserstein_distortion(torch.rand(2, 3, 37, 51), torch.rand(2, 3, 37, 51)).shape == (2,)
    with pytest.raises(ValueError, match="8 pixels"):
        wasserstein_distortion(torch.rand(1, 3, 7, 20), torch.rand(1, 3, 7, 20))
    with pytest.raises(ValueError, match="11 pixels"):
        MultiScaleSimilarity()(torch.rand(1, 3, 10, 20), torch.rand(1, 3, 10, 20))


@pytest.mark.parametrize("size", [(192, 192), (177, 203)])
def test_ms_ssim_is_that_of_the_package(size) -> None:
    ms_ssim = pytest.importorskip("pytorch_msssim").ms_ssim
    generator = torch.Generator().manual_seed(0)
    x = F.interpolate(torch.rand(2, 3, 24, 24, generator=generator), size, mode="bicubic").clamp(0, 1)
    y = (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    expected = ms_ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(MultiScaleSimilarity()(x, y), expected, rtol=1e-4, atol=1e-4)


def test_measures_run_or_say_why_not(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found, skipped = perceptual.measures()
    names = {"psnr", "ms_ssim", "wasserstein", "haarpsi", "gmsd", "mdsi", "lpips", "dists", "fid"}
    assert found.keys() | skipped.keys() == names
    assert not found.keys() & skipped.keys()
    assert {"lpips", "dists"} <= skipped.keys()
    x = F.interpolate(torch.rand(1, 3, 24, 24), 192, mode="bicubic").clamp(0, 1)
    near, far = (x + 0.02).clamp(0, 1), torch.rand_like(x)
    higher = {"psnr", "ms_ssim", "haarpsi"}
    for name, measure in found.items():
        assert (measure(x, near) > measure(x, far)) == (name in higher), name


def test_without_piq(monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "piq" else real(name))
    _, skipped = perceptual.measures()
    assert skipped["haarpsi"] == skipped["lpips"] == "piq is not installed"
