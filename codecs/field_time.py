"""Fields between two compressed snapshots, by moving both towards each other along the flow.

Small eddies are carried by large ones much faster than they change (Taylor's and Tennekes' sweeping), so a
value at an intermediate time is looked up where the flow has carried it from, in both snapshots:

::

    u(x) ~ (1 - t) a(x - t s u) + t b(x + (1 - t) s u)

with u smoothed, since eddies do not carry themselves. How far the flow moves between the snapshots, s, is
not in the streams; it is the number for which the two moved snapshots agree best. Fields that are no
velocities are blended in place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.field.projection import solenoidal

_COARSEST_STEPS = 12
_REFINEMENTS = 12
_LARGEST_SHIFT = 0.2
"""Most that the flow is taken to move, as a fraction of the shortest side."""

_SMOOTHING = 1 / 16
"""Standard deviation of the smoothing of the carrying velocity, as a fraction of the shortest side."""


def between(a: Tensor, b: Tensor, t: float, periodic: bool = False) -> Tensor:
    """The field at a time between two snapshots.

    Args:
        a: ``(3, D, H, W)`` velocities at time 0, component i along axis i, or any other field.
        b: The same at time 1.
        t: In [0, 1].
        periodic: The field continues at its far ends; the result has no divergence then.

    Returns:
        Shape and type of ``a``.

    Raises:
        ValueError: The shapes differ or t is out of range.

    Example:
        >>> a = torch.rand(3, 8, 8, 8)
        >>> torch.equal(between(a, a + 1, 0.0), a)
        True
    """
    if a.shape != b.shape:
        raise ValueError(f"snapshots have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if not 0 <= t <= 1:
        raise ValueError(f"t must be within 0 and 1, got {t}")
    if t in (0, 1):
        return (b if t else a).clone()
    first, second = a.float(), b.float()
    blend = (1 - t) * first + t * second
    if a.ndim != 4 or a.shape[0] != 3:
        return blend.to(a.dtype)
    way = travel(first, second, periodic) * _smoothed(blend, periodic)
    moved = (1 - t) * _carried(first, -t * way, periodic) + t * _carried(second, (1 - t) * way, periodic)
    return (solenoidal(moved) if periodic else moved).to(a.dtype)


def travel(a: Tensor, b: Tensor, periodic: bool) -> float:
    """Grid spacings that a unit of velocity moves: where two snapshots, moved half-way, agree best.

    Args:
        a: ``(3, D, H, W)``, float32.
        b: The same.
        periodic: The field continues at its far ends.
    """
    middle = _smoothed(0.5 * (a + b), periodic)
    fastest = float(middle.abs().max())
    if not fastest:
        return 0.0

    def disagreement(shift: float) -> float:
        early = _carried(a, -0.5 * shift * middle, periodic)
        late = _carried(b, 0.5 * shift * middle, periodic)
        return float((early - late).square().mean())

    largest = _LARGEST_SHIFT * min(a.shape[1:]) / fastest
    grid = [largest * step / _COARSEST_STEPS for step in range(_COARSEST_STEPS + 1)]
    found = [disagreement(shift) for shift in grid]
    best = found.index(min(found))
    low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_REFINEMENTS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if disagreement(left) < disagreement(right):
            high = right
        else:
            low = left
    return 0.5 * (low + high)


def _smoothed(field: Tensor, periodic: bool) -> Tensor:
    """Two running means along every axis, which come close to a Gaussian."""
    width = 2 * round(0.5 * math.sqrt(6) * _SMOOTHING * min(field.shape[1:])) + 1
    half = width // 2
    for _ in range(2):
        padded = F.pad(field[None], (half,) * 6, mode="circular" if periodic else "replicate")
        field = F.avg_pool3d(padded, width, stride=1)[0]
    return field


def _carried(field: Tensor, displacement: Tensor, periodic: bool) -> Tensor:
    """Values of a field ``(C, D, H, W)`` where a displacement ``(3, D, H, W)`` leads, in spacings."""
    sizes = field.shape[1:]
    # Wide enough for the largest displacement, so that points beyond an end find what continues there.
    reach = min(*sizes, math.ceil(float(displacement.abs().max())) + 1) if periodic else 0
    padded = F.pad(field[None], (reach,) * 6, mode="circular") if reach else field[None]
    axes = [torch.arange(size, dtype=field.dtype, device=field.device) + reach for size in sizes]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")) + displacement
    # The sampler wants coordinates in [-1, 1], last axis first.
    extents = torch.tensor(padded.shape[2:], dtype=field.dtype, device=field.device)
    scaled = 2 * points / (extents - 1).clamp(min=1)[:, None, None, None] - 1
    where = scaled.flip(0).permute(1, 2, 3, 0)[None]
    return F.grid_sample(padded, where, mode="bilinear", padding_mode="border", align_corners=True)[0]
