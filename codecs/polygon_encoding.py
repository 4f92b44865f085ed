"""The search for the best polygons of a size: how many triangles, on which grid, in how fine colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from latentpress.codecs.chamfer import chamfer_distance, sample_triangles
from latentpress.codecs.polygon_coder import Polygons
from latentpress.codecs.polygon_colours import from_levels, to_levels
from latentpress.codecs.polygon_decimation import decimated, proper_faces
from latentpress.codecs.polygon_fitting import cleaned, fitted_colours, placed
from latentpress.codecs.polygon_payload import MAX_FACES, MAX_GRID, MIN_GRID
from latentpress.codecs.polygon_stream import places_of, write_polygons
from latentpress.codecs.polygon_views import Paint, look, pictures, views_around
from latentpress.codecs.shape_source import ShapeSource

_VIEWS = 24
_VIEW_SIZE = 128
_MEASURED_POINTS = 30000
_GRID_AT_100 = 42
_RATIO = 1.25
_STEPS = (20, 12, 32)
_TRIES = 5
_USED_UP = 0.985
_LEAST_FACES = 4


class PolygonTrial(NamedTuple):
    """One encoding.

    Attributes:
        payload: Of the stream.
        vertices: ``(V, 3)`` in the cube, as they will be decoded.
        faces: ``(F, 3)``.
        colours: ``(V, 3)`` in [0, 1], or None.
        grid: Steps of the grid.
        loss: Chamfer distance, or for a coloured shape the mean squared error of pictures.
    """

    payload: bytes
    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]
    colours: NDArray[np.float64] | None
    grid: int
    loss: float


class Judge:
    """What is lost of a shape: Chamfer distance without colours, the error of pictures with them.

    Args:
        source: A shape that was given as a mesh.
    """

    def __init__(self, source: ShapeSource) -> None:
        assert source.triangles is not None
        self._reference = source.reference
        self.views = views_around(_VIEWS, _VIEW_SIZE)
        self.wanted: NDArray[Any] | None = None
        if source.colour is not None and source.paint is not None:
            corners = source.triangles.reshape(-1, 3)
            faces = np.arange(len(corners)).reshape(-1, 3)
            self.wanted = pictures(corners, faces, source.paint, self.views)

    def loss(self, vertices: NDArray[Any], faces: NDArray[np.int64], colours: NDArray[Any] | None) -> float:
        """Of a mesh with colours ``(V, 3)`` in [0, 1] at its corners; infinite for one without a surface."""
        if not len(faces):
            return math.inf
        if self.wanted is None:
            return self.chamfer(vertices, faces)
        shown = pictures(vertices, faces, corner_paint(faces, colours), self.views)
        return float(np.square(shown - self.wanted).mean())

    def chamfer(self, vertices: NDArray[Any], faces: NDArray[np.int64]) -> float:
        """Chamfer distance of a mesh, longest side 2."""
        corners = np.asarray(vertices, np.float64)[faces]
        if not np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).any():
            return math.inf
        points, _ = sample_triangles(np.asarray(vertices, np.float32), faces, _MEASURED_POINTS)
        return chamfer_distance(self._reference, points)


def corner_paint(faces: NDArray[np.int64], colours: NDArray[Any] | None) -> Paint:
    """Colours between those of corners; grey without."""
    if colours is None:
        return lambda face, weights: np.full((len(face), 3), 0.5)
    known = colours
    return lambda face, weights: (known[faces[face]] * weights[:, :, None]).sum(1)


class PolygonEncoding:
    """Encodings of one mesh as polygons, and the search among them.

    Args:
        source: A shape that was given as a mesh.
        judge: Of what is lost.
        effort: 0 to 10: how many grids and colour steps are tried.
        pack: Puts a payload into its stream, whose size is what counts.
    """

    def __init__(
        self, source: ShapeSource, judge: Judge, effort: int, pack: Callable[[bytes], bytes]
    ) -> None:
        assert source.triangles is not None
        self._source = source
        self._judge = judge
        self._effort = effort
        self._pack = pack
        points, corners = np.unique(source.triangles.reshape(-1, 3), axis=0, return_inverse=True)
        faces = corners.reshape(-1, 3)
        self._points = points
        self._faces = proper_faces(faces)
        self._decimated: dict[int, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}
        self._near: cKDTree | None = None
        self._faces_tried = 0

    def within_bytes(self, limit: int) -> PolygonTrial | None:
        """The best mesh whose stream has at most so many bytes; None where none was found."""
        if len(self._faces) < _LEAST_FACES:
            return None
        coloured = self._judge.wanted is not None
        steps = _STEPS[: 1 + self._effort // 4] if coloured else (None,)
        self._faces_tried = min(max(2 * limit // (3 if coloured else 2), 16), MAX_FACES)
        best = self._best_grid(limit, steps[0])
        if best is None:
            return None
        for step in steps[1:]:
            best = min(best, self._largest(limit, best.grid, step) or best, key=lambda trial: trial.loss)
        return best

    def _best_grid(self, limit: int, step: int | None) -> PolygonTrial | None:
        """Goes on to finer grids, or to coarser ones, as long as that is better and effort lasts."""
        usual = _GRID_AT_100 * math.sqrt(max(limit, 1) / 100)
        tried: dict[int, PolygonTrial | None] = {}

        def loss(power: int) -> float:
            if power not in tried:
                grid = round(min(max(usual * _RATIO**power, MIN_GRID), MAX_GRID))
                tried[power] = self._largest(limit, grid, step)
            found = tried[power]
            return math.inf if found is None else found.loss

        best, most = 0, 1 + self._effort // 2
        loss(0)
        for way in (1, -1):
            while len(tried) < most and loss(best + way) < loss(best):
                best += way
        return tried[best]

    def _largest(self, limit: int, grid: int, step: int | None) -> PolygonTrial | None:
        """The mesh of most triangles that fits."""
        best: PolygonTrial | None = None
        most = min(len(self._faces), MAX_FACES)
        low, high, count = 0, most + 1, min(self._faces_tried, most)
        for _ in range(_TRIES):
            trial = self._trial(count, grid, step)
            size = math.inf if trial is None else len(self._pack(trial.payload))
            if size <= limit:
                low, best = count, trial
                if size >= _USED_UP * limit:
                    break
            else:
                high = count
            if high - low <= 1:
                break
            guess = (low + high) // 2 if not math.isfinite(size) else int(count * 0.993 * limit / size)
            count = min(max(guess, low + 1, _LEAST_FACES), high - 1)
            if count <= low:
                break
        self._faces_tried = max(low, _LEAST_FACES)
        if best is None:
            return None
        return best._replace(loss=self._judge.loss(best.vertices, best.faces, best.colours))

    def _fewer(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if count not in self._decimated:
            found = self._points, self._faces
            if count < len(self._faces):
                found = decimated(self._points, self._faces, count)
            self._decimated[count] = found[0], found[1].astype(np.int64)
        return self._decimated[count]

    def _trial(self, count: int, grid: int, step: int | None) -> PolygonTrial | None:
        points, faces = self._fewer(count)
        if not 0 < len(faces) <= MAX_FACES:
            return None
        mesh = cleaned(placed(points, faces, grid), faces)
        if not len(mesh.faces):
            return None
        vertices = places_of(mesh.nodes, grid)
        levels = colours = None
        if step is not None:
            levels = to_levels(self._colours(vertices, mesh), step)
            colours = from_levels(levels, step) / 255.0
        payload = write_polygons(mesh, grid, levels, step, self._source.pose, self._source.unit)
        return PolygonTrial(payload, vertices, mesh.faces, colours, grid, math.inf)

    def _colours(self, vertices: NDArray[np.float32], mesh: Polygons) -> NDArray[np.float64]:
        assert self._judge.wanted is not None
        assert self._source.colour is not None
        if self._near is None:
            self._near = cKDTree(self._source.surface.position.numpy())
        usual = self._source.colour[self._near.query(vertices)[1]]
        seen = [look(vertices, mesh.faces, view) for view in self._judge.views]
        return fitted_colours(seen, self._judge.wanted, mesh.faces, usual)
