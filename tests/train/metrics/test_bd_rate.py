"""Bjontegaard's rate difference, against cubics written out by hand and things that must be so."""

import math
from itertools import pairwise

import numpy as np
import pytest

from latentpress.train.metrics.anchors import kodak_anchors
from latentpress.train.metrics.bd_rate import bd_rate

BPP = [0.1, 0.25, 0.5, 1.1, 1.9]
PSNR = [27.5, 30.0, 33.2, 36.0, 39.5]


def monotone_cubic(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Fritsch and Butland's interpolant: slopes are weighted harmonic means, with three-point ends."""
    h, slope = np.diff(x), np.diff(y) / np.diff(x)
    d = np.zeros_like(x)
    for k in range(1, len(x) - 1):
        w1, w2 = 2 * h[k] + h[k - 1], h[k] + 2 * h[k - 1]
        if slope[k - 1] * slope[k] > 0:
            d[k] = (w1 + w2) / (w1 / slope[k - 1] + w2 / slope[k])

    def end(h0: float, h1: float, s0: float, s1: float) -> float:
        value = ((2 * h0 + h1) * s0 - h0 * s1) / (h0 + h1)
        if value * s0 <= 0:
            return 0.0
        if s0 * s1 < 0 and abs(value) > 3 * abs(s0):
            return 3 * s0
        return value

    d[0] = end(h[0], h[1], slope[0], slope[1])
    d[-1] = end(h[-1], h[-2], slope[-1], slope[-2])
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    t = (at - x[k]) / h[k]
    return (
        y[k] * (1 + 2 * t) * (1 - t) ** 2
        + h[k] * d[k] * t * (1 - t) ** 2
        + y[k + 1] * t**2 * (3 - 2 * t)
        - h[k] * d[k + 1] * t**2 * (1 - t)
    )


def by_hand(anchor_bpp, anchor_psnr, test_bpp, test_psnr) -> float:
    low, high = max(anchor_psnr[0], test_psnr[0]), min(anchor_psnr[-1], test_psnr[-1])
    # Gauss-Legendre on every piece is exact for cubics.
    knots = np.unique(np.clip([*anchor_psnr, *test_psnr], low, high))
    nodes, weights = np.polynomial.legendre.leggauss(4)
    total = 0.0
    for a, b in pairwise(knots):
        at = (a + b) / 2 + nodes * (b - a) / 2
        test = monotone_cubic(np.array(test_psnr), np.log(test_bpp), at)
        anchor = monotone_cubic(np.array(anchor_psnr), np.log(anchor_bpp), at)
        total += float(((test - anchor) * weights).sum() * (b - a) / 2)
    return math.expm1(total / (high - low)) * 100


def test_against_cubics_by_hand() -> None:
    test = [0.12, 0.2, 0.55, 0.9, 2.5], [28.1, 29.9, 34.0, 36.2, 41.0]
    assert bd_rate(BPP, PSNR, *test) == pytest.approx(by_hand(BPP, PSNR, *test), abs=1e-9)
    anchors = kodak_anchors()
    curves = anchors["vtm"], anchors["hm"]
    assert bd_rate(*curves[0], *curves[1]) == pytest.approx(by_hand(*curves[0], *curves[1]), abs=1e-9)


def test_curve_with_itself_is_zero() -> None:
    assert bd_rate(BPP, PSNR, BPP, PSNR) == 0


@pytest.mark.parametrize("factor", [0.5, 0.97, 3.0])
def test_constant_factor(factor) -> None:
    test = [rate * factor for rate in BPP]
    assert bd_rate(BPP, PSNR, test, PSNR) == pytest.approx((factor - 1) * 100)


def test_exchange_inverts() -> None:
    test = [0.12, 0.2, 0.55, 0.9, 2.5], [28.1, 29.9, 34.0, 36.2, 41.0]
    there, back = bd_rate(BPP, PSNR, *test), bd_rate(*test, BPP, PSNR)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_straight_lines_over_their_common_range() -> None:
    """Where the logarithm of the rate is linear, the mean difference is that in the middle."""
    anchor, test = np.linspace(28, 40, 6), np.linspace(30, 44, 5)
    found = bd_rate(np.exp(0.2 * anchor - 7), anchor, np.exp(0.25 * test - 8.5), test)
    middle = 35.0  # of 30 to 40
    assert found == pytest.approx(math.expm1((0.25 - 0.2) * middle - 1.5) * 100)


def test_order_of_points_does_not_matter() -> None:
    test = [rate * 0.9 for rate in BPP]
    assert bd_rate(BPP[::-1], PSNR[::-1], test, PSNR) == pytest.approx(bd_rate(BPP, PSNR, test, PSNR))


def test_two_points_are_enough() -> None:
    assert bd_rate([1, 2], [30, 33], [0.8, 1.6], [30, 33]) == pytest.approx(-20)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (([0.1, 0.2], [50.0, 55.0]), "share no quality: 50.00 dB to 39.50 dB"),
        (([0.1, 0.2], [39.5, 45.0]), "share no quality"),
        (([0.1, 0.2, 0.3], [28.0, 32.0, 31.0]), "PSNR must rise with the rate"),
        (([0.1, 0.2], [28.0, 28.0]), "PSNR must rise with the rate"),
        (([0.1], [30.0]), "at least two points"),
        (([], []), "at least two points"),
    ],
)
def test_curves_that_cannot_be_compared(test, message) -> None:
    with pytest.raises(ValueError, match=message):
        bd_rate(BPP, PSNR, *test)


def test_lengths_must_agree() -> None:
    for bpp, psnr in (([0.1, 0.2, 0.3], [30.0, 33.0]), ([0.1, 0.2], [30.0, 33.0, 36.0])):
        with pytest.raises(ValueError, match=rf"has {len(bpp)} rates and {len(psnr)} PSNRs"):
            bd_rate(BPP, PSNR, bpp, psnr)
