"""Makes golden shape streams that ask for a low-pass of their surface: run once, and never again.

    python tests/golden/make_shape_smoothing_golden.py

The model is that of the other golden shape streams. What is written is kept for ever: nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
from make_shape_golden import FOLDER, shapes

from latentpress.codecs import load
from latentpress.codecs.base import no_progress
from latentpress.codecs.shape_encoding import ShapeEncoding
from latentpress.codecs.shape_source import shape_source
from latentpress.models.entropy.fixed_point import UNIT

# Name: kind of shape, quality, number of the low-pass.
CASES = {
    "mesh_q70_smoothed1": ("mesh", 70, 1),
    "coloured_mesh_q90_smoothed2": ("coloured", 90, 2),
    "points_q30_smoothed3": ("points", 30, 3),
}


def main() -> None:
    """Writes the streams and what they hold."""
    codec: Any = load(FOLDER / "shape_tiny.safetensors")
    given = shapes()
    files, found = {}, {}
    for name, (kind, quality, smoothing) in CASES.items():
        source = shape_source(given[kind], colour=True)
        trial = ShapeEncoding(codec, source, 0, None, no_progress).at_quality(quality)
        header = replace(trial.header, smoothing=smoothing)
        data = codec.pack(trial._replace(header=header))
        parts = [part for part in trial.code if part is not None]
        units = [np.rint(part.numpy().astype(np.float64) * UNIT).astype("<i8") for part in parts]
        files[FOLDER / f"shape_{name}.lpz"] = data
        found[name] = {
            "bytes": len(data),
            "kind": header.kind,
            "unit": header.unit,
            "scale": header.pose.scale,
            "centre": header.pose.centre,
            "groups": [header.geometry_groups, header.colour_groups],
            "smoothing": smoothing,
            "code_sha256": hashlib.sha256(b"".join(u.tobytes() for u in units)).hexdigest(),
        }
    record = {"fingerprint": codec.fingerprint.hex(), "streams": found}
    files[FOLDER / "shape_smoothed.json"] = (json.dumps(record, indent=1) + "\n").encode()
    existing = [path.name for path in files if path.exists()]
    if existing:
        raise SystemExit(f"never made again: {', '.join(existing)}")
    for path, content in files.items():
        path.write_bytes(content)


if __name__ == "__main__":
    main()
