"""Which meshes are solids, and which are shells."""

import numpy as np
import pytest
import torch

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("igl")

from latentpress.codecs.mesh_solid import fast_winding, has_unsure_inside, solid_of  # noqa: E402
from latentpress.codecs.shape_source import mesh_source  # noqa: E402
from latentpress.models.shape.oriented_points import sample_solid, winding_number  # noqa: E402


def bowl() -> trimesh.Trimesh:
    """Half a ball without a lid."""
    ball = trimesh.creation.icosphere(4)
    kept = ball.triangles_center[:, 2] < 0
    return trimesh.Trimesh(ball.vertices, ball.faces[kept], process=False)


def nearly_closed() -> trimesh.Trimesh:
    """A ball with a hole of one face."""
    ball = trimesh.creation.icosphere(3)
    return trimesh.Trimesh(ball.vertices, ball.faces[1:], process=False)


def unsure(mesh: trimesh.Trimesh) -> bool:
    solid = solid_of(np.asarray(mesh.triangles, np.float32))
    return has_unsure_inside(solid, sample_solid(solid, 4096, torch.Generator().manual_seed(0)))


def test_fast_winding_numbers_are_those_of_the_sum() -> None:
    triangles = torch.from_numpy(np.array(bowl().triangles)).float()
    points = torch.rand((500, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(
        fast_winding(points, triangles), winding_number(points, triangles), atol=5e-3, rtol=0
    )


def test_only_large_holes_make_the_inside_unsure() -> None:
    assert unsure(bowl())
    assert not unsure(nearly_closed())
    assert not unsure(trimesh.creation.box())
    assert not unsure(trimesh.creation.icosphere(3, radius=0.9))


def test_a_sheet_has_one_reading() -> None:
    square = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    assert len(mesh_source(square, colour=False).readings()) == 1


def test_the_shell_of_a_bowl_is_hollow() -> None:
    mesh = bowl()
    colours = np.where(mesh.vertices[:, :1] > 0, (255, 0, 0, 255), (0, 0, 255, 255)).astype(np.uint8)
    mesh.visual.vertex_colors = colours
    solid, shell = mesh_source(mesh, colour=True).readings()
    middle = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, -0.1]])
    assert (solid.signed_distance(middle) < 0).any()
    assert (shell.signed_distance(middle) > 0.2).all()
    # Samples of a shell are on both sides of its thickness, with the colours of the mesh.
    lengths = (shell.surface.position + torch.tensor([0, 0, 0.5])).norm(dim=1)
    assert lengths.std() > 0.005
    right = shell.surface.position[:, 0].numpy() > 0.1
    assert (shell.colour[right, 0] > 0.9).all()
    on_surface = shell.signed_distance(shell.surface.position[:500])
    assert float(on_surface.abs().max()) < 0.02


def test_meshes_of_any_size_are_not_decimated() -> None:
    ball = trimesh.creation.icosphere(5)
    assert len(mesh_source(ball, colour=False).solid.triangles) == len(ball.faces) > 20000


def test_the_reading_that_decodes_nearer_is_taken() -> None:
    from types import SimpleNamespace

    from latentpress.codecs.shape_encoding import best_reading

    source = mesh_source(bowl(), colour=False)
    for winner in (False, True):

        def tried(encoding, winner=winner):
            return SimpleNamespace(code=encoding._source.shell == winner, header=None)

        codec = SimpleNamespace(
            free_code=lambda source: None, measure=lambda source, right, header: [0.1] if right else [0.2]
        )
        assert best_reading(codec, source, tried).shell == winner
