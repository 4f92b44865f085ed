"""Insides, outsides and distances of triangle soups."""

import pytest
import torch

from latentpress.models.shape.oriented_points import (
    SHEET_HALF_THICKNESS,
    face_normals,
    face_sides,
    make_solid,
    nearest,
    sample_solid,
    signed_distance,
    winding_number,
)


def box(half: float, flip: bool = False) -> torch.Tensor:
    """Triangles of a cube, outward unless flipped."""
    corners = torch.tensor([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)]) * half
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    triangles = corners[faces].float()
    return triangles.flip(1) if flip else triangles


def solid_of(triangles: torch.Tensor):
    return make_solid(triangles, face_sides(triangles, face_normals(triangles)[0]))


def distance_to_box(points: torch.Tensor, half: float) -> torch.Tensor:
    q = points.abs() - half
    return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)


@pytest.mark.parametrize("flip", [False, True])
def test_distance_to_a_box(flip) -> None:
    solid = solid_of(box(1.0, flip))
    random = torch.Generator().manual_seed(0)
    surface = sample_solid(solid, 8000, random)
    assert (surface.position * surface.normal).sum(1).min() > 0.9  # outward whatever the faces say
    points = torch.rand((500, 3), generator=random) * 2.2 - 1.1
    error = (signed_distance(points, solid, surface) - distance_to_box(points, 1.0)).abs()
    assert error.mean() < 5e-3
    assert error.max() < 0.05


def test_open_box_is_closed_by_winding_numbers() -> None:
    triangles = box(1.0)[2:]
    inside = winding_number(torch.tensor([[0.0, 0, 0.3], [0, 0, -1.6]]), triangles).abs() > 0.5
    assert inside.tolist() == [True, False]
    assert not solid_of(triangles).sheet.any()


def test_faces_inside_are_left_out() -> None:
    triangles = torch.cat((box(1.0), box(0.4)))
    solid = solid_of(triangles)
    assert sorted(solid.faces.tolist()) == list(range(12))


def test_sheet_becomes_a_plate() -> None:
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    solid = solid_of(square[torch.tensor([[0, 1, 2], [0, 2, 3]])])
    assert solid.sheet.all()
    surface = sample_solid(solid, 4000, torch.Generator().manual_seed(0))
    assert surface.position[:, 2].abs().allclose(torch.tensor(SHEET_HALF_THICKNESS))
    distances = signed_distance(torch.tensor([[0.0, 0, 0], [0, 0, 0.1], [0, 0, -0.1]]), solid, surface)
    expected = torch.tensor([-SHEET_HALF_THICKNESS, 0.1 - SHEET_HALF_THICKNESS, 0.1 - SHEET_HALF_THICKNESS])
    assert distances.allclose(expected, atol=2e-3)


def test_nothing_to_enclose() -> None:
    with pytest.raises(ValueError, match="no face"):
        solid_of(torch.zeros(3, 3, 3))


def test_nearest_is_nearest() -> None:
    points, samples = torch.rand(70, 3), torch.rand(90, 3)
    assert torch.equal(nearest(points, samples), torch.cdist(points, samples).argmin(1))
