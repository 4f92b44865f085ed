"""Training of one side of the image codecs while the other stays as it is, by what is really coded.

::

    crops -> analysis -> y -> rounded in steps by both entropy models -> rate
                |                                '-> y_hat -> synthesis -> error
                '-> z -> rounded -> hyper synthesis -> features -^

While everything is trained, noise stands in for rounding in the rate, and latents that are almost always
zero have a price that no file pays: crops at quality 5 cost twice as much with noise as with rounding. Once
one side is at rest, rates can be those of what is coded. This is what the two sides have in common, see
:mod:`latentpress.train.image_decoder_module` and :mod:`latentpress.train.image_encoder_module`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.weights import read_weight_file
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.entropy.latent_model import QuantisedLatent, Rounding
from latentpress.models.image.twin import TwinImageNetwork
from latentpress.train.image_module import LossTerms, balanced_lambdas, squared_errors
from latentpress.train.image_partwise_module import ImagePartwiseTraining

_TABLES = "tables."


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


class CropLatents(NamedTuple):
    """Latents of crops, not rounded, in quantisation steps.

    Attributes:
        y: ``(B, h, w, M)``.
        z: ``(B, ceil(h/4), ceil(w/4), Z)``.
    """

    y: Tensor
    z: Tensor


class Rates(NamedTuple):
    """Bits of each picture, ``(B,)``.

    Attributes:
        coded: What the loss is told.
        to_minimise: The same numbers, with the gradients that training follows.
    """

    coded: Tensor
    to_minimise: Tensor


class ImageCodedTraining(ImagePartwiseTraining):
    """Trains some parts of ``image`` and ``image-max`` as one; all else stays as it is.

    Every picture has its rates from both entropy models; half of the pictures are decoded from the one and
    half from the other.

    Args:
        network: What :mod:`latentpress.train.twin_weights` joins.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    network: TwinImageNetwork

    def __init__(self, network: TwinImageNetwork, **options: Any) -> None:
        super().__init__(network, **options)
        network.requires_grad_(False)
        self.trained_part.requires_grad_(True)

    @property
    def trained_modules(self) -> Iterable[nn.Module]:
        """What is trained."""
        raise NotImplementedError

    @property
    def trained_part(self) -> nn.Module:
        """The same as one module."""
        return nn.ModuleList(self.trained_modules)

    def latents_of(self, image: Tensor, quality: Tensor) -> CropLatents:
        """Latents of crops ``(B, S, S, 3)`` in [0, 1]."""
        network = self.network
        y = network.analysis(image, quality) * network.gain(quality)[:, None, None, :]
        return CropLatents(y, network.hyper_analysis(y, quality))

    def rounding_of(self, name: str) -> Rounding:
        """How latents are rounded, ``"y"`` or ``"z"``."""
        raise NotImplementedError

    def rates_of(self, latents: Tensor, quantised: QuantisedLatent, rounding: Rounding) -> Rates:
        """What latents cost that an entropy model has quantised with a rounding."""
        raise NotImplementedError

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> LossTerms:
        """The loss of a batch of crops; its rate is that of what is coded."""
        self.compile_parts(image)
        network = self.network
        target = image.float() / 255
        y, z = self.latents_of(target, quality)
        height, width = y.shape[1:3]
        round_y, round_z = self.rounding_of("y"), self.rounding_of("z")
        side = network.hyper_prior.quantise(z, quality, round_z)
        features = network.hyper_synthesis(side.y_hat, quality)[:, :height, :width]
        own = network.context.quantise(features, y, round_y)
        y_sorted = y[..., torch.argsort(network.order)]
        other = network.companion.quantise(features, y_sorted, round_y)
        every_other = (torch.arange(len(y), device=y.device) % 2 == 0)[:, None, None, None]
        y_hat = torch.where(every_other, own.y_hat, other.y_hat[..., network.order])
        squared_error = squared_errors(network.decoded(y_hat, quality), target)
        of_z = self.rates_of(z, side, round_z)
        of_own, of_other = self.rates_of(y, own, round_y), self.rates_of(y_sorted, other, round_y)
        pixels = image.shape[1] * image.shape[2]
        bpp, to_minimise = (
            (a + (b + c) / 2) / pixels for a, b, c in zip(of_z, of_own, of_other, strict=True)
        )
        weight, balance = balanced_lambdas(quality, self.lambda_min, self.lambda_max)
        loss = ((to_minimise + weight * squared_error) * balance).mean()
        return LossTerms(loss, bpp.mean().detach(), squared_error.mean().detach())
