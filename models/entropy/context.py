"""The four-step context model over channel quarters x the four positions of every 2x2 square.

In each step every position codes one quarter of its channels, a different quarter at each of the four
positions, so after a step everything still to come has decoded neighbours in space and in channels. The
arrangement is DCVC-DC's quadtree partition (arXiv 2302.14402, section 3.3); mean and scale are both refined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.latent_model import CodingStep, Exchange, QuantisedLatent, Rounding

if TYPE_CHECKING:
    from latentpress.models.entropy.fixed_point import FixedPointLinear

STEPS = 4
"""Coding steps, also the number of channel groups and of positions in a square."""

# Quarter coded at position p of a square in step k: p XOR ORDER[k]. The first two steps visit diagonal
# neighbours, so the second step has decoded values on all sides.
ORDER = (0, 3, 2, 1)


class Prediction(NamedTuple):
    """What a step predicts for every element; only those of the step are used.

    Attributes:
        mean: ``(B, h, w, M)``, in quantisation steps.
        raw_scale: ``(B, h, w, M)``, see ``gaussian.scale_from_raw``.
    """

    mean: Tensor
    raw_scale: Tensor


def step_mask(
    step: int, height: int, width: int, channels: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Which elements of a latent are coded in a step.

    Args:
        step: 0 to 3.
        height: Rows of the latent.
        width: Columns of the latent.
        channels: M, a multiple of 4.
        device: Where the mask is made.

    Returns:
        Boolean ``(height, width, channels)``; the masks of the four steps partition the latent.

    Example:
        >>> sum(step_mask(k, 3, 5, 8).int() for k in range(4)).unique()
        tensor([1], dtype=torch.int32)
    """
    rows = torch.arange(height, device=device)[:, None, None] % 2
    columns = torch.arange(width, device=device)[None, :, None] % 2
    quarter = torch.arange(channels, device=device)[None, None, :] // (channels // STEPS)
    return (rows * 2 + columns).bitwise_xor(torch.full_like(rows, ORDER[step])) == quarter


class ContextModel(nn.Module):
    """Predicts mean and scale of a step's elements from the hyperprior and all earlier steps.

    ::

        features ------------------> head 0 ----------------------------> mean, scale (step 0)
        features ++ y_hat so far --> adaptor k -> [block] x depth -> head k -> mean, scale (step k > 0)

    The blocks are shared by the steps; adaptors and heads are not.

    Args:
        channels: C of the hyperprior's features, and the width inside.
        latent_channels: M, a multiple of 4.
        depth: Shared blocks.

    Attributes:
        parts: Parts of a stream.
        max_positions: No limit to the size of a map.

    Example:
        >>> model = ContextModel(8, 4, depth=1)
        >>> model(1, torch.zeros(1, 2, 2, 8), torch.zeros(1, 2, 2, 4)).mean.shape
        torch.Size([1, 2, 2, 4])
    """

    parts = 1
    max_positions: int | None = None

    def __init__(self, channels: int, latent_channels: int, depth: int) -> None:
        super().__init__()
        if latent_channels % STEPS:
            raise ValueError(f"latent_channels must be a multiple of {STEPS}, got {latent_channels}")
        self.latent_channels = latent_channels
        self.adaptors = nn.ModuleList(
            nn.Linear(channels + latent_channels, channels) for _ in range(STEPS - 1)
        )
        self.blocks = nn.ModuleList(ContextBlock(channels) for _ in range(depth))
        self.heads = nn.ModuleList(nn.Linear(channels, 2 * latent_channels) for _ in range(STEPS))

    def forward(self, step: int, features: Tensor, y_hat: Tensor) -> Prediction:
        """Predicts one step.

        Args:
            step: 0 to 3.
            features: ``(B, h, w, C)`` of the hyperprior.
            y_hat: ``(B, h, w, M)`` decoded so far, zero elsewhere; ignored in step 0.
        """
        x = self._hidden(step, features, y_hat)
        with torch.autocast(x.device.type, enabled=False):
            mean, raw_scale = self.heads[step](x.to(y_hat.dtype)).chunk(2, dim=-1)
        return Prediction(mean, raw_scale)

    def _hidden(self, step: int, features: Tensor, y_hat: Tensor) -> Tensor:
        """What the head of a step sees."""
        x = features
        with torch.autocast(x.device.type, enabled=False):
            if step > 0:
                x = self.adaptors[step - 1](torch.cat((x.to(y_hat.dtype), y_hat), dim=-1))
        if step > 0:
            for block in self.blocks:
                x = block(x)
        return x

    def quantise(self, features: Tensor, y: Tensor, rounding: Rounding) -> QuantisedLatent:
        """Quantises latents, with gradients.

        Args:
            features: ``(B, h, w, C)`` of the hyperprior.
            y: ``(B, h, w, M)`` in quantisation steps.
            rounding: What is coded of residuals; sees all elements in every step.
        """
        height, width = y.shape[1:3]
        y_hat = torch.zeros_like(y)
        mean = torch.zeros_like(y)
        raw_scale = torch.zeros_like(y)
        for step in range(STEPS):
            prediction = self(step, features, y_hat)
            mask = step_mask(step, height, width, self.latent_channels, y.device)
            mean = torch.where(mask, prediction.mean, mean)
            raw_scale = torch.where(mask, prediction.raw_scale, raw_scale)
            decoded = rounding(y - prediction.mean, prediction.raw_scale) + prediction.mean
            y_hat = torch.where(mask, decoded, y_hat)
        return QuantisedLatent(y_hat, mean, raw_scale)

    def code(self, features: Tensor, exchange: Exchange) -> Tensor:
        """Goes through the four steps of latents, on integers.

        Args:
            features: ``(B, h, w, C)``, in units.
            exchange: Called once a step, in order.
        """
        y_hat = features.new_zeros((*features.shape[:3], self.latent_channels))
        flat = y_hat.view(-1)
        for step in range(STEPS):
            head = cast("FixedPointLinear", self.heads[step])
            mean, raw_scale = _quarters(head, step, self._hidden(step, features, y_hat))
            positions = step_positions(step, y_hat.shape, features.device)
            mean = mean.flatten()
            flat[positions] = exchange(CodingStep(positions, mean, raw_scale.flatten())) + mean
        return y_hat


def step_positions(step: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Where the elements of a step are in a flattened batch of latents, in rising order.

    The same as the places where :func:`step_mask` is true, found without waiting for a GPU.

    Args:
        step: 0 to 3.
        shape: Of the batch, ``(B, height, width, M)``.
        device: Where the positions are made.

    Returns:
        int64, a quarter as many as there are elements.

    Example:
        >>> step_positions(0, (1, 2, 2, 4))
        tensor([ 0,  5, 10, 15])
    """
    batch, height, width, channels = shape
    size = channels // STEPS
    rows = torch.arange(height, device=device)[:, None] % 2
    columns = torch.arange(width, device=device) % 2
    quarter = (rows * 2 + columns).bitwise_xor(torch.full_like(rows, ORDER[step]))
    places = torch.arange(batch * height * width, device=device) * channels
    first = places.view(batch, height, width) + quarter * size
    return (first[..., None] + torch.arange(size, device=device)).flatten()


def _quarters(head: FixedPointLinear, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and raw scale ``(B, h, w, M / 4)`` of a step's elements alone: a quarter of the head's work."""
    batch, height, width, channels = x.shape
    size = head.weight.shape[0] // (2 * STEPS)
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    squares = x.view(batch, rows, 2, columns, 2, channels).permute(2, 4, 0, 1, 3, 5)
    quarter = torch.arange(STEPS, device=x.device).bitwise_xor(torch.full((1,), ORDER[step], device=x.device))
    first = quarter[:, None] * size + torch.arange(size, device=x.device)
    chosen = torch.cat((first, first + STEPS * size), dim=1)
    found = head.grouped(squares.reshape(STEPS, -1, channels), chosen)
    found = found.view(2, 2, batch, rows, columns, 2 * size).permute(2, 3, 0, 4, 1, 5)
    found = found.reshape(batch, 2 * rows, 2 * columns, 2 * size)[:, :height, :width]
    mean, raw_scale = found.chunk(2, dim=-1)
    return mean, raw_scale
