"""What every model of a latent's distribution offers to training, to refinement and to a coder.

::

    training   quantise(features, y, rounding)  -> decoded latent, means and scales, all at once
    coding     code(features, exchange)         -> decoded latent, after an exchange of symbols for each step

Both go through the same steps: what a step predicts may depend on all that was decoded before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from latentpress.models.entropy.gaussian import round_with_gradient

Rounding = Callable[[Tensor, Tensor], Tensor]
"""From residuals and raw scales, see ``gaussian.scale_from_raw``, to what is coded: one shape for all."""


def to_nearest(residual: Tensor, raw_scale: Tensor) -> Tensor:
    """Rounds to the nearest integer, whatever the scale.

    Example:
        >>> to_nearest(torch.tensor([0.4, -1.6]), torch.zeros(2))
        tensor([ 0., -2.])
    """
    return torch.round(residual)


def to_nearest_with_gradient(residual: Tensor, raw_scale: Tensor) -> Tensor:
    """The same; the gradient passes unchanged (straight-through)."""
    return round_with_gradient(residual)


class QuantisedLatent(NamedTuple):
    """A latent as the steps leave it, ``(B, h, w, M)`` each.

    Attributes:
        y_hat: What a decoder has.
        mean: What each element was predicted to be in its step.
        raw_scale: How sure that was, see ``gaussian.scale_from_raw``.
        coded: One where an element is coded and zero where it takes its mean; None if all are coded.
    """

    y_hat: Tensor
    mean: Tensor
    raw_scale: Tensor
    coded: Tensor | None = None


class CodingStep(NamedTuple):
    """Elements that are coded together, ``(n,)`` each, of a batch of latents ``(B, h, w, M)``.

    Attributes:
        positions: Their places in the flattened batch, int64, rising: those of each latent stand together.
        mean: Integers in fixed-point units, float64.
        raw_scale: The same; decides the elements' tables.
        part: Which part of the stream they are in, never falling.
        counts: How many of them each latent has; None if all have the same number.
    """

    positions: Tensor
    mean: Tensor
    raw_scale: Tensor
    part: int = 0
    counts: tuple[int, ...] | None = None


Exchange = Callable[[CodingStep], Tensor]
"""Codes or decodes the elements of a step; returns their residuals in fixed-point units, ``(n,)`` float64."""


class LatentModel(Protocol):
    """A model of the distribution of y, given features of the hyperprior.

    Attributes:
        parts: Parts of a stream; it can be cut after each.
        max_positions: The largest map it is exact for, in positions; None for any.
    """

    parts: int
    max_positions: int | None

    def quantise(self, features: Tensor, y: Tensor, rounding: Rounding) -> QuantisedLatent:
        """Quantises latents ``(B, h, w, M)``; features are ``(B, h, w, C)``."""

    def code(self, features: Tensor, exchange: Exchange) -> Tensor:
        """Goes through the steps of latents and returns them decoded, ``(B, h, w, M)``, in units.

        Args:
            features: ``(B, h, w, C)``, in units.
            exchange: Called once a step, in order.
        """
