"""What cameras leave in photographs, put into clean crops: grain, coarse colour, other tone curves.

Photographs that have been compressed well or made smaller have hardly any grain left, and their colour is as
sharp as their brightness. A codec that is trained on nothing else learns that the smallest differences are
empty, and codes those of real cameras badly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.25, 0.5, 0.25)
_COLOUR_GRAIN = 0.3
"""Grain of every colour by itself, beside that of the brightness."""

_LARGEST = 255.0


class CameraTraces:
    """Random grain, chroma of half the resolution, and tone curves, for every crop of a batch.

    ::

        crops -> tone curve -> chroma averaged in squares of 2x2 -> grain -> rounded

    Args:
        grain: Standard deviation of the brightness's grain over all grainy crops, in 8-bit steps; that of one
            crop is half-normal.
        grainy_share: Share of the crops that have any.
        coarse_chroma_share: Share of the crops with chroma of half the resolution.
        tone: Standard deviation of the logarithm of the tone curve's exponent.

    Example:
        >>> crops = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)
        >>> CameraTraces()(crops, torch.Generator().manual_seed(1)).shape
        torch.Size([2, 8, 8, 3])
    """

    def __init__(
        self,
        grain: float = 2.5,
        grainy_share: float = 0.7,
        coarse_chroma_share: float = 0.5,
        tone: float = 0.1,
    ) -> None:
        self.grain = grain
        self.grainy_share = grainy_share
        self.coarse_chroma_share = coarse_chroma_share
        self.tone = tone

    def __call__(self, crops: Tensor, generator: torch.Generator) -> Tensor:
        """Changes a batch.

        Args:
            crops: ``(B, S, S, 3)`` uint8, S even.
            generator: Of the crops' device.

        Returns:
            As many, ``(B, S, S, 3)`` uint8.
        """
        count, device = len(crops), crops.device

        def normal(*shape: int) -> Tensor:
            return torch.randn((count, *shape), generator=generator, device=device)

        def chosen(share: float) -> Tensor:
            return (torch.rand((count, 1, 1, 1), generator=generator, device=device) < share).float()

        exponent = torch.exp(self.tone * normal(1, 1, 1))
        picture = (crops.float() / _LARGEST) ** exponent * _LARGEST
        luma = (picture * torch.tensor(_LUMA, device=device)).sum(-1, keepdim=True)
        chroma = picture - luma
        coarse = _halved(chroma.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        picture = luma + torch.lerp(chroma, coarse, chosen(self.coarse_chroma_share))

        deviation = self.grain * normal(1, 1, 1).abs() * chosen(self.grainy_share)
        fine = normal(*crops.shape[1:3], 1)
        grain = torch.lerp(fine, _softened(fine), chosen(0.5))
        grain = grain + _COLOUR_GRAIN * normal(*crops.shape[1:])
        return (picture + deviation * grain).round().clamp(0, _LARGEST).to(torch.uint8)


def _halved(planes: Tensor) -> Tensor:
    """Planes ``(B, C, S, S)`` as if they had been stored at half the resolution."""
    small = F.avg_pool2d(planes, 2)
    return F.interpolate(small, planes.shape[-2:], mode="bilinear")


def _softened(noise: Tensor) -> Tensor:
    """White noise ``(B, S, S, 1)`` with neighbours alike, as grain is behind a lens; as strong as before."""
    planes = noise.permute(0, 3, 1, 2)
    row = torch.tensor([1.0, 2.0, 1.0], device=noise.device)
    kernel = row[:, None] * row
    kernel = kernel / kernel.square().sum().sqrt()
    return F.conv2d(F.pad(planes, (1, 1, 1, 1), "replicate"), kernel[None, None]).permute(0, 2, 3, 1)
