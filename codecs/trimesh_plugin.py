"""Shape streams as a file type of trimesh: ``trimesh.load("ball.lpz")`` and ``mesh.export("ball.lpz")``.

Nothing happens on import; :func:`register` says which codec to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentpress.codecs.shape import ShapeCodec

FILE_TYPE = "lpz"


def register(codec: ShapeCodec, resolution: int = 128, **options: Any) -> None:
    """Makes trimesh read and write shape streams.

    Args:
        codec: Reads and writes them.
        resolution: Of meshes that are read.
        options: Of :meth:`latentpress.codecs.shape.ShapeCodec.encode`, for meshes that are written.

    Raises:
        ImportError: trimesh is not installed.
    """
    from trimesh.exchange import export, load

    def read(file_obj: Any, **_: Any) -> Mapping[str, Any]:
        mesh = codec.decompress(file_obj.read(), resolution=resolution)
        found: dict[str, Any] = {"vertices": mesh.vertices, "faces": mesh.faces, "process": False}
        visual: Any = mesh.visual
        if visual.kind == "vertex":
            found["vertex_colors"] = visual.vertex_colors
        return found

    def write(mesh: Any, **_: Any) -> bytes:
        return codec.compress(mesh, **options)

    load.mesh_loaders[FILE_TYPE] = read
    export._mesh_exporters[FILE_TYPE] = write
