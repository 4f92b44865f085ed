"""Mesh and point cloud files through the shape codec, for the command line."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.scripts.file_io import STANDARD, Task, print_result, read_bytes, write_bytes
from latentpress.scripts.progress import progress_bar

if TYPE_CHECKING:
    from latentpress import Codec

SHAPES = frozenset({".obj", ".ply", ".stl", ".glb", ".gltf", ".off", ".pcd"})
"""Files that are read; :data:`latentpress.codecs.shape_source.SUFFIXES`, which needs torch to look at."""

WRITTEN = (".ply", ".glb", ".obj", ".stl", ".off")
"""Files that are written, the default first."""


def is_shape(source: str) -> bool:
    """Whether a path is that of a shape, by its suffix.

    Example:
        >>> is_shape("model.GLB"), is_shape("photo.png")
        (True, False)
    """
    return Path(source).suffix.lower() in SHAPES


def encode_shape(task: Task, codec: Codec, args: argparse.Namespace) -> None:
    """Compresses one file and prints a line for it: path, bytes, Chamfer distance, seconds.

    Raises:
        ValueError: A rate is asked for that shapes do not have, or the shape has no surface.
    """
    from latentpress.codecs.shape import ShapeCodec

    if not isinstance(codec, ShapeCodec):
        raise ValueError(f"{task.source} is a shape, and {args.codec} is no shape codec")
    if args.bpp is not None or args.psnr is not None:
        raise ValueError("shapes have no bits per pixel and no PSNR: give --quality or --bytes")
    options: dict[str, Any] = {"quality": args.quality, "target_bytes": args.bytes, "mode": args.mode}
    options = {name: value for name, value in options.items() if value is not None}
    start = time.perf_counter()
    with progress_bar(str(task)) as progress:
        data, report = codec.encode(task.source, effort=int(args.effort), progress=progress, **options)
    seconds = time.perf_counter() - start
    write_bytes(task.target, data, args.force)
    print_result(task, f"{report.bytes} bytes  {report.mode}  Chamfer {report.chamfer:.4f}  {seconds:.2f} s")


def decode_shape(task: Task, codec: Codec, args: argparse.Namespace) -> None:
    """Restores one mesh and prints a line for it: path, vertices, faces, seconds.

    Raises:
        ValueError: The target's suffix is not that of a mesh file.
    """
    from latentpress.codecs.shape import ShapeCodec

    suffix = WRITTEN[0] if task.target == STANDARD else Path(task.target).suffix.lower()
    if suffix not in WRITTEN:
        raise ValueError(f"a shape is written as one of {', '.join(WRITTEN)}, not {suffix!r}")
    if not isinstance(codec, ShapeCodec):
        raise ValueError(f"{task.source} needs a shape codec")
    start = time.perf_counter()
    with progress_bar(str(task)) as progress:
        mesh = codec.decompress(read_bytes(task.source), progress=progress)
    seconds = time.perf_counter() - start
    # Through a file: some of trimesh's writers return text, some bytes, some several files.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mesh{suffix}"
        mesh.export(path)
        content = path.read_bytes()
    write_bytes(task.target, content, args.force)
    print_result(task, f"{len(mesh.vertices)} vertices  {len(mesh.faces)} faces  {seconds:.2f} s")
