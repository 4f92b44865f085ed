"""What a target for a picture means, and what is said where it cannot be met."""

from __future__ import annotations

import math

from latentpress.codecs.rate_control import LEAST_ERROR


def squared_error_of_psnr(psnr: float) -> float:
    """The mean squared error of a PSNR in dB, in squared 8-bit steps; positive.

    Example:
        >>> round(squared_error_of_psnr(40.0), 3)
        6.503
    """
    error: float = 255.0**2 * 10.0 ** (-psnr / 10)
    return max(LEAST_ERROR, error)


def unmet_psnr(psnr: float, least_error: float) -> ValueError:
    """The error of a PSNR above that of the best quality, whose mean squared error is given."""
    best = 10 * math.log10(255.0**2 / least_error)
    return ValueError(f"{psnr} dB cannot be met: quality 100 reaches {best:.2f} dB for this picture")


def unmet_bytes(limit: float, smallest: float) -> ValueError:
    """The error of a limit below the smallest stream, whose bytes are given."""
    return ValueError(f"{limit:.10g} bytes cannot be met: the smallest stream of this picture has {smallest}")
