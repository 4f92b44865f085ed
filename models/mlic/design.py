"""What a slice-wise entropy model is put together from. A part that is None is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentpress.models.mlic.local_attention import Position


@dataclass(frozen=True)
class LocalAttentionDesign:
    """Of :class:`~latentpress.models.mlic.local_attention.LocalAttention`.

    Attributes:
        channels: Channels of the context.
        heads: Number of heads.
        position: ``rotary`` as in MLICv2, or ``bias`` as in MLIC++.
    """

    channels: int = 64
    heads: int = 4
    position: Position = "rotary"


@dataclass(frozen=True)
class GlobalContextDesign:
    """Of the modules of :mod:`~latentpress.models.mlic.global_context`.

    Attributes:
        channels: Channels of the context.
        heads: Number of heads.
    """

    channels: int = 64
    heads: int = 4


@dataclass(frozen=True)
class ChannelReweightingDesign:
    """Of :class:`~latentpress.models.mlic.channel_reweighting.ChannelReweighting`.

    Attributes:
        blocks: How many, one after the other.
    """

    blocks: int = 1


@dataclass(frozen=True)
class ResidualPredictionDesign:
    """Of :class:`~latentpress.models.mlic.residual_prediction.ResidualPrediction`.

    Attributes:
        width: Channels inside.
    """

    width: int = 64


@dataclass(frozen=True)
class SelectiveDesign:
    """Of :class:`~latentpress.models.mlic.selective.SelectiveCompression`.

    Attributes:
        scale: Elements of a smaller predicted scale are skipped at first, in quantisation steps.
    """

    scale: float = 0.2


@dataclass(frozen=True)
class TokenMixingDesign:
    """How many :class:`~latentpress.models.mlic.token_mixing.TokenMixingBlock` a transform has.

    Attributes:
        blocks: At 1/8 of the resolution.
        deep_blocks: At 1/16.
    """

    blocks: int = 0
    deep_blocks: int = 1


@dataclass(frozen=True)
class SliceContextDesign:
    """Of a :class:`~latentpress.models.mlic.context.SliceContextModel`.

    Attributes:
        width: Channels of what distributions are made of.
        channel_context: Channels of the context from earlier slices at the same place.
        local_attention: Attention to the anchors around, MLIC's local context.
        inter_slice: Global context from earlier slices.
        intra_slice: Global context from the anchors of the same slice.
        reweighting: Channel reweighting of the contexts from earlier slices.
        hyper_correlation: Global context of the first slice, from the hyperprior.
        residual_prediction: Correction of the rounding.
        selective: Skipping of elements that are not worth their bits.
        own_blocks: Blocks that each half of each stage has for itself.
        shared_blocks: Blocks behind them that all stages and halves share: computation without weights, which
            short trainings make more of.
    """

    width: int = 224
    channel_context: int = 64
    local_attention: LocalAttentionDesign | None = field(default_factory=LocalAttentionDesign)
    inter_slice: GlobalContextDesign | None = field(default_factory=GlobalContextDesign)
    intra_slice: GlobalContextDesign | None = field(default_factory=GlobalContextDesign)
    reweighting: ChannelReweightingDesign | None = field(default_factory=ChannelReweightingDesign)
    hyper_correlation: GlobalContextDesign | None = field(default_factory=GlobalContextDesign)
    residual_prediction: ResidualPredictionDesign | None = field(default_factory=ResidualPredictionDesign)
    selective: SelectiveDesign | None = field(default_factory=SelectiveDesign)
    own_blocks: int = 0
    shared_blocks: int = 2

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SliceContextDesign:
        """The inverse of ``dataclasses.asdict``."""
        parts = {
            name: _PARTS[name](**value) if name in _PARTS and value is not None else value
            for name, value in config.items()
        }
        return cls(**parts)


_PARTS: Mapping[str, Any] = {
    "local_attention": LocalAttentionDesign,
    "inter_slice": GlobalContextDesign,
    "intra_slice": GlobalContextDesign,
    "reweighting": ChannelReweightingDesign,
    "hyper_correlation": GlobalContextDesign,
    "residual_prediction": ResidualPredictionDesign,
    "selective": SelectiveDesign,
}
