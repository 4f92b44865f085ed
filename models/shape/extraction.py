"""A decoded field to a triangle mesh: marching cubes on values that are computed near the surface only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.shape.generator import TRUNCATION
from latentpress.models.shape.layers import GRID_HALF_WIDTH
from latentpress.models.shape.smoothing import SMOOTHINGS, Smoothing, smoothed

COARSE_CELLS = 32
"""Cells each way of the first grid, whose values say where the surface is."""

_POINTS_AT_ONCE = 2**17


class ExtractedMesh(NamedTuple):
    """A mesh in the cube.

    Attributes:
        vertices: ``(V, 3)`` float32.
        faces: ``(F, 3)`` int64, counter-clockwise from outside.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]


def in_parts(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Evaluates a function of ``(1, N, 3)`` in parts that fit a processor's memory, joined along N."""
    return torch.cat([function(part) for part in points.split(_POINTS_AT_ONCE, dim=1)], dim=1)


@torch.inference_mode()
def grid_values(distance: Callable[[Tensor], Tensor], resolution: int, device: torch.device | str) -> Tensor:
    """Signed distances on a grid over the cube, interpolated where the surface is far.

    Args:
        distance: Maps ``(1, N, 3)`` to ``(1, N)``.
        resolution: Cells each way.
        device: Where the function computes.

    Returns:
        ``(resolution + 1,) * 3`` float32, indexed z, y, x.
    """
    coarse = min(resolution, COARSE_CELLS)
    values = in_parts(distance, _nodes(coarse, device)[None])[0].view((coarse + 1,) * 3)
    if resolution == coarse:
        return values
    size = (resolution + 1,) * 3
    values = F.interpolate(values[None, None], size, mode="trilinear", align_corners=True)[0, 0].contiguous()
    # Within a coarse cell the distance changes by no more than the cell's diagonal.
    reach = min(TRUNCATION * 0.9, 2 * GRID_HALF_WIDTH / coarse * 1.2)
    near = (values.flatten().abs() < reach).nonzero().flatten()
    if len(near):
        points = _nodes(resolution, device)[near]
        values.view(-1)[near] = in_parts(distance, points[None])[0]
    return values


def extract_mesh(
    distance: Callable[[Tensor], Tensor], resolution: int, device: torch.device | str
) -> ExtractedMesh:
    """The zero level of a signed distance as a mesh; without any vertices where there is no surface.

    Args:
        distance: Maps ``(1, N, 3)`` to ``(1, N)``.
        resolution: Cells each way.
        device: Where the function computes.
    """
    return surface_of(grid_values(distance, resolution, device))


def surface_of(distances: Tensor, smoothing: Smoothing = SMOOTHINGS[0]) -> ExtractedMesh:
    """The zero level of signed distances on a grid; without any vertices where there is no surface.

    Marching cubes is scikit-image's, which triangulates ambiguous cells consistently (Lewiner et al., 2003).

    Args:
        distances: As :func:`grid_values` gives them.
        smoothing: What the distances go through first.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ImportError("meshes need scikit-image: pip install 'latentpress[shape]'") from error
    cell = 2 * GRID_HALF_WIDTH / (len(distances) - 1)
    values = smoothed(distances, smoothing, cell).cpu().numpy()
    if not values.min() < 0 < values.max():
        return ExtractedMesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64))
    # What is solid at the cube's face would otherwise stay open there.
    padded = np.pad(values, 1, constant_values=float(TRUNCATION))
    vertices, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent")
    # Indices run z, y, x. Reversing the axes mirrors the mesh, which puts scikit-image's faces right way out.
    points = (vertices[:, ::-1] - 1) * cell - GRID_HALF_WIDTH
    return ExtractedMesh(np.ascontiguousarray(points, np.float32), np.ascontiguousarray(faces, np.int64))


def _nodes(cells: int, device: torch.device | str) -> Tensor:
    """Nodes of a grid over the cube, ``((cells + 1)^3, 3)``, x changing fastest."""
    line = torch.linspace(-GRID_HALF_WIDTH, GRID_HALF_WIDTH, cells + 1, device=device)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack((x, y, z), dim=-1).view(-1, 3)
