"""Stage 3 of the shape codec: the encoder that is frozen afterwards, trained without labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.shape.generator import TRUNCATION
from latentpress.models.shape.point_encoder import ImplicitAutoencoder
from latentpress.train.shape_losses import COLOUR_REACH
from latentpress.train.shape_training import ShapeTraining

_HIDDEN_BALLS = 2
_BALL_RADIUS = 0.35


class EncoderTerms(NamedTuple):
    """The loss of a batch, and what it is made of.

    Attributes:
        loss: Scalar to minimise.
        distance: Mean error of the truncated unsigned distance, longest side 2.
        colour: Mean absolute error of RGB in [0, 1].
    """

    loss: Tensor
    distance: Tensor
    colour: Tensor


class EncoderTraining(ShapeTraining):
    """Trains an :class:`ImplicitAutoencoder` on surfaces of which parts are hidden.

    In half of the shapes, the points in a few balls are replaced by others: the encoder has to know what
    shapes are like, not only where points are.

    Args:
        network: Encoder and decoder.
        lr: Peak learning rate.
        weight_decay: Of the hidden matrices.
        colour_weight: Of the colour error.
        compile_network: Compile and record the step on a GPU.
        init_from: Checkpoint of the same stage to start from, see the base class.
    """

    def __init__(
        self,
        network: ImplicitAutoencoder,
        lr: float = 1.5e-3,
        weight_decay: float = 0.02,
        colour_weight: float = 0.5,
        compile_network: bool = True,
        init_from: str | None = None,
    ) -> None:
        super().__init__(network, lr, weight_decay, compile_network, init_from)
        self.colour_weight = colour_weight

    def loss_of_batch(self, points: Tensor, surface: Tensor, queries: Tensor) -> EncoderTerms:
        """The loss of a :class:`latentpress.train.data.shape_pool.ShapeBatch`."""
        coloured = surface[..., :3] + torch.randn_like(surface[..., :3]) * COLOUR_REACH
        places = torch.cat((queries[..., :3], surface[..., :3], coloured), dim=1)
        guess = self.network(hide_balls(points), places)
        counts = (queries.shape[1], surface.shape[1], surface.shape[1])
        at_queries, on_surface, _ = guess.distance.split(counts, dim=1)
        target = (queries[..., 3].abs() / TRUNCATION).clamp(max=1)
        distance = (at_queries.clamp(max=1) - target).abs().mean() + on_surface.mean()
        # Beyond the truncation nothing is asked, but a clamp alone would leave overshoots without a gradient.
        distance = distance + F.relu(at_queries - 1).mean() * 0.1
        colour = (guess.colour[:, -surface.shape[1] :] - surface[..., 6:]).abs().mean()
        loss = distance + self.colour_weight * colour
        return EncoderTerms(loss, distance.detach() * TRUNCATION, colour.detach())


def hide_balls(points: Tensor) -> Tensor:
    """Replaces the points in random balls on the surface by points elsewhere, in half of the shapes.

    Args:
        points: ``(B, N, 9)`` in random order.
    """
    batch, count = points.shape[:2]
    chosen = torch.randint(count, (batch, _HIDDEN_BALLS), device=points.device)
    centres = points[..., :3].gather(1, chosen[..., None].expand(-1, -1, 3))
    squared = (points[:, :, None, :3] - centres[:, None]).square().sum(-1)
    hidden = (squared < _BALL_RADIUS**2).any(-1)
    hidden &= torch.rand((batch, 1), device=points.device) < 0.5
    # Visible points first; the others are replaced by going round the visible ones again.
    order = torch.argsort(hidden.to(torch.uint8), dim=1, stable=True)
    visible = (~hidden).sum(1, keepdim=True).clamp(min=1)
    index = order.gather(1, torch.arange(count, device=points.device)[None] % visible)
    return points.gather(1, index[..., None].expand(-1, -1, points.shape[-1]))
