"""Implicit functions: gradients, projection onto the zero level, samples of the surface."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
"""``(B, M, 3) -> (B, M)``, negative inside."""

_PROJECTIONS = 6
_TOLERANCE = 4e-3
_LONGEST_STEP = 0.1
_JITTER = 0.02


class SurfaceSamples(NamedTuple):
    """Samples of the surfaces of a batch of shapes.

    Attributes:
        position: ``(B, N, 3)``.
        normal: ``(B, N, 3)``, outward, of unit length.
        usable: ``(B,)``: false where a shape is empty or has too little surface.
    """

    position: Tensor
    normal: Tensor
    usable: Tensor


def value_and_gradient(function: Function, points: Tensor) -> tuple[Tensor, Tensor]:
    """An implicit function and its gradient at ``(B, M, 3)``.

    Example:
        >>> value, gradient = value_and_gradient(lambda p: p.norm(dim=-1) - 1, torch.tensor([[[2.0, 0, 0]]]))
        >>> value.tolist(), gradient.tolist()
        ([[1.0]], [[[1.0, 0.0, 0.0]]])
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        value = function(points)
        (gradient,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), gradient.nan_to_num()


def project(function: Function, points: Tensor, steps: int = _PROJECTIONS) -> tuple[Tensor, Tensor, Tensor]:
    """Moves points to the zero level by Newton steps along the gradient.

    Args:
        function: The implicit function.
        points: ``(B, M, 3)``.
        steps: Number of steps.

    Returns:
        Points, unit normals ``(B, M, 3)``, and the estimated distances that are left, ``(B, M)``.
    """
    for _ in range(steps):
        value, gradient = value_and_gradient(function, points)
        step = value / gradient.square().sum(-1).clamp(min=1e-4)
        move = (gradient * step[..., None]).clamp(-_LONGEST_STEP, _LONGEST_STEP)
        points = (points - move).clamp(-2, 2)
    value, gradient = value_and_gradient(function, points)
    length = gradient.norm(dim=-1).clamp(min=1e-4)
    return points, gradient / length[..., None], value.abs() / length


def sample_surface(
    function: Function,
    candidates: Tensor,
    count: int,
    half_width: float,
    generator: torch.Generator | None = None,
) -> SurfaceSamples:
    """Samples surfaces, about uniform over their area.

    Points of a thin shell around the surface, uniform in volume, are projected onto it.

    Args:
        function: The implicit function, about a distance near its zero level.
        candidates: ``(B, M, 3)`` uniform in the cube; M at least ``count``.
        count: N.
        half_width: The cube is ``[-half_width, half_width]^3``; the surface outside is left out.
        generator: Of the candidates' device.
    """
    value, gradient = value_and_gradient(function, candidates)
    distance = value.abs() / gradient.norm(dim=-1).clamp(min=1e-2)
    shell = distance.topk(count, dim=1, largest=False).indices
    start = candidates.gather(1, shell[..., None].expand(-1, -1, 3))
    noise = torch.randn(start.shape, generator=generator, device=start.device)
    points, normals, left = project(function, start + noise * _JITTER)
    good = (left < _TOLERANCE) & (points.abs().amax(-1) < half_width) & torch.isfinite(points).all(-1)
    good &= normals.norm(dim=-1) > 0.9
    usable = good.sum(1) >= count // 2
    # Failed points are replaced by good ones, so that the batch stays rectangular.
    order = torch.argsort(good.to(torch.uint8), dim=1, descending=True, stable=True)
    repeat = torch.arange(count, device=points.device)[None] % good.sum(1, keepdim=True).clamp(min=1)
    index = order.gather(1, repeat)[..., None].expand(-1, -1, 3)
    return SurfaceSamples(points.gather(1, index), normals.gather(1, index), usable)
