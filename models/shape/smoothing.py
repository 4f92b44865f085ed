"""Takes the roughness off a decoded surface before it becomes a mesh: low-passes of its signed distance.

What bits could not pay for shows as noise of the distance, finer than anything that the code holds. Averaging
it away brings surface and normals nearer to the original, but eats what is thinner than the average is wide,
so it is weighed by how thick the shape is, or left to an encoder to choose.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_THICKNESS_SEEN = 0.048
"""How far around a place its thickness is looked for."""

_THIN, _THICK = 0.01, 0.03
"""Depths up to which nothing is smoothed, and from which all is."""

_RADII = 3
_WEIGHT_WIDTH = 0.016


class Smoothing(NamedTuple):
    """A low-pass of signed distances.

    Attributes:
        width: Standard deviation of the Gaussian, where the cube's side is 2; 0 for none.
        sharpened: Twice the average less the average of the average, which moves curved surfaces less.
        everywhere: Even where the shape, or the gap between two parts of it, is thin.
    """

    width: float
    sharpened: bool = False
    everywhere: bool = False


SMOOTHINGS = (
    Smoothing(0.0),
    Smoothing(0.024, sharpened=True),
    Smoothing(0.016),
    Smoothing(0.016, everywhere=True),
)
"""The low-passes that a stream may ask for, by their number."""


@torch.inference_mode()
def smoothed(values: Tensor, smoothing: Smoothing, cell: float) -> Tensor:
    """Low-passes signed distances on a grid.

    ::

        values -+-> Gaussian (twice) -> * weight -----+-> values
                +-> depth on both sides -> weight     |
                +-> * (1 - weight) -------------------+

    Args:
        values: ``(D, H, W)`` float32, negative inside.
        smoothing: Which.
        cell: Distance of neighbouring nodes, where the cube's side is 2.

    Example:
        >>> values = torch.randn(9, 9, 9)
        >>> bool(smoothed(values, Smoothing(0.5, everywhere=True), cell=0.25).std() < 0.5 * values.std())
        True
    """
    if not smoothing.width:
        return values
    average = _gaussian(values, smoothing.width / cell)
    if smoothing.sharpened:
        average = 2 * average - _gaussian(average, smoothing.width / cell)
    if smoothing.everywhere:
        return average
    weight = ((_depth(values, cell) - _THIN) / (_THICK - _THIN)).clamp(0, 1)
    weight = _gaussian(weight, _WEIGHT_WIDTH / cell)
    return weight * average + (1 - weight) * values


def _gaussian(values: Tensor, width: float) -> Tensor:
    """Averages with a Gaussian of so many nodes' standard deviation, one axis after another."""
    depth, height, line = (_averaging(size, width, values) for size in values.shape)
    values = (depth @ values.flatten(1)).view(values.shape)
    return (height @ values) @ line.T


def _averaging(size: int, width: float, like: Tensor) -> Tensor:
    """The matrix that averages a line of so many nodes; what lies past its ends is as they are.

    As a product of matrices this is several times as fast as a convolution with one channel.
    """
    radius = math.ceil(_RADII * width)
    steps = torch.arange(-radius, radius + 1, device=like.device)
    kernel = torch.exp(-0.5 * (steps / width) ** 2).to(like.dtype)
    nodes = torch.arange(size, device=like.device)[:, None]
    matrix = like.new_zeros(size, size)
    return matrix.scatter_add_(1, (nodes + steps).clamp(0, size - 1), (kernel / kernel.sum()).repeat(size, 1))


def _depth(values: Tensor, cell: float) -> Tensor:
    """How far the inside and the outside near a place reach, the smaller of the two."""
    reach = max(1, round(_THICKNESS_SEEN / cell))

    def highest(field: Tensor) -> Tensor:
        # One axis after another: the same maximum of far fewer numbers.
        for axis in range(field.ndim):
            lines = field.movedim(axis, -1)
            pooled = F.max_pool1d(lines.flatten(0, -2), 2 * reach + 1, stride=1, padding=reach)
            field = pooled.view(lines.shape).movedim(-1, axis)
        return field

    return torch.minimum(highest(-values), highest(values))
