"""The critic: estimates the error of a velocity field from the field alone.

A codec's error has no place in a true flow: it has divergence, it ends at the borders of blocks, and small
scales are missing for which the larger ones ask. All of that is in the energies of a few filters, compared
with each other. Errors come in all sizes, from a thousandth of the flow to all of it, so what the network
sees is logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.field.projection import STENCIL
from latentpress.models.field.transforms import COMPONENTS

SIDE_FACTOR = 4
"""Sides are multiples of it: the coarsest level sees means over so many samples."""

SMALLEST_SIDE = 16
"""Of a field, in samples: the filters of the coarsest level reach over 12."""

HIGHEST_SCORE = 4.0
"""Of a field without error: four digits are right."""

_TINY = 1e-10
"""Added to the energies of filters of a field of unit variance: errors below 1e-5 are none."""

# Filters that random ones are made of, along each axis: means, and differences of rising order.
_STENCILS = {
    5: (
        (0.0, 0.0, 1.0, 0.0, 0.0),
        (1.0, 4.0, 6.0, 4.0, 1.0),
        (-STENCIL[1], -STENCIL[0], 0.0, STENCIL[0], STENCIL[1]),
        (0.0, 1.0, -2.0, 1.0, 0.0),
        (-1.0, 2.0, 0.0, -2.0, 1.0),
        (1.0, -4.0, 6.0, -4.0, 1.0),
    ),
    3: ((0.0, 1.0, 0.0), (1.0, 2.0, 1.0), (-1.0, 0.0, 1.0), (1.0, -2.0, 1.0)),
}


class _Level(NamedTuple):
    """A scale at which filters look.

    Attributes:
        pool: Samples a side of the means that they see.
        size: Of the filters, each way.
        stride: Positions between two looks: energies need no more.
    """

    pool: int
    size: int
    stride: int


_LEVELS = (_Level(1, 5, 2), _Level(2, 5, 1), _Level(4, 3, 1))

_MOMENTS = 2
"""Numbers for each filter: energy and flatness."""

_LEAST_DEVIATION = 0.03
"""A number that hardly differs between flows is not blown up to noise."""


class ErrorCritic(nn.Module):
    """Estimates the error of a field, or of a tile of one.

    ::

        x (B,D,H,W,3) -> means over 1, 2, 4 samples -> filters -> energy and flatness -> logarithms
          -> standardised -> MLP -> -log10 of the error (B,)

    Filters are drawn once and not trained: trained ones learn the few flows of the training by heart. They
    stay inside the field, and nothing is padded.

    Args:
        filters: At each of the three scales.
        width: Of the MLP.

    Example:
        >>> ErrorCritic(4, 8)(torch.randn(2, 32, 16, 16, 3)).shape
        torch.Size([2])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, filters: int = 24, width: int = 48) -> None:
        super().__init__()
        for number, level in enumerate(_LEVELS):
            self.register_buffer(f"filters{number}", _filters(filters, level.size))
        inputs = _MOMENTS * filters * len(_LEVELS)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.hidden = nn.Linear(inputs, width)
        self.deeper = nn.Linear(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, D, H, W, 3)`` of unit variance, sides multiples of 4, at least 16.

        Returns:
            ``(B,)``: -log10 of the root mean square error of all components.
        """
        return self.estimate(self.standardised(self.described(x)))

    def described(self, x: Tensor) -> Tensor:
        """What the estimate is made from, ``(B, 6 * filters)``: energy and flatness of every filter."""
        planes = x.permute(0, 4, 1, 2, 3)
        found = []
        for number, level in enumerate(_LEVELS):
            means = F.avg_pool3d(planes, level.pool) if level.pool > 1 else planes
            bank: Tensor = getattr(self, f"filters{number}")
            found += _moments(F.conv3d(means, bank, stride=level.stride))
        return torch.cat(found, 1)

    def standardised(self, described: Tensor) -> Tensor:
        """Those numbers in deviations from their means."""
        return (described - self.mean) / self.deviation

    def estimate(self, standardised: Tensor) -> Tensor:
        """The score, ``(B,)``."""
        hidden = F.silu(self.deeper(F.silu(self.hidden(standardised))))
        return self.head(hidden)[:, 0]

    @torch.no_grad()
    def standardise(self, described: Tensor) -> None:
        """Takes means and deviations from samples ``(n, 6 * filters)``."""
        self.mean.copy_(described.mean(0))
        self.deviation.copy_(described.std(0) + _LEAST_DEVIATION)


def _moments(response: Tensor) -> list[Tensor]:
    """Energies and flatnesses in powers of ten, ``(B, K)`` each."""
    squares = response.square()
    energy = squares.mean((2, 3, 4)) + _TINY
    fourth = squares.square().mean((2, 3, 4)) + 3 * _TINY**2
    return [0.5 * energy.log10(), (fourth / energy.square()).log10()]


def _filters(count: int, size: int) -> Tensor:
    """The divergence, then random products of differences, ``(count, 3, size, size, size)``."""
    # Choices need a device with memory, which a network that is only rehearsed does not have.
    stencils = torch.tensor(_STENCILS[size], device="cpu")
    made = torch.zeros((count, COMPONENTS, size, size, size), device="cpu")
    centre, slope = stencils[0], stencils[2]
    for number in range(count):
        if number == 0:
            for axis in range(3):
                made[number, axis] = _product([slope if other == axis else centre for other in range(3)])
        else:
            chosen = torch.randint(len(stencils), (3,), device="cpu").tolist()
            mixture = torch.randn(3, device="cpu")[:, None, None, None]
            made[number] = mixture * _product([stencils[i] for i in chosen])
    norm = made.flatten(1).norm(dim=1)
    return (made / norm[:, None, None, None, None]).to(torch.empty(0).device)


def _product(factors: Sequence[Tensor]) -> Tensor:
    return factors[0][:, None, None] * factors[1][:, None] * factors[2]
