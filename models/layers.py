"""The few layers every transform is made of, in channels-last layout ``(B, H, W, C)``.

Channels-last makes a 1x1 convolution a plain matrix product (``torch.nn.Linear``), which is the fastest
operation on every device, and leaves the depthwise convolution as the only layer that looks at neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Moves each ``factor x factor`` square of positions into the channels.

    Args:
        x: ``(B, H, W, C)``, H and W multiples of ``factor``.
        factor: Side of the square, in positions.

    Returns:
        ``(B, H/factor, W/factor, factor*factor*C)``; channels run over (row, column, C).

    Example:
        >>> space_to_depth(torch.zeros(1, 4, 6, 3), 2).shape
        torch.Size([1, 2, 3, 12])
    """
    b, h, w, c = x.shape
    x = x.view(b, h // factor, factor, w // factor, factor, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b, h // factor, w // factor, factor * factor * c)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Inverse of :func:`space_to_depth`.

    Args:
        x: ``(B, H, W, factor*factor*C)``.
        factor: Side of the square, in positions.

    Returns:
        ``(B, H*factor, W*factor, C)``.

    Example:
        >>> x = torch.rand(1, 4, 6, 3)
        >>> torch.equal(depth_to_space(space_to_depth(x, 2), 2), x)
        True
    """
    b, h, w, c = x.shape
    x = x.view(b, h, w, factor, factor, c // (factor * factor))
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b, h * factor, w * factor, c // (factor * factor))


class DepthwiseConv(nn.Module):
    """Convolution of every channel by itself, zero padded, ``(B, H, W, C) -> (B, H, W, C)``.

    Args:
        channels: C.
        kernel_size: Side of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -1 / kernel_size, 1 / kernel_size)
        # Starting near the identity keeps deep stacks of blocks well conditioned without normalisation.
        with torch.no_grad():
            self.weight[:, :, kernel_size // 2, kernel_size // 2] += 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Convolves ``(B, H, W, C)``; the result has the same shape."""
        padding = self.weight.shape[-1] // 2
        y = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, padding=padding, groups=self.channels)
        return y.permute(0, 2, 3, 1)


class ContrastNormalisation(nn.Module):
    """Divides the channels of every position by their common magnitude, ``(B, H, W, C)`` to the same shape.

    ::

        u = weight * x,  y = u / sqrt(1 + mean over the channels of u^2)

    Divisive normalisation as in the generalised form of Balle et al. (arXiv 1611.01704, section 3), with one
    pool for all channels. Strong and weak contrasts look alike to what follows, and nothing that follows can
    grow without bound; below a magnitude of one, flat areas stay flat.

    Args:
        channels: C.

    Example:
        >>> y = ContrastNormalisation(4)(torch.full((1, 1, 1, 4), 1000.0))
        >>> float(y.detach().max()) <= 1.0
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``(B, H, W, C)``; sums are taken in float32 whatever the precision of x."""
        scaled = x * self.weight.to(x.dtype)
        energy = scaled.float().square().mean(dim=-1, keepdim=True)
        return scaled * torch.rsqrt(1 + energy).to(x.dtype)


Normalisation = Callable[[int], nn.Module]
"""Makes a module that keeps the shape ``(B, H, W, C)``, from C."""


class DepthConvBlock(nn.Module):
    """Residual block: 1x1, SiLU, depthwise 3x3, 1x1; then a gated feed-forward network.

    ::

        x -> normalise -> expand -> SiLU -> depthwise -> project -(+x)-> h
        h -> normalise -> value, gate -> value * SiLU(gate) -> output -(+h)-> y

    The block type of DCVC-RT's intra codec (arXiv 2502.20762, section 3), with one non-linearity for all, and
    what its branches see normalised if so wished.

    The feed-forward network multiplies two linear functions of its input, so a stack of blocks can square a
    number again and again. A limit to what each branch adds ends that, and leaves alone what is below it.

    Args:
        channels: Channels in and out.
        expansion: Width of the feed-forward network in multiples of ``channels``.
        normalisation: Of what the branches see.
        branch_limit: Largest magnitude that a branch adds; None for no limit.

    Example:
        >>> DepthConvBlock(8)(torch.zeros(1, 4, 4, 8)).shape
        torch.Size([1, 4, 4, 8])
    """

    def __init__(
        self,
        channels: int,
        expansion: int = 2,
        normalisation: Normalisation = nn.Identity,
        branch_limit: float | None = None,
    ) -> None:
        super().__init__()
        self.branch_limit = branch_limit
        self.normalise_mixing = normalisation(channels)
        self.normalise_feed = normalisation(channels)
        self.expand = nn.Linear(channels, channels)
        self.depthwise = DepthwiseConv(channels)
        self.project = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, expansion * channels)
        self.gate = nn.Linear(channels, expansion * channels)
        self.output = nn.Linear(expansion * channels, channels)

    @torch.no_grad()
    def pass_on(self) -> None:
        """Makes the block the identity, from where training can begin: both branches end in zeros.

        Example:
            >>> block, x = DepthConvBlock(4), torch.rand(1, 2, 2, 4)
            >>> block.pass_on()
            >>> torch.equal(block(x), x)
            True
        """
        for linear in (self.project, self.output):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, C)`` to the same shape."""
        h = x + self._limited(self.project(self.depthwise(F.silu(self.expand(self.normalise_mixing(x))))))
        seen = self.normalise_feed(h)
        return h + self._limited(self.output(self.value(seen) * F.silu(self.gate(seen))))

    def _limited(self, added: Tensor) -> Tensor:
        if self.branch_limit is None:
            return added
        # Nobody else has what a branch adds, so without gradients it needs no second copy.
        clamp = added.clamp if torch.is_grad_enabled() else added.clamp_
        return clamp(-self.branch_limit, self.branch_limit)


class Downsample(nn.Module):
    """Halves height and width: 2x2 positions to channels, then a 1x1 convolution.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, channels_in)`` to ``(B, H/2, W/2, channels_out)``."""
        return self.linear(space_to_depth(x, 2))


class Upsample(nn.Module):
    """Doubles height and width: a 1x1 convolution, then channels to 2x2 positions.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in, 4 * channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, channels_in)`` to ``(B, 2H, 2W, channels_out)``."""
        return depth_to_space(self.linear(x), 2)
