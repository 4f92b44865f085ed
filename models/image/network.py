"""The variable-rate image network: transforms, hyperprior and context model put together for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.entropy.context import ContextModel
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.entropy.hyperprior import (
    HyperAnalysis,
    HyperPrior,
    HyperSynthesis,
    SideInformationDesign,
    build_hyper_prior,
)
from latentpress.models.entropy.latent_model import QuantisedLatent, to_nearest_with_gradient
from latentpress.models.image.transforms import AnalysisTransform, SynthesisTransform
from latentpress.models.layers import ContrastNormalisation, Normalisation
from latentpress.models.mlic.context import SliceContextModel
from latentpress.models.quality import QualityGain

# Initial gains follow the theory of uniform quantisation: the step shrinks with the square root of lambda.
INITIAL_LOG_GAIN = 1.2

NORMALISATIONS: Mapping[str, Normalisation] = {
    "none": nn.Identity,
    "contrast": ContrastNormalisation,
}
"""What a transform's blocks can do to their input, by its name in configurations."""


class ImageNetworkOutput(NamedTuple):
    """What the network makes of a batch.

    Attributes:
        image: Reconstruction ``(B, H, W, 3)``, around [0, 1], not clamped.
        y_bits: Information content of y, ``(B,)``, in bits.
        z_bits: Information content of z, ``(B,)``, in bits.
    """

    image: Tensor
    y_bits: Tensor
    z_bits: Tensor


class Latents(NamedTuple):
    """What an entropy model is given.

    Attributes:
        y: ``(B, h, w, M)`` in quantisation steps, not rounded.
        features: ``(B, h, w, C)`` of the hyperprior.
        z_bits: Rate of the side information, ``(B,)``.
    """

    y: Tensor
    features: Tensor
    z_bits: Tensor


class ImageNetwork(nn.Module):
    """One image codec for all qualities.

    ::

        image -> analysis -> * gain(q) -> y ------------> quantise in steps --> y_hat -> * gain'(q)
                                         |                  ^ mean, scale              -> synthesis -> image
                                         v                  |
                                   hyper analysis       context model
                                         |                  ^
                                         v                  |
                                 z -> quantise -> z_hat -> hyper synthesis

    Args:
        analysis: Image to latent.
        synthesis: Latent to image.
        hyper_analysis: Latent to side information.
        hyper_prior: Distribution of the side information.
        hyper_synthesis: Side information to features.
        context: Features and decoded latents to distributions.
        latent_channels: M.

    Attributes:
        family: Which function builds such networks, see :mod:`latentpress.models.image.families`.
        config: Its arguments that make this network again, as JSON has them; empty if put together otherwise.
    """

    family: str
    config: Mapping[str, Any]

    def __init__(
        self,
        analysis: AnalysisTransform,
        synthesis: SynthesisTransform,
        hyper_analysis: HyperAnalysis,
        hyper_prior: HyperPrior,
        hyper_synthesis: HyperSynthesis,
        context: ContextModel | SliceContextModel,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.analysis = analysis
        self.synthesis = synthesis
        self.hyper_analysis = hyper_analysis
        self.hyper_prior = hyper_prior
        self.hyper_synthesis = hyper_synthesis
        self.context = context
        self.latent_channels = latent_channels
        self.family = "image"
        self.config = {}
        self.gain = QualityGain(latent_channels, first=-INITIAL_LOG_GAIN, last=INITIAL_LOG_GAIN)
        self.inverse_gain = QualityGain(latent_channels, first=INITIAL_LOG_GAIN, last=-INITIAL_LOG_GAIN)

    def forward(self, image: Tensor, quality: Tensor) -> ImageNetworkOutput:
        """Codes a batch, with additive noise for the rate in training and true rounding otherwise.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            quality: ``(B,)`` in [0, 100].
        """
        y, features, z_bits = self.latents(image, quality)
        latent = self.context.quantise(features, y, to_nearest_with_gradient)
        return ImageNetworkOutput(self.decoded(latent.y_hat, quality), self.latent_bits(y, latent), z_bits)

    def latents(self, image: Tensor, quality: Tensor) -> Latents:
        """Everything that comes before the entropy model.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            quality: ``(B,)`` in [0, 100].
        """
        y = self.analysis(image, quality) * self.gain(quality)[:, None, None, :]
        z = self.hyper_analysis(y, quality)
        side = self.hyper_prior.quantise(z, quality, to_nearest_with_gradient)
        height, width = y.shape[1:3]
        features = self.hyper_synthesis(side.y_hat, quality)[:, :height, :width]
        return Latents(y, features, self.latent_bits(z, side))

    def latent_bits(self, y: Tensor, latent: QuantisedLatent) -> Tensor:
        """The rate of y, or of z.

        Args:
            y: ``(B, h, w, M)`` in quantisation steps.
            latent: What an entropy model made of it.

        Returns:
            Bits, ``(B,)``.
        """
        bits = gaussian_bits(self._rate_proxy(y - latent.mean), scale_from_raw(latent.raw_scale))
        if latent.coded is not None:
            bits = bits * latent.coded
        return bits.sum(dim=(1, 2, 3))

    def decoded(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """The picture of decoded latents.

        Args:
            y_hat: ``(B, h, w, M)`` in quantisation steps.
            quality: ``(B,)`` in [0, 100].

        Returns:
            ``(B, 16h, 16w, 3)``, around [0, 1], not clamped.
        """
        return self.synthesis(y_hat * self.inverse_gain(quality)[:, None, None, :], quality)

    def _rate_proxy(self, x: Tensor) -> Tensor:
        """Rounding as the rate sees it: noise while training (differentiable), true rounding otherwise."""
        if self.training:
            return x + torch.empty_like(x).uniform_(-0.5, 0.5)
        return torch.round(x)


def later_options(
    branch_limits: Sequence[float] | None, side_information: SideInformationDesign | None
) -> dict[str, Any]:
    """Entries of a configuration that older weights do not have; only those that are set."""
    found: dict[str, Any] = {}
    if branch_limits is not None:
        found["branch_limits"] = list(branch_limits)
    if side_information is not None:
        found["side_information"] = dataclasses.asdict(side_information)
    return found


def build_image_network(
    channels: int = 288,
    deep_channels: int = 384,
    latent_channels: int = 256,
    depth: int = 8,
    deep_depth: int = 3,
    hyper_channels: int = 128,
    hyper_width: int = 192,
    context_channels: int = 256,
    context_depth: int = 2,
    normalisation: str = "none",
    branch_limits: Sequence[float] | None = None,
    side_information: SideInformationDesign | None = None,
) -> ImageNetwork:
    """Puts an :class:`ImageNetwork` together from its widths and depths.

    Args:
        channels: Width of the transforms at 1/8 of the resolution.
        deep_channels: Width of the transforms at 1/16.
        latent_channels: Channels of y.
        depth: Blocks of each transform at 1/8.
        deep_depth: Blocks of each transform at 1/16.
        hyper_channels: Channels of z.
        hyper_width: Width of the hyper analysis, and of the hyper synthesis at 1/32.
        context_channels: Width of the context model.
        context_depth: Shared blocks of the context model.
        normalisation: One of :data:`NORMALISATIONS`, for the transforms.
        branch_limits: Largest magnitudes that a branch of the transforms' blocks adds, at 1/8 and at 1/16 of
            the resolution; None for no limits.
        side_information: Sizes of a context model of z; None for none.

    Raises:
        KeyError: There is no such normalisation.

    Example:
        >>> network = build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1).eval()
        >>> network(torch.rand(1, 64, 64, 3), torch.tensor([50.0])).image.shape
        torch.Size([1, 64, 64, 3])
    """
    config = dict(locals())
    # Weights from before there were limits, or contexts of z, have no such entries.
    del config["branch_limits"], config["side_information"]
    config.update(later_options(branch_limits, side_information))
    transform = (channels, deep_channels, latent_channels, depth, deep_depth, NORMALISATIONS[normalisation])
    network = ImageNetwork(
        analysis=AnalysisTransform(*transform, branch_limits=branch_limits),
        synthesis=SynthesisTransform(*transform, branch_limits=branch_limits),
        hyper_analysis=HyperAnalysis(latent_channels, hyper_width, hyper_channels),
        hyper_prior=build_hyper_prior(hyper_channels, side_information),
        hyper_synthesis=HyperSynthesis(hyper_channels, hyper_width, context_channels),
        context=ContextModel(context_channels, latent_channels, context_depth),
        latent_channels=latent_channels,
    )
    network.config = config
    return network
