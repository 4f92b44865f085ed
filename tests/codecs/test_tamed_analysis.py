"""Pictures that no training has prepared the networks for: patterns, dither, noise."""

import math

import numpy as np
import pytest
import torch

from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import load
from latentpress.codecs.tamed_analysis import LARGEST_Y, MOST_ROUNDS, tamed_analysis

HEIGHT, WIDTH = 96, 128


def _grid() -> np.ndarray:
    return np.indices((HEIGHT, WIDTH))


def _modules(size: int) -> np.ndarray:
    """As of a QR code."""
    cells = np.random.default_rng(0).random((HEIGHT // size, WIDTH // size)) > 0.5
    return np.kron(cells, np.ones((size, size)))


PATTERNS = {
    "chessboard": (_grid() // 8).sum(0) % 2,
    "modules of two pixels": _modules(2),
    "modules of four pixels": _modules(4),
    "dither": np.random.default_rng(1).random((HEIGHT, WIDTH)) < _grid()[1] / WIDTH,
    "noise": np.random.default_rng(2).random((HEIGHT, WIDTH)),
    "every other column": _grid()[1] % 2,
}


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    """The codec that ships: small random networks stay small whatever they see."""
    found = load("image")
    assert isinstance(found, ImageCodec)
    return found


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("quality", [20, 40, 60, 90])
def test_patterns_cost_less_than_pixels(codec, name, quality):
    picture = torch.from_numpy((PATTERNS[name] * 255).astype(np.uint8))[None]
    data = codec.compress(picture, quality=quality)
    # Without taming some cost 24 bits a pixel and others cannot be coded at all.
    assert len(data) * 8 < 8 * HEIGHT * WIDTH
    decoded = codec.decompress(data).double()
    error = (decoded - picture).square().mean() / 255**2
    assert 10 * math.log10(1 / error) > 7  # dB; unrelated pixels have 3, grey has 6


def test_what_is_beside_a_pattern_stays(codec):
    smooth = torch.linspace(60, 190, 256).expand(3, 192, 256).to(torch.uint8).clone()
    with_pattern = smooth.clone()
    with_pattern[:, :48, :64] = torch.from_numpy((_modules(4)[:48, :64] * 255).astype(np.uint8))
    alone, beside = (codec.decompress(codec.compress(x, quality=80)).double() for x in (smooth, with_pattern))
    errors = [(found - smooth)[:, 128:, 160:].abs().mean() for found in (alone, beside)]
    assert errors[1] < errors[0] + 0.5


def _tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1, 1)


def _nothing(y: torch.Tensor, shift: float) -> torch.Tensor:
    """Latents out of bounds come back worse."""
    return torch.full((1, 3, 1, 1), 100.0 if float(y.abs().max()) > LARGEST_Y else 0.5)


def _grey(y: torch.Tensor, shift: float) -> torch.Tensor:
    return torch.full((1, 3, 1, 1), 0.5)


def test_tame_pictures_are_analysed_once_and_unchanged():
    seen = []

    def analyse(x):
        seen.append(x)
        return _tensor(LARGEST_Y, -1.0)

    picture = torch.rand(1, 3, 16, 32)
    y = tamed_analysis(picture, analyse, lambda y: y[:, :, :1], _nothing)
    assert torch.equal(y, _tensor(LARGEST_Y, -1.0))
    assert len(seen) == 1
    assert seen[0] is picture


@pytest.mark.parametrize("wild", [LARGEST_Y * 1.01, -1e30, math.inf, math.nan])
def test_only_what_is_around_is_changed(wild):
    seen = []

    def analyse(x):
        seen.append(x)
        return _tensor(wild if len(seen) == 1 else 1.0, *[0.0] * 7)

    picture = torch.rand(1, 3, 16, 128)
    y = tamed_analysis(picture, analyse, lambda y: torch.zeros(1, 1, 2, 1), _nothing)
    assert torch.equal(y, _tensor(1.0, *[0.0] * 7))
    assert len(seen) == 3  # the last is one round more, which comes back no better
    for tamer in seen[1:]:
        changed = (tamer != picture).any(dim=1).any(dim=1)[0]
        assert changed[:32].all()
        assert not changed[32:].any()


def test_side_information_counts_too():
    analysed = []

    def analyse(x):
        analysed.append(x)
        return torch.zeros(1, 8, 8, 2)

    z = torch.zeros(1, 2, 2, 1)
    z[0, 1, 0] = 1000
    tamed_analysis(torch.rand(1, 3, 128, 128), analyse, lambda y: z if len(analysed) == 1 else 0 * z, _grey)
    changed = (analysed[1] != analysed[0]).any(dim=1)[0]
    assert changed[48:, :80].all()
    assert not changed[:48].any()
    assert not changed[:, 80:].any()


def test_networks_that_are_always_wild_come_back_finite():
    calls = []

    def analyse(x):
        calls.append(x)
        return _tensor(math.nan, math.inf, -50.0)

    y = tamed_analysis(torch.rand(1, 3, 16, 48), analyse, lambda y: y[:, :, :1], _nothing)
    assert len(calls) == MOST_ROUNDS + 1
    assert torch.equal(y, _tensor(0.0, 1000.0, -50.0))


def test_what_comes_back_better_is_kept():
    """A network may leave the bounds without harm: its latents stay if they serve better, up to a limit."""

    def analysed(largest: float) -> torch.Tensor:
        seen = []

        def analyse(x):
            seen.append(x)
            return _tensor(largest if len(seen) == 1 else 1.0, 0.0)

        picture = torch.full((1, 3, 16, 32), 0.7)
        return tamed_analysis(
            picture,
            analyse,
            lambda y: torch.zeros(1, 1, 1, 1),
            lambda y, shift: picture if float(y.max()) == largest else 0 * picture,
        )

    assert float(analysed(2 * LARGEST_Y).max()) == 2 * LARGEST_Y
    assert float(analysed(100 * LARGEST_Y).max()) == 1.0


@pytest.mark.parametrize("broken", [1e6, math.nan])
def test_latents_that_rounding_breaks_go_one_round_further(broken):
    """The first latents within bounds come back as anything where steps are shifted a little."""
    seen = []

    def analyse(x):
        seen.append(x)
        return _tensor(*(LARGEST_Y * 10, 2.0, 1.0)[len(seen) - 1 : len(seen)], 0.0)

    picture = torch.full((1, 3, 16, 32), 0.7)

    def synthesise(y, shift):
        if float(y.max()) == 2.0:
            return picture if shift == 0 else torch.full_like(picture, broken)
        return picture - 0.1

    y = tamed_analysis(picture, analyse, lambda y: torch.zeros(1, 1, 1, 1), synthesise)
    assert float(y.max()) == 1.0
