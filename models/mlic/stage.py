"""The network of one stage of coding: contexts, then distributions for the anchors and for the other half."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.mlic.channel_reweighting import ChannelReweighting
from latentpress.models.mlic.checkerboard import split
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.models.mlic.entropy_parameters import ChannelContext, EntropyParameters
from latentpress.models.mlic.global_context import HyperCorrelation, InterSliceContext, IntraSliceContext
from latentpress.models.mlic.local_attention import LocalAttention
from latentpress.models.mlic.residual_prediction import ResidualPrediction
from latentpress.models.mlic.selective import SelectiveCompression


class StageContext(NamedTuple):
    """What is known before a stage begins.

    Attributes:
        anchor: At the anchors, ``(B, h, columns, C)``.
        other: At the other half.
        features: Of the hyperprior, ``(B, h, w, F)``.
        seen: Earlier slices, ``(B, h, w, S)``; None in the first stage.
    """

    anchor: Tensor
    other: Tensor
    features: Tensor
    seen: Tensor | None


class StagePrediction(NamedTuple):
    """What a stage predicts of half its elements, ``(B, h, columns, ...)`` each.

    Attributes:
        mean: In quantisation steps.
        raw_scale: See ``gaussian.scale_from_raw``.
        hidden: What they were made of.
        skip_score: Elements above zero are not coded; None if all are.
    """

    mean: Tensor
    raw_scale: Tensor
    hidden: Tensor
    skip_score: Tensor | None


class SliceStage(nn.Module):
    """Predicts the slices of one stage, in two passes over the checkerboard.

    ::

        earlier slices -> channel context ++ inter-slice context -> reweighting -v
        features -----------------------------------------------------------> known
        anchors:     known ++ hyper correlation (first stage) -> entropy parameters
        other half:  known ++ local attention ++ intra-slice context -> entropy parameters

    Args:
        feature_channels: Channels of the hyperprior's features.
        seen_channels: Channels of the earlier slices this stage sees; 0 in the first stage.
        channels: Channels of its own slices.
        design: Which modules there are.

    Example:
        >>> stage = SliceStage(8, 4, 4, SliceContextDesign(width=8, channel_context=8))
        >>> known = stage.prepare(torch.zeros(1, 3, 5, 8), torch.zeros(1, 3, 5, 4))
        >>> stage.predict_anchor(known).mean.shape
        torch.Size([1, 3, 3, 4])
    """

    def __init__(
        self, feature_channels: int, seen_channels: int, channels: int, design: SliceContextDesign
    ) -> None:
        super().__init__()
        first = seen_channels == 0
        known = feature_channels
        self.channel_context: ChannelContext | None = None
        self.inter_slice: InterSliceContext | None = None
        self.reweighting: nn.Sequential | None = None
        self.intra_slice: IntraSliceContext | None = None
        self.hyper_correlation: HyperCorrelation | None = None
        self.local_attention: LocalAttention | None = None
        if not first:
            self.channel_context = ChannelContext(seen_channels, design.channel_context)
            width = design.channel_context
            if design.inter_slice:
                wanted = design.inter_slice
                self.inter_slice = InterSliceContext(seen_channels, wanted.channels, wanted.heads)
                width += wanted.channels
            if design.reweighting:
                self.reweighting = nn.Sequential(
                    *(ChannelReweighting(width) for _ in range(design.reweighting.blocks))
                )
            known += width
        at_anchor = at_other = known
        if first and design.hyper_correlation:
            wanted = design.hyper_correlation
            self.hyper_correlation = HyperCorrelation(feature_channels, wanted.channels, wanted.heads)
            at_anchor += wanted.channels
        if design.local_attention:
            local = design.local_attention
            self.local_attention = LocalAttention(
                known, channels, local.channels, local.heads, local.position
            )
            at_other += local.channels
        if not first and design.intra_slice:
            wanted = design.intra_slice
            self.intra_slice = IntraSliceContext(seen_channels, channels, wanted.channels, wanted.heads)
            at_other += wanted.channels
        self.anchor = _Half(at_anchor, channels, design)
        self.other = _Half(at_other, channels, design)

    def prepare(self, features: Tensor, seen: Tensor | None) -> StageContext:
        """Joins what is known before the stage.

        Args:
            features: ``(B, h, w, feature_channels)``.
            seen: Decoded slices, ``(B, h, w, seen_channels)``; None in the first stage.
        """
        known = features
        if seen is not None and self.channel_context is not None:
            contexts = self.channel_context(seen)
            if self.inter_slice is not None:
                contexts = torch.cat((contexts, self.inter_slice(seen).to(contexts.dtype)), dim=-1)
            if self.reweighting is not None:
                contexts = self.reweighting(contexts)
            known = torch.cat((features, contexts.to(features.dtype)), dim=-1)
        return StageContext(*split(known), features, seen)

    def predict_anchor(self, context: StageContext, shared: Iterable[nn.Module] = ()) -> StagePrediction:
        """The first pass, from nothing of these slices.

        Args:
            context: What is known before the stage.
            shared: Blocks that all stages use.
        """
        contexts = [context.anchor]
        if self.hyper_correlation is not None:
            contexts.append(self.hyper_correlation(context.features))
        return self.anchor(contexts, _full_precision(context), shared)

    def predict_other(
        self, context: StageContext, anchor: Tensor, shared: Iterable[nn.Module] = ()
    ) -> StagePrediction:
        """The second pass.

        Args:
            context: As for the first pass.
            anchor: Decoded anchors of these slices, ``(B, h, columns, channels)``.
            shared: Blocks that all stages use.
        """
        contexts = [context.other]
        if self.local_attention is not None:
            contexts.append(self.local_attention(context.other, anchor, context.features.shape[2]))
        if self.intra_slice is not None and context.seen is not None:
            contexts.append(self.intra_slice(context.seen, anchor))
        return self.other(contexts, _full_precision(context), shared)


class _Half(nn.Module):
    """What one half of a stage's positions has for itself."""

    def __init__(self, context_channels: int, channels: int, design: SliceContextDesign) -> None:
        super().__init__()
        self.parameters_of = EntropyParameters(context_channels, design.width, channels, design.own_blocks)
        self.selective: SelectiveCompression | None = None
        self.residual_prediction: ResidualPrediction | None = None
        if design.selective:
            self.selective = SelectiveCompression(design.width, channels, design.selective.scale)
        if design.residual_prediction:
            self.residual_prediction = ResidualPrediction(
                design.width, channels, design.residual_prediction.width
            )

    def forward(
        self, contexts: list[Tensor], dtype: torch.dtype, shared: Iterable[nn.Module]
    ) -> StagePrediction:
        mean, raw_scale, hidden = self.parameters_of(contexts, dtype, shared)
        score = self.selective(hidden, raw_scale) if self.selective is not None else None
        return StagePrediction(mean, raw_scale, hidden, score)

    def decoded(self, prediction: StagePrediction, residual: Tensor) -> Tensor:
        """Values, from what was coded of them."""
        value = prediction.mean + residual
        if self.residual_prediction is not None:
            value = value + self.residual_prediction(prediction.hidden, residual)
        return value


def _full_precision(context: StageContext) -> torch.dtype:
    """Integers live in float64; training needs float32 where it may use bfloat16 inside."""
    return torch.float64 if context.features.dtype == torch.float64 else torch.float32
