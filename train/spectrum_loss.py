"""How far the spectra of decoded flows are from those of the true ones, band by band."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentpress.models.field.spectral_gain import cosine_matrix

LOWEST_WAVE = 3.0
"""Half waves a crop at which the first band begins; longer ones are no loss of any codec."""

HIGHEST_WAVE = 0.68
"""Share of the Nyquist wave number where the last band ends: simulations keep modes up to two thirds."""

_FLOOR = 1e-9


class SpectrumLoss(nn.Module):
    """Mean squared logarithm of the ratio of energies in bands of wave numbers.

    Crops are not periodic, so they are windowed before they are transformed. Differences of smoothed fields
    would be cheaper, but the smallest scales of a flow hold a thousandth of the energy and vanish beside what
    such filters let through of larger ones::

        crop -> Hann window -> cosine transform along each axis -> energies -> sums over bands -> logarithm

    Args:
        size: Samples along each axis of a crop.
        bands: How many there are, equally wide in the logarithm.

    Example:
        >>> loss = SpectrumLoss(16, bands=4)
        >>> x = torch.randn(2, 16, 16, 16, 3)
        >>> float(loss(x, x)), round(float(loss(2 * x, x)), 4) == round(math.log(4) ** 2, 4)
        (0.0, True)
    """

    cosines: Tensor
    window: Tensor
    members: Tensor

    def __init__(self, size: int, bands: int = 12) -> None:
        super().__init__()
        place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        waves = torch.arange(size, dtype=torch.float64)
        window = torch.sin(math.pi * place).square()
        number = torch.stack(torch.meshgrid(waves, waves, waves, indexing="ij")).square().sum(0).sqrt()
        edges = torch.logspace(
            math.log10(LOWEST_WAVE), math.log10(HIGHEST_WAVE * size), bands + 1, dtype=torch.float64
        )
        band = torch.bucketize(number.flatten(), edges, right=True) - 1
        members = (band[:, None] == torch.arange(bands)).float()
        # They follow from the arguments, so checkpoints need not hold them.
        self.register_buffer("cosines", cosine_matrix(size), persistent=False)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("members", members[:, members.any(0)], persistent=False)

    def forward(self, found: Tensor, true: Tensor) -> Tensor:
        """The loss of a batch of crops.

        Args:
            found: ``(B, D, H, W, C)``, cubes of the size that was given.
            true: Same shape.

        Raises:
            ValueError: They are of another size.

        Returns:
            A scalar.
        """
        if set(found.shape[1:4]) != {len(self.window)} or found.shape != true.shape:
            raise ValueError(f"expected cubes of {len(self.window)} samples a side, got {tuple(found.shape)}")
        energies = [self.energies(x) for x in (found, true)]
        floor = _FLOOR * energies[1].sum(1, keepdim=True)
        ratios = (energies[0] + floor) / (energies[1] + floor)
        return ratios.log().square().mean()

    def energies(self, x: Tensor) -> Tensor:
        """Energies in the bands, ``(B, bands)``."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for axis in (1, 2, 3):
                shape = [1] * x.ndim
                shape[axis] = -1
                x = torch.tensordot(self.cosines, x * self.window.view(shape), ([1], [axis])).movedim(0, axis)
            return x.square().sum(-1).flatten(1) @ self.members
