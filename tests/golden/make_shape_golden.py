"""Makes the golden shape streams of a format version: run once for a new version, and never again.

    python tests/golden/make_shape_golden.py

What it writes is kept for ever: the streams are what files in the world look like. So it refuses to overwrite
anything. The model is made up, not trained; its tables are cut short, so that escaped symbols occur.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from latentpress.codecs.bitstream import DEFAULT_LIMITS, FORMAT_VERSION, gaussian_tables
from latentpress.codecs.shape import ShapeCodec
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.entropy.gaussian import scale_table
from latentpress.train.export_shape import export_shape

HERE = Path(__file__).resolve().parent
FOLDER = HERE / f"v{FORMAT_VERSION}"

# Name: kind of shape, options of compress.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mesh_q0": ("mesh", {"quality": 0}),
    "mesh_q100": ("mesh", {"quality": 100}),
    "coloured_mesh_q60": ("coloured", {"quality": 60, "colour_quality": 20}),
    "mesh_cut": ("mesh", {"target_bytes": 72, "mode": "generator"}),
    "points_q40": ("points", {"quality": 40}),
}


def shapes() -> dict[str, Any]:
    """One shape of each kind."""
    ball = trimesh.creation.icosphere(2)
    far = trimesh.Trimesh(ball.vertices * (1, 2, 3) + (100, -7, 0.5), ball.faces, process=False)
    far.units = "meters"
    rgba = np.clip((ball.vertices + 1) * 127.5, 0, 255).astype(np.uint8)
    coloured = trimesh.Trimesh(
        ball.vertices, ball.faces, vertex_colors=np.pad(rgba, ((0, 0), (0, 1)), constant_values=255)
    )
    return {"mesh": far, "coloured": coloured, "points": np.asarray(ball.vertices) * 0.01}


def main() -> None:
    """Writes the model, the streams and what they hold."""
    spec = importlib.util.spec_from_file_location(
        "shape_weights", HERE.parent / "codecs" / "shape_weights.py"
    )
    assert spec is not None
    assert spec.loader is not None
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    states = {name: network.state_dict() for name, network in helper.build_networks(seed=5).items()}
    tables = gaussian_tables(scale_table().numpy()[:64], tail_mass=2.0**-6)
    weights = export_shape(helper.CONFIGS, states, helper.PRICES, tables)
    codec = ShapeCodec(weights)
    given = shapes()
    found: dict[str, Any] = {}
    files = {FOLDER / "shape_tiny.safetensors": weights.to_bytes()}
    for name, (kind, options) in CASES.items():
        data = codec.compress(given[kind], **options)
        header, code = codec.decode_payload(codec.payload_of(data, DEFAULT_LIMITS))
        parts = [part for part in code if part is not None]
        units = [np.rint(part.numpy().astype(np.float64) * UNIT).astype("<i8") for part in parts]
        files[FOLDER / f"shape_{name}.lpz"] = data
        found[name] = {
            "bytes": len(data),
            "kind": header.kind,
            "unit": header.unit,
            "scale": header.pose.scale,
            "centre": header.pose.centre,
            "groups": [header.geometry_groups, header.colour_groups],
            "code_sha256": hashlib.sha256(b"".join(u.tobytes() for u in units)).hexdigest(),
        }
    record = {"fingerprint": weights.fingerprint().hex(), "streams": found}
    files[FOLDER / "shape.json"] = (json.dumps(record, indent=1) + "\n").encode()
    existing = [path.name for path in files if path.exists()]
    if existing:
        raise SystemExit(f"never made again: {', '.join(existing)}")
    for path, content in files.items():
        path.write_bytes(content)


if __name__ == "__main__":
    main()
