"""How close a decoded picture is to the original, from 8-bit pixels."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch

# MS-SSIM halves a picture four times and slides a window of 11 pixels over what is left.
MS_SSIM_MIN_SIDE = 161


class Closeness(NamedTuple):
    """Measures of a decoded picture.

    Attributes:
        psnr: dB over all samples, peak 255; infinite for equal pictures.
        ms_ssim: Multi-scale structural similarity, mean over channels; None for a picture whose shorter side
            is under 161 pixels, for which it is not defined.
    """

    psnr: float
    ms_ssim: float | None


def compare(original: torch.Tensor, decoded: torch.Tensor) -> Closeness:
    """Measures a decoded picture.

    Args:
        original: uint8, shape (C, H, W).
        decoded: uint8, the same shape.

    Returns:
        The measures.

    Raises:
        ValueError: The shapes or types differ from that.
        ModuleNotFoundError: The extra ``demo`` is not installed.
    """
    if original.dtype != torch.uint8 or decoded.dtype != torch.uint8 or original.shape != decoded.shape:
        raise ValueError(
            f"expected two uint8 pictures of one shape, got {original.dtype} {tuple(original.shape)} and "
            f"{decoded.dtype} {tuple(decoded.shape)}"
        )
    first, second = original.double(), decoded.double()
    error = float(((first - second) ** 2).mean())
    psnr = math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)
    return Closeness(psnr, _ms_ssim(original, decoded))


def _ms_ssim(original: torch.Tensor, decoded: torch.Tensor) -> float | None:
    if min(original.shape[1:]) < MS_SSIM_MIN_SIDE:
        return None
    from pytorch_msssim import ms_ssim

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        value = ms_ssim(original[None].float(), decoded[None].float(), data_range=255.0, size_average=True)
    return float(value)
