"""Where a codec network's tensors carry the axis of the latent's channels.

An adapter lists every tensor with that axis and what it does there. Adapters look at attributes only, so a
network of another library needs no import of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from latentpress.models.entropy.context import STEPS, step_mask
from latentpress.models.entropy.fixed_point import UNIT, FixedPointDepthwise, FixedPointLinear
from latentpress.models.entropy.gaussian import SCALE_MIN, scale_from_raw

# Side, in positions of z, of the constant field of side information that is shown to a hyper synthesis. What
# it makes of the middle position is read, where zeros around the field are out of sight.
_SIDE = 3


class Role(Enum):
    """What a tensor does with the latent's channels."""

    ANALYSIS_WEIGHT = auto()
    """Rows that make the latent from the analysis' last features."""
    ANALYSIS_BIAS = auto()
    """Offsets of these rows."""
    GAIN = auto()
    """Logarithms of factors that bring the latent to quantisation steps."""
    INVERSE_GAIN = auto()
    """Logarithms of factors that bring it back."""
    SYNTHESIS_WEIGHT = auto()
    """Columns with which the synthesis first reads the latent."""
    SYNTHESIS_CARRIED = auto()
    """Outputs inside the synthesis that a skip connection adds to the latent, channel by channel."""
    HYPER_WEIGHT = auto()
    """Columns with which the hyper analysis reads the latent."""
    CONTEXT_WEIGHT = auto()
    """Columns with which the context model reads decoded latents."""
    PREDICTION = auto()
    """Rows that predict the distribution of the latent: means or scales."""


class Port(NamedTuple):
    """One tensor that carries the latent's channels.

    Attributes:
        module: Layer that holds the tensor.
        name: The tensor's name in it.
        axis: Axis with the channels.
        role: What the tensor does with them.
        start: Where on the axis its first channel is; the others follow it.
        channels: Numbers of the channels it has, in order; None for all of them.
    """

    module: nn.Module
    name: str
    axis: int
    role: Role
    start: int = 0
    channels: tuple[int, ...] | None = None

    @property
    def tensor(self) -> Tensor:
        """The tensor itself."""
        tensor: Tensor = getattr(self.module, self.name)
        return tensor

    def by_channel(self, channels: int) -> Tensor:
        """The tensor's values, ``(channels, everything else)``, float64; integer layers' in real units."""
        values = self.tensor.detach().double()
        if isinstance(self.module, FixedPointLinear | FixedPointDepthwise) and self.name == "weight":
            values = values * 2.0 ** -int(self.module.shift)
        elif not self.tensor.dtype.is_floating_point:
            values = values / UNIT
        return values.narrow(self.axis, self.start, channels).movedim(self.axis, 0).reshape(channels, -1)


class ChannelPrior(NamedTuple):
    """What the entropy model says of the latent before any of it is decoded.

    Attributes:
        mean_square: Mean over positions of the squared predicted mean, ``(M,)`` float64, in squared
            quantisation steps.
        variance: Mean over positions of the predicted variance, ``(M,)`` float64, same unit.
    """

    mean_square: Tensor
    variance: Tensor


class LatentPorts(Protocol):
    """What is known of a network's latent channels. Implementations are adapters for one architecture."""

    @property
    def latent_channels(self) -> int:
        """M."""

    @property
    def interchangeable(self) -> tuple[range, ...]:
        """Blocks of channel numbers; the entropy model treats the channels of a block alike."""

    def ports(self) -> tuple[Port, ...]:
        """Every tensor that carries the latent's channels."""

    def gains(self, quality: float) -> tuple[Tensor, Tensor]:
        """Factors of the latent before and after quantisation, ``(M,)`` each, float64."""

    def prior(self, quality: float) -> ChannelPrior:
        """The latent's distribution under the model itself, with the likeliest side information."""


class ImagePorts:
    """Ports of :class:`~latentpress.models.image.network.ImageNetwork`, float or with integer entropy parts.

    Args:
        network: The network.
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    @property
    def latent_channels(self) -> int:
        """M."""
        return int(self._network.latent_channels)

    @property
    def interchangeable(self) -> tuple[range, ...]:
        """The channel quarters of the context model."""
        width = self.latent_channels // STEPS
        return tuple(range(k * width, (k + 1) * width) for k in range(STEPS))

    def ports(self) -> tuple[Port, ...]:
        """Every tensor that carries the latent's channels."""
        network = self._network
        found = [
            Port(network.analysis.head, "weight", 0, Role.ANALYSIS_WEIGHT),
            Port(network.analysis.head, "bias", 0, Role.ANALYSIS_BIAS),
            Port(network.gain, "knots", 1, Role.GAIN),
            Port(network.inverse_gain, "knots", 1, Role.INVERSE_GAIN),
            Port(network.synthesis.stem, "weight", 1, Role.SYNTHESIS_WEIGHT),
            Port(network.hyper_analysis.stem, "weight", 1, Role.HYPER_WEIGHT),
        ]
        return (*found, *self._context_ports())

    def _context_ports(self) -> Iterator[Port]:
        """Those of the entropy model."""
        channels = self.latent_channels
        for adaptor in self._network.context.adaptors:
            features = adaptor.weight.shape[1] - channels
            yield Port(adaptor, "weight", 1, Role.CONTEXT_WEIGHT, features)
        for head in self._network.context.heads:
            for start in (0, channels):  # means, then raw scales
                yield Port(head, "weight", 0, Role.PREDICTION, start)
                yield Port(head, "bias", 0, Role.PREDICTION, start)

    @torch.no_grad()
    def gains(self, quality: float) -> tuple[Tensor, Tensor]:
        """Factors of the latent before and after quantisation, ``(M,)`` each, float64."""
        at = torch.tensor([float(quality)], device=self._network.gain.knots.device)
        return self._network.gain(at)[0].double(), self._network.inverse_gain(at)[0].double()

    @torch.no_grad()
    def prior(self, quality: float) -> ChannelPrior:
        """What the first step predicts if the side information is zero, where its Gaussians have their mode.

        Every channel is looked at where the first step codes it, because a head's rows are trained nowhere
        else.
        """
        network = self._network
        unit = UNIT if isinstance(network.context.heads[0], FixedPointLinear) else 1
        features = middle_features(network, quality, torch.float64 if unit > 1 else None)
        height, width = features.shape[1:3]
        y_hat = features.new_zeros(1, height, width, self.latent_channels)
        prediction = network.context(0, features, y_hat)
        mask = step_mask(0, height, width, self.latent_channels, features.device).double()
        count = mask.sum((0, 1))
        mean = prediction.mean[0].double() / unit
        scale = scale_from_raw(prediction.raw_scale[0] / unit).double()
        return ChannelPrior(
            (mean.square() * mask).sum((0, 1)) / count, (scale.square() * mask).sum((0, 1)) / count
        )


class HyperpriorPorts:
    """Ports of CompressAI's ``MeanScaleHyperprior`` and of networks with its attributes.

    ``g_a``, ``h_a``, ``h_s`` and ``g_s`` are sequences; scales and means are the halves of what ``h_s`` ends
    with. The synthesis may start with a convolution, or with a residual block (``conv1``, ``conv2``,
    ``skip``) before an upsampling one (``subpel_conv``, ``upsample``), as in Cheng2020.

    Args:
        model: The network.

    Raises:
        TypeError: The network is put together in another way.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._head = _last_convolution(model.g_a)
        self._synthesis = _synthesis_ports(model.g_s)
        self._predictor = _last_convolution(self._prediction())
        self._hyper = _first_convolution(model.h_a)
        if self._predictor.weight.shape[0] != 2 * self.latent_channels:
            raise TypeError("the predictions are not one mean and one scale for every latent channel")

    def _prediction(self) -> nn.Module:
        """The layers that end in scales and means."""
        return self._model.h_s

    @property
    def latent_channels(self) -> int:
        """M."""
        return int(self._head.weight.shape[0])

    @property
    def interchangeable(self) -> tuple[range, ...]:
        """All channels: every one is predicted from the same information."""
        return (range(self.latent_channels),)

    def ports(self) -> tuple[Port, ...]:
        """Every tensor that carries the latent's channels."""
        found = [
            Port(self._head, "weight", 0, Role.ANALYSIS_WEIGHT),
            Port(self._head, "bias", 0, Role.ANALYSIS_BIAS),
            *self._synthesis,
            Port(self._hyper, "weight", 1, Role.HYPER_WEIGHT),
        ]
        for start in (0, self.latent_channels):  # scales, then means
            found.append(Port(self._predictor, "weight", 0, Role.PREDICTION, start))
            found.append(Port(self._predictor, "bias", 0, Role.PREDICTION, start))
        return tuple(port for port in found if getattr(port.module, port.name) is not None)

    def gains(self, quality: float) -> tuple[Tensor, Tensor]:
        """Ones: these networks have one rate and quantise the latent as it is. ``(M,)`` each, float64."""
        ones = torch.ones(self.latent_channels, dtype=torch.float64, device=self._head.weight.device)
        return ones, ones.clone()

    @torch.no_grad()
    def prior(self, quality: float) -> ChannelPrior:
        """What is predicted if the side information is the median of its distribution everywhere."""
        median = self._model.entropy_bottleneck.quantiles[:, 0, 1]
        z = median[None, :, None, None].expand(1, -1, _SIDE, _SIDE)
        scales, means = _middle(self._predict(z), 2, 3).double().chunk(2, 1)
        # CompressAI limits scales where ours do.
        scales = scales.clamp_min(SCALE_MIN)
        return ChannelPrior(means.square().mean((0, 2, 3)), scales.square().mean((0, 2, 3)))

    def _predict(self, z_hat: Tensor) -> Tensor:
        """Maps ``(B, N, h, w)`` to scales and means, ``(B, 2 M, 4 h, 4 w)``."""
        return self._model.h_s(z_hat)


class AutoregressivePorts(HyperpriorPorts):
    """Ports of CompressAI's ``JointAutoregressiveHierarchicalPriors`` and ``Cheng2020Anchor``.

    Their context model reads all channels at every earlier position, so it treats channels alike.
    """

    def _prediction(self) -> nn.Module:
        return self._model.entropy_parameters

    def ports(self) -> tuple[Port, ...]:
        """Every tensor that carries the latent's channels."""
        # The convolution multiplies its weight by a mask whenever it runs, and the mask is alike in all
        # channels.
        context = Port(self._model.context_prediction, "weight", 1, Role.CONTEXT_WEIGHT)
        return (*super().ports(), context)

    def _predict(self, z_hat: Tensor) -> Tensor:
        features = self._model.h_s(z_hat)
        nothing = features.new_zeros(1, self.latent_channels, *features.shape[2:])
        return self._model.entropy_parameters(
            torch.cat((features, self._model.context_prediction(nothing)), 1)
        )


def ports_of(model: nn.Module) -> LatentPorts:
    """The adapter for a network.

    Args:
        model: An ``ImageNetwork``, or one of CompressAI's ``MeanScaleHyperprior``,
            ``JointAutoregressiveHierarchicalPriors`` and ``Cheng2020Anchor``.

    Raises:
        TypeError: No adapter knows where this network's latent channels are.

    Example:
        >>> from latentpress.models.image.network import build_image_network
        >>> ports_of(build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1)).interchangeable
        (range(0, 2), range(2, 4), range(4, 6), range(6, 8))
    """
    names = {name for name, _ in model.named_children()}
    if {"analysis", "synthesis", "hyper_analysis", "context", "gain", "inverse_gain"} <= names:
        context: Any = model.context
        if "stages" in {name for name, _ in context.named_children()}:
            from latentpress.models.channel_order.slice_ports import SlicePorts

            return SlicePorts(model)
        return ImagePorts(model)
    if {"g_a", "g_s", "h_a", "h_s", "entropy_bottleneck", "gaussian_conditional"} <= names:
        extra = names - {"g_a", "g_s", "h_a", "h_s", "entropy_bottleneck", "gaussian_conditional"}
        if not extra:
            return HyperpriorPorts(model)
        if extra == {"entropy_parameters", "context_prediction"}:
            return AutoregressivePorts(model)
    raise TypeError(f"where a {type(model).__name__} has its latent channels is not known")


def middle_features(network: Any, quality: float, dtype: torch.dtype | None) -> Tensor:
    """What the hyper synthesis makes of the middle of a field of zeros, ``(1, h, w, C)``.

    Args:
        network: An ``ImageNetwork``.
        quality: 0 to 100.
        dtype: Of the field; None for that of the network's weights.
    """
    at = torch.tensor([float(quality)], device=network.gain.knots.device)
    hyper_channels = network.hyper_analysis.head.linear.out_features
    dtype = dtype or network.gain.knots.dtype
    z = torch.zeros(1, _SIDE, _SIDE, hyper_channels, dtype=dtype, device=at.device)
    return _middle(network.hyper_synthesis(z, at), 1, 2)


def _middle(x: Tensor, rows: int, columns: int) -> Tensor:
    """The part of a map that belongs to the middle position of the field; axes of rows and columns."""
    height, width = x.shape[rows] // _SIDE, x.shape[columns] // _SIDE
    return x.narrow(rows, height, height).narrow(columns, width, width)


def _last_convolution(layers: Any) -> nn.Conv2d:
    """The convolution that a sequence ends with; an activation after it does not matter."""
    for layer in reversed(list(layers)):
        if isinstance(layer, nn.Conv2d):
            return layer
        if list(layer.parameters()):
            break
    raise TypeError("a sequence of layers does not end with a convolution")


def _first_convolution(layers: Any) -> nn.Conv2d:
    """The convolution that a sequence begins with."""
    first = layers[0]
    if not isinstance(first, nn.Conv2d):
        raise TypeError(f"a sequence of layers begins with a {type(first).__name__}, not a convolution")
    return first


def _synthesis_ports(layers: Any) -> list[Port]:
    """The first tensors of a synthesis, up to the last one that still sees the latent's channels."""
    first = layers[0]
    if isinstance(first, nn.ConvTranspose2d):
        return [Port(first, "weight", 0, Role.SYNTHESIS_WEIGHT)]
    if isinstance(first, nn.Conv2d):
        return [Port(first, "weight", 1, Role.SYNTHESIS_WEIGHT)]
    if not (hasattr(first, "conv1") and hasattr(first, "conv2") and hasattr(first, "skip")):
        raise TypeError(f"a synthesis that begins with a {type(first).__name__} is not known")
    found = [Port(first.conv1, "weight", 1, Role.SYNTHESIS_WEIGHT)]
    if first.skip is not None:
        return [*found, Port(first.skip, "weight", 1, Role.SYNTHESIS_WEIGHT)]
    # The latent is added to the block's output, which so has its channels: the next block reads them.
    second = layers[1]
    if not (hasattr(second, "subpel_conv") and hasattr(second, "upsample")):
        raise TypeError(f"a {type(second).__name__} after a residual block is not known")
    found += [
        Port(first.conv2, "weight", 0, Role.SYNTHESIS_CARRIED),
        Port(first.conv2, "bias", 0, Role.SYNTHESIS_CARRIED),
    ]
    for branch in (second.subpel_conv, second.upsample):
        found.append(Port(_first_convolution(branch), "weight", 1, Role.SYNTHESIS_WEIGHT))
    return found
