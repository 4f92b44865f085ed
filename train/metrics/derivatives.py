"""Statistics of velocity differences on any grid: what a decoder has to keep of turbulence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DerivativeStatistics:
    """Statistics of central differences, grid spacing 1, inside the borders.

    Attributes:
        gradient: Mean square of all nine derivatives, proportional to the dissipation.
        skewness: Of the longitudinal derivatives, pooled.
        flatness: Of the same.
        divergence: Root mean square.
    """

    gradient: float
    skewness: float
    flatness: float
    divergence: float


def central_differences(velocity: Tensor) -> Tensor:
    """Derivatives inside the borders.

    Args:
        velocity: ``(..., D, H, W, 3)``, component i along axis i.

    Returns:
        ``(..., D-2, H-2, W-2, 3, 3)``; the last two indexes are component and axis.

    Example:
        >>> ramp = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 4, 4, 3)
        >>> central_differences(ramp)[0, 0, 0, :, 0]
        tensor([1., 1., 1.])
    """
    found = []
    for axis in (-4, -3, -2):
        size = velocity.shape[axis]
        difference = 0.5 * (velocity.narrow(axis, 2, size - 2) - velocity.narrow(axis, 0, size - 2))
        for other in {-4, -3, -2} - {axis}:
            difference = difference.narrow(other, 1, velocity.shape[other] - 2)
        found.append(difference)
    return torch.stack(found, dim=-1)


def longitudinal(differences: Tensor) -> Tensor:
    """The derivatives of components along their own axes, ``(..., 3)``."""
    return torch.diagonal(differences, dim1=-2, dim2=-1)


def derivative_statistics(velocity: Tensor) -> DerivativeStatistics:
    """Statistics of a field ``(D, H, W, 3)``, any device."""
    differences = central_differences(velocity.double())
    along = longitudinal(differences)
    variance = along.square().mean()
    return DerivativeStatistics(
        gradient=float(differences.square().sum((-1, -2)).mean()),
        skewness=float(along.pow(3).mean() / variance.pow(1.5)),
        flatness=float(along.pow(4).mean() / variance.square()),
        divergence=math.sqrt(float(along.sum(-1).square().mean())),
    )
