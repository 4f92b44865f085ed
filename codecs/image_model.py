"""The model of the image codec: networks, coder, and what they make of one picture as a whole."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from latentpress.codecs.bitstream import TableSet, information_bits
from latentpress.codecs.image_payload import ImageHeader, join_parts
from latentpress.codecs.image_refinement import ImageRefiner
from latentpress.codecs.image_stream import covered
from latentpress.codecs.image_transforms import ImageTransforms, load_image_network
from latentpress.codecs.image_trials import Trial
from latentpress.codecs.latent_coder import LatentCoder, Observation
from latentpress.codecs.latent_refinement import Latents
from latentpress.codecs.picture_input import checked_picture
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw


class ImageModel:
    """Networks and tables of a weight file, ready to code.

    Args:
        weights: A weight file of one of :data:`~latentpress.models.image.families.FAMILIES`.
        device: Where the networks run.

    Attributes:
        device: As given.
        network: The networks; those that decide probability tables are in integers.
    """

    def __init__(self, weights: WeightFile, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network = load_image_network(weights, self.device)
        tables = TableSet.from_arrays(
            {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
        )
        self._transforms = ImageTransforms(network)
        self._coder = LatentCoder(
            network.hyper_prior,
            network.hyper_synthesis,
            network.context,
            tables,
            latent_channels=network.latent_channels,
        )

    def analyse(self, picture: Tensor, quality: Tensor) -> Latents:
        """Transforms a picture to latents.

        Args:
            picture: ``(3, H, W)`` in [0, 1], on the codec's device.
            quality: ``(1,)``.

        Returns:
            y ``(1, h, w, M)`` and z, both in quantisation steps.
        """
        y = self._transforms.analyse(picture[None], quality)
        return self._transforms.with_side_information(y, quality)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Transforms a decoded latent ``(1, h, w, M)`` to a picture ``(3, 16h, 16w)``, not clamped."""
        return self._transforms.synthesise(y_hat, quality)[0]

    def encode_payload(
        self, picture: Tensor, tenths: int, observe: Callable[[Observation], None] | None = None
    ) -> Trial:
        """Encodes a checked picture as a whole at one quality, without the container."""
        return self.encode_latents(picture, tenths, self._latents(picture, tenths), observe)

    def encode_latents(
        self,
        picture: Tensor,
        tenths: int,
        latents: Latents,
        observe: Callable[[Observation], None] | None = None,
    ) -> Trial:
        """Encodes latents of a checked picture as a whole, without the container."""
        quality = self._transforms.quality([tenths])
        channels, height, width = picture.shape
        header = ImageHeader(height, width, channels, tenths, checksum=0)
        coded = self._coder.encode(*latents, quality, observe, covered(header, 0, self._coder.parts))
        return Trial(join_parts(header.fields, coded.parts), coded.y_hat, quality)

    def refined_latents(
        self,
        picture: Tensor,
        plain: Trial,
        multiplier: float,
        iterations: int,
        notify: Callable[[int], None] | None = None,
    ) -> Latents:
        """Latents of a checked picture that are better than those of a trial, see :class:`ImageRefiner`."""
        latents = self._latents(picture, plain.tenths)
        return self._refiner.refine(
            latents, plain.y_hat, picture.to(self.device), plain.quality, multiplier, iterations, notify
        )

    @functools.cached_property
    def _refiner(self) -> ImageRefiner:
        return ImageRefiner(self.network, self._coder.tables)

    def _latents(self, picture: Tensor, tenths: int) -> Latents:
        return self.analyse(picture.to(self.device), self._transforms.quality([tenths]))

    def information_bits(self, x: Tensor, quality: float) -> float:
        """What a picture's symbols cost by the probabilities they are coded with.

        Args:
            x: A picture as for ``compress``; it is coded as a whole.
            quality: 0 to 100.

        Returns:
            Bits of all symbols; what a stream has beyond them is the coder's and the container's.
        """
        total = 0.0

        def add(observation: Observation) -> None:
            nonlocal total
            total += information_bits(observation.symbols, observation.indexes, self._coder.tables)

        self.encode_payload(checked_picture(x), quality_to_tenths(quality), observe=add)
        return total

    def likelihood_bits(self, x: Tensor, quality: float) -> float:
        """What the likelihoods of training say a picture should cost.

        Differs from :meth:`information_bits` by what rounding scales to tables loses and fitted tables gain.

        Args:
            x: A picture as for ``compress``; it is coded as a whole.
            quality: 0 to 100.

        Returns:
            Bits of all symbols under Gaussians with the predicted, unrounded scales.
        """
        total = 0.0

        def add(observation: Observation) -> None:
            nonlocal total
            symbols = torch.from_numpy(observation.symbols).to(observation.raw_scale.device)
            scale = scale_from_raw(observation.raw_scale / UNIT)
            total += float(gaussian_bits(symbols.float(), scale).double().sum())

        self.encode_payload(checked_picture(x), quality_to_tenths(quality), observe=add)
        return total
