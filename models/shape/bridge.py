"""The bridge of Squeeze3D (arXiv 2506.07932): from a frozen encoder to a compact code to a frozen generator.

Unlike the paper's released model, everything that reaches the generator goes through the code: quantised,
entropy-coded with probabilities that are exact integers, and cut off after any of its channel groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.entropy.gaussian import gaussian_bits, round_with_gradient, scale_from_raw
from latentpress.models.quality import QualityGain, QualityVector
from latentpress.models.shape.code_prior import CodePrior
from latentpress.models.shape.generator import NUM_TOKENS, ShapeLatent
from latentpress.models.shape.layers import TokenMapper

_INITIAL_LOG_GAIN = 1.2


class ShapeCode(NamedTuple):
    """The compact code of shapes, in quantisation steps, before rounding.

    Attributes:
        geometry: ``(B, 64, Kg)``.
        colour: ``(B, 64, Kc)``.
    """

    geometry: Tensor
    colour: Tensor


class CodeQuality(NamedTuple):
    """How finely shapes are coded.

    Attributes:
        geometry: ``(B,)`` in [0, 100].
        colour: ``(B,)`` in [0, 100].
    """

    geometry: Tensor
    colour: Tensor


class QuantisedCode(NamedTuple):
    """One part of a code after quantisation.

    Attributes:
        value: ``(B, 64, K)`` as the decoder has it, in quantisation steps.
        bits: ``(B,)`` information content.
    """

    value: Tensor
    bits: Tensor


class BridgeOutput(NamedTuple):
    """What the bridge makes of a batch.

    Attributes:
        latent: For the generator.
        code: Before quantisation.
        geometry_bits: ``(B,)``.
        colour_bits: ``(B,)``.
    """

    latent: ShapeLatent
    code: ShapeCode
    geometry_bits: Tensor
    colour_bits: Tensor


class ShapeBridge(nn.Module):
    """Forward mapping, code with its entropy model, reverse mapping.

    ::

        encoder tokens (B,64,D) -> forward mapping -> * gain(quality) -> geometry code | colour code
        geometry code -> quantise by groups <- prior       -> / gain -> reverse -> geometry latent
        colour code   -> quantise by groups <- prior, geometry code -> / gain -> reverse -> colour latent

    Args:
        forward_mapping: Encoder tokens to both codes.
        reverse_geometry: Geometry code to the generator's geometry tokens.
        reverse_colour: Both codes to the generator's colour tokens.
        geometry_prior: Of the geometry code.
        colour_prior: Of the colour code, with the geometry code as its context.

    Attributes:
        config: Arguments of :func:`build_shape_bridge` that make this network again.
    """

    config: Mapping[str, int]

    def __init__(
        self,
        forward_mapping: TokenMapper,
        reverse_geometry: TokenMapper,
        reverse_colour: TokenMapper,
        geometry_prior: CodePrior,
        colour_prior: CodePrior,
    ) -> None:
        super().__init__()
        self.config = {}
        self.forward_mapping = forward_mapping
        self.reverse_geometry = reverse_geometry
        self.reverse_colour = reverse_colour
        self.geometry_prior = geometry_prior
        self.colour_prior = colour_prior
        kg, kc = geometry_prior.channels, colour_prior.channels
        self.geometry_gain = QualityGain(kg, first=-_INITIAL_LOG_GAIN, last=_INITIAL_LOG_GAIN)
        self.colour_gain = QualityGain(kc, first=-_INITIAL_LOG_GAIN, last=_INITIAL_LOG_GAIN)
        self.geometry_inverse = QualityGain(kg, first=_INITIAL_LOG_GAIN, last=-_INITIAL_LOG_GAIN)
        self.colour_inverse = QualityGain(kc, first=_INITIAL_LOG_GAIN, last=-_INITIAL_LOG_GAIN)
        self.geometry_bias = QualityVector(kg)
        self.colour_bias = QualityVector(kc)

    def encode(self, tokens: Tensor, quality: CodeQuality) -> ShapeCode:
        """Maps the frozen encoder's tokens ``(B, 64, D)`` to a code."""
        kg, kc = self.geometry_prior.channels, self.colour_prior.channels
        geometry, colour = self.forward_mapping(tokens).float().split((kg, kc), dim=-1)
        return ShapeCode(
            geometry * self.geometry_gain(quality.geometry)[:, None],
            colour * self.colour_gain(quality.colour)[:, None],
        )

    def decode_geometry(self, code: Tensor, quality: CodeQuality) -> Tensor:
        """Maps a quantised geometry code ``(B, 64, Kg)`` to the generator's geometry tokens."""
        return self.reverse_geometry(self._scaled_geometry(code, quality)).float()

    def decode_colour(self, geometry: Tensor, colour: Tensor, quality: CodeQuality) -> Tensor:
        """Maps quantised codes ``(B, 64, Kg)``, ``(B, 64, Kc)`` to the generator's colour tokens."""
        scaled = (colour + self.colour_bias(quality.colour)[:, None]) * self.colour_inverse(quality.colour)[
            :, None
        ]
        both = torch.cat((self._scaled_geometry(geometry, quality).detach(), scaled), dim=-1)
        return self.reverse_colour(both).float()

    def quantise_geometry(
        self, code: Tensor, quality: CodeQuality, sent: Tensor, noise: bool | None = None
    ) -> QuantisedCode:
        """Quantises a geometry code.

        Args:
            code: ``(B, 64, Kg)``.
            quality: Of the code.
            sent: ``(B,)`` number of channel groups that the decoder gets.
            noise: Estimate the bits with noise instead of rounding; None to do so in training.
        """
        return self._quantise(
            self.geometry_prior, code, None, quality.geometry, quality.geometry, sent, noise
        )

    def quantise_colour(
        self,
        code: Tensor,
        geometry: Tensor,
        quality: CodeQuality,
        sent: Tensor,
        noise: bool | None = None,
    ) -> QuantisedCode:
        """Quantises a colour code ``(B, 64, Kc)``, given the quantised geometry code."""
        context = geometry.detach()
        return self._quantise(self.colour_prior, code, context, quality.colour, quality.geometry, sent, noise)

    def forward(
        self, tokens: Tensor, quality: CodeQuality, geometry_sent: Tensor, colour_sent: Tensor
    ) -> BridgeOutput:
        """Takes encoder tokens ``(B, 64, D)`` through the code to a latent.

        Args:
            tokens: Of the frozen encoder.
            quality: ``(B,)`` each.
            geometry_sent: ``(B,)`` channel groups of the geometry that the decoder gets.
            colour_sent: ``(B,)`` channel groups of the colour that the decoder gets.
        """
        code = self.encode(tokens, quality)
        geometry = self.quantise_geometry(code.geometry, quality, geometry_sent)
        colour = self.quantise_colour(code.colour, geometry.value, quality, colour_sent)
        latent = ShapeLatent(
            self.decode_geometry(geometry.value, quality),
            self.decode_colour(geometry.value, colour.value, quality),
        )
        return BridgeOutput(latent, code, geometry.bits, colour.bits)

    def _scaled_geometry(self, code: Tensor, quality: CodeQuality) -> Tensor:
        biased = code + self.geometry_bias(quality.geometry)[:, None]
        return biased * self.geometry_inverse(quality.geometry)[:, None]

    def _quantise(
        self,
        prior: CodePrior,
        code: Tensor,
        context: Tensor | None,
        quality: Tensor,
        context_quality: Tensor,
        sent: Tensor,
        noise: bool | None,
    ) -> QuantisedCode:
        noise = self.training if noise is None else noise
        received = torch.zeros_like(code)
        value = torch.zeros_like(code)
        bits = torch.zeros_like(quality)
        group_of_channel = torch.arange(prior.channels, device=code.device) // prior.group_channels
        for group in range(prior.groups):
            known = (group_of_channel < group) & (group_of_channel < sent[:, None, None])
            known = known.expand(-1, NUM_TOKENS, -1).to(code.dtype)
            mean, raw_scale = prior(received, known, context, quality, context_quality)
            residual = code - mean
            rounded = round_with_gradient(residual) + mean
            coded = (group_of_channel == group) & (sent[:, None, None] > group)
            # What is not sent is decoded as its mean, given what was.
            value = torch.where(group_of_channel == group, torch.where(coded, rounded, mean), value)
            received = torch.where(coded, rounded, received)
            shown = residual + torch.empty_like(residual).uniform_(-0.5, 0.5) if noise else residual.round()
            information = gaussian_bits(shown, scale_from_raw(raw_scale))
            bits = bits + torch.where(coded, information, 0.0).sum(dim=(1, 2))
        return QuantisedCode(value, bits)


def build_shape_bridge(
    encoder_channels: int = 192,
    geometry_channels: int = 32,
    colour_channels: int = 16,
    code_channels: int = 24,
    code_groups: int = 6,
    colour_code_channels: int = 12,
    colour_code_groups: int = 3,
    width: int = 192,
    forward_depth: int = 2,
    reverse_depth: int = 3,
    colour_width: int = 128,
    colour_depth: int = 2,
    prior_width: int = 64,
    prior_depth: int = 2,
) -> ShapeBridge:
    """Puts a :class:`ShapeBridge` together.

    Args:
        encoder_channels: Of the frozen encoder's tokens.
        geometry_channels: Of the generator's geometry tokens.
        colour_channels: Of the generator's colour tokens.
        code_channels: Kg.
        code_groups: Channel groups of the geometry code.
        colour_code_channels: Kc.
        colour_code_groups: Channel groups of the colour code.
        width: Of the forward and the reverse mapping of the geometry.
        forward_depth: Blocks of the forward mapping.
        reverse_depth: Blocks of the reverse mapping of the geometry.
        colour_width: Of the reverse mapping of the colour.
        colour_depth: Blocks of the reverse mapping of the colour.
        prior_width: Of the entropy models.
        prior_depth: Blocks of each entropy model.

    Example:
        >>> bridge = build_shape_bridge(16, 4, 2, 6, 3, 4, 2, 32, 1, 1, 32, 1, 8, 1)
        >>> quality, sent = CodeQuality(torch.tensor([50.0]), torch.tensor([50.0])), torch.tensor([3])
        >>> bridge(torch.rand(1, 64, 16), quality, sent, sent).latent.geometry.shape
        torch.Size([1, 64, 4])
    """
    config = dict(locals())
    both_channels = code_channels + colour_code_channels
    network = ShapeBridge(
        TokenMapper(encoder_channels, both_channels, NUM_TOKENS, width, forward_depth),
        TokenMapper(code_channels, geometry_channels, NUM_TOKENS, width, reverse_depth),
        TokenMapper(both_channels, colour_channels, NUM_TOKENS, colour_width, colour_depth),
        CodePrior(code_channels, code_groups, 0, prior_width, prior_depth),
        CodePrior(colour_code_channels, colour_code_groups, code_channels, prior_width, prior_depth),
    )
    network.config = config
    return network
