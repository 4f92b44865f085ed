"""The context model for volumes: the four steps of pictures, with three axes.

Positions fall into four classes such that the six neighbours of a position are of the three other classes.
In each step every position codes one quarter of its channels, a different quarter in each class, so after a
step everything still to come has decoded neighbours in space and in channels: DCVC-DC's quadtree partition
(arXiv 2302.14402, section 3.3) with the body-centred lattice in the place of the diagonal one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.blocks import LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.context import ORDER, STEPS, Prediction
from latentpress.models.entropy.gaussian import (
    INDEX_OFFSET,
    INDEX_SLOPE,
    SCALE_COUNT,
    SCALE_MIN,
    clamp_with_gradient,
)
from latentpress.models.entropy.latent_model import CodingStep, Exchange
from latentpress.models.volume import AXES, NeighbourConv, neighbours

if TYPE_CHECKING:
    from latentpress.models.entropy.fixed_point import FixedPointLinear

PREDICTED_CHANNELS = 32
"""Most latent channels that are predicted from their neighbours linearly."""

VOLUME_SCALE_MAX = 1024.0
"""Largest standard deviation of the scale table of volumes: smooth fields need a wide range."""

VOLUME_LOG_SCALE_STEP = math.log(VOLUME_SCALE_MAX / SCALE_MIN) / (SCALE_COUNT - 1)


def volume_scale_table() -> Tensor:
    """The standard deviations of the tables, ``(SCALE_COUNT,)`` float64, in quantisation steps.

    Example:
        >>> [round(float(s), 2) for s in volume_scale_table()[[0, 63]]]
        [0.11, 1024.0]
    """
    return SCALE_MIN * torch.exp(VOLUME_LOG_SCALE_STEP * torch.arange(SCALE_COUNT, dtype=torch.float64))


def volume_scale_from_raw(raw: Tensor) -> Tensor:
    """The standard deviation that a raw network output stands for, differentiable; any shape, float32."""
    index = clamp_with_gradient(raw.float() * INDEX_SLOPE + INDEX_OFFSET, 0.0, SCALE_COUNT - 1.0)
    return SCALE_MIN * torch.exp(VOLUME_LOG_SCALE_STEP * index)


class ChannelScale(nn.Module):
    """Brings latents of very different size to numbers around one, by powers of two, and predictions back.

    The largest latent channels reach thousands of quantisation steps, more than integer activations hold
    and more than a network is easily trained with.

    Args:
        channels: M.

    Attributes:
        exponent: ``(M,)`` int32; a latent is divided by two to this power.
    """

    exponent: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("exponent", torch.zeros(channels, dtype=torch.int32))

    def shrink(self, y: Tensor) -> Tensor:
        """Latents ``(..., M)`` in quantisation steps to numbers around one."""
        return y * torch.exp2(-self.exponent.to(y.dtype))

    def grow(self, mean: Tensor, channels: Tensor | None = None) -> Tensor:
        """Predictions ``(..., M)`` back to quantisation steps.

        Args:
            mean: Of all channels, or of those that are named.
            channels: Which, in a shape that goes with that of ``mean``; None for all.
        """
        powers = torch.exp2(self.exponent.to(mean.dtype))
        return mean * (powers if channels is None else powers[channels])


def volume_step_mask(
    step: int, shape: tuple[int, int, int], channels: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Which elements of a latent are coded in a step.

    Args:
        step: 0 to 3.
        shape: Depth, height and width of the latent.
        channels: M, a multiple of 4.
        device: Where the mask is made.

    Returns:
        Boolean ``(depth, height, width, channels)``; the masks of the four steps partition the latent.

    Example:
        >>> sum(volume_step_mask(k, (3, 4, 5), 8).int() for k in range(4)).unique()
        tensor([1], dtype=torch.int32)
    """
    classes = _classes(*(torch.arange(size, device=device) % 2 for size in shape))
    # Channels are dealt out in turn, because the first of them carry the most.
    quarter = torch.arange(channels, device=device) % STEPS
    return classes.bitwise_xor(torch.full_like(classes, ORDER[step]))[..., None] == quarter


def _classes(d: Tensor, h: Tensor, w: Tensor) -> Tensor:
    """Of positions, 0 to 3, from whether their coordinates are odd."""
    return d[:, None, None].bitwise_xor(h[:, None]) * 2 + d[:, None, None].bitwise_xor(w)


class VolumeContextBlock(nn.Module):
    """Residual block of the entropy networks, ``(B, D, H, W, C)`` to the same shape.

    ::

        x -> 1x1 -> leaky rectifier -> neighbours -> 1x1 -(+x)-> h
        h -> value, gate -> value * limited gate -> 1x1 -(+h)-> y

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.rectifier = LeakyRectifier()
        self.neighbours = NeighbourConv(channels)
        self.project = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)
        self.product = RectifiedProduct()
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor, periodic: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, C)`` to the same shape."""
        x = x + self.project(self.neighbours(self.rectifier(self.expand(x)), periodic))
        return x + self.output(self.product(self.value(x), self.gate(x)))


def neighbourhood(x: Tensor, periodic: Tensor) -> Tensor:
    """Every position's values and its six neighbours', ``(B, D, H, W, C)`` to ``(B, D, H, W, 7 C)``."""
    return torch.cat((x, *(part for axis in AXES for part in neighbours(x, axis, periodic))), dim=-1)


class VolumeContextModel(nn.Module):
    """Predicts mean and scale of a step's elements from the hyperprior and all earlier steps.

    ::

        features --------------------------> head 0 ----------------------------> mean, scale (step 0)
        features ++ y_hat so far, shrunk --> adaptor k -> [block] x depth -> head k -> mean, scale (k > 0)
        y_hat so far, shrunk, and its neighbours --> predictor k -(+)-> mean

    Means leave the heads as numbers around one and are grown back, see :class:`ChannelScale`. In a smooth
    field most of what neighbours say about the largest channels is linear: the predictors hold that part,
    as regression finds it, and what is added to it is learned.

    Args:
        channels: C of the hyperprior's features, and the width inside.
        latent_channels: M, a multiple of 4.
        depth: Blocks, shared by the steps.

    Attributes:
        parts: Parts of a stream.
        max_positions: No limit to the size of a volume.

    Example:
        >>> model = VolumeContextModel(8, 4, depth=1)
        >>> y_hat, periodic = torch.zeros(1, 2, 2, 2, 4), torch.zeros(1, 3, dtype=torch.bool)
        >>> model(1, torch.zeros(1, 2, 2, 2, 8), y_hat, periodic).mean.shape
        torch.Size([1, 2, 2, 2, 4])
    """

    parts = 1
    max_positions: int | None = None

    def __init__(self, channels: int, latent_channels: int, depth: int) -> None:
        super().__init__()
        if latent_channels % STEPS:
            raise ValueError(f"latent_channels must be a multiple of {STEPS}, got {latent_channels}")
        self.latent_channels = latent_channels
        self.scale = ChannelScale(latent_channels)
        self.predicted = min(latent_channels, PREDICTED_CHANNELS)
        predictors = [nn.Linear(7 * self.predicted, self.predicted, bias=False) for _ in range(STEPS - 1)]
        for predictor in predictors:
            nn.init.zeros_(predictor.weight)
        self.predictors = nn.ModuleList(predictors)
        self.adaptors = nn.ModuleList(
            nn.Linear(channels + latent_channels, channels) for _ in range(STEPS - 1)
        )
        self.blocks = nn.ModuleList(VolumeContextBlock(channels) for _ in range(depth))
        self.heads = nn.ModuleList(nn.Linear(channels, 2 * latent_channels) for _ in range(STEPS))

    def forward(self, step: int, features: Tensor, y_hat: Tensor, periodic: Tensor) -> Prediction:
        """Predicts one step.

        Args:
            step: 0 to 3.
            features: ``(B, d, h, w, C)`` of the hyperprior.
            y_hat: ``(B, d, h, w, M)`` decoded so far, zero elsewhere; ignored in step 0.
            periodic: ``(B, 3)`` boolean.
        """
        x = features
        shrunk = y_hat
        with torch.autocast(x.device.type, enabled=False):
            if step > 0:
                shrunk = self.scale.shrink(y_hat)
                x = self.adaptors[step - 1](torch.cat((x.to(y_hat.dtype), shrunk), dim=-1))
        if step > 0:
            for block in self.blocks:
                x = block(x, periodic)
        with torch.autocast(x.device.type, enabled=False):
            mean, raw_scale = self.heads[step](x.to(y_hat.dtype)).chunk(2, dim=-1)
            if step > 0:
                around = neighbourhood(shrunk[..., : self.predicted], periodic)
                linear = self.predictors[step - 1](around)
                mean = mean + F.pad(linear, (0, mean.shape[-1] - self.predicted))
            return Prediction(self.scale.grow(mean), raw_scale)

    def code(self, features: Tensor, exchange: Exchange, periodic: Tensor) -> Tensor:
        """Goes through the four steps of one latent, on integers.

        Args:
            features: ``(1, d, h, w, C)``, in units.
            exchange: Called once a step, in order.
            periodic: ``(1, 3)`` boolean.

        Returns:
            The decoded latent ``(1, d, h, w, M)``, in units.
        """
        sides = (features.shape[1], features.shape[2], features.shape[3])
        y_hat = features.new_zeros((1, *sides, self.latent_channels))
        flat = y_hat.view(-1)
        octants = Octants(sides, features.device)
        for step in range(STEPS):
            mean, raw_scale = self._quarters(step, features, y_hat, periodic, octants)
            positions = octants.positions(step, self.latent_channels)
            flat[positions] = (
                exchange(CodingStep(positions, mean.flatten(), raw_scale.flatten())) + mean.flatten()
            )
        return y_hat

    def _quarters(
        self, step: int, features: Tensor, y_hat: Tensor, periodic: Tensor, octants: Octants
    ) -> tuple[Tensor, Tensor]:
        """Mean and raw scale ``(1, d, h, w, M / 4)`` of a step's elements: a quarter of the heads' work."""
        x, shrunk = self.hidden(step, features, y_hat, periodic)
        chosen = octants.channels(step, self.latent_channels)
        head = cast("FixedPointLinear", self.heads[step])
        both = head.grouped(octants.split(x), torch.cat((chosen, chosen + self.latent_channels), 1))
        mean, raw_scale = both.chunk(2, dim=-1)
        if step > 0:
            predictor = cast("FixedPointLinear", self.predictors[step - 1])
            around = octants.split(neighbourhood(shrunk[..., : self.predicted], periodic))
            rows = octants.channels(step, self.predicted)
            mean[..., : rows.shape[1]] += predictor.grouped(around, rows)
        mean = self.scale.grow(mean, chosen[:, None])
        return octants.join(mean), octants.join(raw_scale)

    def hidden(self, step: int, features: Tensor, y_hat: Tensor, periodic: Tensor) -> tuple[Tensor, Tensor]:
        """What the head of a step sees, and the latents so far, shrunk."""
        if step == 0:
            return features, y_hat
        shrunk = self.scale.shrink(y_hat)
        x = self.adaptors[step - 1](torch.cat((features, shrunk), dim=-1))
        for block in self.blocks:
            x = block(x, periodic)
        return x, shrunk


class Octants:
    """Positions of a volume in eight groups, by whether their three coordinates are odd.

    All positions of a group code the same channels in a step. Volumes with an odd side are padded.

    Args:
        sides: Depth, height and width.
        device: Where the volume is.

    Example:
        >>> octants = Octants((3, 4, 5))
        >>> x = torch.rand(1, 3, 4, 5, 2)
        >>> octants.split(x).shape, torch.equal(octants.join(octants.split(x)), x)
        (torch.Size([8, 12, 2]), True)
    """

    def __init__(self, sides: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        self.sides = sides
        self.halves = [-(-side // 2) for side in sides]
        parity = torch.arange(2, device=device)
        self.classes = _classes(parity, parity, parity).flatten()

    def split(self, x: Tensor) -> Tensor:
        """``(1, d, h, w, C)`` to ``(8, n, C)``."""
        (d, h, w), channels = self.halves, x.shape[-1]
        if any(side % 2 for side in self.sides):
            depth, height, width = (side % 2 for side in self.sides)
            x = F.pad(x, (0, 0, 0, width, 0, height, 0, depth))
        x = x.reshape(d, 2, h, 2, w, 2, channels).permute(1, 3, 5, 0, 2, 4, 6)
        return x.reshape(8, -1, channels)

    def join(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`split`."""
        (d, h, w), channels = self.halves, x.shape[-1]
        x = x.reshape(2, 2, 2, d, h, w, channels).permute(3, 0, 4, 1, 5, 2, 6)
        x = x.reshape(1, 2 * d, 2 * h, 2 * w, channels)
        depth, height, width = self.sides
        return x[:, :depth, :height, :width]

    def channels(self, step: int, count: int) -> Tensor:
        """Channels that each group codes in a step, ``(8, count / 4)`` in rising order.

        Args:
            step: 0 to 3.
            count: Channels in all, a multiple of 4.
        """
        first = self.classes.bitwise_xor(torch.full_like(self.classes, ORDER[step]))
        return first[:, None] + torch.arange(0, count, STEPS, device=first.device)

    def positions(self, step: int, channels: int) -> Tensor:
        """Where the elements of a step are in a flattened latent, in rising order.

        The same as the places where :func:`volume_step_mask` is true.

        Args:
            step: 0 to 3.
            channels: M, a multiple of 4.
        """
        device = self.classes.device
        classes = _classes(*(torch.arange(side, device=device) % 2 for side in self.sides)).flatten()
        first = torch.arange(len(classes), device=device) * channels
        first = first + classes.bitwise_xor(torch.full_like(classes, ORDER[step]))
        return (first[:, None] + torch.arange(0, channels, STEPS, device=device)).flatten()
