"""Bjontegaard's rate difference between two rate-distortion curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator


def bd_rate(
    anchor_bpp: Sequence[float],
    anchor_psnr: Sequence[float],
    test_bpp: Sequence[float],
    test_psnr: Sequence[float],
) -> float:
    """Average rate difference at equal quality, over the qualities both curves cover.

    Interpolates the logarithm of the rate over PSNR by monotone cubics (PCHIP), as VCEG-AI11 recommends.

    Args:
        anchor_bpp: Rates of the anchor, bits per pixel.
        anchor_psnr: PSNR of the anchor, dB, strictly increasing with the rate.
        test_bpp: Rates of the codec under test.
        test_psnr: PSNR of the codec under test.

    Returns:
        Percent; negative means the codec under test needs fewer bits.

    Raises:
        ValueError: A curve has not as many rates as PSNRs or is not strictly increasing, or the curves
            share no quality.

    Example:
        >>> psnr = [28, 31, 34, 37]
        >>> round(bd_rate([0.1, 0.2, 0.4, 0.8], psnr, [0.09, 0.18, 0.36, 0.72], psnr), 6)
        -10.0
    """
    curves = []
    for bpp, psnr in ((anchor_bpp, anchor_psnr), (test_bpp, test_psnr)):
        if len(bpp) != len(psnr):
            raise ValueError(f"a rate-distortion curve has {len(bpp)} rates and {len(psnr)} PSNRs")
        order = np.argsort(bpp)
        rates, qualities = np.log(np.asarray(bpp, float)[order]), np.asarray(psnr, float)[order]
        if len(rates) < 2 or np.any(np.diff(qualities) <= 0):
            raise ValueError(
                "a rate-distortion curve must have at least two points and PSNR must rise with the rate"
            )
        curves.append(PchipInterpolator(qualities, rates))
    low = max(curve.x[0] for curve in curves)
    high = min(curve.x[-1] for curve in curves)
    if high <= low:
        raise ValueError(f"the curves share no quality: {low:.2f} dB to {high:.2f} dB")
    anchor_area, test_area = (float(curve.integrate(low, high)) for curve in curves)
    return float(np.expm1((test_area - anchor_area) / (high - low)) * 100)
