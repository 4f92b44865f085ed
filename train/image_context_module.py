"""Training of an entropy model alone, on transforms and a hyperprior that are trained already.

::

    crops -> analysis, hyperprior (frozen) -> y, features -> entropy model -> rate of y, error of y_hat

Without a synthesis, and with gradients in the entropy model only, a step costs a fraction of one that trains
everything. Codecs that differ in nothing else can share their transforms (see
:mod:`latentpress.codecs.shared_weights`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.entropy.latent_model import QuantisedLatent, to_nearest_with_gradient
from latentpress.models.image.network import ImageNetwork
from latentpress.train.image_module import ImageTraining, LossTerms, balanced_lambdas

ERROR_WORTH = 6 / math.log(2)
"""Bits that a squared error of one quantisation step is worth, where steps are as fine as theory wants them:
a coefficient costs ``-log2(step)`` bits and leaves ``step^2 / 12``, and both have the same derivative. Noise
on decoded latents of the shipped image codec costs 7.5 to 9.2, where the predicted scale is above 0.5."""

SKIPPED_WORTH = 25.0
"""The same for what is lost when a residual that rounds to something is not coded. That is no noise but what
the picture has and nobody expected; the shipped image codec showed 23 to 29 at five qualities."""


class ImageContextTraining(ImageTraining):
    """Trains the entropy model of an :class:`ImageNetwork`; all else stays as it is.

    The loss has two rates. That of rounded residuals is what a stream costs, and tells scales what to be. It
    says nothing useful of means, which decide what is rounded; they follow that of residuals with noise.

    Args:
        network: The network to train.
        init_from: Where transforms and hyperprior come from, see
            :func:`latentpress.train.warm_start.warm_start`.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    # A slice-wise model takes minutes to compile, and a recorded step of it is fast enough without. What is
    # frozen is compiled by itself.
    compile_loss = False

    def __init__(self, network: ImageNetwork, init_from: str | None = None, **options: Any) -> None:
        super().__init__(network, init_from=init_from, **options)
        network.requires_grad_(False)
        network.context.requires_grad_(True)
        self._frozen: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    @property
    def trained_part(self) -> nn.Module:
        """The entropy model."""
        return self.network.context

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> LossTerms:
        """The loss of a batch of crops; its squared error is that of :meth:`distortion`."""
        if self._frozen is None:
            on_gpu = self.compile_network and image.is_cuda
            self._frozen = torch.compile(self.frozen_part) if on_gpu else self.frozen_part
        y, features = self._frozen(image, quality)
        latent = self.network.context.quantise(features, y, to_nearest_with_gradient)
        bits, for_means = _two_rates(y, latent)
        pixels = image.shape[1] * image.shape[2]
        bpp = bits.sum(dim=(1, 2, 3)) / pixels
        with_means = (bits + for_means - for_means.detach()).sum(dim=(1, 2, 3)) / pixels
        price, squared_error = self.distortion(image, quality, y, latent)
        _, balance = balanced_lambdas(quality, self.lambda_min, self.lambda_max)
        loss = ((with_means + price) * balance).mean()
        return LossTerms(loss, bpp.mean().detach(), squared_error.mean().detach())

    def distortion(
        self, image: Tensor, quality: Tensor, y: Tensor, latent: QuantisedLatent
    ) -> tuple[Tensor, Tensor]:
        """What the error of decoded latents is worth.

        Args:
            image: ``(B, S, S, 3)`` uint8.
            quality: ``(B,)``.
            y: Latents, ``(B, h, w, M)`` in quantisation steps.
            latent: What the entropy model made of them.

        Returns:
            Bits a pixel, ``(B,)``, and the squared error in whatever unit, ``(B,)`` or ``(B, ...)``.
        """
        error = (latent.y_hat - y).square()
        cost = ERROR_WORTH * error
        if latent.coded is not None:
            deviation = y - latent.mean
            lost = deviation.square() - (deviation - torch.round(deviation)).square()
            cost = cost + (SKIPPED_WORTH - ERROR_WORTH) * lost.detach() * (1 - latent.coded)
        return cost.sum(dim=(1, 2, 3)) / (image.shape[1] * image.shape[2]), error

    @torch.no_grad()
    def frozen_part(self, image: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """What the entropy model is given of a batch of crops.

        Args:
            image: ``(B, S, S, 3)`` uint8.
            quality: ``(B,)``.

        Returns:
            y ``(B, h, w, M)`` in quantisation steps, and features ``(B, h, w, C)`` of the hyperprior.
        """
        network = self.network
        y = network.analysis(image.float() / 255, quality) * network.gain(quality)[:, None, None, :]
        z = torch.round(network.hyper_analysis(y, quality))
        height, width = y.shape[1:3]
        return y, network.hyper_synthesis(z, quality)[:, :height, :width]


def _two_rates(y: Tensor, latent: QuantisedLatent) -> tuple[Tensor, Tensor]:
    """Bits of every element, rounded for scales and with noise for means; zero where nothing is coded."""
    deviation = y - latent.mean
    scale = scale_from_raw(latent.raw_scale)
    noise = torch.empty_like(y).uniform_(-0.5, 0.5)
    bits = gaussian_bits(torch.round(deviation).detach(), scale)
    for_means = gaussian_bits(deviation + noise, scale.detach())
    if latent.coded is None:
        return bits, for_means
    return bits * latent.coded, for_means * latent.coded.detach()
