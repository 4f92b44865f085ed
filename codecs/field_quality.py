"""How close a decoded flow is to the truth, judged without it: the critic's score.

A discriminator that was trained to tell decoded velocity fields from simulated ones, and to say by how much
they are off, looks at small cubes of a field. What it knows is turbulence: fields of another kind get scores
that mean nothing.

::

    field (3, D, H, W) -> unit variance -> tiles of 64^3 -> critic -> score of every 8^3 cube -> mean
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from latentpress.codecs.byte_weights import from_bytes
from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.models.field.transforms import COMPONENTS, Discriminator

SMALLEST_SIDE = 12
"""The discriminator halves three times and keeps clear of the border."""

_TILE = 64
"""Side of the crops it was trained with; larger fields are looked at in tiles of this size."""


class FlowCritic:
    """Scores velocity fields.

    Args:
        channels: Width of the discriminator's first layer.
        tensors: Its arrays, as a weight file holds them.
        device: Where it runs.

    Raises:
        ValueError: The arrays do not fit.

    Example:
        >>> state = Discriminator(2).state_dict()
        >>> critic = FlowCritic(2, {name: tensor.numpy() for name, tensor in state.items()})
        >>> isinstance(critic.score(torch.rand(3, 16, 16, 16)), float)
        True
    """

    def __init__(self, channels: int, tensors: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        arrays = from_bytes(tensors)
        network = build_network(lambda: Discriminator(channels), channels, arrays)
        fill_network(network, arrays)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)

    @torch.inference_mode()
    def score(self, field: Tensor) -> float:
        """The score of a field: an estimate of ``-log10(NRMSE)``, from 0 for noise to 3 for the truth.

        Args:
            field: ``(3, D, H, W)`` velocities, component i along axis i, finite, at least 12 points a side.

        Raises:
            ValueError: The field is no velocity field in three dimensions, too small, or not finite.
        """
        if field.ndim != 4 or field.shape[0] != COMPONENTS or min(field.shape[1:]) < SMALLEST_SIDE:
            raise ValueError(
                "the critic scores velocities (3, D, H, W) of at least "
                f"{SMALLEST_SIDE} points a side, got {tuple(field.shape)}"
            )
        centred = field.double() - field.double().mean(dim=(1, 2, 3), keepdim=True)
        size = float(centred.square().mean().sqrt())
        if not torch.isfinite(centred).all():
            raise ValueError("the critic scores fields whose values are all finite")
        scaled = (centred / (size or 1.0)).float()
        total, weight = 0.0, 0
        with torch.autocast(self._device.type, enabled=False):
            for tile in _tiles(scaled):
                scores = self._network(tile.permute(1, 2, 3, 0)[None].to(self._device))
                total += float(scores.double().sum())
                weight += scores.numel()
        return total / weight


def _tiles(field: Tensor) -> Iterator[Tensor]:
    """Tiles that cover a field; the last along an axis reaches back where the side is no multiple."""
    starts = [_starts(side) for side in field.shape[1:]]
    for i in starts[0]:
        for j in starts[1]:
            for k in starts[2]:
                yield field[:, i : i + _TILE, j : j + _TILE, k : k + _TILE]


def _starts(side: int) -> list[int]:
    if side <= _TILE:
        return [0]
    return [*range(0, side - _TILE, _TILE), side - _TILE]
