"""What people would otherwise send a coloured mesh as in a kilobyte: decimated, with Draco, and painted.

Two ways, of which the better counts: colours at the vertices, in the Draco stream; or an unwrapped mesh with
texture coordinates in the Draco stream and a small WebP texture beside it. The bytes of the two are added;
the container that would hold them (glTF's has some hundred bytes) is not counted. Needs DracoPy,
fast-simplification, xatlas and embreex.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from latentpress.codecs.chamfer import sample_triangles
from latentpress.codecs.polygon_decimation import decimated, welded
from latentpress.codecs.shape_source import surface_painter
from latentpress.scripts.shape_comparison import FACES

_SAMPLES = 100_000
_BAKED_SAMPLES = 60_000
_POSITION_BITS = (6, 7, 8, 9)
_TEXTURE_POSITION_BITS = (6, 7)
_TEXTURE_COORDINATE_BITS = (5, 6)
_TEXTURED_FACES = FACES[::3]
_COLOUR_SHIFTS = (0, 3, 4)
_TEXTURE_SIDES = (8, 12, 16, 24, 32, 48, 64)
_LARGEST_SIDE = _TEXTURE_SIDES[-1]
_WEBP_SEARCH = (0, 100)
_STREAMS_JUDGED = 12
_MESH_SHARE = (0.3, 0.9)


class Painted(NamedTuple):
    """A rival's best mesh.

    Attributes:
        name: Of the rival.
        bytes: Of everything that is sent.
        mesh: The decoded ``trimesh.Trimesh``, with its colours.
        score: What the judge said of it, higher is better.
    """

    name: str
    bytes: int
    mesh: Any
    score: float


class _Candidate(NamedTuple):
    """Something that fits, not yet judged."""

    bytes: int
    mesh: Any


Judge = Callable[[Any], float]
"""How good a decoded mesh is, higher is better."""


class ColouredRivals:
    """Decimated and painted versions of a mesh, the best of many settings for a size.

    Args:
        mesh: Normalised, with vertex colours, face colours or a texture.

    Raises:
        ValueError: The mesh has no colours.
    """

    def __init__(self, mesh: Any) -> None:
        painter = surface_painter(mesh)
        if painter is None:
            raise ValueError("the mesh has no colours")
        vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
        points, chosen, weights = _surface_samples(vertices, faces)
        self._near = cKDTree(points)
        self._colours = painter(chosen, faces, weights)
        self._points, self._soup = welded(mesh)

    def best(self, limit: int, judge: Judge) -> Painted | None:
        """The better of the two rivals within so many bytes; None if neither has anything so small."""
        found = [one for one in (self.with_vertex_colours(limit, judge), self.textured(limit, judge)) if one]
        return max(found, key=lambda one: one.score, default=None)

    def with_vertex_colours(self, limit: int, judge: Judge) -> Painted | None:
        """Decimation + Draco with a colour at every vertex."""
        # What is much smaller than the limit is worse.
        largest = sorted(self._vertex_coloured(limit), key=lambda one: one.bytes)[-_STREAMS_JUDGED:]
        return _judged("decimation + Draco, vertex colours", largest, judge)

    def textured(self, limit: int, judge: Judge) -> Painted | None:
        """Decimation + Draco with texture coordinates + WebP."""
        return _judged("decimation + Draco + WebP", self._textured(limit), judge)

    def _decimated(self, counts: tuple[int, ...]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        for count in (n for n in counts if n < len(self._soup)):
            points, faces = decimated(self._points, self._soup, count)
            if len(faces):
                yield points, faces

    def _colour_near(self, points: NDArray[Any]) -> NDArray[np.float64]:
        colours: NDArray[np.float64] = self._colours[self._near.query(points)[1]]
        return colours

    def _vertex_coloured(self, limit: int) -> Iterator[_Candidate]:
        import DracoPy
        import trimesh

        for points, faces in self._decimated(FACES):
            colours = np.round(self._colour_near(points) * 255).astype(np.uint8)
            for bits, shift in product(_POSITION_BITS, _COLOUR_SHIFTS):
                # Coarser colours are sent as smaller numbers.
                sent = colours >> shift
                data = DracoPy.encode(
                    points, faces, colors=sent, quantization_bits=bits, compression_level=10
                )
                if len(data) > limit:
                    continue
                found = DracoPy.decode(data)
                steps = (np.asarray(found.colors, np.float64) + 0.5) * (256 / (256 >> shift)) - 0.5
                paint = np.full((len(found.points), 4), 255, np.uint8)
                paint[:, :3] = np.round(steps).clip(0, 255)
                mesh = trimesh.Trimesh(found.points, found.faces, vertex_colors=paint, process=False)
                yield _Candidate(len(data), mesh)

    def _textured(self, limit: int) -> Iterator[_Candidate]:
        import DracoPy
        import xatlas  # type: ignore[import-not-found]

        low, high = (share * limit for share in _MESH_SHARE)
        for points, faces in self._decimated(_TEXTURED_FACES):
            split, unwrapped, coordinates = xatlas.parametrize(points, faces.astype(np.uint32))
            corners = (points[split], unwrapped.astype(np.int32), coordinates.astype(np.float64))
            baked: NDArray[np.uint8] | None = None
            for bits, fine in product(_TEXTURE_POSITION_BITS, _TEXTURE_COORDINATE_BITS):
                data = DracoPy.encode(
                    corners[0],
                    corners[1],
                    tex_coord=corners[2],
                    quantization_bits=bits,
                    tex_coord_quantization_bits=fine,
                    compression_level=10,
                )
                if not low <= len(data) <= high:
                    continue
                if baked is None:
                    baked = self._bake(*corners)
                picture = smallest_error_webp(baked, limit - len(data))
                if picture is not None:
                    yield _Candidate(len(data) + len(picture), _with_texture(DracoPy.decode(data), picture))

    def _bake(
        self, points: NDArray[np.float32], faces: NDArray[np.int32], coordinates: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """The texture of an unwrapped mesh, ``(64, 64, 3)``, all texels filled."""
        places, chosen, weights = _surface_samples(points, faces.astype(np.int64), _BAKED_SAMPLES)
        at = (coordinates[faces[chosen]] * weights[:, :, None]).sum(1)
        side = _LARGEST_SIDE
        column = (at[:, 0] * side).astype(int).clip(0, side - 1)
        row = ((1 - at[:, 1]) * side).astype(int).clip(0, side - 1)
        texel = row * side + column
        count = np.bincount(texel, minlength=side * side)
        colours = self._colour_near(places)
        sums = [np.bincount(texel, colours[:, k], side * side) for k in range(3)]
        mean = (np.stack(sums, axis=1) / count.clip(1)[:, None]).reshape(side, side, 3)
        # Texels between the charts repeat their neighbours, so that scaling does not mix in anything foreign.
        empty = count.reshape(side, side) == 0
        nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
        return np.round(mean[tuple(nearest)] * 255).astype(np.uint8)


def smallest_error_webp(texture: NDArray[np.uint8], limit: int) -> bytes | None:
    """The WebP file of at most so many bytes that is nearest to a texture, of all sides; None for none.

    Example:
        >>> texture = np.full((64, 64, 3), 90, np.uint8)
        >>> len(smallest_error_webp(texture, 100)) <= 100, smallest_error_webp(texture, 20)
        (True, None)
    """
    best: tuple[float, bytes | None] = (np.inf, None)
    original = Image.fromarray(texture)
    for side in _TEXTURE_SIDES:
        smaller = original.resize((side, side), Image.Resampling.BOX)
        for data in (_webp_within(smaller, limit), _lossless_webp(smaller)):
            if data is None or len(data) > limit:
                continue
            error = np.square(_texture_of(data, _LARGEST_SIDE).astype(float) - texture).mean()
            best = min(best, (float(error), data), key=lambda pair: pair[0])
    return best[1]


def _webp_within(image: Image.Image, limit: int) -> bytes | None:
    """The lossy WebP file of the highest quality that fits."""
    found = None
    low, high = _WEBP_SEARCH
    while low <= high:
        middle = (low + high) // 2
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=middle, method=6)
        if buffer.tell() <= limit:
            found, low = buffer.getvalue(), middle + 1
        else:
            high = middle - 1
    return found


def _lossless_webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _texture_of(data: bytes, side: int) -> NDArray[np.uint8]:
    """A texture file as a renderer that interpolates shows it, at a resolution."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def _with_texture(found: Any, picture: bytes) -> Any:
    import trimesh

    material = trimesh.visual.material.SimpleMaterial(
        image=Image.fromarray(_texture_of(picture, 8 * _LARGEST_SIDE))
    )
    visual = trimesh.visual.TextureVisuals(uv=np.asarray(found.tex_coord), material=material)
    return trimesh.Trimesh(found.points, found.faces, visual=visual, process=False)


def _judged(name: str, candidates: Iterable[_Candidate], judge: Judge) -> Painted | None:
    judged = [Painted(name, one.bytes, one.mesh, judge(one.mesh)) for one in candidates]
    return max(judged, key=lambda one: one.score, default=None)


def _surface_samples(
    vertices: NDArray[np.float32], faces: NDArray[np.int64], count: int = _SAMPLES
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Points uniform over the area, their faces, and their barycentric weights ``(N, 3)``."""
    points, chosen = sample_triangles(vertices, faces, count)
    a, b, c = (vertices[faces[chosen, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.square(normal).sum(1).clip(1e-30)
    first = (np.cross(c - b, points - b) * normal).sum(1) / area
    second = (np.cross(a - c, points - c) * normal).sum(1) / area
    weights = np.stack((first, second, 1 - first - second), axis=1).clip(0, 1)
    return points, chosen, weights / weights.sum(1, keepdims=True)
