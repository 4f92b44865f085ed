"""Trained weights as integers and back, and what makes sums of them exact."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

FLOAT64_EXACT = 2**53
FLOAT32_EXACT = 2**24

_LayerT = TypeVar("_LayerT", bound=nn.Module)


class InexactLayer(ValueError):
    """A layer's weights allow sums that floating point would round."""


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds trained values to an integer type, which would wrap around silently where they do not fit.

    Raises:
        InexactLayer: They do not fit, or are not finite.
    """
    integers = torch.round(values.detach().double())
    largest = float(integers.abs().max()) if integers.numel() else 0.0
    if not largest <= torch.iinfo(dtype).max:
        raise InexactLayer(f"weights reach {largest:g}, {dtype} ends at {torch.iinfo(dtype).max}")
    return integers.to(dtype)


def finest_shift(weight: Tensor) -> int:
    """The power of two, 1 to 16, that scales weights as far up as 16 bits allow.

    Example:
        >>> finest_shift(torch.tensor([0.25, -1.5]))
        14
    """
    largest = max(float(weight.detach().abs().max()), 1e-6)
    return max(1, min(16, math.floor(math.log2(32767 / largest)))) if largest < math.inf else 1


def prove_below(bound: int, exact: int, dtype: str) -> None:
    """Makes sure that a type holds all sums exactly.

    Args:
        bound: What they may reach.
        exact: Integers below it are exact, a power of two.
        dtype: Name of the type.

    Raises:
        InexactLayer: They may reach further.
    """
    if bound >= exact:
        end = exact.bit_length() - 1
        raise InexactLayer(f"sums may reach 2^{math.log2(bound):.1f}, {dtype} is exact below 2^{end}")


def filled(layer: _LayerT, **values: Tensor) -> _LayerT:
    """Gives a layer its values as frozen parameters."""
    for name, value in values.items():
        setattr(layer, name, nn.Parameter(value.float(), requires_grad=False))
    return layer
