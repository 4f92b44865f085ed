"""MS-SSIM as a function that trains on a GPU: fixed shapes, no constants copied while it runs.

The measure is that of Wang, Simoncelli and Bovik (Asilomar 2003): structural similarity over five scales. The
packages that have it make their window or their weights on the processor in every call, which a CUDA graph
cannot record.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (section 3.2 of the paper)."""

WINDOW = 11
SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


class MultiScaleSimilarity(nn.Module):
    """MS-SSIM of pictures in [0, 1], every channel by itself, averaged over channels.

    Pictures whose sides are below 176 pixels have fewer scales, whose weights are scaled to the same sum.

    Example:
        >>> x = torch.rand(2, 3, 192, 192)
        >>> bool((MultiScaleSimilarity()(x, x) > 0.9999).all())
        True
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        position = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        window = torch.exp(-position.square() / (2 * SIGMA**2))
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compares pictures ``(B, C, H, W)``, float32; returns ``(B,)``, 1 where equal.

        Raises:
            ValueError: A side is below 11 pixels.
        """
        side = min(x.shape[-2:])
        if side < WINDOW:
            raise ValueError(f"pictures must have sides of at least {WINDOW} pixels, got {tuple(x.shape)}")
        scales = 1
        while scales < len(SCALE_WEIGHTS) and side >> scales >= WINDOW:
            scales += 1
        weights = [w / sum(SCALE_WEIGHTS[:scales]) for w in SCALE_WEIGHTS[:scales]]
        result = x.new_ones(x.shape[:2])
        for scale, weight in enumerate(weights):
            if scale:
                padding = [side % 2 for side in x.shape[-2:]]
                x, y = (F.avg_pool2d(image, 2, padding=padding) for image in (x, y))
            luminance, contrast = self._compare(x, y)
            # Negative correlation has no real power; the gradient must stay finite there as well.
            result = result * contrast.clamp(min=1e-4) ** weight
            if scale == scales - 1:
                result = result * luminance.clamp(min=1e-4) ** weight
        return result.mean(dim=1)

    def _compare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the luminance term and of the contrast-structure term, ``(B, C)`` each."""
        mean_x, mean_y, xx, yy, xy = self._smooth(torch.cat((x, y, x * x, y * y, x * y))).chunk(5)
        variances = xx - mean_x.square() + yy - mean_y.square()
        contrast = (2 * (xy - mean_x * mean_y) + _C2) / (variances + _C2)
        luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
        return (luminance * contrast).mean(dim=(2, 3)) / contrast.mean(dim=(2, 3)), contrast.mean(dim=(2, 3))

    def _smooth(self, x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        planes = F.conv2d(planes, self.window.view(1, 1, WINDOW, 1))
        planes = F.conv2d(planes, self.window.view(1, 1, 1, WINDOW))
        return planes.view(*x.shape[:2], *planes.shape[-2:])
