"""What the synthesis would miss of every channel, on latents that the network makes up itself.

Entropy models are distributions, so they can be drawn from: side information first, then the latent, step by
step or position by position as in decoding. Such a latent has channels as large as pictures have them, and
together as pictures have them, though it shows nothing. Taking one channel at a time out of it says what
brute force on pictures would say, from parameters alone, whatever the synthesis is made of::

    prior -> z -> hyper synthesis -> features -> context model, sampled -> y -> synthesis -> picture
                                                                        y without a channel -> another
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from latentpress.models.channel_order.ports import AutoregressivePorts, HyperpriorPorts, ports_of
from latentpress.models.entropy.context import STEPS, ContextModel, step_mask
from latentpress.models.entropy.fixed_point import to_float
from latentpress.models.entropy.gaussian import scale_from_raw
from latentpress.models.entropy.hyperprior import ContextualHyperPrior
from latentpress.models.mlic.context import SliceContextModel

SIDE = 3
"""Positions of the side information each way."""

_LARGEST_SYMBOL = 64
_AT_ONCE = 16


class _Source(Protocol):
    """A network, as far as it can make up latents and decode them."""

    def latent(self, generator: torch.Generator) -> Tensor:
        """A latent ``(1, h, w, M)`` in quantisation steps."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of ``(B, h, w, M)``, in any layout."""


@torch.no_grad()
def made_up_score(model: nn.Module, quality: float, latents: int = 4, seed: int = 0) -> Tensor:
    """Mean squared change of decoded pictures when a channel of made-up latents becomes zero.

    Args:
        model: A network that :func:`~latentpress.models.channel_order.ports.ports_of` knows, on the CPU.
        quality: 0 to 100, for a network with several.
        latents: How many are made up.
        seed: Of the random numbers. Equal calls on one machine give equal scores.

    Returns:
        ``(M,)`` float64, at least 0.

    Raises:
        TypeError: The network is not known.

    Example:
        >>> from latentpress.models.image.network import build_image_network
        >>> made_up_score(build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1), 50.0, latents=1).shape
        torch.Size([8])
    """
    source = _source_of(model, quality)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(ports_of(model).latent_channels, dtype=torch.float64)
    for _ in range(latents):
        latent = source.latent(generator)
        complete = source.decode(latent).double()
        for channels in torch.arange(len(total)).split(_AT_ONCE):
            without = latent.repeat(len(channels), 1, 1, 1)
            without[torch.arange(len(channels)), :, :, channels] = 0
            change = source.decode(without).double() - complete
            total[channels] += change.square().flatten(1).mean(1)
    return total / latents


def _source_of(model: nn.Module, quality: float) -> _Source:
    ports = ports_of(model)
    if isinstance(ports, AutoregressivePorts):
        return _Autoregressive(model)
    if isinstance(ports, HyperpriorPorts):
        return _Hyperprior(model)
    return _Image(model, quality)


def _drawn(mean: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Means plus whole steps, as decoding leaves them."""
    noise = torch.randn(mean.shape, generator=generator)
    return mean + torch.round(scale * noise).clamp(-_LARGEST_SYMBOL, _LARGEST_SYMBOL)


class _Image:
    """Ours, with either entropy model; integer parts are taken as real numbers."""

    def __init__(self, network: Any, quality: float) -> None:
        self._network = network
        self._quality = torch.tensor([float(quality)])
        self._prior, self._features, self._context = (
            to_float(part) if _in_integers(part) else part
            for part in (network.hyper_prior, network.hyper_synthesis, network.context)
        )

    def latent(self, generator: torch.Generator) -> Tensor:
        features = self._features(self._side_information(generator), self._quality)
        context: Any = self._context
        if isinstance(context, SliceContextModel):
            return context.traverse(features, lambda _, half, p: _residual(p, generator))
        return _in_steps(context, features, torch.zeros(()), generator)

    def _side_information(self, generator: torch.Generator) -> Tensor:
        usual = self._prior(self._quality)[:, None, None, :]
        if isinstance(self._prior, ContextualHyperPrior):
            features = self._prior.features((SIDE, SIDE), self._quality)
            return _in_steps(self._prior.context, features, usual, generator)
        scale = scale_from_raw(usual).expand(1, SIDE, SIDE, -1)
        return _drawn(torch.zeros_like(scale), scale, generator)

    def decode(self, latents: Tensor) -> Tensor:
        quality = self._quality.expand(len(latents))
        scaled = latents * self._network.inverse_gain(quality)[:, None, None, :]
        pictures: Tensor = self._network.synthesis(scaled, quality)
        return pictures


def _in_steps(context: ContextModel, features: Tensor, usual: Tensor, generator: torch.Generator) -> Tensor:
    """A latent drawn from a context model, whose raw scales are corrections of what is usual."""
    height, width = features.shape[1:3]
    latent = features.new_zeros(1, height, width, context.latent_channels)
    for step in range(STEPS):
        found = context(step, features, latent)
        drawn = _drawn(found.mean, scale_from_raw(found.raw_scale + usual), generator)
        latent = torch.where(step_mask(step, height, width, context.latent_channels), drawn, latent)
    return latent


def _residual(prediction: Any, generator: torch.Generator) -> Tensor:
    """What is coded of half a stage of the slice-wise model."""
    scale = scale_from_raw(prediction.raw_scale)
    drawn = _drawn(torch.zeros_like(scale), scale, generator)
    return drawn if prediction.skip_score is None else drawn * (prediction.skip_score <= 0)


def _in_integers(part: nn.Module) -> bool:
    return any(not buffer.dtype.is_floating_point for buffer in part.buffers())


class _Hyperprior:
    """CompressAI's ``MeanScaleHyperprior``."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def latent(self, generator: torch.Generator) -> Tensor:
        scales, means = self._model.h_s(self._side_information(generator)).chunk(2, 1)
        return _drawn(means, scales, generator).permute(0, 2, 3, 1)

    def decode(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self._model.g_s(latents.permute(0, 3, 1, 2))
        return pictures

    def _side_information(self, generator: torch.Generator) -> Tensor:
        """Draws from the learned densities of z, ``(1, N, SIDE, SIDE)``."""
        bottleneck = self._model.entropy_bottleneck
        median = bottleneck.quantiles[:, 0, 1]
        steps = torch.arange(-_LARGEST_SYMBOL, _LARGEST_SYMBOL + 1, dtype=median.dtype)
        values = median[:, None] + steps
        likelihood = bottleneck(values[None, :, :, None], training=False)[1][0, :, :, 0]
        chosen = torch.multinomial(likelihood, SIDE * SIDE, replacement=True, generator=generator)
        return values.gather(1, chosen).view(1, -1, SIDE, SIDE)


class _Autoregressive(_Hyperprior):
    """CompressAI's networks with a context model that goes from position to position."""

    def latent(self, generator: torch.Generator) -> Tensor:
        features = self._model.h_s(self._side_information(generator))
        channels = features.shape[1] // 2
        y = features.new_zeros(1, channels, *features.shape[2:])
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                seen = self._model.context_prediction(y)[:, :, row : row + 1, column : column + 1]
                here = features[:, :, row : row + 1, column : column + 1]
                scales, means = self._model.entropy_parameters(torch.cat((here, seen), 1)).chunk(2, 1)
                y[:, :, row : row + 1, column : column + 1] = _drawn(means, scales, generator)
        return y.permute(0, 2, 3, 1)
