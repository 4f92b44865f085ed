"""Blocks for networks that decide probability tables.

They use nothing but 1x1 convolutions, depthwise 3x3 convolutions, a leaky rectifier with a slope of 1/8 and
products with a rectified gate: operations that :mod:`latentpress.models.entropy.fixed_point` can carry out in
integers, exactly, on any machine.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.layers import DepthwiseConv

NEGATIVE_SLOPE = 0.125
"""Slope of the leaky rectifier below zero; a power of two, so that integers stay exact."""


GATE_LIMIT = 8.0
"""Largest value of a gate. Unlimited products square large activations block after block, up to overflow."""


class LeakyRectifier(nn.Module):
    """``x`` where positive, ``x / 8`` elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps any shape to the same shape."""
        return F.leaky_relu(x, NEGATIVE_SLOPE)


class RectifiedProduct(nn.Module):
    """``value`` times the gate limited to [0, :data:`GATE_LIMIT`]."""

    def forward(self, value: Tensor, gate: Tensor) -> Tensor:
        """Multiplies two tensors of one shape."""
        return value * gate.clamp(0, GATE_LIMIT)


class ContextBlock(nn.Module):
    """Residual block of the entropy networks, ``(B, H, W, C)`` to the same shape.

    ::

        x -> 1x1 -> leaky rectifier -> depthwise 3x3 -> 1x1 -(+x)-> h
        h -> value, gate -> value * limited gate -> 1x1 -(+h)-> y

    Args:
        channels: C.

    Example:
        >>> import torch
        >>> ContextBlock(8)(torch.zeros(1, 4, 4, 8)).shape
        torch.Size([1, 4, 4, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.rectifier = LeakyRectifier()
        self.depthwise = DepthwiseConv(channels)
        self.project = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)
        self.product = RectifiedProduct()
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, C)`` to the same shape."""
        return self.mix_channels(x, self.depthwise(self.rectifier(self.expand(x))))

    def mix_channels(self, x: Tensor, hidden: Tensor) -> Tensor:
        """What follows the depthwise convolution, at every position by itself.

        Args:
            x: What the block is given, ``(..., C)``.
            hidden: What the depthwise convolution says there, ``(..., C)``.
        """
        x = x + self.project(hidden)
        mixed: Tensor = x + self.output(self.product(self.value(x), self.gate(x)))
        return mixed
