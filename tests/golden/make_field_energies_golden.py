"""Makes the golden field streams that have energies of small scales: run once, and never again.

    python tests/golden/make_field_energies_golden.py

What it writes is kept for ever, like the streams of make_field_golden.py, whose model it takes. Every fourth
sample along each axis is kept of what the streams hold.
"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from latentpress.codecs import inspect
from latentpress.codecs.bitstream import FORMAT_VERSION, SectionType, read_container
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_networks import GAIN_ARRAYS
from latentpress.codecs.weights import ADDITION, read_weight_file

FOLDER = Path(__file__).resolve().parent / f"v{FORMAT_VERSION}"

# Name: components, and options of compress.
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "energies_open": (4, {"ratio": 8, "quality": 90, "periodic": (True, False, False)}),
    "energies_periodic": (6, {"ratio": 8, "quality": 90, "periodic": True}),
}


def field(components: int) -> np.ndarray:
    """Waves of all lengths, more energetic the longer they are."""
    random = np.random.default_rng(components)
    shape = (components, 32, 40, 32)
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in shape[1:]), indexing="ij")
    falling = (0.05 + np.sqrt(sum(axis**2 for axis in axes))) ** -2.5
    modes = np.fft.fftn(random.normal(size=shape), axes=(1, 2, 3)) * falling
    waves = np.fft.ifftn(modes, axes=(1, 2, 3)).real
    return (waves / waves.std() * 3 + 1).astype(np.float32)


def main() -> None:
    """Writes the streams and what they hold."""
    weights = read_weight_file(FOLDER / "field_tiny.safetensors")
    # Energies are written where weights have a gain; what it is plays no part in a stream.
    gain = (np.zeros((2, 33, 3), np.float32), np.zeros((2, 2, 3), np.float32))
    added = {f"{ADDITION}ratio8.{name}": array for name, array in zip(GAIN_ARRAYS, gain, strict=True)}
    codec = FieldCodec(dataclasses.replace(weights, tensors={**weights.tensors, **added}))
    codec.refuses = False
    files: dict[Path, bytes] = {}
    found: dict[str, Any] = {}
    for name, (components, options) in CASES.items():
        data = codec.compress(field(components), **options)
        section = read_container(data).get(SectionType.ENERGIES)
        assert section is not None
        files[FOLDER / f"field_{name}.lpz"] = data
        found[name] = {"bytes": len(data), "section": section.hex(), "parameters": inspect(data).parameters}
        for decoder in ("faithful", "realistic"):
            values = codec.decompress(data, decoder=decoder).numpy()[:, ::4, ::4, ::4]  # type: ignore[arg-type]
            content = io.BytesIO()
            np.save(content, values)
            files[FOLDER / f"field_{name}_{decoder}.npy"] = content.getvalue()
    record = {"fingerprint": weights.fingerprint().hex(), "streams": found}
    files[FOLDER / "field_energies.json"] = (json.dumps(record, indent=1) + "\n").encode()
    existing = [path.name for path in files if path.exists()]
    if existing:
        raise SystemExit(f"never made again: {', '.join(existing)}")
    for path, written in files.items():
        path.write_bytes(written)


if __name__ == "__main__":
    main()
