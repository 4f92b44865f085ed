"""The variable-rate field network: transforms, hyperprior and context model put together for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.entropy.context import STEPS
from latentpress.models.entropy.gaussian import gaussian_bits, round_with_gradient
from latentpress.models.entropy.hyperprior import HyperPrior
from latentpress.models.entropy.volume import (
    VolumeContextModel,
    volume_scale_from_raw,
    volume_step_mask,
)
from latentpress.models.entropy.volume_hyperprior import VolumeHyperAnalysis, VolumeHyperSynthesis
from latentpress.models.field.transforms import FieldAnalysis, FieldSynthesis
from latentpress.models.quality import QualityGain


class CodedField(NamedTuple):
    """A batch as the decoder has it, and what it costs.

    Attributes:
        y_hat: Decoded latent scaled back for the synthesis, ``(B, d, h, w, M)``.
        y_bits: Information content of y, ``(B,)``, in bits.
        z_bits: Information content of z, ``(B,)``, in bits.
    """

    y_hat: Tensor
    y_bits: Tensor
    z_bits: Tensor


class FieldNetworkOutput(NamedTuple):
    """What the network makes of a batch.

    Attributes:
        field: Reconstruction ``(B, D, H, W, 3)``.
        y_bits: Information content of y, ``(B,)``, in bits.
        z_bits: Information content of z, ``(B,)``, in bits.
    """

    field: Tensor
    y_bits: Tensor
    z_bits: Tensor


class FieldNetwork(nn.Module):
    """One field codec for all qualities of one ratio.

    ::

        field -> analysis -> * gain(q) -> y ------------> quantise, 4 steps --> y_hat -> / gain(q)
                                         |                  ^ mean, scale              -> synthesis -> field
                                         v                  |
                                   hyper analysis       context model
                                         |                  ^
                                         v                  |
                                 z -> quantise -> z_hat -> hyper synthesis

    The decoder divides by the very gain of the encoder: a field needs digits that two gains, learned apart,
    do not keep.

    Args:
        analysis: Field to latent.
        synthesis: Latent to field.
        hyper_analysis: Latent to side information.
        hyper_prior: Distribution of the side information.
        hyper_synthesis: Side information to features.
        context: Features and decoded latents to distributions.
        latent_channels: M.

    Attributes:
        config: Arguments of :func:`build_field_network` that make this network again; empty if put together
            otherwise.
    """

    config: Mapping[str, int]

    def __init__(
        self,
        analysis: FieldAnalysis,
        synthesis: FieldSynthesis,
        hyper_analysis: VolumeHyperAnalysis,
        hyper_prior: HyperPrior,
        hyper_synthesis: VolumeHyperSynthesis,
        context: VolumeContextModel,
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
        self.config = {}
        self.gain = QualityGain(latent_channels)

    def forward(self, field: Tensor, quality: Tensor, periodic: Tensor) -> FieldNetworkOutput:
        """Codes a batch, with additive noise for the rate in training and true rounding otherwise.

        Args:
            field: ``(B, D, H, W, 3)`` with unit variance, sides multiples of 8.
            quality: ``(B,)`` in [0, 100].
            periodic: ``(B, 3)`` boolean: which axes continue at their far ends.
        """
        coded = self.code(field, quality, periodic)
        return FieldNetworkOutput(self.synthesis(coded.y_hat, quality, periodic), coded.y_bits, coded.z_bits)

    def code(self, field: Tensor, quality: Tensor, periodic: Tensor) -> CodedField:
        """Everything of :meth:`forward` but the synthesis."""
        gain = _spread(self.gain(quality))
        y = self.analysis(field, quality, periodic) * gain
        z = self.hyper_analysis(self.context.scale.shrink(y), quality, periodic)
        z_scale = volume_scale_from_raw(_spread(self.hyper_prior(quality))).expand_as(z)
        z_bits = gaussian_bits(self._rate_proxy(z), z_scale).sum(dim=(1, 2, 3, 4))

        depth, height, width = y.shape[1:4]
        features = self.hyper_synthesis(round_with_gradient(z), quality, periodic)
        features = features[:, :depth, :height, :width]
        y_hat = torch.zeros_like(y)
        mean = torch.zeros_like(y)
        raw_scale = torch.zeros_like(y)
        for step in range(STEPS):
            prediction = self.context(step, features, y_hat, periodic)
            mask = volume_step_mask(step, (depth, height, width), self.latent_channels, y.device)
            mean = torch.where(mask, prediction.mean, mean)
            raw_scale = torch.where(mask, prediction.raw_scale, raw_scale)
            decoded = round_with_gradient(y - prediction.mean) + prediction.mean
            y_hat = torch.where(mask, decoded, y_hat)
        y_bits = gaussian_bits(self._rate_proxy(y - mean), volume_scale_from_raw(raw_scale)).sum(
            dim=(1, 2, 3, 4)
        )
        return CodedField(y_hat / gain, y_bits, z_bits)

    def _rate_proxy(self, x: Tensor) -> Tensor:
        """Rounding as the rate sees it: noise while training (differentiable), true rounding otherwise."""
        if self.training:
            return x + torch.empty_like(x).uniform_(-0.5, 0.5)
        return torch.round(x)


def _spread(vector: Tensor) -> Tensor:
    """``(B, C)`` for products with ``(B, D, H, W, C)``."""
    return vector[:, None, None, None, :]


def build_field_network(
    channels: int = 192,
    latent_channels: int = 384,
    analysis_depth: int = 1,
    synthesis_depth: int = 2,
    hyper_channels: int = 32,
    hyper_width: int = 64,
    context_channels: int = 128,
    context_depth: int = 2,
) -> FieldNetwork:
    """Puts a :class:`FieldNetwork` together from its widths and depths.

    Args:
        channels: Width of the enhancers, at 1/4 of the resolution.
        latent_channels: Channels of y, at 1/8 of the resolution.
        analysis_depth: Blocks of the encoder's enhancer.
        synthesis_depth: Blocks of the decoder's enhancer.
        hyper_channels: Channels of z.
        hyper_width: Width of the hyper analysis, and of the hyper synthesis at 1/16.
        context_channels: Width of the context model.
        context_depth: Shared blocks of the context model.

    Example:
        >>> network = build_field_network(8, 8, 1, 1, 4, 8, 8, 1).eval()
        >>> box, periodic = torch.rand(1, 32, 32, 32, 3), torch.ones(1, 3, dtype=torch.bool)
        >>> network(box, torch.tensor([50.0]), periodic).field.shape
        torch.Size([1, 32, 32, 32, 3])
    """
    config = dict(locals())
    network = FieldNetwork(
        analysis=FieldAnalysis(channels, latent_channels, analysis_depth),
        synthesis=FieldSynthesis(channels, latent_channels, synthesis_depth),
        hyper_analysis=VolumeHyperAnalysis(latent_channels, hyper_width, hyper_channels),
        hyper_prior=HyperPrior(hyper_channels),
        hyper_synthesis=VolumeHyperSynthesis(hyper_channels, hyper_width, context_channels),
        context=VolumeContextModel(context_channels, latent_channels, context_depth),
        latent_channels=latent_channels,
    )
    network.config = config
    return network
