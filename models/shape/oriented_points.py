"""Signed distances from dense surface samples, and which side of a triangle soup a point is on.

Real meshes are open, cut themselves and have faces inside; "inside" is then a matter of degree, which the
generalised winding number measures (Jacobson et al., "Robust inside-outside segmentation", 2013). Distances
come from oriented samples of the surface instead of its triangles: the same code serves analytic shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SHEET_HALF_THICKNESS = 0.012
"""Surfaces with the outside on both sides become solids this thick to each side, longest side 2."""

Winding = Callable[[Tensor, Tensor], Tensor]
"""Winding numbers ``(N,)`` of points ``(N, 3)`` and triangles ``(F, 3, 3)``."""

_PAIRS_AT_ONCE = 2**24
_SIDE_STEP = 2e-3


class OrientedPoints(NamedTuple):
    """Samples of a closed surface.

    Attributes:
        position: ``(N, 3)``.
        normal: ``(N, 3)``, outward, of unit length.
    """

    position: Tensor
    normal: Tensor


class FaceSides(NamedTuple):
    """What the sides of faces are, by winding number.

    Attributes:
        boundary: ``(F,)``: inside on one side, outside on the other.
        sheet: ``(F,)``: outside on both sides.
        flipped: ``(F,)``: boundary faces whose normal points inside.
    """

    boundary: Tensor
    sheet: Tensor
    flipped: Tensor


def winding_number(points: Tensor, triangles: Tensor) -> Tensor:
    """Generalised winding number of a triangle soup around points: 1 inside, 0 outside, between at holes.

    Sums the solid angles of all triangles (Van Oosterom and Strackee, 1983).

    Args:
        points: ``(N, 3)``.
        triangles: ``(F, 3, 3)``: faces, corners, coordinates.

    Returns:
        ``(N,)``.

    Example:
        >>> a, b, c, d = torch.eye(3).tolist() + [[0.0, 0.0, 0.0]]
        >>> tetrahedron = torch.tensor([[a, b, c], [d, b, a], [d, c, b], [d, a, c]])
        >>> winding_number(torch.tensor([[0.1, 0.1, 0.1], [2.0, 2.0, 2.0]]), tetrahedron).round().abs()
        tensor([1., 0.])
    """
    chunk = max(1, _PAIRS_AT_ONCE // max(1, len(triangles)))
    corners = triangles.unbind(1)
    return torch.cat([_solid_angles(part, corners) for part in points.split(chunk)]) / (2 * math.pi)


def _solid_angles(points: Tensor, corners: tuple[Tensor, ...]) -> Tensor:
    """Half of the sum of the solid angles, ``(N,)``."""
    a, b, c = ([x[None, :, k] - points[:, None, k] for k in range(3)] for x in corners)

    def dot(u: list[Tensor], v: list[Tensor]) -> Tensor:
        return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]

    length_a, length_b, length_c = (dot(v, v).sqrt() for v in (a, b, c))
    determinant = (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )
    denominator = length_a * length_b * length_c
    denominator = denominator + dot(a, b) * length_c + dot(b, c) * length_a + dot(c, a) * length_b
    return torch.atan2(determinant, denominator).sum(dim=1)


def face_normals(triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals ``(F, 3)`` and areas ``(F,)``; both are zero for a degenerate triangle."""
    cross = torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = cross.norm(dim=1)
    return cross / length.clamp(min=1e-20)[:, None], length / 2


def face_sides(triangles: Tensor, normals: Tensor, winding: Winding = winding_number) -> FaceSides:
    """Finds out what is on the two sides of every face.

    Args:
        triangles: ``(F, 3, 3)`` of a shape with longest side about 2.
        normals: ``(F, 3)``.
        winding: How winding numbers are computed.
    """
    centre = triangles.mean(dim=1)
    # Meshes whose faces all point inward have winding number -1 inside.
    front = winding(centre + _SIDE_STEP * normals, triangles).abs() > 0.5
    back = winding(centre - _SIDE_STEP * normals, triangles).abs() > 0.5
    return FaceSides(front != back, ~front & ~back, front & ~back)


class Solid(NamedTuple):
    """A triangle soup as a solid.

    Attributes:
        triangles: ``(F, 3, 3)``, all of them, for winding numbers.
        faces: ``(S,)`` indices of the faces that are surface; those inside the solid are not.
        normals: ``(S, 3)`` of these faces, outward.
        areas: ``(S,)`` of these faces.
        sheet: ``(S,)`` whether a face has the outside on both sides.
    """

    triangles: Tensor
    faces: Tensor
    normals: Tensor
    areas: Tensor
    sheet: Tensor


def make_solid(triangles: Tensor, sides: FaceSides) -> Solid:
    """Puts a :class:`Solid` together; ``sides`` may come from another pose or a mild deformation.

    Raises:
        ValueError: No face has an area and an outside.
    """
    normals, areas = face_normals(triangles)
    normals = torch.where(sides.flipped[:, None], -normals, normals)
    faces = ((sides.boundary | sides.sheet) & (areas > 1e-12)).nonzero().flatten()
    if not len(faces):
        raise ValueError("no face of the mesh has an area and an outside")
    return Solid(triangles, faces, normals[faces], areas[faces], sides.sheet[faces])


def sample_solid(solid: Solid, count: int, generator: torch.Generator | None = None) -> OrientedPoints:
    """Samples uniformly by area; sheets are sampled on both sides of their thickness.

    Args:
        solid: The shape.
        count: N.
        generator: Of the solid's device.
    """
    device = solid.triangles.device
    cumulative = torch.cumsum(solid.areas.double(), 0)
    # Stratified: far more even than independent draws for the same number of samples.
    jitter = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    position = (torch.arange(count, device=device) + jitter) / count * cumulative[-1]
    chosen = torch.searchsorted(cumulative, position).clamp(max=len(cumulative) - 1)
    chosen = chosen[torch.randperm(count, generator=generator, device=device)]
    root, v = (torch.rand(count, generator=generator, device=device) for _ in range(2))
    root = root.sqrt()
    weights = torch.stack((1 - root, root * (1 - v), root * v), dim=1)
    points = (solid.triangles[solid.faces[chosen]] * weights[:, :, None]).sum(dim=1)
    side = torch.rand(count, generator=generator, device=device) < 0.5
    sheet = solid.sheet[chosen]
    normals = torch.where((sheet & side)[:, None], -solid.normals[chosen], solid.normals[chosen])
    return OrientedPoints(points + normals * (SHEET_HALF_THICKNESS * sheet)[:, None], normals)


def turn(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Rows times matrices, ``(B, N, 3)`` and ``(B, 3, 3)``, in full float32 whatever products may use.

    Example:
        >>> x = torch.rand(2, 5, 3)
        >>> torch.equal(turn(x, torch.eye(3).expand(2, 3, 3)), x)
        True
    """
    return (vectors[..., :, None] * rotation[:, None]).sum(-2)


def nearest(points: Tensor, samples: Tensor) -> Tensor:
    """Index of the nearest sample, ``(N,)``."""
    chunk = max(1, _PAIRS_AT_ONCE // max(1, len(samples)))
    offset = samples.square().sum(1)
    found = []
    for part in points.split(chunk):
        # No matrix product, which may run in TF32, and no torch.cdist, which is slow for three coordinates.
        distance = offset - 2 * part[:, :1] * samples[:, 0]
        for axis in (1, 2):
            distance.addcmul_(part[:, axis : axis + 1], samples[:, axis], value=-2)
        found.append(distance.argmin(dim=1))
    return torch.cat(found)


def distance_to_samples(points: Tensor, surface: OrientedPoints) -> tuple[Tensor, Tensor]:
    """Unsigned distance, and on which side the nearest sample's tangent plane has a point.

    Near the surface the distance to the tangent plane counts, which is exact for plane faces, farther away
    the distance to the sample itself.

    Args:
        points: ``(N, 3)``.
        surface: Dense samples.

    Returns:
        Distances ``(N,)``, and ``(N,)`` whether a point is behind the plane.
    """
    index = nearest(points, surface.position)
    offset = points - surface.position[index]
    plane = (offset * surface.normal[index]).sum(dim=1)
    squared = offset.square().sum(dim=1)
    tangential = (squared - plane.square()).clamp(min=0)
    # How far the nearest sample lies aside is chance up to the samples' spacing, which this estimates.
    spacing = tangential.median()
    aside = (tangential - 2 * spacing).clamp(min=0)
    return (plane.square() + aside).sqrt(), plane < 0


def signed_distance(
    points: Tensor, solid: Solid, surface: OrientedPoints, winding: Winding = winding_number
) -> Tensor:
    """Signed distance to a solid, negative inside.

    Args:
        points: ``(N, 3)``.
        solid: The shape.
        surface: Dense samples of it, see :func:`sample_solid`.
        winding: How winding numbers are computed.

    Returns:
        ``(N,)``.
    """
    distance, behind = distance_to_samples(points, surface)
    inside = winding(points, solid.triangles).abs() > 0.5
    # Inside a sheet's thickness the winding number knows of no inside; the nearest plane does.
    inside |= solid.sheet.any() & behind & (distance < SHEET_HALF_THICKNESS)
    return torch.where(inside, -distance, distance)
