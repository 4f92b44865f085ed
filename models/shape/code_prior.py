"""The entropy model of shape codes: channel groups in order, each predicted from those before.

Made of the layers that :mod:`latentpress.models.entropy.fixed_point` carries out in integers: matrices over
channels, matrices over tokens, leaky rectifiers, products with a limited gate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentpress.models.entropy.blocks import LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.context import Prediction
from latentpress.models.quality import QualityVector
from latentpress.models.shape.generator import NUM_TOKENS


class TokenMixBlock(nn.Module):
    """Residual block over tokens: channels, then tokens, then a gated feed-forward network.

    ::

        x -> matrix -> leaky rectifier -> matrix over the 64 tokens -> matrix -(+x)-> h
        h -> value, gate -> value * limited gate -> matrix -(+h)-> y

    A token mixer (MLP-Mixer, arXiv 2105.01601) in place of attention, whose exponentials are not the same on
    every machine.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.rectifier = LeakyRectifier()
        self.mix = nn.Linear(NUM_TOKENS, NUM_TOKENS)
        self.project = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)
        self.product = RectifiedProduct()
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, 64, C)`` to the same shape."""
        mixed = self.mix(self.rectifier(self.expand(x)).transpose(1, 2)).transpose(1, 2)
        x = x + self.project(mixed)
        return x + self.output(self.product(self.value(x), self.gate(x)))


class CodePrior(nn.Module):
    """Mean and scale of a group of code channels, given the groups before and a context that is known.

    ::

        context (B,64,E), known code (B,64,K), which of it is known (B,64,K) -> stem
          + bias (token, quality) + bias (other quality) -> [block] x depth -> head -> mean, raw scale

    Args:
        channels: K, a multiple of ``groups``.
        groups: Channel groups, coded one after the other.
        context_channels: E; zero for none.
        width: Inside.
        depth: Number of blocks.
    """

    def __init__(self, channels: int, groups: int, context_channels: int, width: int, depth: int) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} code channels do not make {groups} equal groups")
        self.channels = channels
        self.groups = groups
        self.context_channels = context_channels
        self.stem = nn.Linear(context_channels + 2 * channels, width)
        self.bias = QualityVector(NUM_TOKENS * width)
        self.context_bias = QualityVector(width)
        self.blocks = nn.ModuleList(TokenMixBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, 2 * channels)
        with torch.no_grad():
            # Tokens have to differ from the start: without a context they have nothing but their bias.
            self.bias.knots.add_(torch.randn(1, NUM_TOKENS * width) * 0.1)

    @property
    def group_channels(self) -> int:
        """Channels of a group."""
        return self.channels // self.groups

    def forward(
        self, code: Tensor, known: Tensor, context: Tensor | None, quality: Tensor, context_quality: Tensor
    ) -> Prediction:
        """Predicts all channels; those of the next group are meant.

        Args:
            code: ``(B, 64, K)`` in quantisation steps, or in units of fixed point; what is not known is zero.
            known: ``(B, 64, K)``: one (or the unit) where the code is known, zero elsewhere.
            context: ``(B, 64, E)``, or None if E is zero.
            quality: ``(B,)`` of this code.
            context_quality: ``(B,)`` of the context.

        Returns:
            Mean and raw scale ``(B, 64, K)``; see ``gaussian.scale_from_raw``.
        """
        parts = [code, known] if context is None else [context, code, known]
        with torch.autocast(code.device.type, enabled=False):
            x = self.stem(torch.cat(parts, dim=-1))
            x = x + self.bias(quality).unflatten(-1, (NUM_TOKENS, -1))
            x = x + self.context_bias(context_quality)[:, None]
            for block in self.blocks:
                x = block(x)
            mean, raw_scale = self.head(x).chunk(2, dim=-1)
        return Prediction(mean, raw_scale)
