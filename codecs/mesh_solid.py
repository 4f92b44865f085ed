"""What a mesh encloses: a solid told by winding numbers, or nothing but the thickness of its sheets.

A mesh that is open has two readings. A body with a hole is meant as a solid, and winding numbers close the
hole; the body of a car without a floor is meant as a shell, and closing it adds a floor that nobody drew.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.models.shape.oriented_points import (
    OrientedPoints,
    Solid,
    face_normals,
    face_sides,
    make_solid,
    nearest,
)

_PROBES = 8192
_PROBE_SAMPLES = 4096
_AWAY = 0.06
_UNSURE = (0.25, 0.75)
_UNSURE_SHARE = 0.004


def fast_winding(points: Tensor, triangles: Tensor) -> Tensor:
    """Winding numbers of many triangles (Barill et al., 2018), ``(N,)`` on the CPU.

    Args:
        points: ``(N, 3)``.
        triangles: ``(F, 3, 3)``.

    Example:
        >>> a, b, c, d = torch.eye(3).tolist() + [[0.0, 0.0, 0.0]]
        >>> tetrahedron = torch.tensor([[a, b, c], [d, b, a], [d, c, b], [d, a, c]])
        >>> fast_winding(torch.tensor([[0.1, 0.1, 0.1], [2.0, 2.0, 2.0]]), tetrahedron).round().abs()
        tensor([1., 0.])
    """
    try:
        import igl
    except ImportError as error:
        raise ImportError("meshes need libigl: pip install 'latentpress[shape]'") from error
    corners = triangles.double().reshape(-1, 3).numpy()
    faces = np.arange(len(corners), dtype=np.int64).reshape(-1, 3)
    found = igl.fast_winding_number(corners, faces, points.double().numpy())
    return torch.from_numpy(np.asarray(found)).float().nan_to_num()


def outside_everywhere(points: Tensor, triangles: Tensor) -> Tensor:
    """The winding numbers of shells: nothing is enclosed."""
    return torch.zeros(len(points))


def solid_of(triangles: NDArray[np.float32]) -> Solid:
    """The solid that a triangle soup ``(F, 3, 3)`` in the cube encloses.

    Raises:
        ValueError: No face has an area and an outside.
    """
    soup = torch.from_numpy(triangles)
    return make_solid(soup, face_sides(soup, face_normals(soup)[0], fast_winding))


def shell_of(solid: Solid) -> Solid:
    """The same faces as sheets with the outside on both sides."""
    return solid._replace(sheet=torch.ones_like(solid.sheet))


def has_unsure_inside(solid: Solid, surface: OrientedPoints) -> bool:
    """Whether holes let much of the space be neither clearly inside nor clearly outside.

    Args:
        solid: Of the mesh; one of sheets alone has no inside to be unsure of.
        surface: Samples of it.
    """
    if solid.sheet.all():
        return False
    random = torch.Generator().manual_seed(0)
    places = torch.rand((_PROBES, 3), generator=random) * 2 - 1
    winding = fast_winding(places, solid.triangles).abs()
    unsure = places[(winding > _UNSURE[0]) & (winding < _UNSURE[1])]
    if not len(unsure):
        return False
    samples = surface.position[:_PROBE_SAMPLES]
    away = (unsure - samples[nearest(unsure, samples)]).norm(dim=1) > _AWAY
    return int(away.sum()) > _UNSURE_SHARE * _PROBES
