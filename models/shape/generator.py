"""The generator: a set of latent tokens to a field of signed distance, colour and density.

The tokens are upsampled to grids of features, of which a small network makes values at any point. One latent
gives three outputs: a mesh (the zero level of the distance), a point cloud (samples of that surface), and a
radiance field (the density that follows from the distance, and the colour).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.shape.layers import (
    GridBlock,
    GridDownsample,
    GridUpsample,
    TransformerBlock,
    fourier_features,
    grid_anchors,
    sample_grid,
)

TOKEN_GRID = 4
"""Tokens stand on a grid of 4x4x4."""

NUM_TOKENS = TOKEN_GRID**3

TRUNCATION = 0.1
"""Distances beyond this, in units of half the longest side, are only known to be beyond it."""

POINT_CHANNELS = 9
"""A surface point: position (3), outward normal (3), colour minus one half (3)."""


SHARPNESS = 100.0
"""Density inside a shape, per unit of length; the density falls off outside over the inverse of it."""


class ShapeLatent(NamedTuple):
    """A shape for the generator.

    Attributes:
        geometry: ``(B, 64, Dg)``.
        colour: ``(B, 64, Dc)``.
    """

    geometry: Tensor
    colour: Tensor


class ShapeField(NamedTuple):
    """Feature grids of a batch of shapes, ready to be evaluated at points.

    Attributes:
        geometry: ``(B, 32, 32, 32, C)``, or of 64^3 positions.
        colour: ``(B, 16, 16, 16, C')``, or of 32^3 positions, or None for shapes without colour.
    """

    geometry: Tensor
    colour: Tensor | None


class PosteriorTokens(NamedTuple):
    """Gaussians over the tokens of a :class:`ShapeLatent`.

    Attributes:
        mean: ``(B, 64, D)``.
        log_variance: ``(B, 64, D)``.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """A random latent, differentiable in mean and variance."""
        return self.mean + torch.randn_like(self.mean) * (0.5 * self.log_variance).exp()

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from a standard normal distribution, in nats a value; a scalar."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


class SurfaceEncoder(nn.Module):
    """The generator's own encoder: surface points to Gaussians over the latent tokens.

    ::

        points (B,N,9) -> features --+--> cross-attention of 8^3 anchors, twice -> 2x2x2 to channels
                                     |                                                   |
                                     +--> cross-attention of 4^3 tokens <----------------+
                                               -> self-attention x depth -> mean, log variance (B,64,D)

    Two stages of resolution, as in COD-VAE (arXiv 2503.08737, section 3.2): details are gathered by many
    tokens and then compressed into few. The anchors start at fixed places instead of sampled points, so
    the tokens of any two shapes correspond.

    Args:
        channels: D, geometry and colour together.
        width: Of the tokens.
        fine_width: Of the anchors.
        depth: Self-attention blocks.
    """

    def __init__(self, channels: int, width: int, fine_width: int, depth: int) -> None:
        super().__init__()
        embedded = fourier_features(torch.zeros(1, 3)).shape[-1]
        self.stem = nn.Linear(embedded + POINT_CHANNELS - 3, fine_width)
        self.point_block = nn.Linear(fine_width, fine_width)
        self.register_buffer("anchors", fourier_features(grid_anchors(2 * TOKEN_GRID)), persistent=False)
        self.anchor_stem = nn.Linear(embedded, fine_width)
        self.fine = nn.ModuleList(TransformerBlock(fine_width, fine_width) for _ in range(2))
        self.merge = GridDownsample(fine_width, width)
        self.position = nn.Parameter(torch.randn(NUM_TOKENS, width) * 0.1)
        self.gather = TransformerBlock(width, fine_width)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * channels)

    def forward(self, points: Tensor) -> PosteriorTokens:
        """Maps surface points ``(B, N, 9)``, see :data:`POINT_CHANNELS`."""
        features = torch.cat((fourier_features(points[..., :3]), points[..., 3:]), dim=-1)
        features = self.point_block(F.gelu(self.stem(features)))
        anchors = self.anchor_stem(self.anchors).expand(len(points), -1, -1)
        for block in self.fine:
            anchors = block(anchors, features)
        side = 2 * TOKEN_GRID
        tokens = self.merge(anchors.unflatten(1, (side, side, side))).flatten(1, 3) + self.position
        tokens = self.gather(tokens, features)
        for block in self.blocks:
            tokens = block(tokens)
        mean, log_variance = self.head(self.norm(tokens)).float().chunk(2, dim=-1)
        return PosteriorTokens(mean, log_variance.clamp(-10, 4))


class ShapeGenerator(nn.Module):
    """Latent tokens to fields.

    ::

        geometry (B,64,Dg) -> self-attention x depth -> 4^3 -> 8^3 -> 16^3 -> 32^3 (64^3) -> MLP -> distance
                                        |
        colour (B,64,Dc) ---------------+-> self-attention -> 4^3 -> 8^3 -> 16^3 (32^3) -> MLP -> RGB

    The distance does not depend on the colour tokens, so a shape without colour needs none.

    Args:
        geometry_channels: Dg.
        colour_channels: Dc.
        width: Of the tokens.
        depth: Self-attention blocks for the geometry.
        grid_channels: Channels of the geometry's grids, from 8^3 on, each twice as fine as the one before.
        colour_grid_channels: The same for the colour.
    """

    def __init__(
        self,
        geometry_channels: int,
        colour_channels: int,
        width: int,
        depth: int,
        grid_channels: Sequence[int],
        colour_grid_channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.geometry_channels = geometry_channels
        self.colour_channels = colour_channels
        self.stem = nn.Linear(geometry_channels, width)
        self.position = nn.Parameter(torch.randn(NUM_TOKENS, width) * 0.1)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        geometry_layers = _grid_layers(width, grid_channels)
        self.grid = nn.Sequential(*geometry_layers, GridBlock(grid_channels[-1]))
        self.distance = _PointNetwork(grid_channels[-1], 1)
        half = width // 2
        self.colour_stem = nn.Linear(colour_channels, half)
        self.colour_condition = nn.Linear(width, half)
        self.colour_blocks = nn.ModuleList(TransformerBlock(half) for _ in range(2))
        self.colour_norm = nn.LayerNorm(half)
        self.colour_grid = nn.Sequential(*_grid_layers(half, colour_grid_channels))
        self.colour = _PointNetwork(colour_grid_channels[-1], 3)

    def forward(self, geometry: Tensor, colour: Tensor | None = None) -> ShapeField:
        """Makes the feature grids of a batch; without colour tokens there is no colour grid."""
        tokens = self.stem(geometry) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        side = (TOKEN_GRID,) * 3
        geometry_grid = self.grid(tokens.unflatten(1, side))
        if colour is None:
            return ShapeField(geometry_grid, None)
        # Colour must not pull at the geometry: at low rates it would win.
        painted = self.colour_stem(colour) + self.colour_condition(tokens.detach())
        for block in self.colour_blocks:
            painted = block(painted)
        return ShapeField(geometry_grid, self.colour_grid(self.colour_norm(painted).unflatten(1, side)))

    def signed_distance(self, field: ShapeField, points: Tensor) -> Tensor:
        """Signed distance, negative inside, in units of half the longest side.

        Args:
            field: Of B shapes.
            points: ``(B, N, 3)`` in [-1.1, 1.1].

        Returns:
            ``(B, N)`` float32, true near the surface and at least :data:`TRUNCATION` far from it.
        """
        return self.distance(sample_grid(field.geometry, points), points)[..., 0] * TRUNCATION

    def colour_at(self, field: ShapeField, points: Tensor) -> Tensor:
        """RGB ``(B, N, 3)``, around [0, 1] and not clamped, at points ``(B, N, 3)``.

        Raises:
            ValueError: The shapes have no colour.
        """
        if field.colour is None:
            raise ValueError("a shape without colour tokens has no colour")
        return self.colour(sample_grid(field.colour, points), points) + 0.5

    @staticmethod
    def density(distance: Tensor) -> Tensor:
        """Volume density per unit of length that follows from signed distances, same shape.

        The Laplace distribution function of VolSDF (arXiv 2106.12052, equations 2 and 3):
        :data:`SHARPNESS` deep inside, half of it on the surface, falling to nothing outside.
        """
        decay = torch.exp(-distance.abs() * SHARPNESS)
        return SHARPNESS * torch.where(distance > 0, 0.5 * decay, 1 - 0.5 * decay)


def _grid_layers(channels_in: int, channels: Sequence[int]) -> list[nn.Module]:
    """Grids of so many channels, each made of the one before; the last has no block yet."""
    layers: list[nn.Module] = [GridUpsample(channels_in, channels[0])]
    for coarse, fine in itertools.pairwise(channels):
        layers += [GridBlock(coarse), GridUpsample(coarse, fine)]
    return layers


class _PointNetwork(nn.Module):
    """Features at a point, and the point, to a few values."""

    def __init__(self, channels: int, channels_out: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Linear(channels + 3, width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, channels_out)

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        x = F.silu(self.stem(torch.cat((features, points), dim=-1)))
        x = F.silu(self.hidden(x))
        # Half a bfloat16 step of the distance would be visible.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float())


class AutoencoderOutput(NamedTuple):
    """What an autoencoder makes of a batch.

    Attributes:
        field: The decoded fields.
        divergence: Of the latents from a standard normal distribution, a scalar.
    """

    field: ShapeField
    divergence: Tensor


class ShapeAutoencoder(nn.Module):
    """The generator with its own encoder, as they are trained together.

    Args:
        encoder: Surface points to latents.
        generator: Latents to fields.

    Attributes:
        config: Arguments of :func:`build_shape_autoencoder` that make this network again.
    """

    config: Mapping[str, int | None]

    def __init__(self, encoder: SurfaceEncoder, generator: ShapeGenerator) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator
        self.config = {}

    def encode(self, points: Tensor) -> ShapeLatent:
        """The most likely latent of surface points ``(B, N, 9)``."""
        return self.split(self.encoder(points).mean)

    def split(self, tokens: Tensor) -> ShapeLatent:
        """Splits tokens ``(B, 64, Dg + Dc)`` into geometry and colour."""
        return ShapeLatent(
            *tokens.split((self.generator.geometry_channels, self.generator.colour_channels), dim=-1)
        )

    def forward(self, points: Tensor) -> AutoencoderOutput:
        """Encodes surface points ``(B, N, 9)`` and decodes a sample of their latents' distribution."""
        posterior = self.encoder(points)
        tokens = posterior.sample() if self.training else posterior.mean
        return AutoencoderOutput(self.generator(*self.split(tokens)), posterior.divergence())


def build_shape_autoencoder(
    geometry_channels: int = 32,
    colour_channels: int = 16,
    width: int = 256,
    depth: int = 3,
    coarse_channels: int = 128,
    middle_channels: int = 64,
    fine_channels: int = 32,
    encoder_width: int = 192,
    encoder_fine_width: int = 128,
    encoder_depth: int = 3,
    detail_channels: int | None = None,
    colour_detail_channels: int | None = None,
) -> ShapeAutoencoder:
    """Puts a :class:`ShapeAutoencoder` together.

    Args:
        geometry_channels: Latent values a token for the geometry.
        colour_channels: Latent values a token for the colour.
        width: Of the generator's tokens.
        depth: Self-attention blocks of the generator.
        coarse_channels: Of the 8^3 grid.
        middle_channels: Of the 16^3 grid.
        fine_channels: Of the 32^3 grid.
        encoder_width: Of the encoder's tokens.
        encoder_fine_width: Of the encoder's points and anchors.
        encoder_depth: Self-attention blocks of the encoder.
        detail_channels: Of a 64^3 grid of the geometry; None for none.
        colour_detail_channels: Of a 32^3 grid of the colour; None for none.

    Example:
        >>> network = build_shape_autoencoder(4, 4, 32, 1, 8, 8, 8, 32, 32, 1).eval()
        >>> field = network(torch.rand(2, 50, 9)).field
        >>> network.generator.signed_distance(field, torch.zeros(2, 7, 3)).shape
        torch.Size([2, 7])
    """
    config = dict(locals())
    channels = geometry_channels + colour_channels
    grids = (coarse_channels, middle_channels, fine_channels, detail_channels)
    colour_grids = (coarse_channels // 2, fine_channels, colour_detail_channels)
    network = ShapeAutoencoder(
        SurfaceEncoder(channels, encoder_width, encoder_fine_width, encoder_depth),
        ShapeGenerator(
            geometry_channels,
            colour_channels,
            width,
            depth,
            [count for count in grids if count is not None],
            [count for count in colour_grids if count is not None],
        ),
    )
    network.config = config
    return network
