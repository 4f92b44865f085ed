"""Random shapes from formulas: compositions of primitives as implicit functions, made in batches.

A batch shares its *program* (which primitives, how combined), every shape in it has its own parameters. A
program is evaluated by a handful of elementwise operations on whole batches, and a few hundred programs are
as varied as anyone needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.shape.implicit import Function, SurfaceSamples, sample_surface
from latentpress.models.shape.oriented_points import turn

_CANDIDATES = 24576
_DOMAIN = 1.25
_EXTENT = 1.2


class AnalyticBatch(NamedTuple):
    """A batch of shapes.

    Attributes:
        surface: Samples of the surfaces.
        function: Implicit function of the batch.
    """

    surface: SurfaceSamples
    function: Function


class Draw:
    """Random parameters for the shapes of a batch, one generator behind all of them."""

    def __init__(self, batch: int, device: torch.device | str, seed: int) -> None:
        self.batch = batch
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        # Choices of the program are made on the host, where branching on them costs nothing.
        self.host = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """``(B, *shape)`` uniform in [low, high]."""
        u = torch.rand((self.batch, *shape), generator=self.generator, device=self.device)
        return low + (high - low) * u

    def normal(self, *shape: int) -> Tensor:
        """``(B, *shape)`` standard normal."""
        return torch.randn((self.batch, *shape), generator=self.generator, device=self.device)

    def choice(self, count: int) -> int:
        """A number below ``count``, the same for the batch."""
        return int(torch.randint(count, (), generator=self.host))

    def chance(self, probability: float) -> bool:
        """True with some probability, the same for the batch."""
        return bool(torch.rand((), generator=self.host) < probability)


def random_rotations(draw: Draw) -> Tensor:
    """``(B, 3, 3)`` uniform rotations, from unit quaternions."""
    w, x, y, z = torch.nn.functional.normalize(draw.normal(4), dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def superquadric(draw: Draw) -> Function:
    """Ellipsoids, boxes, cylinders, octahedra and all between (Barr, 1981)."""
    radii, e1, e2 = draw.uniform(0.12, 0.75, 1, 3), draw.uniform(0.15, 1.6, 1), draw.uniform(0.15, 1.6, 1)

    def function(p: Tensor) -> Tensor:
        x, y, z = (p.abs() / radii + 1e-4).unbind(-1)
        # Powers of logarithms, so that small exponents neither overflow nor lose their gradient.
        plane = (x.log() * (2 / e2)).clamp(max=30).exp() + (y.log() * (2 / e2)).clamp(max=30).exp()
        total = (plane.log() * (e2 / e1)).clamp(max=30).exp() + (z.log() * (2 / e1)).clamp(max=30).exp()
        return ((total.log() * (e1 / 2)).exp() - 1) * radii.amin(dim=-1)

    return function


def rounded_box(draw: Draw) -> Function:
    """Boxes with rounded edges, plates and bars among them."""
    sides, radius = draw.uniform(0.03, 0.8, 1, 3), draw.uniform(0.0, 0.12, 1)

    def function(p: Tensor) -> Tensor:
        q = p.abs() - sides
        outside = (q.clamp(min=0).square().sum(-1) + 1e-12).sqrt()
        return outside + q.amax(dim=-1).clamp(max=0) - radius

    return function


def tapered_capsule(draw: Draw) -> Function:
    """Capsules whose radius changes along their axis: limbs, handles, spouts."""
    length, first, second = (
        draw.uniform(0.1, 0.8, 1),
        draw.uniform(0.05, 0.35, 1),
        draw.uniform(0.04, 0.35, 1),
    )
    bend = draw.uniform(-0.6, 0.6, 1)

    def function(p: Tensor) -> Tensor:
        x, y, z = p.unbind(-1)
        x = x + bend * z.square()
        along = z.clamp(-length, length)
        radius = first + (second - first) * (along / length + 1) / 2
        return (x.square() + y.square() + (z - along).square() + 1e-12).sqrt() - radius

    return function


def torus(draw: Draw) -> Function:
    """Tori with an elliptic ring and an elliptic section."""
    ring, section = draw.uniform(0.25, 0.7, 1), draw.uniform(0.04, 0.22, 1)
    stretch, flatten = draw.uniform(0.6, 1.6, 1), draw.uniform(0.5, 2.0, 1)

    def function(p: Tensor) -> Tensor:
        x, y, z = p.unbind(-1)
        around = ((x * stretch).square() + y.square() + 1e-12).sqrt() - ring
        return (around.square() + (z * flatten).square() + 1e-12).sqrt() - section

    return function


def _radius_by_angle(draw: Draw, waves: int) -> Callable[[Tensor], Tensor]:
    """A closed profile as a radius that depends on the angle by a short Fourier series."""
    strength, phase = draw.normal(1, waves) * 0.12, draw.uniform(0, 6.28, 1, waves)
    order = 2 + torch.arange(waves, device=draw.device)

    def radius(angle: Tensor) -> Tensor:
        return 1 + (strength * torch.cos(order * angle[..., None] + phase)).sum(-1)

    return radius


def extrusion(draw: Draw) -> Function:
    """Profiles pulled along an axis, with twist and taper: gears, stars, prisms, cookies."""
    profile = _radius_by_angle(draw, 6)
    size, height = draw.uniform(0.2, 0.7, 1), draw.uniform(0.04, 0.8, 1)
    twist, taper = draw.uniform(-1.5, 1.5, 1) * draw.choice(2), draw.uniform(-0.5, 0.5, 1) * draw.choice(2)

    def function(p: Tensor) -> Tensor:
        x, y, z = p.unbind(-1)
        angle = torch.atan2(y, x + 1e-9) + twist * z
        scale = size * (1 + taper * z).clamp(min=0.1)
        side = ((x.square() + y.square() + 1e-12).sqrt() / scale - profile(angle)) * size * 0.7
        return torch.maximum(side, z.abs() - height)

    return function


def revolution(draw: Draw) -> Function:
    """Profiles turned around an axis, solid or hollow: vases, cups, bottles, wheels."""
    count = 4
    strength, phase = draw.normal(1, count) * 0.09, draw.uniform(0, 6.28, 1, count)
    order = torch.arange(1, count + 1, device=draw.device)
    size, height = draw.uniform(0.2, 0.6, 1), draw.uniform(0.15, 0.9, 1)
    wall = draw.uniform(0.04, 0.12, 1) if draw.chance(0.5) else None

    def function(p: Tensor) -> Tensor:
        x, y, z = p.unbind(-1)
        wave = (strength * torch.cos(2.5 * order * (z / height)[..., None] + phase)).sum(-1)
        side = (x.square() + y.square() + 1e-12).sqrt() - (size + wave).clamp(min=0.03)
        if wall is None:
            return torch.maximum(side, z.abs() - height)
        shell = (side + wall / 2).abs() - wall / 2
        bottom = torch.maximum(side, (z + height - wall / 2).abs() - wall / 2)
        return torch.minimum(torch.maximum(shell, z.abs() - height), bottom)

    return function


def metaballs(draw: Draw) -> Function:
    """A few balls that melt into each other: heads, bodies, stones."""
    count = 5
    centre, radius = draw.normal(1, count, 3) * 0.32, draw.uniform(0.1, 0.4, 1, count)
    softness = draw.uniform(12, 40, 1)

    def function(p: Tensor) -> Tensor:
        distance = ((p[:, :, None] - centre).square().sum(-1) + 1e-12).sqrt() - radius
        return -torch.logsumexp(-softness[..., None] * distance, dim=-1) / softness

    return function


PRIMITIVES = (superquadric, rounded_box, tapered_capsule, torus, extrusion, revolution, metaballs)


def _placed(primitive: Function, draw: Draw, spread: float) -> Function:
    """A primitive somewhere, turned somehow; the first of a shape stays in the middle and often upright."""
    rotation = random_rotations(draw)
    if draw.chance(0.5):
        rotation = torch.eye(3, device=draw.device)[torch.randperm(3, generator=draw.host)].expand_as(
            rotation
        )
    offset = draw.uniform(-spread, spread, 1, 3)
    mirror = draw.chance(0.3)

    def function(p: Tensor) -> Tensor:
        if mirror:
            x, y, z = p.unbind(-1)
            p = torch.stack(((x.square() + 1e-6).sqrt(), y, z), dim=-1)
        return primitive(turn(p - offset, rotation))

    return function


def _combined(first: Function, second: Function, draw: Draw) -> Function:
    """Union, smooth union, difference or intersection with a swollen second shape."""
    kind = draw.choice(8)
    softness = draw.uniform(0.02, 0.25, 1)

    def smooth_minimum(a: Tensor, b: Tensor) -> Tensor:
        # Polynomial blend (Quilez), which changes nothing farther than `softness` from the seam.
        h = (softness - (a - b).abs()).clamp(min=0) / softness
        return torch.minimum(a, b) - h.square() * softness / 4

    def function(p: Tensor) -> Tensor:
        a, b = first(p), second(p)
        if kind < 3:
            return torch.minimum(a, b)
        if kind < 5:
            return smooth_minimum(a, b)
        if kind < 7:
            return torch.maximum(a, -b) if kind == 5 else -smooth_minimum(-a, b)
        return torch.maximum(a, b - 0.3)

    return function


def _displaced(function: Function, draw: Draw) -> Function:
    """Waves of several lengths added to a surface."""
    waves = 5
    direction = draw.normal(1, waves, 3) * draw.uniform(2, 12, 1, 1, 1)
    strength, phase = draw.uniform(0, 0.035, 1, waves), draw.uniform(0, 6.28, 1, waves)

    def displaced(p: Tensor) -> Tensor:
        angles = p @ direction[:, 0].transpose(1, 2) + phase
        return function(p) + (strength * angles.sin()).sum(-1)

    return displaced


def random_program(draw: Draw, most_primitives: int = 8) -> Function:
    """A random composition for a batch, ``(B, M, 3) -> (B, M)``, negative inside."""
    count = 1 + draw.choice(most_primitives)
    function = _placed(PRIMITIVES[draw.choice(len(PRIMITIVES))](draw), draw, 0.1)
    for _ in range(count - 1):
        other = _placed(PRIMITIVES[draw.choice(len(PRIMITIVES))](draw), draw, 0.65)
        function = _combined(function, other, draw)
    if draw.chance(0.2):
        function = _displaced(function, draw)

    def bounded(p: Tensor) -> Tensor:
        return torch.maximum(function(p), p.abs().amax(dim=-1) - _EXTENT)

    return bounded


def analytic_shapes(draw: Draw, samples: int) -> AnalyticBatch:
    """Random shapes with surface samples.

    Args:
        draw: Of the batch.
        samples: N.
    """
    function = random_program(draw)
    candidates = draw.uniform(-_DOMAIN, _DOMAIN, max(_CANDIDATES, 2 * samples), 3)
    return AnalyticBatch(sample_surface(function, candidates, samples, _DOMAIN, draw.generator), function)
