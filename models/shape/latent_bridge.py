"""A bridge between any two latents: the mapping networks of Squeeze3D, given nothing but their shapes.

For pairs without a decoder that gradients can pass through; where there is one,
:class:`latentpress.models.shape.bridge.ShapeBridge` sees the decoded shape while it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.entropy.gaussian import gaussian_bits, round_with_gradient, scale_from_raw
from latentpress.models.shape.layers import TokenMapper


class LatentBridgeOutput(NamedTuple):
    """What the bridge makes of a batch.

    Attributes:
        latent: ``(B, *target_shape)`` for the generator.
        code: ``(B, tokens, channels)`` before rounding.
        bits: ``(B,)``.
    """

    latent: Tensor
    code: Tensor
    bits: Tensor


class LatentBridge(nn.Module):
    """Latent to code to latent.

    ::

        source latent -> tokens -> mapper -> code (B,T,K) -> round -> mapper -> tokens -> target latent

    A latent of any shape is cut into T equal pieces along its flattened values.

    Args:
        source_shape: Of the encoder's latents; its values must divide into ``tokens``.
        target_shape: Of the generator's latents; its values must divide into ``tokens``.
        tokens: T.
        code_channels: K.
        width: Inside the mappers.
        depth: Blocks of each mapper.

    Attributes:
        config: Arguments of :func:`build_latent_bridge` that make this network again.
    """

    config: Mapping[str, Any]

    def __init__(
        self,
        source_shape: tuple[int, ...],
        target_shape: tuple[int, ...],
        tokens: int,
        code_channels: int,
        width: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.config = {}
        self.source_shape = tuple(source_shape)
        self.target_shape = tuple(target_shape)
        self.tokens = tokens
        for shape in (self.source_shape, self.target_shape):
            if math.prod(shape) % tokens:
                raise ValueError(
                    f"the values of a latent of shape {shape} do not divide into {tokens} tokens"
                )
        source, target = (math.prod(s) // tokens for s in (self.source_shape, self.target_shape))
        self.forward_mapping = TokenMapper(source, code_channels, tokens, width, depth)
        self.reverse_mapping = TokenMapper(code_channels, target, tokens, width, depth)
        self.raw_scale = nn.Parameter(torch.zeros(tokens, code_channels))

    def encode(self, latent: Tensor) -> Tensor:
        """Maps ``(B, *source_shape)`` to codes ``(B, T, K)``, to be rounded to integers."""
        return self.forward_mapping(latent.reshape(len(latent), self.tokens, -1)).float()

    def decode(self, code: Tensor) -> Tensor:
        """Maps rounded codes ``(B, T, K)`` to latents ``(B, *target_shape)``."""
        return self.reverse_mapping(code).float().reshape(len(code), *self.target_shape)

    def forward(self, latent: Tensor) -> LatentBridgeOutput:
        """Takes ``(B, *source_shape)`` through a rounded code."""
        code = self.encode(latent)
        shown = code + torch.empty_like(code).uniform_(-0.5, 0.5) if self.training else code.round()
        bits = gaussian_bits(shown, scale_from_raw(self.raw_scale).expand_as(shown)).sum((1, 2))
        return LatentBridgeOutput(self.decode(round_with_gradient(code)), code, bits)


def build_latent_bridge(
    source_shape: list[int],
    target_shape: list[int],
    tokens: int = 64,
    code_channels: int = 16,
    width: int = 256,
    depth: int = 2,
) -> LatentBridge:
    """Puts a :class:`LatentBridge` together.

    Args:
        source_shape: Of the encoder's latents.
        target_shape: Of the generator's latents.
        tokens: T.
        code_channels: K.
        width: Inside the mappers.
        depth: Blocks of each mapper.

    Example:
        >>> bridge = build_latent_bridge([64, 6], [3, 4, 8, 8], tokens=16, width=32, depth=1)
        >>> bridge(torch.rand(2, 64, 6)).latent.shape
        torch.Size([2, 3, 4, 8, 8])
    """
    config = dict(locals())
    network = LatentBridge(tuple(source_shape), tuple(target_shape), tokens, code_channels, width, depth)
    network.config = config
    return network
