"""A flow-matching prior over the generator's latents: it turns noise into shapes.

Rectified flow (arXiv 2209.03003; flow matching, arXiv 2210.02747): a network learns the velocity of straight
paths from noise to data, and sampling follows it with a few Euler steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentpress.models.shape.generator import NUM_TOKENS, ShapeLatent
from latentpress.models.shape.layers import TransformerBlock

_TIME_OCTAVES = 8


class FlowPrior(nn.Module):
    """Velocity of noisy latent tokens, and samples.

    ::

        x_t = (1 - t) noise + t latent (B,64,D), t (B,) -> stem + time -> self-attention x depth -> velocity

    Args:
        geometry_channels: Latent values a token for the geometry.
        colour_channels: Latent values a token for the colour.
        width: Of the tokens inside.
        depth: Self-attention blocks.

    Attributes:
        config: Arguments of :func:`build_flow_prior` that make this network again.
    """

    config: Mapping[str, int]
    mean: Tensor
    deviation: Tensor

    def __init__(self, geometry_channels: int, colour_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.config = {}
        self.geometry_channels = geometry_channels
        self.colour_channels = colour_channels
        channels = geometry_channels + colour_channels
        self.register_buffer("mean", torch.zeros(NUM_TOKENS, channels))
        self.register_buffer("deviation", torch.ones(NUM_TOKENS, channels))
        self.stem = nn.Linear(channels, width)
        self.time = nn.Linear(2 * _TIME_OCTAVES, width)
        self.position = nn.Parameter(torch.randn(NUM_TOKENS, width) * 0.1)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.time_gains = nn.ModuleList(nn.Linear(2 * _TIME_OCTAVES, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels)

    def normalise(self, latent: Tensor) -> Tensor:
        """Latents ``(B, 64, D)`` to zero mean and unit variance a value."""
        return (latent - self.mean) / self.deviation

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The velocity at normalised ``(B, 64, D)`` and times ``(B,)`` in [0, 1]; same shape, float32."""
        frequencies = 2.0 ** torch.arange(_TIME_OCTAVES, device=x.device) * (torch.pi / 2)
        angles = time[:, None, None] * frequencies
        embedded = torch.cat((angles.sin(), angles.cos()), dim=-1)
        tokens = self.stem(x) + self.time(embedded) + self.position
        for block, gain in zip(self.blocks, self.time_gains, strict=True):
            tokens = block(tokens * (1 + gain(embedded)))
        return self.head(self.norm(tokens)).float()

    @torch.no_grad()
    def sample(self, count: int, steps: int = 32, generator: torch.Generator | None = None) -> ShapeLatent:
        """New shapes.

        Args:
            count: B.
            steps: Of Euler's method.
            generator: Of the network's device.
        """
        device = self.mean.device
        x = torch.randn((count, *self.mean.shape), generator=generator, device=device)
        for step in range(steps):
            x = x + self(x, torch.full((count,), step / steps, device=device)) / steps
        latent = x * self.deviation + self.mean
        return ShapeLatent(*latent.split((self.geometry_channels, self.colour_channels), dim=-1))


def build_flow_prior(
    geometry_channels: int = 32, colour_channels: int = 16, width: int = 192, depth: int = 4
) -> FlowPrior:
    """Puts a :class:`FlowPrior` together.

    Args:
        geometry_channels: As of the generator.
        colour_channels: As of the generator.
        width: Of the tokens inside.
        depth: Self-attention blocks.

    Example:
        >>> build_flow_prior(4, 2, 32, 1).sample(3, steps=2).geometry.shape
        torch.Size([3, 64, 4])
    """
    config = dict(locals())
    network = FlowPrior(geometry_channels, colour_channels, width, depth)
    network.config = config
    return network
