"""Training of all that comes behind the analysis, on latents that are rounded as the encoder rounds them.

::

    crops -> [analysis, hyper analysis, frozen] -> y, z -> rounded -> hyper synthesis, entropy models -> rate
                                                             '-> y_hat -> synthesis -> error

While everything is trained, noise stands in for rounding in the rate, and latents that are almost always zero
have a price that no file pays: crops at quality 5 cost twice as much with noise as with rounding. Once the
latents stay as they are, rates can be those of what is coded, and the decoder learns what the encoder does:
"soft then hard" (Guo et al., arXiv 2104.05168), here with the encoder's choice of symbols by their bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.encoder_rounding import EncoderRounding
from latentpress.codecs.weights import read_weight_file
from latentpress.models.entropy.gaussian import (
    INDEX_OFFSET,
    INDEX_SLOPE,
    SCALE_COUNT,
    gaussian_bits,
    scale_from_raw,
    scale_table,
)
from latentpress.models.entropy.latent_model import QuantisedLatent, Rounding, to_nearest
from latentpress.models.image.twin import TwinImageNetwork
from latentpress.train.image_module import LossTerms, balanced_lambdas, squared_errors
from latentpress.train.image_partwise_module import ImagePartwiseTraining

_TABLES = "tables."


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


def tables_of(path: str | None) -> TableSet:
    """The tables of a weight file, or plain Gaussians.

    Args:
        path: Of a weight file of an image codec; None for Gaussians.
    """
    if path is None:
        return gaussian_tables(scale_table().numpy())
    tensors = read_weight_file(path).tensors
    return TableSet.from_arrays(
        {name.removeprefix(_TABLES): value for name, value in tensors.items() if name.startswith(_TABLES)}
    )


class _Frozen(NamedTuple):
    """What stays as it is: y ``(B, h, w, M)`` and z, in quantisation steps."""

    y: Tensor
    z: Tensor


class ImageDecoderTraining(ImagePartwiseTraining):
    """Trains hyper synthesis, entropy models and synthesis of ``image`` and ``image-max`` as one.

    Every picture has its rates from both entropy models; half of the pictures are decoded from the one and
    half from the other. Scales learn from the bits of what is rounded. Means, which decide what that is,
    learn from noise in its place, as they do while everything is trained.

    Args:
        network: What :mod:`latentpress.train.twin_weights` joins.
        rounding_tables: Weight file whose tables the encoder's rounding goes by; None for Gaussians.
        rounding_multiplier: See :class:`latentpress.codecs.encoder_rounding.EncoderRounding`.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    network: TwinImageNetwork

    def __init__(
        self,
        network: TwinImageNetwork,
        rounding_tables: str | None = None,
        rounding_multiplier: float = 0.03,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        network.requires_grad_(False)
        self.trained_part.requires_grad_(True)
        self._rounding = DecoderRounding(EncoderRounding(tables_of(rounding_tables), rounding_multiplier))

    @property
    def trained_part(self) -> nn.Module:
        """All that a decoder runs."""
        network = self.network
        return nn.ModuleList(
            (
                network.hyper_prior,
                network.hyper_synthesis,
                network.context,
                network.companion,
                network.inverse_gain,
                network.synthesis,
            )
        )

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> LossTerms:
        """The loss of a batch of crops; its rate is that of what is coded."""
        self.compile_parts(image)
        network = self.network
        target = image.float() / 255
        y, z = self.frozen_part(target, quality)
        height, width = y.shape[1:3]
        side = network.hyper_prior.quantise(z, quality, to_nearest)
        features = network.hyper_synthesis(side.y_hat, quality)[:, :height, :width]
        own = network.context.quantise(features, y, self._rounding)
        y_sorted = y[..., torch.argsort(network.order)]
        other = network.companion.quantise(features, y_sorted, self._rounding)
        z_rates = two_rates(z, side, to_nearest)
        rates = two_rates(y, own, self._rounding), two_rates(y_sorted, other, self._rounding)
        every_other = (torch.arange(len(y), device=y.device) % 2 == 0)[:, None, None, None]
        y_hat = torch.where(every_other, own.y_hat, other.y_hat[..., network.order])
        picture = network.decoded(y_hat, quality)
        pixels = image.shape[1] * image.shape[2]
        bpp = (z_rates.coded + (rates[0].coded + rates[1].coded) / 2) / pixels
        with_means = (z_rates.to_minimise + (rates[0].to_minimise + rates[1].to_minimise) / 2) / pixels
        squared_error = squared_errors(picture, target)
        weight, balance = balanced_lambdas(quality, self.lambda_min, self.lambda_max)
        loss = ((with_means + weight * squared_error) * balance).mean()
        return LossTerms(loss, bpp.mean().detach(), squared_error.mean().detach())

    @torch.no_grad()
    def frozen_part(self, image: Tensor, quality: Tensor) -> _Frozen:
        """Latents of a batch of crops.

        Args:
            image: ``(B, S, S, 3)`` in [0, 1].
            quality: ``(B,)``.
        """
        network = self.network
        y = network.analysis(image, quality) * network.gain(quality)[:, None, None, :]
        return _Frozen(y, network.hyper_analysis(y, quality))


class Rates(NamedTuple):
    """Bits of each picture, ``(B,)``.

    Attributes:
        coded: What is coded costs.
        to_minimise: The same number, with gradients of means that are those of noise.
    """

    coded: Tensor
    to_minimise: Tensor


def two_rates(y: Tensor, latent: QuantisedLatent, rounding: Rounding) -> Rates:
    """What scales learn from, and what means learn from.

    Args:
        y: ``(B, h, w, M)`` in quantisation steps.
        latent: What an entropy model made of it.
        rounding: How its residuals were rounded.

    Example:
        >>> y = torch.full((1, 1, 1, 1), 0.2)
        >>> latent = QuantisedLatent(y, torch.zeros_like(y), torch.zeros_like(y))
        >>> rates = two_rates(y, latent, to_nearest)
        >>> bool(rates.coded == rates.to_minimise)
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
