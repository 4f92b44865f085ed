"""Normals of point clouds, and PCD files."""

import struct

import numpy as np
import pytest

from latentpress.codecs.point_cloud import orient, read_pcd


def on_ball(count, random):
    directions = random.normal(size=(count, 3))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def on_cube(count, random):
    points = random.uniform(-1, 1, (count, 3)).astype(np.float32)
    rows, axis = np.arange(count), np.arange(count) % 3
    points[rows, axis] = np.sign(points[rows, axis])
    return points


@pytest.mark.parametrize("count", [1000, 4000])
@pytest.mark.parametrize("surface", [on_ball, on_cube])
def test_normals_point_outward(surface, count) -> None:
    points = surface(count, np.random.default_rng(0))
    oriented = orient(points)
    outward = (oriented.normal.numpy() * points).sum(1) > 0
    assert outward.mean() > 0.95


HEADER = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nPOINTS 2\n"


def test_pcd_files(tmp_path) -> None:
    expected = np.array([[1, 2, 3, 1, 0.2, 0], [4, 5, 6, 0, 0, 1]])
    path = tmp_path / "cloud.pcd"
    path.write_text(f"{HEADER}DATA ascii\n1 2 3 {0xFF3300}\n4 5 6 {0x0000FF}\n")
    np.testing.assert_allclose(read_pcd(path), expected)
    rows = struct.pack("<fffIfffI", 1, 2, 3, 0xFF3300, 4, 5, 6, 0x0000FF)
    path.write_bytes(f"{HEADER}DATA binary\n".encode() + rows)
    np.testing.assert_allclose(read_pcd(path), expected)


@pytest.mark.parametrize(
    "content", [b"", b"ply\n", f"{HEADER}DATA binary_compressed\n".encode(), b"FIELDS x y\nDATA ascii\n1 2\n"]
)
def test_other_files(tmp_path, content) -> None:
    path = tmp_path / "cloud.pcd"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="PCD"):
        read_pcd(path)
