"""Samples of shapes for training: from formulas, and from real meshes bent in many ways, made on the GPU.

::

    formulas ---------------------> surface points --+
    meshes -> bend -> winding numbers -> surface ----+--> colour, signed distances
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.models.shape.oriented_points import (
    FaceSides,
    OrientedPoints,
    distance_to_samples,
    face_normals,
    face_sides,
    make_solid,
    sample_solid,
    signed_distance,
)
from latentpress.train.data.analytic import Draw, analytic_shapes
from latentpress.train.data.shape_pool import ShapeSamples
from latentpress.train.data.surface_colour import procedural_colour

_ANALYTIC_BATCH = 64
_COLOURED_AT_ONCE = 64
_QUERY_HALF_WIDTH = 1.15


class SampleCounts:
    """How many samples a shape is kept as.

    Args:
        surface: Points of the surface.
        queries: Points with a signed distance.
        dense: Points of the surface that distances are measured to.
    """

    def __init__(self, surface: int = 4096, queries: int = 6144, dense: int = 12288) -> None:
        self.surface = surface
        self.queries = queries
        self.dense = max(dense, surface)


def query_points(surface: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points to measure distances at: half very near the surface, a quarter around it, a quarter anywhere.

    Args:
        surface: ``(N, 3)``.
        count: M.
        generator: Of the points' device.

    Returns:
        ``(M, 3)``, in random order.
    """
    device = surface.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    anywhere = (uniform(count // 4, 3) * 2 - 1) * _QUERY_HALF_WIDTH
    near = count - count // 4
    base = surface[torch.randint(len(surface), (near,), generator=generator, device=device)]
    width = 0.006 * (10 ** uniform(near, 1))
    width[: count // 4] = 0.05 + 0.15 * uniform(count // 4, 1)
    noise = torch.randn((near, 3), generator=generator, device=device)
    points = torch.cat((base + noise * width, anywhere)).clamp(-_QUERY_HALF_WIDTH, _QUERY_HALF_WIDTH)
    return points[torch.randperm(count, generator=generator, device=device)]


class PlainShape(NamedTuple):
    """One shape's entry of a pool, before it is coloured.

    Attributes:
        surface: ``(1, P, 6)`` float16: position and outward normal.
        queries: ``(1, Q, 4)`` float16: position and signed distance.
    """

    surface: Tensor
    queries: Tensor

    @classmethod
    def of(cls, dense: OrientedPoints, kept: int, queries: Tensor, distance: Tensor) -> PlainShape:
        """Keeps the first samples of a surface, and queries ``(Q, 3)`` with their distances ``(Q,)``."""
        surface = torch.cat((dense.position[:kept], dense.normal[:kept]), dim=-1)
        return cls(surface.half()[None], torch.cat((queries, distance[:, None]), dim=-1).half()[None])


def coloured(shapes: list[PlainShape], generator: torch.Generator) -> ShapeSamples:
    """Colours shapes, many at once: one by one, a GPU would wait for the launches.

    Args:
        shapes: At least one, all with as many samples.
        generator: Of their device.
    """
    surface, queries = (torch.cat(parts) for parts in zip(*shapes, strict=True))
    colour = [
        (procedural_colour(part[..., :3].float(), generator) * 255).round().to(torch.uint8)
        for part in surface.split(_COLOURED_AT_ONCE)
    ]
    return ShapeSamples(surface, torch.cat(colour), queries)


def analytic_samples(count: int, counts: SampleCounts, device: torch.device | str, seed: int) -> ShapeSamples:
    """Samples of shapes from formulas.

    Args:
        count: Number of shapes.
        counts: Samples a shape.
        device: Where they are made and kept.
        seed: Of all randomness.
    """
    shapes: list[PlainShape] = []
    colours = torch.Generator(device).manual_seed(seed)
    while len(shapes) < count:
        draw = Draw(min(_ANALYTIC_BATCH, count), device, seed)
        seed += 1
        batch = analytic_shapes(draw, counts.dense)
        low, high = batch.surface.position.amin(1), batch.surface.position.amax(1)
        centre, scale = (low + high) / 2, 2 / (high - low).amax(-1).clamp(min=1e-3)
        queries, dense = [], []
        for k in range(draw.batch):
            position = (batch.surface.position[k] - centre[k]) * scale[k]
            dense.append(OrientedPoints(position, batch.surface.normal[k]))
            queries.append(query_points(position, counts.queries, draw.generator))
        # The program evaluates all shapes of a batch together.
        asked = torch.stack(queries)
        inside = batch.function(asked / scale[:, None, None] + centre[:, None]) < 0
        for k in batch.surface.usable.nonzero().flatten().tolist():
            distance, _ = distance_to_samples(asked[k], dense[k])
            signed = torch.where(inside[k], -distance, distance)
            order = torch.randperm(counts.dense, generator=draw.generator, device=draw.device)
            shuffled = OrientedPoints(*(part[order] for part in dense[k]))
            shapes.append(PlainShape.of(shuffled, counts.surface, asked[k], signed))
    return coloured(shapes[:count], colours)


def read_meshes(path: str | Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Vertices and faces of a mesh collection.

    Args:
        path: An npz file with ``verts_u16`` (0 to 65535 for -1 to 1), ``faces`` (indices within a mesh),
            ``vert_offset`` and ``face_offset``.

    Returns:
        Vertices ``(V, 3)`` float32 and faces ``(F, 3)`` int64 for each mesh.
    """
    with np.load(path) as data:
        vertices = data["verts_u16"].astype(np.float32) / 65535 * 2 - 1
        faces = data["faces"].astype(np.int64)
        v, f = data["vert_offset"], data["face_offset"]
    return [(vertices[v[k] : v[k + 1]], faces[f[k] : f[k + 1]]) for k in range(len(v) - 1)]


def bend(vertices: Tensor, generator: torch.Generator, host: torch.Generator) -> Tensor:
    """A mild random deformation: stretched, tapered, twisted and pushed about by long waves.

    Args:
        vertices: ``(V, 3)``, longest side about 2.
        generator: Of the vertices' device.
        host: Chooses the kind of deformation, without waiting for the device.
    """
    device = vertices.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    x = vertices * torch.exp(uniform(-0.45, 0.45, 3))
    axis = int(torch.randint(3, (), generator=host))
    along = x[:, axis : axis + 1]
    kind = float(torch.rand((), generator=host))
    if kind < 0.3:
        scale = 1 + uniform(-0.45, 0.45, 1) * along
        x = torch.cat([x[:, k : k + 1] * (scale if k != axis else 1) for k in range(3)], dim=1)
    elif kind < 0.5:
        angle = uniform(-1.0, 1.0, 1) * along[:, 0]
        first, second = (k for k in range(3) if k != axis)
        turned = list(x.unbind(1))
        turned[first] = x[:, first] * angle.cos() - x[:, second] * angle.sin()
        turned[second] = x[:, first] * angle.sin() + x[:, second] * angle.cos()
        x = torch.stack(turned, dim=1)
    waves = 4
    direction = torch.randn((waves, 3), generator=generator, device=device) * uniform(0.8, 3.0, waves, 1)
    push = torch.randn((waves, 3), generator=generator, device=device) * uniform(0.0, 0.06, 1)
    return x + torch.sin(x @ direction.T + uniform(0, 6.28, waves)) @ push


def unit_triangles(vertices: Tensor, faces: Tensor) -> Tensor:
    """Triangles ``(F, 3, 3)`` of a mesh, centred with longest side 2."""
    used = vertices[faces.unique()]
    low, high = used.amin(0), used.amax(0)
    return ((vertices - (low + high) / 2) * (2 / (high - low).amax().clamp(min=1e-12)))[faces]


class MeshSampler:
    """Samples one mesh, as it is or bent; what its faces enclose is found out once.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        device: Where the work is done.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, device: torch.device | str) -> None:
        self.vertices = torch.from_numpy(vertices).to(device)
        self.faces = torch.from_numpy(faces).to(device)
        triangles = unit_triangles(self.vertices, self.faces)
        self.sides: FaceSides = face_sides(triangles, face_normals(triangles)[0])

    def samples(
        self, counts: SampleCounts, generator: torch.Generator, bent_by: torch.Generator | None = None
    ) -> PlainShape:
        """Samples of the mesh.

        Args:
            counts: How many.
            generator: Of the mesh's device.
            bent_by: Chooses a deformation, on the host; None leaves the mesh as it is.

        Raises:
            ValueError: No face of the mesh is surface.
        """
        vertices = self.vertices if bent_by is None else bend(self.vertices, generator, bent_by)
        solid = make_solid(unit_triangles(vertices, self.faces), self.sides)
        dense = sample_solid(solid, counts.dense, generator)
        queries = query_points(dense.position, counts.queries, generator)
        return PlainShape.of(dense, counts.surface, queries, signed_distance(queries, solid, dense))


def mesh_samples(
    meshes: list[tuple[np.ndarray, np.ndarray]],
    variants: int,
    counts: SampleCounts,
    device: torch.device | str,
    seed: int,
) -> ShapeSamples:
    """Samples of real meshes.

    Args:
        meshes: Vertices and faces.
        variants: Of every mesh; the first is the mesh itself, the others are bent.
        counts: Samples a shape.
        device: Where they are made and kept.
        seed: Of all randomness.
    """
    generator, host = torch.Generator(device).manual_seed(seed), torch.Generator().manual_seed(seed)
    shapes = []
    for vertices, faces in meshes:
        try:
            sampler = MeshSampler(vertices, faces, device)
            shapes += [sampler.samples(counts, generator, host if k else None) for k in range(variants)]
        except ValueError:  # some collections hold empty or flat meshes
            continue
    return coloured(shapes, generator)
