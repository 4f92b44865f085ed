"""Saliency of latent channels from parameters alone, and the groups and the order that follow from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.channel_order.ports import ChannelPrior, LatentPorts, Role, ports_of

DEFAULT_QUALITY = 50.0

CORE_SHARE = 0.25
"""Share of the channels that form the core unless asked otherwise."""


class ChannelStatistics(NamedTuple):
    """What the parameters say of each latent channel, all float64.

    Attributes:
        weight_variance: Of the channel's row in the last analysis layer, in squared quantisation steps,
            ``(M,)``.
        bias: Magnitude of its offset there, in quantisation steps, ``(M,)``.
        column_energy: Sum of squares of the columns with which the synthesis reads one quantisation step of
            the channel, ``(M,)``.
        correlation: Mean of the magnitudes of the correlations of rows and of columns of two channels,
            ``(M, M)``, in [0, 1].
        prior: What the entropy model expects of the channel.
    """

    weight_variance: Tensor
    bias: Tensor
    column_energy: Tensor
    correlation: Tensor
    prior: ChannelPrior


class ChannelGroups(NamedTuple):
    """Salient-Core and Salient-Auxiliary channels.

    Attributes:
        core: Core channels, most salient first, ``(K,)`` int64.
        auxiliary: The others, by the rank of their anchor and then by their own saliency, ``(M - K,)`` int64.
        anchor: Core channel that each auxiliary channel is most correlated with, ``(M - K,)`` int64, in the
            order of ``auxiliary``.
    """

    core: Tensor
    auxiliary: Tensor
    anchor: Tensor

    @property
    def order(self) -> Tensor:
        """Core, then auxiliary channels, ``(M,)`` int64: the old channel at every new place."""
        return torch.cat((self.core, self.auxiliary))


def channel_statistics(ports: LatentPorts, quality: float = DEFAULT_QUALITY) -> ChannelStatistics:
    """Reads the statistics of the latent channels off the parameters.

    Args:
        ports: Adapter of the network.
        quality: Quality whose gains count, for a network with several.
    """
    gain, inverse_gain = ports.gains(quality)
    rows = _stacked(ports, Role.ANALYSIS_WEIGHT)
    bias = _stacked(ports, Role.ANALYSIS_BIAS)
    columns = _stacked(ports, Role.SYNTHESIS_WEIGHT)
    return ChannelStatistics(
        weight_variance=rows.var(1, correction=0) * gain.square(),
        bias=bias.abs().sum(1) * gain,
        column_energy=columns.square().sum(1) * inverse_gain.square(),
        correlation=(_correlation(rows) + _correlation(columns)) / 2,
        prior=ports.prior(quality),
    )


def variance_score(statistics: ChannelStatistics) -> Tensor:
    """Weight variance of the channel's row in the last analysis layer: how much the channel responds.

    The first of the statistics that ISCS names, and the one that has ranked the channels of every network
    of ours that was held against brute force, however it was trained.

    Returns:
        ``(M,)`` float64, at least 0, in squared quantisation steps.

    Source: arXiv 2509.16853, abstract.
    """
    return statistics.weight_variance


def plain_score(statistics: ChannelStatistics) -> Tensor:
    """The plain reading of ISCS: normalised weight variance plus normalised bias magnitude.

    Both are divided by their largest value. The analysis side alone says how large a channel gets for
    features of equal spread, and nothing of what the synthesis makes of it.

    Returns:
        ``(M,)`` float64, at least 0.

    Source: arXiv 2509.16853, abstract; the formula is not public, this is a reading of it.
    """
    return _normalised(statistics.weight_variance) + _normalised(statistics.bias)


def energy_score(statistics: ChannelStatistics) -> Tensor:
    """Energy that the synthesis would miss without the channel.

    ::

        E[y^2] * |column|^2 * inverse gain^2        E[y^2] = mean^2 + scale^2 of the entropy model

    Replacing a channel by zero takes E[y^2] away in squared quantisation steps, and each squared step is
    worth the energy of the column that reads it, as long as the layers behind treat all channels alike. The
    entropy model was fitted to how large the latent gets on pictures, which the analysis' rows alone cannot
    know: how the features in front of them spread is not in them. It finds the core; among channels that
    matter little it can be far off, where what the entropy model says without a picture is far off.

    Returns:
        ``(M,)`` float64, at least 0.
    """
    prior = statistics.prior
    return (prior.mean_square + prior.variance) * statistics.column_energy


def group_channels(score: Tensor, correlation: Tensor, core: int) -> ChannelGroups:
    """Splits channels into a core and auxiliary channels, each with the core channel it is most like.

    Equal scores and equal correlations go by the number of the channel, so the result is deterministic.

    Args:
        score: ``(M,)``, higher is more salient.
        correlation: ``(M, M)``.
        core: Channels of the core, 1 to M.

    Example:
        >>> correlation = torch.tensor([[1, 0, 0.9], [0, 1, 0.1], [0.9, 0.1, 1]])
        >>> groups = group_channels(torch.tensor([2.0, 3.0, 1.0]), correlation, core=2)
        >>> groups.core.tolist(), groups.auxiliary.tolist(), groups.anchor.tolist()
        ([1, 0], [2], [0])
    """
    channels = score.shape[0]
    if not 1 <= core <= channels:
        raise ValueError(f"the core must have 1 to {channels} channels, got {core}")
    if correlation.shape != (channels, channels):
        raise ValueError(f"expected correlations of {channels} channels, got {tuple(correlation.shape)}")
    ranked = torch.argsort(score, descending=True, stable=True)
    chosen, rest = ranked[:core], ranked[core:]
    # The first of equal correlations is the most salient anchor; argmax does not promise which it takes.
    best = torch.argsort(correlation[rest][:, chosen], dim=1, descending=True, stable=True)[:, 0]
    by_anchor = torch.argsort(best, stable=True)
    return ChannelGroups(chosen, rest[by_anchor], chosen[best[by_anchor]])


def order_channels(
    model: nn.Module,
    core: int | None = None,
    quality: float = DEFAULT_QUALITY,
    score: Tensor | None = None,
) -> ChannelGroups:
    """Groups and orders the latent channels of a trained network, without any picture.

    Args:
        model: A network that :func:`~latentpress.models.channel_order.ports.ports_of` knows.
        core: Channels of the core; None for a quarter of them.
        quality: Quality whose gains count, for a network with several.
        score: Saliencies, ``(M,)``, such as :func:`~latentpress.models.channel_order.made_up.made_up_score`
            finds; None for the weight variance, which takes no time and is the same everywhere.

    Raises:
        TypeError: The network is not known.

    Example:
        >>> from latentpress.models.image.network import build_image_network
        >>> groups = order_channels(build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1))
        >>> len(groups.core), groups.order.sort().values.tolist()
        (2, [0, 1, 2, 3, 4, 5, 6, 7])
    """
    ports = ports_of(model)
    statistics = channel_statistics(ports, quality)
    core = max(1, round(CORE_SHARE * ports.latent_channels)) if core is None else core
    score = variance_score(statistics) if score is None else score
    return group_channels(score, statistics.correlation, core)


def _stacked(ports: LatentPorts, role: Role) -> Tensor:
    """All values of one role side by side, ``(M, everything else)``."""
    channels = ports.latent_channels
    values = [port.by_channel(channels) for port in ports.ports() if port.role is role]
    return torch.cat(values, 1) if values else torch.zeros(channels, 1, dtype=torch.float64)


def _correlation(rows: Tensor) -> Tensor:
    """Magnitudes of the correlation coefficients between rows ``(M, n)``; 0 for a constant row."""
    centred = rows - rows.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return (unit @ unit.T).abs().clamp(max=1)


def _normalised(values: Tensor) -> Tensor:
    return values / values.max().clamp_min(torch.finfo(values.dtype).tiny)
