"""What the networks for shapes are made of: transformer blocks over tokens, convolutions over small grids.

A set of tokens stands at the centres of a coarse grid over the cube [-1, 1]^3, so the same numbers can be
read as a set (for attention) and as a grid (for convolution).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID_HALF_WIDTH = 1.1
"""Fields are defined on the cube [-1.1, 1.1]^3: shapes fill [-1, 1] and need some room around them."""

_HEAD_CHANNELS = 32


def grid_anchors(size: int) -> Tensor:
    """Centres of a grid over the cube, ``(size^3, 3)``, x changing fastest.

    Example:
        >>> grid_anchors(2)[1].tolist()
        [0.550000011920929, -0.550000011920929, -0.550000011920929]
    """
    line = (torch.arange(size, dtype=torch.float32) * 2 + 1 - size) / size * GRID_HALF_WIDTH
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack((x, y, z), dim=-1).reshape(-1, 3)


def fourier_features(x: Tensor, octaves: int = 6) -> Tensor:
    """Coordinates with their sines and cosines at doubling frequencies (NeRF, arXiv 2003.08934, section 5.1).

    Args:
        x: ``(..., 3)``, about [-1, 1].
        octaves: Number of frequencies.

    Returns:
        ``(..., 3 + 6 octaves)``.

    Example:
        >>> fourier_features(torch.zeros(5, 3), octaves=2).shape
        torch.Size([5, 15])
    """
    frequencies = torch.pi * 2.0 ** torch.arange(octaves, device=x.device, dtype=x.dtype)
    angles = (x[..., None] * frequencies).flatten(-2)
    return torch.cat((x, angles.sin(), angles.cos()), dim=-1)


class Attention(nn.Module):
    """Multi-head attention from one set of tokens to another.

    Args:
        channels: Of the queries and of the result; a multiple of 32, or less than 64.
        context_channels: Of the tokens that are attended to.
    """

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // _HEAD_CHANNELS)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(context_channels, channels, bias=False)
        self.value = nn.Linear(context_channels, channels, bias=False)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps ``(B, N, channels)`` and ``(B, M, context_channels)`` to ``(B, N, channels)``."""

        def split(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        query, key = split(self.query(x)), split(self.key(context))
        found = F.scaled_dot_product_attention(query, key, split(self.value(context)))
        return self.output(found.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Two matrices with a GELU between them.

    Args:
        channels: In and out.
        expansion: Width inside in multiples of ``channels``.
    """

    def __init__(self, channels: int, expansion: int = 3) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., channels)`` to the same shape."""
        return self.project(F.gelu(self.expand(x)))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block; with ``context_channels`` it attends to a second set instead of its own.

    Args:
        channels: Of the tokens.
        context_channels: Of the second set; None for self-attention.

    Example:
        >>> TransformerBlock(64)(torch.zeros(2, 8, 64)).shape
        torch.Size([2, 8, 64])
    """

    def __init__(self, channels: int, context_channels: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.context_norm = None if context_channels is None else nn.LayerNorm(context_channels)
        self.attention = Attention(channels, context_channels or channels)
        self.forward_norm = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps tokens ``(B, N, channels)``, and a context where there is one, to ``(B, N, channels)``."""
        normed = self.norm(x)
        if self.context_norm is not None and context is not None:
            x = x + self.attention(normed, self.context_norm(context))
        else:
            x = x + self.attention(normed, normed)
        return x + self.feed_forward(self.forward_norm(x))


class TokenMapper(nn.Module):
    """Tokens to tokens: a stem, transformer blocks over learned positions, a head.

    Args:
        channels_in: Of the given tokens.
        channels_out: Of the result.
        num_tokens: N.
        width: Inside.
        depth: Number of blocks.

    Example:
        >>> TokenMapper(8, 4, num_tokens=27, width=32, depth=1)(torch.zeros(2, 27, 8)).shape
        torch.Size([2, 27, 4])
    """

    def __init__(self, channels_in: int, channels_out: int, num_tokens: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(channels_in, width)
        self.position = nn.Parameter(torch.randn(num_tokens, width) * 0.1)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, N, channels_in)`` to ``(B, N, channels_out)``."""
        x = self.stem(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class GridConv(nn.Module):
    """3x3x3 convolution, zero padded, ``(B, D, H, W, C) -> (B, D, H, W, C')``.

    Computed as a 2D convolution over three neighbouring slices at once: 2D kernels are fast in every version
    of cuDNN, those for 3D with bfloat16 are not.

    Args:
        channels_in: C.
        channels_out: C'.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3 * channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves ``(B, D, H, W, C)``."""
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        slices = torch.cat((padded[:, :-2], x, padded[:, 2:]), dim=-1).flatten(0, 1)
        y = self.conv(slices.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y.unflatten(0, x.shape[:2])


class GridBlock(nn.Module):
    """Residual block over a grid: norm, convolution, SiLU, convolution.

    Args:
        channels: In and out.

    Example:
        >>> GridBlock(8)(torch.zeros(1, 4, 4, 4, 8)).shape
        torch.Size([1, 4, 4, 4, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first = GridConv(channels, channels)
        self.second = GridConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, C)`` to the same shape."""
        return x + self.second(F.silu(self.first(self.norm(x))))


def grid_to_depth(x: Tensor, factor: int = 2) -> Tensor:
    """Moves each cube of ``factor^3`` positions into the channels, ``(B, D, H, W, C)``.

    Example:
        >>> grid_to_depth(torch.zeros(1, 4, 4, 4, 3)).shape
        torch.Size([1, 2, 2, 2, 24])
    """
    for axis in (1, 2, 3):
        x = x.unflatten(axis, (-1, factor)).movedim(axis + 1, -2).flatten(-2)
    return x


def depth_to_grid(x: Tensor, factor: int = 2) -> Tensor:
    """Inverse of :func:`grid_to_depth`.

    Example:
        >>> x = torch.rand(1, 4, 4, 4, 3)
        >>> torch.equal(depth_to_grid(grid_to_depth(x)), x)
        True
    """
    for axis in (3, 2, 1):
        x = x.unflatten(-1, (factor, -1)).movedim(-2, axis + 1).flatten(axis, axis + 1)
    return x


class GridUpsample(nn.Module):
    """Doubles a grid's resolution: a matrix, then channels to cubes of 2x2x2 positions.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in, 8 * channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, channels_in)`` to ``(B, 2D, 2H, 2W, channels_out)``."""
        return depth_to_grid(self.linear(x))


class GridDownsample(nn.Module):
    """Halves a grid's resolution: cubes of 2x2x2 positions to channels, then a matrix.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(8 * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, channels_in)`` to ``(B, D/2, H/2, W/2, channels_out)``."""
        return self.linear(grid_to_depth(x))


def sample_grid(grid: Tensor, points: Tensor) -> Tensor:
    """Trilinear interpolation of a grid over the cube [-1.1, 1.1]^3.

    Args:
        grid: ``(B, D, H, W, C)``; the first and last positions lie on the cube's faces.
        points: ``(B, N, 3)`` as (x, y, z), x along W; points outside read the nearest face.

    Returns:
        ``(B, N, C)``, float32.

    Example:
        >>> sample_grid(torch.ones(1, 4, 4, 4, 2), torch.zeros(1, 5, 3)).shape
        torch.Size([1, 5, 2])
    """
    with torch.autocast(points.device.type, enabled=False):
        where = (points.float() / GRID_HALF_WIDTH)[:, :, None, None, :]
        planes = grid.float().permute(0, 4, 1, 2, 3)
        found = F.grid_sample(planes, where, mode="bilinear", padding_mode="border", align_corners=True)
    return found.flatten(2).transpose(1, 2)
