"""Training of all that comes behind the analysis, on latents that are rounded as the encoder rounds them.

The second half of "soft then hard" (Guo et al., arXiv 2104.05168): latents stay as they are, and the decoder
learns what the encoder does to them, here with its choice of symbols by their bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from latentpress.codecs.encoder_rounding import EncoderRounding
from latentpress.models.entropy.gaussian import (
    INDEX_OFFSET,
    INDEX_SLOPE,
    SCALE_COUNT,
    gaussian_bits,
    scale_from_raw,
)
from latentpress.models.entropy.latent_model import QuantisedLatent, Rounding, to_nearest
from latentpress.models.image.twin import TwinImageNetwork
from latentpress.train.image_coded_module import CropLatents, ImageCodedTraining, Rates, tables_of


class DecoderRounding:
    """The encoder's rounding, while training: of raw scales, and with a gradient that passes unchanged.

    Args:
        rounding: Of residuals and table indexes.

    Example:
        >>> rounding = DecoderRounding(EncoderRounding(tables_of(None), multiplier=0.02))
        >>> rounding(torch.tensor([0.55, 0.55]), torch.tensor([-3.0, 1.0]))
        tensor([0., 1.])
    """

    def __init__(self, rounding: EncoderRounding) -> None:
        self._rounding = rounding

    def __call__(self, residual: Tensor, raw_scale: Tensor) -> Tensor:
        """See :data:`latentpress.models.entropy.latent_model.Rounding`."""
        index = (raw_scale.detach() * INDEX_SLOPE + INDEX_OFFSET).round().clamp(0, SCALE_COUNT - 1)
        return residual + (self._rounding(residual, index) - residual).detach()


class ImageDecoderTraining(ImageCodedTraining):
    """Trains hyper synthesis, entropy models and synthesis.

    Scales learn from the bits of what is rounded. Means, which decide what that is, learn from noise in its
    place, as they do while everything is trained.

    Args:
        network: What :mod:`latentpress.train.twin_weights` joins.
        tables_from: Weight file whose tables the encoder's rounding goes by; None for Gaussians.
        rounding_multiplier: See :class:`latentpress.codecs.encoder_rounding.EncoderRounding`.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    def __init__(
        self,
        network: TwinImageNetwork,
        tables_from: str | None = None,
        rounding_multiplier: float = 0.03,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self._rounding = DecoderRounding(EncoderRounding(tables_of(tables_from), rounding_multiplier))

    @property
    def trained_modules(self) -> Iterable[nn.Module]:
        """All that a decoder runs."""
        network = self.network
        yield from (network.hyper_prior, network.hyper_synthesis, network.context, network.companion)
        yield from (network.inverse_gain, network.synthesis)

    @torch.no_grad()
    def latents_of(self, image: Tensor, quality: Tensor) -> CropLatents:
        """Latents of crops, without gradients."""
        return super().latents_of(image, quality)

    def rounding_of(self, name: str) -> Rounding:
        """As the encoder rounds: z is rounded to the nearest."""
        return self._rounding if name == "y" else to_nearest

    def rates_of(self, latents: Tensor, quantised: QuantisedLatent, rounding: Rounding) -> Rates:
        """See :func:`two_rates`."""
        return two_rates(latents, quantised, rounding)


def two_rates(y: Tensor, latent: QuantisedLatent, rounding: Rounding) -> Rates:
    """What scales learn from, and what means learn from.

    Args:
        y: ``(B, h, w, M)`` in quantisation steps.
        latent: What an entropy model made of it.
        rounding: How its residuals were rounded.

    Returns:
        Bits of what is coded; gradients of means are those of noise.

    Example:
        >>> y = torch.full((1, 1, 1, 1), 0.2)
        >>> latent = QuantisedLatent(y, torch.zeros_like(y), torch.zeros_like(y))
        >>> rates = two_rates(y, latent, to_nearest)
        >>> bool(torch.isclose(rates.coded, rates.to_minimise))
        True
    """
    deviation = y - latent.mean
    scale = scale_from_raw(latent.raw_scale)
    bits = gaussian_bits(rounding(deviation, latent.raw_scale).detach(), scale)
    noisy = deviation + torch.empty_like(y).uniform_(-0.5, 0.5)
    for_means = gaussian_bits(noisy, scale.detach())
    if latent.coded is not None:
        bits, for_means = bits * latent.coded, for_means * latent.coded.detach()
    sums = bits.sum(dim=(1, 2, 3)), (bits + for_means - for_means.detach()).sum(dim=(1, 2, 3))
    return Rates(*sums)
