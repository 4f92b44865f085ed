"""Compares the shape codec with what else would carry a coloured mesh in a kilobyte, on pictures.

Usage: ``python -m latentpress.scripts.coloured_shape_comparison Duck.glb --bytes 1000``. The rivals are
those of :mod:`latentpress.scripts.coloured_rivals`, which says what they need. Eight views of 256 x 256
pixels, from complete streams, decoded again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs import load
from latentpress.scripts.coloured_rivals import ColouredRivals, Judge, Painted
from latentpress.scripts.mesh_rendering import picture_psnr, picture_similarity, render
from latentpress.scripts.shape_comparison import OWN_NAME, normalised
from latentpress.scripts.text_table import format_table

_HEAD = ("mesh", "codec", "bytes", "PSNR dB", "MS-SSIM")


@dataclass(frozen=True)
class ColouredResult:
    """One coloured mesh through one codec.

    Attributes:
        mesh: Name of the file.
        codec: ``latentpress`` or a rival.
        target: Bytes that were allowed.
        bytes: Of everything that is sent.
        psnr: Of the pictures, in dB.
        ms_ssim: Of the pictures.
    """

    mesh: str
    codec: str
    target: int
    bytes: int
    psnr: float
    ms_ssim: float


def measure_coloured(path: str, codec: Any, target: int, effort: int) -> list[ColouredResult]:
    """Ours and both rivals for one mesh file, those of them that have anything so small.

    Raises:
        ValueError: The file holds no mesh, or one without colours.
    """
    mesh, name = normalised(path), Path(path).stem
    original = render(mesh)
    rivals = ColouredRivals(mesh)
    judge = picture_judge(original)
    data = codec.compress(mesh, target_bytes=target, effort=effort)
    ours = codec.decompress(data)
    found = [Painted(OWN_NAME, len(data), ours, judge(ours))]
    for rival in (rivals.with_vertex_colours(target, judge), rivals.textured(target, judge)):
        if rival is not None:
            found.append(rival)
    return [
        ColouredResult(
            name, one.name, target, one.bytes, one.score, picture_similarity(original, render(one.mesh))
        )
        for one in found
    ]


def picture_judge(original: NDArray[np.float32]) -> Judge:
    """Judges a mesh by the PSNR of its pictures."""
    return lambda mesh: picture_psnr(original, render(mesh))


def lead(results: Sequence[ColouredResult]) -> dict[str, float]:
    """By mesh, how many dB ours is above the best rival; infinitely many where there is none.

    Example:
        >>> psnr = {"latentpress": 9, "x": 7}
        >>> lead([ColouredResult("a", name, 9, 9, value, 1.0) for name, value in psnr.items()])
        {'a': 2}
    """
    found = {}
    for ours in (r for r in results if r.codec == OWN_NAME):
        rivals = [r.psnr for r in results if r.mesh == ours.mesh and r.codec != OWN_NAME]
        found[ours.mesh] = ours.psnr - max(rivals, default=-np.inf)
    return found


def coloured_table(results: Sequence[ColouredResult]) -> str:
    """All results, an empty line between meshes."""
    rows: list[list[str]] = []
    for result in results:
        if rows and result.mesh != rows[-1][0]:
            rows.append([])
        rows.append(
            [
                result.mesh,
                result.codec,
                str(result.bytes),
                f"{result.psnr:.2f}",
                f"{result.ms_ssim:.4f}",
            ]
        )
    return format_table(_HEAD, rows, left=(0, 1))


def main(args: Sequence[str] | None = None) -> None:
    """Measures coloured mesh files.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.coloured_shape_comparison",
        description="Compares pictures of coloured meshes with those of decimation + Draco, painted.",
    )
    parser.add_argument("meshes", nargs="+", metavar="MESH", help="mesh file with colours or a texture")
    parser.add_argument("--bytes", type=int, default=1000, metavar="N", help="size (default: 1000)")
    parser.add_argument("--effort", type=int, default=0, metavar="E", help="0 to 10 (default: 0)")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    parser.add_argument("--device", default="cpu", help="where the networks run")
    parser.add_argument("--json", metavar="FILE", help="write every result there")
    options = parser.parse_args(args)
    codec: Any = load(options.codec, options.device)
    results: list[ColouredResult] = []
    for path in options.meshes:
        found = measure_coloured(path, codec, options.bytes, options.effort)
        print(coloured_table(found), flush=True)
        results += found
    leads = lead(results)
    print(
        f"above the best rival by {np.mean(list(leads.values())):+.2f} dB in the mean of {len(leads)} meshes"
    )
    if options.json:
        content = {"weights": codec.fingerprint.hex(), "effort": options.effort}
        content["results"] = [asdict(r) for r in results]
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
