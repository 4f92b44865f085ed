"""Makes the golden field streams of a format version: run once for a new version, and never again.

    python tests/golden/make_field_golden.py

What it writes is kept for ever: the streams are what files in the world look like. So it refuses to overwrite
anything. The model is made up, not trained.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from latentpress.codecs import inspect
from latentpress.codecs.bitstream import FORMAT_VERSION
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_encoding import FieldJob, packed

HERE = Path(__file__).resolve().parent
FOLDER = HERE / f"v{FORMAT_VERSION}"

# Name: field, options of compress, or of compress_blocks if there are sides of blocks.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lossless": ("gaps64", {"max_error": 0}),
    "bound_2d": ("plane", {"max_error": 0.02}),
    "bound_gaps": ("gaps64", {"relative_error": 1e-3}),
    "bound_network": ("smooth", {"max_error": 0.4, "ratio": 8, "quality": 80}),
    "ratio8_periodic": ("smooth", {"ratio": 8, "quality": 70, "periodic": True}),
    "ratio64_gaps": ("gaps", {"ratio": 64, "quality": 33.3}),
    "blocks_joint": (
        "smooth",
        {"ratio": 8, "quality": 60, "periodic": (True, False, True), "block": (16, 8, 16)},
    ),
    "blocks_joint_gaps": ("gaps", {"ratio": 64, "block": 8}),
    "blocks_separate": ("gaps64", {"max_error": 0.01, "block": 8}),
    "blocks_separate_2d": ("plane", {"max_error": 0, "block": (8, 16)}),
}


def load_helper() -> ModuleType:
    """The module with the tiny weights."""
    path = HERE.parent / "codecs" / "field_weights.py"
    spec = importlib.util.spec_from_file_location("field_weights", path)
    assert spec is not None
    assert spec.loader is not None
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    return helper


def fields(waves: Any) -> dict[str, np.ndarray]:
    """One field of each kind."""
    gaps = waves(3, 9, 12, 17, components=4) + np.float32(20)
    gaps[:, 2:5, :7] = np.nan
    gaps[1, 8, 11, 16] = np.inf
    gaps[3, 0, 0, 0] = -np.inf
    return {
        "smooth": waves(1, 16, 16, 32),
        "plane": waves(2, 21, 30, components=2),
        "gaps": gaps,
        "gaps64": gaps[:2].astype(np.float64) / 7,
    }


def main() -> None:
    """Writes the model, the streams and what they hold."""
    helper = load_helper()
    weights = helper.field_weights(channels=(16, 8))
    codec = FieldCodec(weights)
    given = fields(helper.waves)
    found: dict[str, Any] = {}
    files = {FOLDER / "field_tiny.safetensors": weights.to_bytes()}
    for name, (kind, options) in CASES.items():
        if "block" in options:
            stream = io.BytesIO()
            codec.compress_blocks(given[kind], stream, **options)
            data = stream.getvalue()
        elif "max_error" in options and "ratio" in options:
            # Something else may be smaller; what is to be kept is a network's stream.
            job = FieldJob(codec, given[kind], False, (False, False, False))
            data = packed(job._corrected(options["max_error"], options["ratio"], 10 * options["quality"]))
        else:
            data = codec.compress(given[kind], **options)
        decoded = codec.decompress(data).numpy()
        files[FOLDER / f"field_{name}.lpz"] = data
        found[name] = {
            "bytes": len(data),
            "shape": list(decoded.shape),
            "dtype": str(decoded.dtype),
            "parameters": inspect(data).parameters,
        }
        if "ratio" in inspect(data).parameters:
            # Networks may differ in the last bits of floating-point numbers.
            content = io.BytesIO()
            np.save(content, decoded)
            files[FOLDER / f"field_{name}.npy"] = content.getvalue()
        else:
            found[name]["sha256"] = hashlib.sha256(decoded.tobytes()).hexdigest()
    record = {"fingerprint": weights.fingerprint().hex(), "streams": found}
    files[FOLDER / "field.json"] = (json.dumps(record, indent=1) + "\n").encode()
    existing = [path.name for path in files if path.exists()]
    if existing:
        raise SystemExit(f"never made again: {', '.join(existing)}")
    for path, content in files.items():
        path.write_bytes(content)


if __name__ == "__main__":
    main()
