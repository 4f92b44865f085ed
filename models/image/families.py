"""The families of image networks, by the name that weight files have them under.

``image`` is the compact network of :mod:`latentpress.models.image.network`, ``image-max`` the same transforms
with the slice-wise entropy model of :mod:`latentpress.models.mlic`. ``image-twin`` is both at once, for
training: no codec and no weight file has that name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from latentpress.models.entropy.context import ContextModel
from latentpress.models.entropy.hyperprior import (
    HyperAnalysis,
    HyperSynthesis,
    SideInformationDesign,
    build_hyper_prior,
)
from latentpress.models.image.network import (
    NORMALISATIONS,
    ImageNetwork,
    build_image_network,
    later_options,
)
from latentpress.models.image.transforms import AnalysisTransform, SynthesisTransform
from latentpress.models.image.twin import TwinImageNetwork
from latentpress.models.mlic.context import SliceContextModel
from latentpress.models.mlic.design import SliceContextDesign, TokenMixingDesign
from latentpress.models.mlic.schedule import SliceSchedule

IMAGE = "image"
IMAGE_MAX = "image-max"
FAMILIES = (IMAGE, IMAGE_MAX)
IMAGE_TWIN = "image-twin"


def build_image_max_network(
    channels: int = 288,
    deep_channels: int = 384,
    latent_channels: int = 256,
    depth: int = 8,
    deep_depth: int = 3,
    hyper_channels: int = 128,
    hyper_width: int = 192,
    context_channels: int = 256,
    schedule: SliceSchedule | None = None,
    context: SliceContextDesign | None = None,
    token_mixing: TokenMixingDesign | None = None,
    normalisation: str = "none",
    branch_limits: Sequence[float] | None = None,
    side_information: SideInformationDesign | None = None,
) -> ImageNetwork:
    """Puts the network with the slice-wise entropy model together.

    Transforms and hyperprior have the shapes of those of
    :func:`~latentpress.models.image.network.build_image_network`, so trained ones fit.

    Args:
        channels: Width of the transforms at 1/8 of the resolution.
        deep_channels: Width of the transforms at 1/16.
        latent_channels: Channels of y.
        depth: DepthConv blocks of each transform at 1/8.
        deep_depth: DepthConv blocks of each transform at 1/16.
        hyper_channels: Channels of z.
        hyper_width: Width of the hyper analysis, and of the hyper synthesis at 1/32.
        context_channels: Width of the hyperprior's features.
        schedule: Which slices are coded when; None for eight slices with a core of four.
        context: Modules of the entropy model; None for all of them, in their usual sizes.
        token_mixing: Token mixing blocks of the transforms; None for none.
        normalisation: One of :data:`~latentpress.models.image.network.NORMALISATIONS`, for the transforms.
        branch_limits: As for :func:`~latentpress.models.image.network.build_image_network`.
        side_information: The same.

    Example:
        >>> import torch
        >>> design = SliceContextDesign(width=8, channel_context=8)
        >>> network = build_image_max_network(16, 16, 8, 1, 1, 4, 8, 8, context=design).eval()
        >>> network(torch.rand(1, 64, 64, 3), torch.tensor([50.0])).image.shape
        torch.Size([1, 64, 64, 3])
    """
    schedule = schedule or SliceSchedule.grouped(8, core=4)
    context = context or SliceContextDesign()
    widths = (channels, deep_channels, latent_channels, depth, deep_depth)
    normalise = NORMALISATIONS[normalisation]
    network = ImageNetwork(
        analysis=AnalysisTransform(*widths, normalise, token_mixing, branch_limits),
        synthesis=SynthesisTransform(*widths, normalise, token_mixing, branch_limits),
        hyper_analysis=HyperAnalysis(latent_channels, hyper_width, hyper_channels),
        hyper_prior=build_hyper_prior(hyper_channels, side_information),
        hyper_synthesis=HyperSynthesis(hyper_channels, hyper_width, context_channels),
        context=SliceContextModel(context_channels, latent_channels, schedule, context),
        latent_channels=latent_channels,
    )
    network.family = IMAGE_MAX
    network.config = {
        "channels": channels,
        "deep_channels": deep_channels,
        "latent_channels": latent_channels,
        "depth": depth,
        "deep_depth": deep_depth,
        "hyper_channels": hyper_channels,
        "hyper_width": hyper_width,
        "context_channels": context_channels,
        "schedule": _plain(schedule),
        "context": _plain(context),
        "token_mixing": token_mixing and _plain(token_mixing),
        "normalisation": normalisation,
        **later_options(branch_limits, side_information),
    }
    return network


def build_image_twin_network(companion_depth: int = 2, **options: Any) -> TwinImageNetwork:
    """Puts the network of ``image-max`` together with the entropy model of ``image``.

    Args:
        companion_depth: Shared blocks of the entropy model of ``image``.
        **options: As for :func:`build_image_max_network`.

    Example:
        >>> design = SliceContextDesign(width=8, channel_context=8)
        >>> build_image_twin_network(channels=16, deep_channels=16, latent_channels=8, context=design).family
        'image-twin'
    """
    network = build_image_max_network(**options)
    config = dict(network.config)
    companion = ContextModel(config["context_channels"], config["latent_channels"], companion_depth)
    twin = TwinImageNetwork(network, companion)
    twin.family = IMAGE_TWIN
    twin.config = {**config, "companion_depth": companion_depth}
    return twin


def build_from_config(family: str, config: Mapping[str, Any]) -> ImageNetwork:
    """Builds a network again from the attributes ``family`` and ``config`` of one, or of a weight file.

    Raises:
        ValueError: There is no such family.

    Example:
        >>> build_from_config("image", {"channels": 16, "deep_channels": 16, "latent_channels": 8}).family
        'image'
    """
    if family not in (IMAGE, IMAGE_MAX, IMAGE_TWIN):
        raise ValueError(f"there is no family of image networks called {family!r}: {', '.join(FAMILIES)}")
    arguments = dict(config)
    if "side_information" in config:
        arguments["side_information"] = SideInformationDesign(**config["side_information"])
    if family == IMAGE:
        return build_image_network(**arguments)
    arguments["schedule"] = SliceSchedule.from_config(config["schedule"])
    arguments["context"] = SliceContextDesign.from_config(config["context"])
    if config["token_mixing"] is not None:
        arguments["token_mixing"] = TokenMixingDesign(**config["token_mixing"])
    return (
        build_image_max_network(**arguments) if family == IMAGE_MAX else build_image_twin_network(**arguments)
    )


def _plain(design: Any) -> Any:
    """A dataclass as dictionaries and lists, as it comes back from JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(design))
