"""One picture that shows shapes, what the shape codec makes of them, and decimation + Draco at equal bytes.

    python -m latentpress.scripts.shape_sheet --bytes 200 --effort 5 docs/figures/shape_equal_bytes.jpg

Three shapes from formulas, so that anybody can make the picture again, or any mesh files. Needs DracoPy,
fast-simplification and embreex besides the ``shape`` extra.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from latentpress.codecs import load
from latentpress.scripts.comparison_sheet import FAINT, GAP, INK, PAPER
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.mesh_rendering import cameras_around, on_white, render_from
from latentpress.scripts.shape_comparison import (
    DracoRival,
    SampledSurface,
    compare,
    decoded_draco,
    normalised,
    sampled,
)
from latentpress.scripts.view.samples import knot

SIDE = 300
_OVERSAMPLING = 2
_TURNED = 0.09
_CAPTION = 50
_CELLS = 96
_HALF_WIDTH = 1.3

Formula = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]]
"""Coordinates x, y, z to values that are negative inside."""


class ShapePanel(NamedTuple):
    """One shape of the sheet.

    Attributes:
        title: Which codec.
        facts: Its size and error.
        picture: ``(SIDE, SIDE, 3)`` in [0, 1].
    """

    title: str
    facts: str
    picture: NDArray[np.float32]


def from_formula(formula: Formula) -> Any:
    """The surface where a formula is zero, as a ``trimesh.Trimesh`` whose longest side is 2.

    Example:
        >>> ball = from_formula(lambda x, y, z: x**2 + y**2 + z**2 - 1)
        >>> ball.is_watertight, round(float(ball.extents.max()), 3)
        (True, 2.0)
    """
    import trimesh
    from skimage.measure import marching_cubes

    axis = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, _CELLS + 1)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    vertices, faces, _, _ = marching_cubes(formula(x, y, z), 0.0, spacing=(axis[1] - axis[0],) * 3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(2 / mesh.extents.max())
    return mesh


def flange(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    """A disc with a hub, a bore and six holes."""
    radius, angle = np.hypot(x, z), np.arctan2(z, x)
    disc = np.maximum(radius - 1.0, np.abs(y + 0.3) - 0.14)
    hub = np.maximum(radius - 0.45, np.abs(y - 0.1) - 0.5)
    folded = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    holes = np.hypot(radius * np.cos(folded) - 0.73, radius * np.sin(folded)) - 0.13
    return np.maximum(np.minimum(disc, hub), -np.minimum(holes, radius - 0.24))


def jug(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    """A hollow body of revolution with a handle."""
    outline = 0.5 + 0.16 * np.sin(2.6 * y + 0.4)
    radius = np.hypot(x, z)
    body = np.maximum(radius - outline, np.abs(y) - 1.0)
    hollow = np.maximum(radius - outline + 0.12, -0.85 - y)
    handle = np.hypot(np.hypot(x - 0.6, y - 0.05) - 0.42, z) - 0.09
    return np.maximum(np.minimum(body, handle), -hollow)


def formula_shapes() -> dict[str, Any]:
    """Shapes from formulas by name, each with its longest side 2."""
    import trimesh

    tube = trimesh.load_mesh(io.BytesIO(knot()), file_type="ply")
    tube.apply_translation(-tube.bounds.mean(0))
    tube.apply_scale(2 / tube.extents.max())
    tube.visual = trimesh.visual.ColorVisuals()
    return {"flange": from_formula(flange), "jug": from_formula(jug), "knot": tube}


def portrait(mesh: Any) -> NDArray[np.float32]:
    """A picture ``(SIDE, SIDE, 3)`` of a mesh in [-1, 1]^3 from above, on white."""
    cameras = cameras_around(1, SIDE * _OVERSAMPLING, turned=_TURNED)
    large = on_white(render_from(mesh, cameras, lit=True))[0]
    blocks = large.reshape(SIDE, _OVERSAMPLING, SIDE, _OVERSAMPLING, 3)
    smooth: NDArray[np.float32] = blocks.mean((1, 3))
    return smooth


def row_of_panels(name: str, mesh: Any, codec: Any, limit: int, effort: int) -> list[ShapePanel]:
    """A shape, ours and the rival.

    Args:
        name: Of the shape.
        mesh: With its longest side 2, centred.
        codec: The shape codec.
        limit: Bytes.
        effort: Of ours, 0 to 10.

    Raises:
        ValueError: The shape does not go into so few bytes.
    """
    original = sampled(mesh.vertices, mesh.faces, seed=0)
    panels = [ShapePanel(name, f"{len(mesh.faces):,} triangles", portrait(mesh))]
    data = codec.compress(mesh, target_bytes=limit, effort=effort, colour=False)
    ours = codec.decompress(data)
    chamfer = compare(original, sampled(ours.vertices, ours.faces, seed=1))[0]
    panels.append(ShapePanel("latentpress", _facts(len(data), chamfer), portrait(ours)))
    panels.append(_rival_panel(mesh, original, limit))
    return panels


def _rival_panel(mesh: Any, original: SampledSurface, limit: int) -> ShapePanel:
    import DracoPy
    import trimesh

    def judge(stream: bytes) -> float:
        surface = decoded_draco(stream)
        return np.inf if surface is None else compare(original, surface)[0]

    stream, title = DracoRival(mesh).best(limit, judge), "decimation + Draco"
    if stream is None:
        return ShapePanel(title, f"nothing within {limit} bytes", np.ones((SIDE, SIDE, 3), np.float32))
    found = DracoPy.decode(stream)
    decoded = trimesh.Trimesh(found.points, found.faces, process=False)
    return ShapePanel(title, _facts(len(stream), judge(stream)), portrait(decoded))


def _facts(size: int, chamfer: float) -> str:
    """What is written below a decoded shape.

    Example:
        >>> _facts(197, 0.01234)
        '197 bytes, Chamfer .0123'
    """
    return f"{size} bytes, Chamfer {chamfer:.4f}".replace(" 0.", " .")


def shape_sheet(rows: Sequence[Sequence[ShapePanel]]) -> Image.Image:
    """Puts rows of panels on one sheet."""
    width = max(len(row) for row in rows) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, len(rows) * (SIDE + _CAPTION) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = GAP + j * (SIDE + GAP), GAP + i * (SIDE + _CAPTION)
            pixels = np.rint(panel.picture.clip(0, 1) * 255).astype(np.uint8)
            sheet.paste(Image.fromarray(pixels), (left, top))
            draw.text((left, top + SIDE), panel.title, INK, ImageFont.load_default(17))
            draw.text((left, top + SIDE + 21), panel.facts, FAINT, ImageFont.load_default(14))
    return sheet


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes a sheet.

    Args:
        arguments: None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.shape_sheet", description=__doc__.splitlines()[0]
    )
    parser.add_argument("out", metavar="JPG", help="file to write")
    parser.add_argument(
        "meshes", nargs="*", metavar="MESH", help="mesh files (default: shapes from formulas)"
    )
    parser.add_argument("--bytes", type=int, default=200, metavar="N", help="of every stream (default: 200)")
    parser.add_argument("--effort", type=int, default=0, metavar="E", help="0 to 10 (default: 0)")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    options = parser.parse_args(arguments)
    shapes = {Path(p).stem: normalised(p) for p in options.meshes} or formula_shapes()
    codec = load(options.codec)
    rows = []
    for name, mesh in shapes.items():
        rows.append(row_of_panels(name, mesh, codec, options.bytes, options.effort))
        print(name, *(f"{panel.title}: {panel.facts}" for panel in rows[-1][1:]), sep="; ", flush=True)
    buffer = io.BytesIO()
    shape_sheet(rows).save(buffer, "JPEG", quality=90, subsampling="4:4:4", optimize=True)
    write_bytes(options.out, buffer.getvalue(), force=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
