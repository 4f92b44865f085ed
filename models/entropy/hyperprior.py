"""The hyperprior: side information z, coded first, from which the first distributions of y follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.context import STEPS, ContextModel
from latentpress.models.entropy.gaussian import clamp_with_gradient
from latentpress.models.entropy.latent_model import (
    CodingStep,
    Exchange,
    QuantisedLatent,
    Rounding,
)
from latentpress.models.layers import DepthConvBlock, Downsample, Upsample
from latentpress.models.quality import QualityGain, QualityVector

HYPER_STRIDE = 4
"""Positions of the latent per position of z, each way."""

HYPER_LIMIT = 255.0
"""Largest magnitude of z, in quantisation steps."""


class HyperAnalysis(nn.Module):
    """Latent y to side information z, a quarter of the size each way.

    ::

        y (B,h,w,M) -> replicate-pad to multiples of 4 -> 1x1 -> block -> down -> block -> down
          -> * gain(quality) -> z (B,ceil(h/4),ceil(w/4),Z)

    Args:
        latent_channels: M.
        channels: Width inside.
        hyper_channels: Z.
    """

    def __init__(self, latent_channels: int, channels: int, hyper_channels: int) -> None:
        super().__init__()
        self.stem = nn.Linear(latent_channels, channels)
        self.fine = DepthConvBlock(channels)
        self.down = Downsample(channels, channels)
        self.coarse = DepthConvBlock(channels)
        self.head = Downsample(channels, hyper_channels)
        self.gain = QualityGain(hyper_channels)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """Maps ``(B, h, w, M)`` and qualities ``(B,)`` to z, float32, in quantisation steps."""
        h, w = y.shape[1:3]
        pad_h, pad_w = -h % HYPER_STRIDE, -w % HYPER_STRIDE
        if pad_h or pad_w:
            y = F.pad(y.permute(0, 3, 1, 2), (0, pad_w, 0, pad_h), mode="replicate").permute(0, 2, 3, 1)
        with torch.autocast(y.device.type, enabled=False):
            x = self.stem(y)
        x = self.coarse(self.down(self.fine(x)))
        with torch.autocast(y.device.type, enabled=False):
            z = self.head(x.float()) * self.gain(quality)[:, None, None, :]
        return clamp_with_gradient(z, -HYPER_LIMIT, HYPER_LIMIT)


class HyperPrior(nn.Module):
    """Distribution of z: zero-mean Gaussians whose scale depends on channel and quality.

    Args:
        hyper_channels: Z.

    Attributes:
        steps: How often symbols of z are exchanged.

    Example:
        >>> from latentpress.models.entropy.latent_model import to_nearest
        >>> prior = HyperPrior(4)
        >>> prior.quantise(torch.ones(1, 2, 3, 4), torch.tensor([50.0]), to_nearest).raw_scale.shape
        torch.Size([1, 2, 3, 4])
    """

    steps = 1

    def __init__(self, hyper_channels: int) -> None:
        super().__init__()
        self.raw_scale = QualityVector(hyper_channels)

    def forward(self, quality: Tensor) -> Tensor:
        """Maps qualities ``(B,)`` to raw scales ``(B, Z)``, see ``gaussian.scale_from_raw``."""
        return self.raw_scale(quality)

    def quantise(self, z: Tensor, quality: Tensor, rounding: Rounding) -> QuantisedLatent:
        """Quantises side information, with gradients.

        Args:
            z: ``(B, ..., Z)`` in quantisation steps.
            quality: ``(B,)``.
            rounding: What is coded of residuals, in the shape of z.
        """
        raw_scale = self(quality).view(len(z), *(1,) * (z.ndim - 2), -1).expand_as(z)
        return QuantisedLatent(rounding(z, raw_scale), torch.zeros_like(z), raw_scale)

    def code(self, shape: Sequence[int], quality: Tensor, exchange: Exchange) -> Tensor:
        """Goes through side information, on integers, in one step.

        Args:
            shape: Length of every axis of z between the batch and the channels.
            quality: ``(B,)``.
            exchange: Called once.

        Returns:
            z as a decoder has it, ``(B, *shape, Z)``, in units.
        """
        raw_scale = self(quality)[:, None].expand(-1, math.prod(shape), -1).flatten()
        positions = torch.arange(len(raw_scale), device=quality.device)
        z_hat = exchange(CodingStep(positions, torch.zeros_like(raw_scale), raw_scale))
        return z_hat.view(len(quality), *shape, -1)


@dataclass(frozen=True)
class SideInformationDesign:
    """Sizes of :class:`ContextualHyperPrior`.

    Attributes:
        channels: Width of its context model.
        depth: Blocks that its steps share.
    """

    channels: int = 64
    depth: int = 1


class ContextualHyperPrior(HyperPrior):
    """Distribution of z that depends on what of z is decoded already.

    ::

        quality -> bias -> features, the same everywhere -.
        z_hat so far ------------------------------------ context model, four steps -> mean, correction
        quality -> raw scale of every channel ------------------------------------(+)-> raw scale

    z is small, but at low rates it is a fifth of a stream, and where a picture is smooth or busy all its
    channels are. The arrangement of steps is that of y. Before it is trained it is a plain
    :class:`HyperPrior`.

    Args:
        hyper_channels: Z, a multiple of 4.
        design: Its sizes.

    Example:
        >>> from latentpress.models.entropy.latent_model import to_nearest
        >>> prior = ContextualHyperPrior(4, SideInformationDesign(8, 1))
        >>> prior.quantise(torch.ones(1, 2, 3, 4), torch.tensor([50.0]), to_nearest).mean.shape
        torch.Size([1, 2, 3, 4])
    """

    steps = STEPS

    def __init__(self, hyper_channels: int, design: SideInformationDesign) -> None:
        super().__init__(hyper_channels)
        self.bias = QualityVector(design.channels)
        self.context = ContextModel(design.channels, hyper_channels, design.depth)
        for parameter in self.context.heads.parameters():
            nn.init.zeros_(parameter)

    def quantise(self, z: Tensor, quality: Tensor, rounding: Rounding) -> QuantisedLatent:
        """Quantises side information ``(B, h, w, Z)``, with gradients, see :class:`HyperPrior`."""
        usual = self(quality)[:, None, None, :]
        features = self.features(z.shape[1:-1], quality)
        latent = self.context.quantise(features, z, lambda residual, scale: rounding(residual, scale + usual))
        return latent._replace(raw_scale=latent.raw_scale + usual)

    def code(self, shape: Sequence[int], quality: Tensor, exchange: Exchange) -> Tensor:
        """Goes through side information, on integers, in four steps, see :class:`HyperPrior`."""
        usual = self(quality)
        channels, each = usual.shape[-1], math.prod(shape) * usual.shape[-1]

        def corrected(step: CodingStep) -> Tensor:
            place = step.positions // each * channels + step.positions % channels
            return exchange(step._replace(raw_scale=step.raw_scale + usual.flatten()[place]))

        return self.context.code(self.features(shape, quality), corrected)

    def features(self, shape: Sequence[int], quality: Tensor) -> Tensor:
        """What the context model sees beside z, ``(B, *shape, C)``: the quality, the same everywhere."""
        return self.bias(quality)[:, None, None, :].repeat(1, *shape, 1)


def build_hyper_prior(hyper_channels: int, design: SideInformationDesign | None) -> HyperPrior:
    """A distribution of z.

    Args:
        hyper_channels: Z.
        design: Sizes of one that depends on what is decoded already; None for one that does not.
    """
    return HyperPrior(hyper_channels) if design is None else ContextualHyperPrior(hyper_channels, design)


class HyperSynthesis(nn.Module):
    """Quantised z to features at the resolution of y; runs in integers when coding.

    ::

        z (B,h/4,w/4,Z) -> up -> block -> up -> + bias(quality) -> block -> features (B,h,w,C)

    Args:
        hyper_channels: Z.
        coarse_channels: Width at the middle resolution.
        channels: C.
    """

    def __init__(self, hyper_channels: int, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.up_coarse = Upsample(hyper_channels, coarse_channels)
        self.coarse = ContextBlock(coarse_channels)
        self.up_fine = Upsample(coarse_channels, channels)
        self.bias = QualityVector(channels)
        self.fine = ContextBlock(channels)

    def forward(self, z_hat: Tensor, quality: Tensor) -> Tensor:
        """Maps quantised z and qualities ``(B,)`` to features ``(B, 4*zh, 4*zw, C)``."""
        x = self.up_fine(self.coarse(self.up_coarse(z_hat)))
        return self.fine(x + self.bias(quality)[:, None, None, :])
