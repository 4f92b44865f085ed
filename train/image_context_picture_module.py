"""Training of an entropy model alone, by the pictures that a frozen synthesis makes of its latents.

::

    crops -> analysis, hyperprior (frozen) -> y, features -> entropy model -> rate of y
                                                                '-> y_hat -> synthesis (frozen) -> error

The second stage after :mod:`latentpress.train.image_context_module`, which knows the latent's error only. A
synthesis that was trained on another entropy model has learnt to undo what that one's rounding does to
latents: a residual prediction that brings latents closer to what they were can take pictures further away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentpress.models.entropy.latent_model import QuantisedLatent
from latentpress.models.image.network import ImageNetwork
from latentpress.train.image_context_module import ImageContextTraining
from latentpress.train.image_module import balanced_lambdas


class ImageContextPictureTraining(ImageContextTraining):
    """Trains the entropy model of an :class:`ImageNetwork` towards rate and error of decoded pictures.

    Args:
        network: The network to train.
        init_from: Where all of it comes from, see :func:`latentpress.train.warm_start.warm_start`.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    def __init__(self, network: ImageNetwork, init_from: str | None = None, **options: Any) -> None:
        super().__init__(network, init_from=init_from, **options)
        self._decoded: Callable[[Tensor, Tensor], Tensor] | None = None

    def distortion(
        self, image: Tensor, quality: Tensor, y: Tensor, latent: QuantisedLatent
    ) -> tuple[Tensor, Tensor]:
        """Lambda times the squared error of decoded crops, and that error in 8-bit steps, ``(B,)`` each."""
        if self._decoded is None:
            on_gpu = self.compile_network and image.is_cuda
            self._decoded = torch.compile(self.network.decoded) if on_gpu else self.network.decoded
        picture = self._decoded(latent.y_hat, quality)
        error = (255 * picture.float() - image).square().mean(dim=(1, 2, 3))
        weight, _ = balanced_lambdas(quality, self.lambda_min, self.lambda_max)
        return weight * error, error
