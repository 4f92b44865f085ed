"""The blocks of the index codec's transforms, which on a processor are computed a few rows at a time.

Layer by layer, every layer of a block writes as many numbers as the grid has channels, and getting the memory
takes longer than the products. What a block does at every position by itself is done for a band of rows while
these are in cache. Training, and other devices, take layer after layer as before.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.entropy.fixed_point import bands as bands_of_rows
from latentpress.models.layers import DepthConvBlock


def runs_in_bands(x: Tensor) -> bool:
    """Whether layers on ``x`` are better taken together, band by band."""
    plain = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and plain


def bands(x: Tensor) -> Iterator[slice]:
    """Rows of ``(B, H, W, C)`` that are worked on together.

    Example:
        >>> [(rows.start, rows.stop) for rows in bands(torch.zeros(1, 5, 2**10, 2**6))]
        [(0, 2), (2, 4), (4, 5)]
    """
    height = x.shape[1]
    return bands_of_rows(height, x.numel() // max(1, height))


class BandedBlock(DepthConvBlock):
    """A :class:`DepthConvBlock` whose feed-forward network sees a band of rows at a time.

    Example:
        >>> block, x = BandedBlock(8), torch.rand(1, 4, 4, 8)
        >>> with torch.inference_mode():
        ...     found = block(x)
        >>> torch.allclose(found, block(x), atol=1e-5)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, C)`` to the same shape."""
        if not runs_in_bands(x):
            return super().forward(x)
        hidden = self.normalise_mixing(x)
        h = self.project(self.depthwise(F.silu(self.expand(hidden), inplace=True))).add_(x)
        for rows in bands(h):
            seen = self.normalise_feed(h[:, rows])
            h[:, rows] += self.output(self.value(seen).mul_(F.silu(self.gate(seen), inplace=True)))
        return h
