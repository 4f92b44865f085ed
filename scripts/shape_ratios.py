"""Ratios against the source files, as Squeeze3D's paper reports them, with the quality beside each.

Usage: ``python -m latentpress.scripts.shape_ratios Duck.glb spot.obj --bytes 250 500 1000``. Three
tables in one: textured meshes against their files; point clouds against 2048 points in float32; radiance
fields against the PNG files of the pictures that they are made of. A ratio alone says nothing: anything may
be thrown away.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from latentpress.codecs import load
from latentpress.codecs.chamfer import chamfer_distance, sample_triangles
from latentpress.codecs.posed_images import PosedImages
from latentpress.codecs.shape_source import surface_painter
from latentpress.models.shape.radiance import RadianceField
from latentpress.scripts.mesh_rendering import (
    Cameras,
    cameras_around,
    on_white,
    picture_psnr,
    render,
    render_from,
)
from latentpress.scripts.shape_comparison import SAMPLES, normalised
from latentpress.scripts.text_table import format_table

PAPER = {"textured mesh": 2187, "point cloud": 55, "radiance field": 619}
"""Ratios that Squeeze3D states (arXiv 2506.07932), without quantisation, entropy coding or a file format."""

CLOUD_POINTS = 2048
CLOUD_BYTES = CLOUD_POINTS * 3 * 4

_VIEWS = 24
_VIEW_SIZE = 200
_UNSEEN_VIEWS = 4
_RAY_SAMPLES = 96
_HEAD = ("kind", "shapes", "target", "source bytes", "bytes", "ratio", "Chamfer", "PSNR dB", "paper's ratio")


@dataclass(frozen=True)
class Ratio:
    """One shape, as one kind of input.

    Attributes:
        kind: A key of :data:`PAPER`.
        shape: Name of the file.
        target: Bytes that were allowed.
        source: Bytes of what was given.
        bytes: Of the stream.
        chamfer: Distance of the decoded surface to the mesh, or to the points; longest side 2.
        psnr: Of pictures: of the decoded mesh from eight sides, or of the decoded field from places that the
            encoder had no picture of. None for points.
    """

    kind: str
    shape: str
    target: int
    source: int
    bytes: int
    chamfer: float
    psnr: float | None


def measure_ratios(path: str, codec: Any, targets: Iterable[int]) -> list[Ratio]:
    """One mesh file as points and, if it has colours, as a textured mesh and as a radiance field."""
    mesh, targets = normalised(path), tuple(targets)
    points, _ = sample_triangles(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces), CLOUD_POINTS)
    found = [_cloud(Path(path).stem, points, codec, target) for target in targets]
    if surface_painter(mesh) is None:
        return found
    found += [_textured(path, mesh, codec, target) for target in targets]
    return found + _field(Path(path).stem, mesh, codec, targets)


def source_bytes(path: str | Path) -> int:
    """Bytes of a mesh file with the files that it names: materials and textures in its folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.jpg").write_bytes(b"1234"), (folder / "a.mtl").write_text("map_Kd a.jpg")
        (4, 12)
        >>> (folder / "a.obj").write_text("mtllib a.mtl"), source_bytes(folder / "a.obj")
        (12, 28)
    """
    path = Path(path)
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        if file.suffix.lower() in (".obj", ".mtl"):
            names = _named_files(file.read_text("utf-8", errors="replace"))
            waiting += [file.parent / name for name in names]
    return sum(file.stat().st_size for file in seen)


def _named_files(content: str) -> list[str]:
    words = [line.split() for line in content.splitlines()]
    return [found[-1] for found in words if len(found) > 1 and found[0].startswith(("mtllib", "map_"))]


def _surface(mesh: Any) -> NDArray[np.float32]:
    return sample_triangles(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces), SAMPLES)[0]


def _cloud(name: str, points: NDArray[np.float32], codec: Any, target: int) -> Ratio:
    data, report = codec.encode(points, target_bytes=target)
    return Ratio("point cloud", name, target, CLOUD_BYTES, len(data), report.chamfer, None)


def _textured(path: str, mesh: Any, codec: Any, target: int) -> Ratio:
    data, report = codec.encode(mesh, target_bytes=target, mode="generator")
    psnr = picture_psnr(render(mesh), render(codec.decompress(data)))
    name = Path(path).stem
    return Ratio("textured mesh", name, target, source_bytes(path), len(data), report.chamfer, psnr)


def _field(name: str, mesh: Any, codec: Any, targets: Iterable[int]) -> list[Ratio]:
    cameras = cameras_around(_VIEWS, _VIEW_SIZE)
    pictures = np.round(render_from(mesh, cameras, lit=False) * 255).astype(np.uint8)
    source = sum(len(_png(picture)) for picture in pictures)
    unseen = cameras_around(_UNSEEN_VIEWS, _VIEW_SIZE, turned=0.5 * _UNSEEN_VIEWS / _VIEWS)
    expected = on_white(render_from(mesh, unseen, lit=False))
    surface = _surface(mesh)
    found = []
    for target in targets:
        given = PosedImages(pictures, cameras.camera_to_world, cameras.intrinsics)
        data = codec.compress(given, target_bytes=target)
        psnr = picture_psnr(expected, rendered_field(codec.decompress(data, as_="field"), unseen))
        decoded = codec.decompress(data)
        distance = chamfer_distance(surface, _surface(decoded)) if len(decoded.faces) else float("inf")
        found.append(Ratio("radiance field", name, target, source, len(data), distance, psnr))
    return found


@torch.inference_mode()
def rendered_field(field: RadianceField, cameras: Cameras) -> NDArray[np.float32]:
    """Pictures of a radiance field on white, ``(V, size, size, 3)`` in [0, 1]."""
    pictures = []
    for matrix in torch.from_numpy(cameras.camera_to_world):
        found = field.render(
            matrix, torch.from_numpy(cameras.intrinsics), cameras.size, cameras.size, _RAY_SAMPLES
        )
        # Colours come multiplied by the opacity.
        pictures.append((found.colour + (1 - found.opacity)[..., None]).clamp(0, 1).cpu().numpy())
    return np.stack(pictures)


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def ratio_table(results: Sequence[Ratio]) -> str:
    """Means over the shapes, a line a kind and size; the ratio is that of all bytes together."""
    rows: list[list[str]] = []
    for kind, paper in PAPER.items():
        for target in sorted({r.target for r in results if r.kind == kind}):
            found = [r for r in results if (r.kind, r.target) == (kind, target)]
            source, size = (sum(getattr(r, name) for r in found) for name in ("source", "bytes"))
            psnr = [r.psnr for r in found if r.psnr is not None]
            rows.append(
                [
                    kind,
                    str(len(found)),
                    str(target),
                    f"{source / len(found):.0f}",
                    f"{size / len(found):.0f}",
                    f"{source / size:.0f}",
                    f"{np.mean([r.chamfer for r in found]):.4f}",
                    f"{np.mean(psnr):.2f}" if psnr else "-",
                    str(paper),
                ]
            )
    return format_table(_HEAD, rows)


def main(args: Sequence[str] | None = None) -> None:
    """Measures mesh files.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.shape_ratios",
        description="Ratios of the shape codec against source files, with the quality beside them.",
    )
    parser.add_argument("meshes", nargs="+", metavar="MESH", help="mesh file")
    parser.add_argument("--bytes", type=int, nargs="+", default=[250, 500, 1000], metavar="N", help="sizes")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    parser.add_argument("--device", default="cpu", help="where the networks run")
    parser.add_argument("--json", metavar="FILE", help="write every result there")
    options = parser.parse_args(args)
    codec: Any = load(options.codec, options.device)
    results: list[Ratio] = []
    for path in options.meshes:
        results += measure_ratios(path, codec, options.bytes)
        print(f"{Path(path).name}: done", flush=True)
    print(ratio_table(results))
    if options.json:
        content = {
            "weights": codec.fingerprint.hex(),
            "paper": PAPER,
            "results": [asdict(r) for r in results],
        }
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
