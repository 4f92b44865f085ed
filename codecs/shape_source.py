"""What shapes come in as: meshes, point clouds, posed images and files of them, made into surface samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from latentpress.codecs.mesh_solid import (
    fast_winding,
    has_unsure_inside,
    outside_everywhere,
    shell_of,
    solid_of,
)
from latentpress.codecs.posed_images import PosedImages, images_source
from latentpress.codecs.shape_payload import UNITS, Pose
from latentpress.models.shape.oriented_points import (
    OrientedPoints,
    Solid,
    sample_solid,
    signed_distance,
)

if TYPE_CHECKING:
    import trimesh

SUFFIXES = frozenset({".obj", ".ply", ".stl", ".glb", ".gltf", ".off", ".pcd"})
"""Files that :func:`read_shape` reads."""

MIN_POINTS = 16
"""A cloud of fewer distinct points has no surface that could be told."""

_DENSE = 16384
_REFERENCE = 30000
_MOST_REFERENCE = 100_000


@dataclass(frozen=True)
class ShapeSource:
    """A shape in the cube [-1, 1]^3, sampled.

    Attributes:
        kind: ``mesh``, ``points`` or ``images``.
        surface: Dense oriented samples of the surface, longest side about 2, in random order.
        reference: ``(N, 3)`` float32: what the decoded surface is compared with.
        colour: ``(len(surface), 3)`` float32 RGB in [0, 1], or None.
        pose: Of the cube in the shape's own coordinates.
        unit: Of these coordinates, or None.
        solid: For exact insides and outsides; None where only points are known.
        images: What was given, if it was images.
        triangles: ``(F, 3, 3)`` float32 in the cube, of a mesh; None of anything else.
        paint: Of a coloured mesh: its triangles ``(P,)`` and weights of their corners ``(P, 3)`` to RGB.
        shell: Whether the solid is nothing but the thickness of its sheets.
    """

    kind: str
    surface: OrientedPoints
    reference: NDArray[np.float32]
    colour: NDArray[np.float32] | None
    pose: Pose
    unit: str | None
    solid: Solid | None
    images: PosedImages | None = None
    shell: bool = False
    triangles: NDArray[np.float32] | None = None
    paint: Callable[[NDArray[np.int64], NDArray[Any]], NDArray[np.float64]] | None = None

    def signed_distance(self, points: torch.Tensor) -> torch.Tensor:
        """Signed distance to the shape at ``(N, 3)``, on the CPU, negative inside."""
        if self.solid is not None:
            winding = outside_everywhere if self.shell else fast_winding
            return signed_distance(points, self.solid, self.surface, winding)
        from latentpress.codecs.point_cloud import signed_distance_to_cloud

        return signed_distance_to_cloud(points, self.surface)

    def readings(self) -> list[ShapeSource]:
        """All that the shape may be meant as: itself, and for a mesh with large holes a shell."""
        if self.solid is None or self.shell or not has_unsure_inside(self.solid, self.surface):
            return [self]
        from scipy.spatial import cKDTree

        solid = shell_of(self.solid)
        surface = sample_solid(solid, len(self.surface.position), torch.Generator().manual_seed(0))
        colour = self.colour
        if colour is not None:
            colour = colour[cKDTree(self.surface.position.numpy()).query(surface.position.numpy())[1]]
        return [self, replace(self, solid=solid, surface=surface, colour=colour, shell=True)]


def shape_source(x: Any, colour: bool) -> ShapeSource:
    """Whatever a shape is given as, as surface samples.

    Raises:
        TypeError: It is no shape.
        ValueError: It has no surface.
    """
    if isinstance(x, str | Path):
        x = read_shape(x)
    if isinstance(x, PosedImages):
        return images_source(x, colour)
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    if isinstance(x, np.ndarray):
        return points_source(x, colour)
    if hasattr(x, "vertices") and hasattr(x, "faces"):
        return mesh_source(x, colour)
    raise TypeError(f"expected a trimesh.Trimesh, points, PosedImages or a path, got {type(x).__name__}")


def read_shape(path: str | Path) -> Any:
    """Reads a mesh or a point cloud from a file.

    Args:
        path: An OBJ, PLY, STL, GLB, glTF, OFF or PCD file.

    Returns:
        A ``trimesh.Trimesh``, or points ``(N, 3)`` or ``(N, 6)`` float64.

    Raises:
        ValueError: The file's type is not supported, or it holds no geometry.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: expected one of {', '.join(sorted(SUFFIXES))}")
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    if path.suffix.lower() == ".pcd":
        from latentpress.codecs.point_cloud import read_pcd

        return read_pcd(path)
    trimesh = _trimesh()
    try:
        loaded = trimesh.load_scene(path)
        loaded = loaded.to_geometry() if len(loaded.geometry) != 1 else _single(loaded)
    except (KeyError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if isinstance(loaded, trimesh.PointCloud):
        colours = np.asarray(loaded.colors)
        if colours.shape == (len(loaded.vertices), 4):
            return np.hstack((loaded.vertices, colours[:, :3] / 255.0))
        return np.asarray(loaded.vertices)
    return loaded


def _single(scene: Any) -> Any:
    """The one geometry of a scene where the scene puts it."""
    (name,) = scene.graph.nodes_geometry if len(scene.graph.nodes_geometry) == 1 else (None,)
    if name is None:
        return scene.to_geometry()
    matrix, geometry = scene.graph[name]
    found = scene.geometry[geometry].copy()
    found.apply_transform(matrix)
    if found.units is None:
        found.units = scene.units
    return found


def mesh_source(mesh: trimesh.Trimesh, colour: bool, seed: int = 0) -> ShapeSource:
    """Samples a mesh.

    Args:
        mesh: Any triangle soup. Faces with a vertex that is not finite or not there are left out.
        colour: Keep vertex colours, face colours or the texture, where there are any.
        seed: Of the samples.

    Raises:
        ValueError: Nothing with an area is left.
    """
    vertices = np.asarray(mesh.vertices, np.float64).reshape(-1, 3)
    faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
    good = ((faces >= 0) & (faces < len(vertices))).all(1)
    good[good] = np.isfinite(vertices[faces[good]]).all((1, 2))
    index = np.flatnonzero(good)
    if not len(index):
        raise ValueError(f"the mesh has no usable face: {len(faces)} faces, {len(vertices)} vertices")
    corners = vertices[faces[index]]
    pose = Pose.around(tuple(corners.min((0, 1))), tuple(corners.max((0, 1))))
    triangles = ((corners - pose.centre) / pose.scale).astype(np.float32)
    random = np.random.default_rng(seed)
    reference, chosen, weights = _area_samples(triangles, _REFERENCE, random)
    solid = solid_of(triangles)
    generator = torch.Generator().manual_seed(seed)
    surface = sample_solid(solid, _DENSE, generator)
    colours = paint = None
    if colour and (painter := surface_painter(mesh)) is not None:
        known = painter

        def paint(face: NDArray[np.int64], weights: NDArray[Any]) -> NDArray[np.float64]:
            return known(index[face], faces, weights)

        from scipy.spatial import cKDTree

        painted = painter(index[chosen], faces, weights)
        colours = painted[cKDTree(reference).query(surface.position.numpy())[1]].astype(np.float32)
    unit = mesh.units if mesh.units in UNITS else None
    return ShapeSource(
        "mesh", surface, reference, colours, pose, unit, solid, triangles=triangles, paint=paint
    )


def points_source(points: ArrayLike, colour: bool) -> ShapeSource:
    """Prepares a point cloud.

    Args:
        points: ``(N, 3)`` positions, or ``(N, 6)`` with RGB in [0, 1]. Points that are not finite are left
            out.
        colour: Keep the colours, where there are any.

    Raises:
        TypeError: The points are no array of numbers.
        ValueError: The shape is wrong, or too few distinct points are left.
    """
    from latentpress.codecs.point_cloud import orient

    array = np.asarray(points)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"points must be an array of numbers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] not in (3, 6):
        raise ValueError(f"points must have shape (N, 3) or (N, 6), got {array.shape}")
    array = array.astype(np.float64)
    array = array[np.isfinite(array).all(1)]
    if (
        array.shape[1] == 6
        and array.size
        and not -1e-6 <= array[:, 3:].min() <= array[:, 3:].max() <= 1 + 1e-6
    ):
        raise ValueError("colours of points must be in [0, 1]")
    if not _has_distinct(array[:, :3], MIN_POINTS):
        raise ValueError(f"a point cloud needs at least {MIN_POINTS} distinct points, all values finite")
    pose = Pose.around(tuple(array[:, :3].min(0)), tuple(array[:, :3].max(0)))
    placed = ((array[:, :3] - pose.centre) / pose.scale).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(placed))
    surface = orient(placed[order[:_DENSE]])
    colours = array[order[:_DENSE], 3:].astype(np.float32) if colour and array.shape[1] == 6 else None
    return ShapeSource("points", surface, placed[order[:_MOST_REFERENCE]], colours, pose, None, None)


def _has_distinct(points: NDArray[np.float64], count: int) -> bool:
    """Whether there are so many different points; large clouds have them at the beginning."""
    return any(len(np.unique(part, axis=0)) >= count for part in (points[: 64 * count], points))


def _area_samples(
    triangles: NDArray[np.float32], count: int, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Points uniform over the area, the triangles they lie in, and their barycentric weights."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.cumsum(np.linalg.norm(normals.astype(np.float64), axis=1))
    if not area[-1] > 0:
        raise ValueError("the mesh has no area")
    chosen = np.searchsorted(area, random.uniform(0, area[-1], count)).clip(max=len(area) - 1)
    root, v = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack((1 - root, root * (1 - v), root * v), axis=1).astype(np.float32)
    return (triangles[chosen] * weights[:, :, None]).sum(1), chosen, weights


Painter = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[Any]], NDArray[np.float64]]
"""Chosen faces ``(N,)``, all faces ``(F, 3)``, barycentric weights ``(N, 3)`` to RGB ``(N, 3)`` in [0, 1]."""


def surface_painter(mesh: Any) -> Painter | None:
    """A function that says a mesh's colours at places of its surface; None for a mesh without colours.

    Args:
        mesh: A ``trimesh.Trimesh`` with vertex colours, face colours or a texture.
    """
    visual = mesh.visual
    if visual is None or not visual.defined:
        return None
    if visual.kind == "texture":
        image, uv = _texture(visual), visual.uv
        if uv is None or len(uv) != len(mesh.vertices):
            return None
        coordinates = np.asarray(uv, np.float64)

        def from_texture(chosen: Any, faces: Any, weights: Any) -> NDArray[np.float64]:
            where = (coordinates[faces[chosen]] * weights[:, :, None]).sum(1)
            height, width = image.shape[:2]
            # Texture coordinates repeat beyond [0, 1] and count rows from below.
            column = np.floor(np.mod(where[:, 0], 1) * width).astype(int).clip(0, width - 1)
            row = np.floor(np.mod(1 - where[:, 1], 1) * height).astype(int).clip(0, height - 1)
            found: NDArray[np.float64] = image[row, column]
            return found

        return from_texture
    if visual.kind == "face":
        face_colours = np.asarray(visual.face_colors)[:, :3] / 255.0
        return lambda chosen, faces, weights: face_colours[chosen]
    vertex_colours = np.asarray(visual.vertex_colors)[:, :3] / 255.0
    return lambda chosen, faces, weights: (vertex_colours[faces[chosen]] * weights[:, :, None]).sum(1)


def _texture(visual: Any) -> NDArray[np.float64]:
    """The texture ``(H, W, 3)`` in [0, 1]; one pixel where the material has only a colour."""
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        colour: Sequence[int] = np.asarray(material.main_color)[:3].tolist()
        return np.array(colour, np.float64).reshape(1, 1, 3) / 255.0
    return np.asarray(image.convert("RGB"), np.float64) / 255.0


def _trimesh() -> Any:
    try:
        import trimesh
    except ModuleNotFoundError as error:
        message = "meshes need trimesh: pip install 'latentpress[shape]'"
        raise ModuleNotFoundError(message, name="trimesh") from error
    return trimesh
