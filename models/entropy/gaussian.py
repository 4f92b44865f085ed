"""The Gaussian entropy model: the scale table shared by training and coding, and likelihoods for training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SCALE_MIN = 0.11
"""Smallest standard deviation of the scale table, in quantisation steps."""

SCALE_MAX = 256.0
"""Largest standard deviation of the scale table, in quantisation steps."""

SCALE_COUNT = 64
"""Number of entries of the scale table, evenly spaced in the logarithm."""

LOG_SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_COUNT - 1)
"""Distance between neighbouring entries, in natural logarithms."""

INDEX_SLOPE = 8.0
INDEX_OFFSET = 24.0
"""A network's raw output s means table index ``8 s + 24``: zero is a scale of 2, one is a factor of 2.7."""

LIKELIHOOD_MIN = 1e-9


class _ClampWithGradient(torch.autograd.Function):
    """Clamps, but lets the gradient through where a descent step would lead back inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        blocked = ((x < ctx.low) & (grad > 0)) | ((x > ctx.high) & (grad < 0))
        return torch.where(blocked, torch.zeros_like(grad), grad), None, None


def clamp_with_gradient(x: Tensor, low: float, high: float) -> Tensor:
    """``x.clamp(low, high)`` whose gradient is blocked only where it points further outside.

    Example:
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> (-clamp_with_gradient(x, 0.0, 1.0)).sum().backward(); x.grad
        tensor([0.])
    """
    return _ClampWithGradient.apply(x, low, high)


def scale_table() -> Tensor:
    """The standard deviations of the tables, ``(SCALE_COUNT,)`` float64, in quantisation steps.

    Example:
        >>> [round(float(s), 2) for s in scale_table()[[0, 63]]]
        [0.11, 256.0]
    """
    return SCALE_MIN * torch.exp(LOG_SCALE_STEP * torch.arange(SCALE_COUNT, dtype=torch.float64))


def scale_from_raw(raw: Tensor) -> Tensor:
    """The standard deviation that a raw network output stands for, differentiable.

    Args:
        raw: Any shape; see :data:`INDEX_SLOPE`.

    Returns:
        Scales within ``[SCALE_MIN, SCALE_MAX]``, same shape, float32.
    """
    index = clamp_with_gradient(raw.float() * INDEX_SLOPE + INDEX_OFFSET, 0.0, SCALE_COUNT - 1.0)
    return SCALE_MIN * torch.exp(LOG_SCALE_STEP * index)


def gaussian_bits(residual: Tensor, scale: Tensor) -> Tensor:
    """Information content of residuals under a zero-mean Gaussian integrated over a unit bin.

    Args:
        residual: Distance to the mean, in quantisation steps; noisy or rounded.
        scale: Standard deviations, same shape.

    Returns:
        Bits, same shape.

    Example:
        >>> gaussian_bits(torch.zeros(1), torch.full((1,), 0.11)).item() < 1e-4
        True
    """
    # By symmetry of the Gaussian the upper tail alone is used, where erfc keeps its relative precision.
    magnitude = residual.abs()
    inverse = math.sqrt(0.5) / scale
    upper = torch.erfc((magnitude - 0.5) * inverse)
    lower = torch.erfc((magnitude + 0.5) * inverse)
    likelihood = clamp_with_gradient(0.5 * (upper - lower), LIKELIHOOD_MIN, 1.0)
    return -torch.log2(likelihood)


def round_with_gradient(x: Tensor) -> Tensor:
    """Rounds to the nearest integer; the gradient passes unchanged (straight-through).

    Example:
        >>> round_with_gradient(torch.tensor([0.4, 1.6]))
        tensor([0., 2.])
    """
    return x + (torch.round(x) - x).detach()
