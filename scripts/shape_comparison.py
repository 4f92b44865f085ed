"""Compares the shape codec with quadric decimation + Draco at equal bytes, on mesh files.

Usage: ``python -m latentpress.scripts.shape_comparison MESH... --bytes 100 200 500 --effort 10``. Needs
DracoPy and fast-simplification besides the ``shape`` extra. Everything is measured from complete streams,
decoded again, in coordinates where a mesh's longest side is 2.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from latentpress.codecs import load
from latentpress.codecs.chamfer import sample_triangles
from latentpress.codecs.polygon_decimation import decimated, welded
from latentpress.codecs.shape_source import read_shape

OWN_NAME = "latentpress"
RIVAL_NAME = "decimation + Draco"
SAMPLES = 30000
F_SCORE_REACH = 0.02
BITS = (5, 6, 7, 8, 9, 10, 11)
FACES = tuple(sorted({*range(12, 80, 2), *(round(80 * 1.08**k) for k in range(50))}))


class SampledSurface(NamedTuple):
    """Points of a surface and the normals there, ``(N, 3)`` each."""

    points: NDArray[np.float32]
    normals: NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """One mesh through one codec.

    Attributes:
        mesh: Name of the file.
        codec: ``latentpress``, ``decimation + Draco`` or ``floor``, the mesh against itself.
        target: Bytes that were allowed.
        bytes: Of the stream; 0 if the codec has none so small.
        chamfer: Mean of the two directed mean distances; infinite for no stream or no surface.
        f_score: Harmonic mean of the shares of points within 0.02 of the other surface.
        normals: Mean absolute cosine between normals of nearest points, both ways.
        seconds: To encode.
    """

    mesh: str
    codec: str
    target: int
    bytes: int
    chamfer: float
    f_score: float
    normals: float
    seconds: float


def sampled(vertices: NDArray[Any], faces: NDArray[Any], seed: int) -> SampledSurface:
    """Samples a mesh by area."""
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int64)
    points, chosen = sample_triangles(vertices, faces, SAMPLES, seed)
    corners = vertices[faces[chosen]].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return SampledSurface(points, normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30))


def compare(original: SampledSurface, decoded: SampledSurface) -> tuple[float, float, float]:
    """Chamfer distance, F-score and normal consistency of two sampled surfaces."""
    forth, there = cKDTree(decoded.points).query(original.points)
    back, here = cKDTree(original.points).query(decoded.points)
    recall, precision = (forth < F_SCORE_REACH).mean(), (back < F_SCORE_REACH).mean()
    f_score = 2 * recall * precision / max(recall + precision, 1e-12)
    first = np.abs((original.normals * decoded.normals[there]).sum(1)).mean()
    second = np.abs((decoded.normals * original.normals[here]).sum(1)).mean()
    return float((forth.mean() + back.mean()) / 2), float(f_score), float((first + second) / 2)


def normalised(path: str) -> Any:
    """A mesh file with its longest side 2, centred, and equal vertices merged.

    Raises:
        ValueError: The file holds no mesh.
    """
    mesh = read_shape(path)
    if not hasattr(mesh, "faces") or not len(mesh.faces):
        raise ValueError(f"{path} holds no mesh")
    mesh = mesh.copy()
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(2 / mesh.extents.max())
    return mesh


class DracoRival:
    """Decimated meshes as Draco streams, the best of all face counts and quantisations for a size.

    Args:
        mesh: Normalised.
    """

    def __init__(self, mesh: Any) -> None:
        import DracoPy

        points, faces = welded(mesh)
        self._streams: list[bytes] = []
        for count in (f for f in FACES if f < len(faces)):
            fewer, kept = decimated(points, faces, count)
            if not len(kept):
                continue
            for bits in BITS:
                self._streams.append(
                    DracoPy.encode(fewer, kept, quantization_bits=bits, compression_level=10)
                )

    def best(self, limit: int, judge: Callable[[bytes], float]) -> bytes | None:
        """The stream of at most so many bytes that is judged lowest, of the twelve largest; None for none."""
        fitting = sorted((s for s in self._streams if len(s) <= limit), key=len)[-12:]
        return min(fitting, key=judge, default=None)


def decoded_draco(stream: bytes) -> SampledSurface | None:
    """Samples of what a Draco stream holds; None if it has no area."""
    import DracoPy

    found = DracoPy.decode(stream)
    points, faces = np.asarray(found.points), np.asarray(found.faces)
    if not len(faces):
        return None
    a, b, c = points[faces].transpose(1, 0, 2)
    return sampled(points, faces, seed=1) if np.cross(b - a, c - a).any() else None


def measure(path: str, codec: Any, efforts: Mapping[int, int]) -> list[Result]:
    """All results of one mesh file.

    Args:
        path: The file.
        codec: The shape codec.
        efforts: Sizes in bytes, and the effort to encode with for each.
    """
    mesh = normalised(path)
    name, original = Path(path).stem, sampled(mesh.vertices, mesh.faces, seed=0)
    results = [
        Result(name, "floor", 0, 0, *compare(original, sampled(mesh.vertices, mesh.faces, seed=1)), 0.0)
    ]
    rival = DracoRival(mesh)

    def judge(stream: bytes) -> float:
        surface = decoded_draco(stream)
        return np.inf if surface is None else compare(original, surface)[0]

    for target, effort in efforts.items():
        results.append(_own_result(name, mesh, original, codec, target, effort))
        stream = rival.best(target, judge)
        surface = None if stream is None else decoded_draco(stream)
        if stream is not None and surface is not None:
            figures = compare(original, surface)
            results.append(Result(name, RIVAL_NAME, target, len(stream), *figures, 0.0))
    return results


def _own_result(
    name: str, mesh: Any, original: SampledSurface, codec: Any, target: int, effort: int
) -> Result:
    start = time.perf_counter()
    try:
        data = codec.compress(mesh, target_bytes=target, effort=effort, colour=False)
    except ValueError:  # the shape does not go into so few bytes
        return Result(name, OWN_NAME, target, 0, np.inf, 0.0, 0.0, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    decoded = codec.decompress(data)
    if not len(decoded.faces):
        return Result(name, OWN_NAME, target, len(data), np.inf, 0.0, 0.0, seconds)
    figures = compare(original, sampled(decoded.vertices, decoded.faces, seed=1))
    return Result(name, OWN_NAME, target, len(data), *figures, seconds)


def table(results: Sequence[Result]) -> str:
    """Means over the meshes, and on how many the codec has the lower Chamfer distance."""
    lines = ["target  codec               meshes  bytes  Chamfer  F-score  normals"]
    for target in sorted({r.target for r in results}):
        for codec in ("floor", OWN_NAME, RIVAL_NAME):
            rows = [r for r in results if r.target == target and r.codec == codec]
            if rows:
                columns = ("bytes", "chamfer", "f_score", "normals")
                size, *means = (float(np.mean([getattr(r, column) for r in rows])) for column in columns)
                figures = " ".join(f"{value:8.4f}" for value in means)
                lines.append(f"{target:6d}  {codec:18s} {len(rows):7d} {size:6.0f} {figures}")
        ours = {r.mesh: r.chamfer for r in results if r.target == target and r.codec == OWN_NAME}
        theirs = {r.mesh: r.chamfer for r in results if r.target == target and r.codec == RIVAL_NAME}
        if ours:
            won = sum(value < theirs.get(mesh, np.inf) for mesh, value in ours.items())
            lines.append(f"        lower Chamfer distance on {won} of {len(ours)} meshes")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Measures mesh files.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.shape_comparison",
        description="Compares the shape codec with quadric decimation + Draco at equal bytes.",
    )
    parser.add_argument("meshes", nargs="+", metavar="MESH", help="mesh file")
    parser.add_argument("--bytes", type=int, nargs="+", default=[100, 200, 500], metavar="N", help="sizes")
    parser.add_argument("--effort", type=int, default=0, metavar="E", help="0 to 10 (default: 0)")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    parser.add_argument("--device", default="cpu", help="where the networks run")
    parser.add_argument("--json", metavar="FILE", help="write every result there")
    options = parser.parse_args(args)
    codec = load(options.codec, options.device)
    results: list[Result] = []
    for path in options.meshes:
        results += measure(path, codec, dict.fromkeys(options.bytes, options.effort))
        print(table([r for r in results if r.mesh == Path(path).stem]), flush=True)
    print(table(results))
    if options.json:
        content = {"weights": codec.fingerprint.hex(), "effort": options.effort}
        content["results"] = [asdict(r) for r in results]
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
