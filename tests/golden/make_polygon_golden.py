"""Makes the golden polygon streams; run once, never again for the same format version.

Usage: ``python tests/golden/make_polygon_golden.py``. Needs core dependencies only.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from latentpress.codecs.bitstream import CodecId, SectionType, write_container
from latentpress.codecs.polygon_coder import Polygons
from latentpress.codecs.polygon_stream import read_polygons, write_polygons
from latentpress.codecs.shape_payload import Pose
from latentpress.codecs.weights import read_weight_file

FOLDER = Path(__file__).parent / "v1"


def bowl(size: int) -> Polygons:
    """An open mesh over a square, bent."""
    x, y = (part.ravel() for part in np.mgrid[0:size, 0:size])
    nodes = np.stack((4 * x, 4 * y, 5 + (x - size // 2) ** 2 + (y - 2) ** 2 // 2), axis=1)
    corner = np.array([i * size + j for i in range(size - 1) for j in range(size - 1)])
    first = np.stack((corner, corner + size, corner + size + 1), axis=1)
    second = np.stack((corner, corner + size + 1, corner + 1), axis=1)
    return Polygons(nodes.astype(np.int64), np.concatenate((first, second)).astype(np.int64))


def tangle() -> Polygons:
    """Triangles that share corners without any order: several on an edge, the same one twice."""
    numbers = np.arange(90, dtype=np.int64)
    nodes = (numbers[:30, None] * np.array([7, 11, 13]) + numbers[:30, None] ** 2 % 5) % 41
    faces = np.stack((numbers % 12, (numbers * 5 + 1) % 12, (numbers * 7 + 2) % 30), axis=1)
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    return Polygons(nodes, np.concatenate((faces, faces[:2])))


def main() -> None:
    """Writes the streams and what they hold."""
    fingerprint = read_weight_file(FOLDER / "shape_tiny.safetensors").fingerprint()
    mesh = bowl(9)
    levels = np.stack((mesh.nodes[:, 2] % 13, mesh.nodes[:, 0] // 8 - 2, -mesh.nodes[:, 1] // 16), axis=1)
    payloads = {
        "open": write_polygons(mesh, 64),
        "coloured": write_polygons(mesh, 64, levels, 20, Pose(700, (3, -4, 5)), "meters"),
        "tangle": write_polygons(tangle(), 40),
    }
    expected = {}
    for name, payload in payloads.items():
        data = write_container(CodecId.SHAPE, fingerprint, [(SectionType.PAYLOAD, payload)])
        (FOLDER / f"polygons_{name}.lpz").write_bytes(data)
        found = read_polygons(payload)
        digest = hashlib.sha256(found.vertices.astype("<f4").tobytes() + found.faces.astype("<i8").tobytes())
        if found.colours is not None:
            digest.update(found.colours.tobytes())
        expected[name] = {
            "bytes": len(data),
            "vertices": len(found.vertices),
            "faces": len(found.faces),
            "sha256": digest.hexdigest(),
        }
    content = {"fingerprint": fingerprint.hex(), "streams": expected}
    (FOLDER / "polygons.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
