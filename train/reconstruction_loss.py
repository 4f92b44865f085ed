"""How far a reconstruction is from its picture, for training codecs that may change texture a little."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.index.granularity import CELL
from latentpress.models.wasserstein import luma_chroma, wasserstein_distortion
from latentpress.train.metrics.structural_similarity import MultiScaleSimilarity

# Of squared errors in [0, 1]: what rounding to 8 bits leaves.
_FLOOR = 1e-6


class ReconstructionTerms(NamedTuple):
    """The parts of a reconstruction loss, each a mean over the batch.

    Attributes:
        absolute_error: In [0, 1].
        squared_error: In [0, 1].
        dissimilarity: One minus the MS-SSIM of the luma.
        wasserstein: Wasserstein distortion, squared intensities.
        pattern: How unevenly the error is spread over the places in a cell, see :func:`cell_pattern`.
    """

    absolute_error: Tensor
    squared_error: Tensor
    dissimilarity: Tensor
    wasserstein: Tensor
    pattern: Tensor


class ReconstructionLoss(nn.Module):
    """Weighted sum of pointwise, structural and statistical differences.

    The default weights make the first four parts about equal for pictures at 0.1 bits a pixel.

    Args:
        absolute_error: Weight of the mean absolute error.
        squared_error: Weight of the mean squared error.
        dissimilarity: Weight of one minus MS-SSIM.
        wasserstein: Weight of the Wasserstein distortion.
        pattern: Weight of the pattern that the error has in cells.

    Example:
        >>> x = torch.rand(1, 64, 64, 3)
        >>> loss = ReconstructionLoss()
        >>> abs(float(loss.total(loss(x, x)))) < 1e-6
        True
    """

    def __init__(
        self,
        absolute_error: float = 0.5,
        squared_error: float = 4.0,
        dissimilarity: float = 0.15,
        wasserstein: float = 150.0,
        pattern: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = (absolute_error, squared_error, dissimilarity, wasserstein, pattern)
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
                cell_pattern(difference),
            )

    def total(self, terms: ReconstructionTerms) -> Tensor:
        """The weighted sum, a scalar."""
        return torch.stack([w * t for w, t in zip(self.weights, terms, strict=True)]).sum()


def cell_pattern(error: Tensor, cell: int = CELL) -> Tensor:
    """Variance, over the places in a cell, of the logarithm of the mean squared error there.

    Distortions of local statistics can be lowered by dots at one place of every cell, which cost little
    squared error and are seen at once. An error without such a pattern is as large everywhere in a cell.

    Args:
        error: ``(B, C, H, W)``, differences.
        cell: Side of a cell in pixels; sides of the picture are multiples of it.

    Returns:
        A scalar; near 0 for noise.

    Example:
        >>> noise = torch.randn(4, 3, 64, 64)
        >>> dots = torch.ones(1, 1, 64, 64)
        >>> dots[:, :, 3::16, 3::16] = 10
        >>> bool(cell_pattern(noise) < 0.03 < cell_pattern(noise * dots))
        True
    """
    batch, channels, height, width = error.shape
    cells = error.square().view(batch, channels, height // cell, cell, width // cell, cell)
    return (cells.mean((0, 1, 2, 4)) + _FLOOR).log().var(correction=0)
