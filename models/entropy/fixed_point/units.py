"""What the integers stand for: units of activations, how large they may be, and indices of tables."""

from __future__ import annotations

import torch
from torch import Tensor

from latentpress.models.entropy.gaussian import INDEX_OFFSET, INDEX_SLOPE, SCALE_COUNT

FRACTION_BITS = 10
UNIT = 2**FRACTION_BITS
"""Activations are integers in units of ``1 / UNIT``."""

ACTIVATION_LIMIT = 2**20 - 1
"""Largest magnitude of an activation where a layer reads it, in units."""


def to_fixed_point(x: Tensor) -> Tensor:
    """Rounds real values to integers in units of ``1 / UNIT``, held in float64.

    Example:
        >>> to_fixed_point(torch.tensor([0.5, -1.0]))
        tensor([  512., -1024.], dtype=torch.float64)
    """
    return torch.floor(x.double() * UNIT + 0.5)


def limited(x: Tensor) -> Tensor:
    """Keeps integers to what a layer may read."""
    return x.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def table_index(raw_scale: Tensor) -> Tensor:
    """The scale table index that a raw output stands for, from integers to integers.

    Args:
        raw_scale: Integers in units, any shape, float64; see ``gaussian.INDEX_SLOPE``.

    Returns:
        uint8, same shape, in [0, SCALE_COUNT).

    Example:
        >>> table_index(to_fixed_point(torch.tensor([-9.0, 0.0, 9.0])))
        tensor([ 0, 24, 63], dtype=torch.uint8)
    """
    index = torch.floor((raw_scale * INDEX_SLOPE + (INDEX_OFFSET + 0.5) * UNIT) * (1 / UNIT))
    return index.clamp_(0, SCALE_COUNT - 1).to(torch.uint8)
