"""Polygons as a radiance field: distance and colour at any place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.mesh_solid import fast_winding
from latentpress.codecs.polygon_stream import PolygonMesh
from latentpress.models.shape.generator import ShapeGenerator
from latentpress.models.shape.radiance import RadianceField

_THICKNESS = 0.01


class PolygonField(RadianceField):
    """Density and colour around a decoded mesh, with the interface of any radiance field.

    Inside is where winding numbers say so; everything else is outside, but not nearer to the surface than
    0.01 of half the longest side counts as solid, so that sheets are seen.

    Args:
        generator: Whose density follows from the distance.
        mesh: In the cube.
    """

    def __init__(self, generator: ShapeGenerator, mesh: PolygonMesh) -> None:
        self.generator = generator
        self.mesh = mesh
        self.scale = mesh.header.pose.scale
        self.centre = torch.tensor(mesh.header.pose.centre, dtype=torch.float32)
        self._vertices = mesh.vertices.astype(np.float64)
        self._triangles = torch.from_numpy(mesh.vertices[mesh.faces])

    @property
    def device(self) -> torch.device:
        """Where the field is evaluated."""
        return torch.device("cpu")

    def signed_distance(self, points: Tensor) -> Tensor:
        """Signed distance ``(N,)`` at ``(N, 3)``, negative inside; without derivatives."""
        import igl

        inner = self._inner(points.detach())
        squared, _, _ = igl.point_mesh_squared_distance(
            inner.double().numpy(), self._vertices, self.mesh.faces
        )
        distance = torch.from_numpy(np.sqrt(squared)).float()
        inside = fast_winding(inner, self._triangles).abs() > 0.5
        return torch.where(inside, -distance, distance - _THICKNESS) * self.scale

    def colour(self, points: Tensor) -> Tensor:
        """RGB in [0, 1], ``(N, 3)`` at ``(N, 3)``: of the nearest place; grey without any."""
        if self.mesh.colours is None:
            return torch.full_like(points, 0.5)
        import igl

        inner = self._inner(points.detach()).double().numpy()
        _, face, near = igl.point_mesh_squared_distance(inner, self._vertices, self.mesh.faces)
        corners = self._vertices[self.mesh.faces[face]]
        weights = corner_weights(corners, near)
        colours = self.mesh.colours[self.mesh.faces[face]] / 255.0
        return torch.from_numpy((colours * weights[:, :, None]).sum(1)).float().clamp(0, 1)


def corner_weights(corners: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Of the corners ``(N, 3, 3)`` of triangles at points in them, ``(N, 3)``."""
    a, b, c = (corners[:, k] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.square(normal).sum(1).clip(1e-30)
    first = (np.cross(c - b, points - b) * normal).sum(1) / area
    second = (np.cross(a - c, points - c) * normal).sum(1) / area
    found = np.stack((first, second, 1 - first - second), axis=1).clip(0, 1)
    return np.asarray(found / found.sum(1, keepdims=True).clip(1e-12))
