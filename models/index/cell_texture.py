"""Texture of coarse cells: random in the place of the same pattern in every cell.

A decoder that is asked for the right amount of texture, and knows one code for 256 pixels, finds that any
pattern will do and puts the same one into every cell: eyes see a lattice of dots. All of it is one direction
of the space of cells, which is measured once (:mod:`latentpress.train.index_texture`). Then every coarse cell
loses what it has in that direction, and gets as much energy back as noise::

    decoded cell -> share of the pattern -+-> cell without it ---+--> picture
                                          '-> strength x noise --'

Noise is a function of the position alone, made with integers, so that it is the same wherever a stream is
decoded. As in natural pictures, it has more than one scale.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.index.granularity import CELL, GrainMap

CELL_VALUES = CELL * CELL * 3

_WORD = 0xFFFFFFFF

# Weight of the noise at each scale, and the standard deviation that interpolation by so much leaves of it.
_OCTAVES = ((1, 1.0, 1.0), (2, 1.0, 0.625), (4, 0.7, 0.65625))

# Four bytes added up: mean 510, variance 4 (256^2 - 1) / 12.
_BYTES_MEAN = 510.0
_BYTES_DEVIATION = 147.799


def position_noise(rows: int, columns: int, device: torch.device | str, seed: int = 0) -> Tensor:
    """White noise, about normal, mean 0, variance 1, ``(rows, columns)`` float32; a function of the position.

    Args:
        rows: Fewer than 2^20.
        columns: Fewer than 2^20.
        device: Where it is made; the same values everywhere.
        seed: Of another noise.

    Example:
        >>> bool((position_noise(4, 6, "cpu") == position_noise(9, 9, "cpu")[:4, :6]).all())
        True
    """
    y, x = (torch.arange(size, device=device, dtype=torch.int64) for size in (rows, columns))
    word = (y[:, None] * 73856093) ^ (x[None, :] * 19349663) ^ (seed * 83492791)
    for _ in range(3):
        word = word & _WORD
        word = ((word >> 16) ^ word) * 0x45D9F3B
    word = word & _WORD
    total = torch.stack([(word >> shift) & 0xFF for shift in (0, 8, 16, 24)]).sum(0)
    return (total.float() - _BYTES_MEAN) / _BYTES_DEVIATION


def texture_noise(rows: int, columns: int, device: torch.device | str) -> Tensor:
    """Noise of several scales, mean 0 and variance 1, ``(rows, columns)`` float32, sides multiples of 16.

    Example:
        >>> round(float(texture_noise(256, 256, "cpu").std()), 1)
        1.0
    """
    total = torch.zeros(1, 1, rows, columns, device=device)
    for scale, weight, deviation in _OCTAVES:
        noise = position_noise(rows // scale, columns // scale, device, seed=scale)[None, None]
        if scale > 1:
            noise = F.interpolate(noise, scale_factor=scale, mode="bilinear", align_corners=False)
        total = total + noise * (weight / deviation)
    return total[0, 0] / sum(weight**2 for _, weight, _ in _OCTAVES) ** 0.5


def noise_of_cells(length: Tensor) -> Tensor:
    """Grey noise of as much energy as vectors of cells have, ``(B, 16h, 16w, 1)``.

    Args:
        length: ``(B, h, w)``, of each cell's vector; between the middles of cells it is interpolated.

    Example:
        >>> noise_of_cells(torch.zeros(1, 2, 3)).shape
        torch.Size([1, 32, 48, 1])
    """
    strength = F.interpolate(length[:, None], scale_factor=CELL, mode="bilinear", align_corners=False)[:, 0]
    _, rows, columns = strength.shape
    return (strength * texture_noise(rows, columns, length.device) / CELL_VALUES**0.5)[..., None]


class CellTexture:
    """Takes a pattern out of coarse cells and puts noise in its place.

    Args:
        pattern: ``(768,)`` float, a cell of 16x16 pixels in raster order, red, green and blue of each; of
            length 1 and without mean.

    Raises:
        ValueError: It is not such a pattern.
    """

    def __init__(self, pattern: Tensor) -> None:
        if pattern.shape != (CELL_VALUES,) or not bool(pattern.isfinite().all()):
            raise ValueError(f"a pattern has {CELL_VALUES} finite values, got {tuple(pattern.shape)}")
        pattern = pattern.float()
        if abs(float(pattern.norm()) - 1) > 0.01:
            raise ValueError(f"a pattern has length 1, got {float(pattern.norm()):.4g}")
        self.pattern = pattern

    def __call__(self, image: Tensor, grains: GrainMap) -> Tensor:
        """Finishes decoded pictures.

        Args:
            image: ``(B, 16h, 16w, 3)`` around [0, 1].
            grains: Their map.

        Returns:
            The same shape; nothing changes further than half a cell from coarse ones.
        """
        coarse = grains.coarse_mask()
        if not bool(coarse.any()):
            return image
        b, height, width, _ = image.shape
        cells = image.view(b, height // CELL, CELL, width // CELL, CELL, 3)
        pattern = self.pattern.view(CELL, CELL, 3).to(image.device)
        share = torch.einsum("bhiwjc,ijc->bhw", cells, pattern) * coarse
        plain = cells - torch.einsum("bhw,ijc->bhiwjc", share, pattern)
        return plain.reshape(image.shape) + noise_of_cells(share.abs())
