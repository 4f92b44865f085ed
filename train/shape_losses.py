"""Losses that compare a decoded field with samples of a shape."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.shape.generator import TRUNCATION, ShapeField, ShapeGenerator

COLOUR_REACH = 0.02
"""Colours are asked for this far off the surface, because a decoded surface is off by about as much."""


class FieldErrors(NamedTuple):
    """Differences between a decoded field and a shape, each ``(B,)``.

    Attributes:
        truncated: Mean error of the truncated signed distance at the queries, longest side 2.
        surface: Mean decoded distance at points of the surface, where it should be zero.
        sign: Cross entropy of inside and outside at the queries, in nats.
        colour: Mean absolute error of RGB in [0, 1] at the surface; zero without colour.
    """

    truncated: Tensor
    surface: Tensor
    sign: Tensor
    colour: Tensor


def truncated_error(decoded: Tensor, distance: Tensor) -> Tensor:
    """Absolute error of a signed distance that is only known up to :data:`TRUNCATION`.

    Being farther out than the truncation on the right side is no error; clamping the decoded value instead
    would leave values on the wrong side without a gradient.

    Example:
        >>> decoded, distance = torch.tensor([0.3, -0.3, 0.05]), torch.tensor([0.2, 0.2, 0.03])
        >>> [round(float(e), 3) for e in truncated_error(decoded, distance)]
        [0.0, 0.4, 0.02]
    """
    target = distance.clamp(-TRUNCATION, TRUNCATION)
    error = decoded - target
    beyond = (target.abs() >= TRUNCATION) & (error * target > 0)
    return torch.where(beyond, torch.zeros_like(error), error.abs())


def field_errors(
    generator: ShapeGenerator, field: ShapeField, surface: Tensor, queries: Tensor
) -> FieldErrors:
    """Compares decoded fields with shapes.

    Args:
        generator: That made the fields.
        field: Of B shapes.
        surface: ``(B, S, 9)`` surface points, see ``generator.POINT_CHANNELS``.
        queries: ``(B, Q, 4)`` positions and signed distances.
    """
    positions = torch.cat((queries[..., :3], surface[..., :3]), dim=1)
    decoded = generator.signed_distance(field, positions)
    at_queries, on_surface = decoded.split((queries.shape[1], surface.shape[1]), dim=1)
    distance = queries[..., 3]
    inside = F.binary_cross_entropy_with_logits(
        -at_queries * (2 / TRUNCATION), (distance < 0).float(), reduction="none"
    )
    colour = torch.zeros_like(distance[:, 0])
    if field.colour is not None:
        where = surface[..., :3] + torch.randn_like(surface[..., :3]) * COLOUR_REACH
        found = generator.colour_at(field, where)
        colour = (found - 0.5 - surface[..., 6:]).abs().mean(dim=(1, 2))
    return FieldErrors(
        truncated_error(at_queries, distance).mean(1), on_surface.abs().mean(1), inside.mean(1), colour
    )
