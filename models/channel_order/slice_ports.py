"""Where a network with the slice-wise entropy model has its latent channels.

Transforms and hyper analysis are those of :class:`~latentpress.models.channel_order.ports.ImagePorts`. In the
entropy model no tensor has all channels, but those of a stage, or those of the slices that a stage sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from latentpress.models.channel_order.ports import ChannelPrior, ImagePorts, Port, Role, middle_features
from latentpress.models.entropy.fixed_point import UNIT, FixedPointLinear
from latentpress.models.entropy.gaussian import scale_from_raw


class SlicePorts(ImagePorts):
    """Ports of an ``ImageNetwork`` with a ``SliceContextModel``, float or with integer entropy parts.

    Args:
        network: The network.
    """

    @property
    def interchangeable(self) -> tuple[range, ...]:
        """Slices that are coded together, or one by one where a later stage sees some of them only."""
        context = self._network.context
        width = context.slice_channels
        blocks: list[range] = []
        for stage in context.schedule.stages:
            own = set(stage.slices)
            apart = any(0 < len(own & set(other.sees)) < len(own) for other in context.schedule.stages)
            groups = [(number,) for number in stage.slices] if apart else [stage.slices]
            blocks += [range(group[0] * width, (group[-1] + 1) * width) for group in groups]
        return tuple(blocks)

    def _context_ports(self) -> Iterator[Port]:
        context = self._network.context
        width = context.slice_channels
        for number, (stage, network) in enumerate(zip(context.schedule.stages, context.stages, strict=True)):
            own = tuple(context.channels_of(number))
            seen = tuple(c for k in stage.sees for c in range(k * width, (k + 1) * width))
            for reader in self._readers_of_seen(network):
                yield Port(reader, "weight", 1, Role.CONTEXT_WEIGHT, 0, seen)
            for reader in self._readers_of_anchors(network):
                yield Port(reader, "weight", 1, Role.CONTEXT_WEIGHT, 0, own)
            for half in (network.anchor, network.other):
                yield from self._half_ports(half, own)

    @staticmethod
    def _readers_of_seen(network: Any) -> list[nn.Module]:
        found = []
        if network.channel_context is not None:
            found.append(network.channel_context.expand)
        for part in (network.inter_slice, network.intra_slice):
            if part is not None:
                found.append(part.project)
        return found

    @staticmethod
    def _readers_of_anchors(network: Any) -> list[nn.Module]:
        found = []
        if network.local_attention is not None:
            found += [network.local_attention.key, network.local_attention.value]
        if network.intra_slice is not None:
            found.append(network.intra_slice.value)
        return found

    @staticmethod
    def _half_ports(half: Any, own: tuple[int, ...]) -> Iterator[Port]:
        writers: list[tuple[nn.Module, tuple[int, ...]]] = [
            (half.parameters_of.head, (0, len(own)))
        ]  # means, then raw scales
        if half.selective is not None:
            writers.append((half.selective.head, (0,)))
        if half.residual_prediction is not None:
            writers.append((half.residual_prediction.head, (0,)))
            reader = half.residual_prediction.expand
            yield Port(reader, "weight", 1, Role.CONTEXT_WEIGHT, reader.weight.shape[1] - len(own), own)
        for layer, starts in writers:
            for start in starts:
                yield Port(layer, "weight", 0, Role.PREDICTION, start, own)
                yield Port(layer, "bias", 0, Role.PREDICTION, start, own)

    @torch.no_grad()
    def prior(self, quality: float) -> ChannelPrior:
        """What is predicted if the side information is zero and all that is decoded is as predicted."""
        network = self._network
        head = network.context.stages[0].anchor.parameters_of.head
        unit = UNIT if isinstance(head, FixedPointLinear) else 1
        features = middle_features(network, quality, torch.float64 if unit > 1 else None)
        y = features.new_zeros((*features.shape[:3], self.latent_channels))
        latent = network.context.quantise(features, y, lambda residual, _: torch.zeros_like(residual))
        mean = latent.mean[0].double() / unit
        scale = scale_from_raw(latent.raw_scale[0] / unit).double()
        return ChannelPrior(mean.square().mean((0, 1)), scale.square().mean((0, 1)))
