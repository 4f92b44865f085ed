"""Meshes and point clouds on the page: what was dropped beside what came back, to turn around."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import Limits
from latentpress.scripts.shape_files import is_shape
from latentpress.scripts.view.kinds import OWN_LABEL, Content, Item, Kind, Notify, Rate, Result, new_id
from latentpress.scripts.view.mesh_buffer import Frame, frame_of, mesh_buffer
from latentpress.scripts.view.offer import SHAPE

DRACO = "Draco"
_DRACO_NEEDS = ("DracoPy", "fast_simplification")
_MOST_FACES_FOR_DRACO = 200_000


class Surface(NamedTuple):
    """What is drawn.

    Attributes:
        points: ``(N, 3)``.
        faces: ``(F, 3)``; None for a cloud.
        colours: ``(N, 3)`` uint8, or None.
    """

    points: NDArray[Any]
    faces: NDArray[Any] | None
    colours: NDArray[np.uint8] | None

    def counts(self) -> dict[str, int]:
        """Points and faces."""
        return {"points": len(self.points), "faces": 0 if self.faces is None else len(self.faces)}


@dataclass(frozen=True, kw_only=True)
class ShapeItem(Item):
    """A mesh or a cloud that was dropped.

    Attributes:
        shape: A ``trimesh.Trimesh``, or points ``(N, 3)`` or ``(N, 6)``.
        surface: The same, as it is drawn.
    """

    kind: ClassVar[str] = SHAPE

    shape: Any
    surface: Surface

    @cached_property
    def frame(self) -> Frame:
        """Where it is shown."""
        return frame_of(self.surface.points)

    @cached_property
    def draco(self) -> Any:
        """Draco streams of the mesh at many sizes, and the mesh to judge them by."""
        from latentpress.scripts.shape_comparison import DracoRival, sampled

        mesh = self.shape.copy()
        mesh.apply_translation(-self.frame.centre)
        mesh.apply_scale(self.frame.scale)
        return DracoRival(mesh), sampled(mesh.vertices, mesh.faces, seed=0)

    def facts(self) -> Mapping[str, Any]:
        """Numbers of points and faces, and whether there are colours."""
        return {**self.surface.counts(), "coloured": self.surface.colours is not None}

    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """The shape to draw."""
        return _drawn(self.surface, self.frame, name)


@dataclass(frozen=True, kw_only=True)
class ShapeResult(Result[ShapeItem]):
    """A shape compressed and decoded.

    Attributes:
        surface: What came back.
        chamfer: Mean of the two directed mean distances to the original, where its longest side is 2.
    """

    surface: Surface
    chamfer: float

    def figures(self) -> Mapping[str, Any]:
        """Distance and counts."""
        return {"chamfer": self.chamfer if math.isfinite(self.chamfer) else None, **self.surface.counts()}

    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """The decoded shape to draw."""
        return _drawn(self.surface, self.item.frame, name)


class ShapeKind(Kind[ShapeItem, ShapeResult]):
    """Meshes and point clouds, in the files that the shape codec reads.

    Args:
        limits: Caps on vertices and faces.
    """

    name = SHAPE

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def takes(self, name: str) -> bool:
        """By the suffix."""
        return is_shape(name)

    def peers(self) -> tuple[str, ...]:
        """Draco, where it and what reduces meshes for it are installed."""
        return (DRACO,) if all(find_spec(name) is not None for name in _DRACO_NEEDS) else ()

    def read(self, name: str, content: bytes) -> ShapeItem:
        """Reads a file of a mesh or of points."""
        from latentpress.codecs.shape_source import read_shape

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"shape{Path(name).suffix.lower()}"
            path.write_bytes(content)
            try:
                shape = read_shape(path)
            except ValueError as error:
                raise ValueError(str(error).replace(path.name, name)) from error
        surface = _surface(shape)
        self._limits.check_vertices(len(surface.points))
        self._limits.check_faces(surface.counts()["faces"])
        if not len(surface.points) or not np.isfinite(surface.points).all():
            raise ValueError(f"{name} has no points, or some that are not finite")
        return ShapeItem(
            id=new_id(), name=name, file_bytes=len(content), notes=(), shape=shape, surface=surface
        )

    def warm_up(self, codec: Any) -> None:
        """Compresses a ball."""
        import trimesh

        codec.decompress(codec.compress(trimesh.creation.icosphere(1)), resolution=16)

    def compress(self, result: str, item: ShapeItem, codec: Any, rate: Rate, notify: Notify) -> ShapeResult:
        """Compresses to a quality or a number of bytes."""
        options = rate.options("target_bytes", "effort")
        if rate.quality is not None:
            options["quality"] = rate.quality
        start = time.perf_counter()
        data, report = codec.encode(item.shape, progress=notify, **options)
        middle = time.perf_counter()
        decoded = codec.decompress(data)
        end = time.perf_counter()
        quality = "polygons" if report.quality is None else f"quality {report.quality:g}"
        setting = quality + (f", effort {rate.effort}" if rate.effort else "")
        return ShapeResult(
            id=result,
            item=item,
            label=OWN_LABEL,
            setting=setting,
            data=data,
            encode_seconds=middle - start,
            decode_seconds=end - middle,
            surface=_surface(decoded),
            chamfer=report.chamfer,
        )

    def against(self, own: ShapeResult, peer: str) -> ShapeResult:
        """The nearest of many reduced meshes that Draco makes no more bytes of; colours are left out."""
        import DracoPy

        from latentpress.scripts.shape_comparison import compare, decoded_draco

        faces = own.item.surface.faces
        if faces is None or not 0 < len(faces) <= _MOST_FACES_FOR_DRACO:
            raise ValueError(f"{DRACO} is compared on meshes of up to {_MOST_FACES_FOR_DRACO:,} faces")
        rival, original = own.item.draco

        def distance(stream: bytes) -> float:
            found = decoded_draco(stream)
            return math.inf if found is None else compare(original, found)[0]

        start = time.perf_counter()
        data = rival.best(len(own.data), distance)
        seconds = time.perf_counter() - start
        if data is None:
            raise ValueError(f"{DRACO} makes no file that is so small")
        start = time.perf_counter()
        decoded = DracoPy.decode(data)
        taken = time.perf_counter() - start
        frame = own.item.frame
        points = np.asarray(decoded.points) / frame.scale + frame.centre
        return ShapeResult(
            id=new_id(),
            item=own.item,
            label=peer,
            setting=f"reduced to {len(decoded.faces)} faces",
            data=data,
            encode_seconds=seconds,
            decode_seconds=taken,
            suffix=".drc",
            surface=Surface(points, np.asarray(decoded.faces), None),
            chamfer=distance(data),
        )


def _surface(shape: Any) -> Surface:
    """A mesh or points as they are drawn; textures become colours of the vertices."""
    if isinstance(shape, np.ndarray):
        colours = np.rint(shape[:, 3:6] * 255).clip(0, 255).astype(np.uint8) if shape.shape[1] == 6 else None
        return Surface(shape[:, :3], None, colours)
    visual = shape.visual
    coloured = visual is not None and visual.defined
    colours = None
    if coloured:
        if not hasattr(visual, "vertex_colors"):
            visual = visual.to_color()
        colours = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
    points = np.asarray(shape.vertices)
    if colours is not None and len(colours) != len(points):
        colours = None
    return Surface(points, np.asarray(shape.faces), colours)


def _drawn(surface: Surface, frame: Frame, name: str) -> Content:
    if name != "mesh.bin":
        raise KeyError(name)
    return Content(mesh_buffer(*surface, frame), "application/octet-stream")
