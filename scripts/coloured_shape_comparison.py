"""Compares the shape codec with decimation + Draco with vertex colours on pictures of coloured meshes.

Usage: ``python -m latentpress.scripts.coloured_shape_comparison Duck.glb --bytes 1000``. Needs DracoPy,
fast-simplification and embreex besides the ``shape`` extra. Eight views of 256 x 256 pixels, from complete
streams, decoded again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from latentpress.codecs import load
from latentpress.codecs.chamfer import sample_triangles
from latentpress.codecs.shape_source import surface_painter
from latentpress.scripts.mesh_rendering import picture_psnr, render
from latentpress.scripts.shape_comparison import FACES, normalised

_SAMPLES = 100_000
_POSITION_BITS = (7, 8, 9, 10)
_STREAMS_JUDGED = 6


def painted_draco(mesh: Any, limit: int, original: NDArray[np.float32]) -> tuple[int, float]:
    """Bytes and PSNR of the best decimated mesh with vertex colours that fits; infinitely bad for none."""
    import DracoPy
    import fast_simplification
    import trimesh

    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
    points, chosen = sample_triangles(vertices, faces, _SAMPLES)
    painter = surface_painter(mesh)
    if painter is None:
        raise ValueError("the mesh has no colours")
    weights = np.full((_SAMPLES, 3), 1 / 3)
    near = cKDTree(points)
    colours = np.round(painter(chosen, faces, weights) * 255).astype(np.uint8)
    welded, inverse = np.unique(vertices, axis=0, return_inverse=True)
    soup = inverse.reshape(-1)[faces].astype(np.int32)
    streams: list[bytes] = []
    for count in (f for f in FACES if f < len(soup)):
        fewer, kept = fast_simplification.simplify(welded, soup, target_count=count)
        if not len(kept):
            continue
        paint = colours[near.query(fewer)[1]]
        for bits in _POSITION_BITS:
            data = DracoPy.encode(fewer, kept, colors=paint, quantization_bits=bits, compression_level=10)
            if len(data) <= limit:
                streams.append(data)
    best = (0, -np.inf)
    for data in sorted(streams, key=len)[-_STREAMS_JUDGED:]:
        found = DracoPy.decode(data)
        decoded = trimesh.Trimesh(found.points, found.faces, vertex_colors=found.colors, process=False)
        best = max(best, (len(data), picture_psnr(original, render(decoded))), key=lambda pair: pair[1])
    return best


def main(args: Sequence[str] | None = None) -> None:
    """Measures coloured mesh files.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.coloured_shape_comparison",
        description="Compares pictures of coloured meshes with those of decimation + Draco.",
    )
    parser.add_argument("meshes", nargs="+", metavar="MESH", help="mesh file with colours or a texture")
    parser.add_argument("--bytes", type=int, default=1000, metavar="N", help="size (default: 1000)")
    parser.add_argument("--effort", type=int, default=0, metavar="E", help="0 to 10 (default: 0)")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    options = parser.parse_args(args)
    codec: Any = load(options.codec)
    print("mesh                 ours bytes   dB   Draco bytes   dB")
    for path in options.meshes:
        mesh = normalised(path)
        original = render(mesh)
        data = codec.compress(mesh, target_bytes=options.bytes, effort=options.effort)
        ours = picture_psnr(original, render(codec.decompress(data)))
        size, theirs = painted_draco(mesh, options.bytes, original)
        print(f"{Path(path).stem:20s} {len(data):10d} {ours:6.2f} {size:10d} {theirs:6.2f}", flush=True)


if __name__ == "__main__":
    main()
