"""What every model of a latent's distribution offers to training and to refinement."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

Rounding = Callable[[Tensor], Tensor]
"""From residuals to what is coded of them, element by element, in the shape of its argument."""


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


class LatentModel(Protocol):
    """A model of the distribution of y, given features of the hyperprior."""

    def quantise(self, features: Tensor, y: Tensor, rounding: Rounding) -> QuantisedLatent:
        """Quantises latents ``(B, h, w, M)``; features are ``(B, h, w, C)``."""
