"""How far a reconstruction is from its picture, for training codecs that may change texture a little."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.train.metrics.structural_similarity import MultiScaleSimilarity
from latentpress.train.metrics.wasserstein import luma_chroma, wasserstein_distortion


class ReconstructionTerms(NamedTuple):
    """The parts of a reconstruction loss, each a mean over the batch.

    Attributes:
        absolute_error: In [0, 1].
        squared_error: In [0, 1].
        dissimilarity: One minus the MS-SSIM of the luma.
        wasserstein: Wasserstein distortion, squared intensities.
    """

    absolute_error: Tensor
    squared_error: Tensor
    dissimilarity: Tensor
    wasserstein: Tensor


class ReconstructionLoss(nn.Module):
    """Weighted sum of pointwise, structural and statistical differences.

    The default weights make the four parts about equal for pictures at 0.1 bits a pixel.

    Args:
        absolute_error: Weight of the mean absolute error.
        squared_error: Weight of the mean squared error.
        dissimilarity: Weight of one minus MS-SSIM.
        wasserstein: Weight of the Wasserstein distortion.

    Example:
        >>> x = torch.rand(1, 64, 64, 3)
        >>> loss = ReconstructionLoss()
        >>> round(float(loss.total(loss(x, x))), 6)
        0.0
    """

    def __init__(
        self,
        absolute_error: float = 0.5,
        squared_error: float = 4.0,
        dissimilarity: float = 0.15,
        wasserstein: float = 150.0,
    ) -> None:
        super().__init__()
        self.weights = (absolute_error, squared_error, dissimilarity, wasserstein)
        self.similarity = MultiScaleSimilarity()

    def forward(self, image: Tensor, target: Tensor) -> ReconstructionTerms:
        """Compares ``(B, H, W, 3)`` with the pictures ``(B, H, W, 3)`` in [0, 1]."""
        # Differences of squares lose what half precision keeps.
        with torch.autocast(image.device.type, enabled=False):
            x, y = (planes.float().permute(0, 3, 1, 2) for planes in (image, target))
            difference = x - y
            return ReconstructionTerms(
                difference.abs().mean(),
                difference.square().mean(),
                1 - self.similarity(luma_chroma(x)[:, :1], luma_chroma(y)[:, :1]).mean(),
                wasserstein_distortion(x, y).mean(),
            )

    def total(self, terms: ReconstructionTerms) -> Tensor:
        """The weighted sum, a scalar."""
        return torch.stack([w * t for w, t in zip(self.weights, terms, strict=True)]).sum()
