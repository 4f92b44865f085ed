"""The slice-wise entropy model: stages of slices, each twice over the checkerboard."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from latentpress.models.entropy.latent_model import (
    CodingStep,
    Exchange,
    QuantisedLatent,
    Rounding,
)
from latentpress.models.mlic.attention import MAX_POSITIONS
from latentpress.models.mlic.checkerboard import Halves, merge, split
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.models.mlic.entropy_parameters import PositionBlock
from latentpress.models.mlic.schedule import SliceSchedule
from latentpress.models.mlic.selective import coded_share
from latentpress.models.mlic.stage import SliceStage, StagePrediction

Visit = Callable[[range, int, StagePrediction], Tensor]
"""From channels, half (0 for anchors) and what is predicted there to the residuals that are coded."""


class SliceContextModel(nn.Module):
    """Predicts mean and scale of the latent, slice by slice.

    ::

        for each stage of the schedule:
            features, slices it sees -> contexts
            anchors:     contexts -> mean, scale, skip map -> residuals -> + mean -> + residual prediction
            other half:  contexts, anchors -> likewise

    Args:
        feature_channels: Channels of the hyperprior's features.
        latent_channels: M, a multiple of the number of slices.
        schedule: Which slices are coded when.
        design: Which modules the stages have.

    Attributes:
        parts: Parts of a stream; it can be cut after each.
        max_positions: The largest map that sums are exact for.

    Example:
        >>> from latentpress.models.entropy.latent_model import to_nearest
        >>> design = SliceContextDesign(width=8, channel_context=8)
        >>> model = SliceContextModel(8, 8, SliceSchedule.grouped(4, core=2), design)
        >>> y = torch.randn(1, 3, 5, 8)
        >>> model.quantise(torch.zeros(1, 3, 5, 8), y, to_nearest).y_hat.shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(
        self,
        feature_channels: int,
        latent_channels: int,
        schedule: SliceSchedule,
        design: SliceContextDesign,
    ) -> None:
        super().__init__()
        if latent_channels % schedule.slices:
            raise ValueError(f"{latent_channels} channels cannot be shared by {schedule.slices} slices")
        self.schedule = schedule
        self.parts = schedule.parts
        self.max_positions: int | None = MAX_POSITIONS
        self.latent_channels = latent_channels
        self.slice_channels = latent_channels // schedule.slices
        self.blocks = nn.ModuleList(PositionBlock(design.width) for _ in range(design.shared_blocks))
        self.stages = nn.ModuleList(
            SliceStage(
                feature_channels,
                len(stage.sees) * self.slice_channels,
                len(stage.slices) * self.slice_channels,
                design,
            )
            for stage in schedule.stages
        )

    def channels_of(self, stage: int) -> range:
        """Channels that a stage codes."""
        slices = self.schedule.stages[stage].slices
        return range(slices[0] * self.slice_channels, (slices[-1] + 1) * self.slice_channels)

    def quantise(self, features: Tensor, y: Tensor, rounding: Rounding) -> QuantisedLatent:
        """Quantises latents, with gradients.

        Args:
            features: ``(B, h, w, feature_channels)``.
            y: ``(B, h, w, M)`` in quantisation steps.
            rounding: What is coded of residuals; sees half a stage at a time.
        """
        width = y.shape[2]
        means: list[Tensor] = []
        raw_scales: list[Tensor] = []
        shares: list[Tensor] = []

        def visit(channels: range, half: int, prediction: StagePrediction) -> Tensor:
            values = split(y[..., channels.start : channels.stop])[half]
            residual = rounding(values - prediction.mean, prediction.raw_scale)
            if prediction.skip_score is not None:
                shares.append(coded_share(prediction.skip_score))
                residual = residual * shares[-1]
            means.append(prediction.mean)
            raw_scales.append(prediction.raw_scale)
            return residual

        y_hat = self.traverse(features, visit)

        def whole(halves: list[Tensor]) -> Tensor:
            pairs = zip(halves[::2], halves[1::2], strict=True)
            return torch.cat([merge(Halves(*pair), width) for pair in pairs], dim=-1)

        return QuantisedLatent(y_hat, whole(means), whole(raw_scales), whole(shares) if shares else None)

    def code(self, features: Tensor, exchange: Exchange) -> Tensor:
        """Goes through the steps of latents, on integers: anchors and other half of every stage.

        Args:
            features: ``(B, h, w, feature_channels)``, in units.
            exchange: Called once a step, in order; elements that are skipped are not in it.
        """
        shape = (*features.shape[:3], self.latent_channels)
        part_of_step = iter([stage.part for stage in self.schedule.stages for _ in range(2)])
        everywhere = torch.arange(1, math.prod(shape) + 1, device=features.device).view(shape)

        def visit(channels: range, half: int, prediction: StagePrediction) -> Tensor:
            # Numbered from 1: the position too many that a half has with an odd width is 0.
            numbers = split(everywhere[..., channels.start : channels.stop])[half].flatten()
            coded = numbers > 0
            if prediction.skip_score is not None:
                coded &= prediction.skip_score.flatten() <= 0
            chosen = coded.nonzero().flatten()
            step = CodingStep(
                numbers[chosen] - 1,
                prediction.mean.flatten()[chosen],
                prediction.raw_scale.flatten()[chosen],
                next(part_of_step),
                tuple(coded.view(len(features), -1).sum(1).tolist()),
            )
            residual = torch.zeros(numbers.shape, dtype=prediction.mean.dtype, device=numbers.device)
            residual[chosen] = exchange(step)
            return residual.view(prediction.mean.shape)

        return self.traverse(features, visit)

    def traverse(self, features: Tensor, visit: Visit) -> Tensor:
        """All stages in order; returns the decoded latent ``(B, h, w, M)``."""
        width = features.shape[2]
        slices: list[Tensor] = []
        for number, stage in enumerate(self.schedule.stages):
            network = cast(SliceStage, self.stages[number])
            channels = self.channels_of(number)
            seen = torch.cat([slices[k] for k in stage.sees], dim=-1) if stage.sees else None
            context = network.prepare(features, seen)
            prediction = network.predict_anchor(context, self.blocks)
            anchor = network.anchor.decoded(prediction, visit(channels, 0, prediction))
            prediction = network.predict_other(context, anchor, self.blocks)
            other = network.other.decoded(prediction, visit(channels, 1, prediction))
            slices += merge(Halves(anchor, other), width).split(self.slice_channels, dim=-1)
        return torch.cat(slices, dim=-1)
