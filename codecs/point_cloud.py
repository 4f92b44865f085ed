"""Point clouds: normals that all point outward, insides, and PCD files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.models.shape.oriented_points import OrientedPoints, distance_to_samples

_NEIGHBOURS = 16
_MOST_VOXELS, _LEAST_VOXELS = 48, 8
_POINTS_A_VOXEL = 2.0
_MARGIN = 1.3


def orient(points: NDArray[np.float32]) -> OrientedPoints:
    """Estimates outward normals of points that sample a surface.

    The direction of least variance among a point's neighbours is its normal; which way is out is read off
    the volume that is left when everything outside is flooded.

    Args:
        points: ``(N, 3)`` in [-1, 1].
    """
    from scipy.ndimage import gaussian_filter, map_coordinates
    from scipy.spatial import cKDTree

    count = min(_NEIGHBOURS, len(points))
    neighbours = points[cKDTree(points).query(points, k=count)[1]]
    centred = neighbours - neighbours.mean(1, keepdims=True)
    _, vectors = np.linalg.eigh(centred.transpose(0, 2, 1) @ centred)
    normals = vectors[:, :, 0].astype(np.float32)
    filled = _filled(points)
    smooth = gaussian_filter(filled.astype(np.float32), 1.0)
    where = ((points / _MARGIN + 1) / 2 * len(filled) - 0.5).T
    slope = np.stack([map_coordinates(g, where, order=1) for g in np.gradient(smooth)], axis=1)
    inward = (slope * normals).sum(1) > 0
    normals[inward] *= -1
    return OrientedPoints(torch.from_numpy(points.astype(np.float32)), torch.from_numpy(normals))


def _filled(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Voxels of the solid that points enclose, gaps between points closed."""
    from scipy.ndimage import binary_closing, binary_dilation, binary_erosion, binary_fill_holes

    # As fine as leaves no holes between points that are spread over the faces of the cube.
    faces_of_the_cube = 6 * (2 / (2 * _MARGIN)) ** 2
    finest = int((len(points) / (_POINTS_A_VOXEL * faces_of_the_cube)) ** 0.5)
    size = max(_LEAST_VOXELS, min(_MOST_VOXELS, finest))
    while True:
        voxels = np.zeros((size,) * 3, bool)
        index = np.floor((points / _MARGIN + 1) / 2 * size).astype(int).clip(0, size - 1)
        voxels[tuple(index.T)] = True
        shell = binary_closing(binary_dilation(voxels))
        filled: NDArray[np.bool_] = binary_fill_holes(shell) | voxels
        if filled.sum() > 1.1 * shell.sum() or size == _LEAST_VOXELS:
            break
        # Nothing inside: the shell has a hole, or the shape is a sheet. Coarser voxels may close it.
        size = max(_LEAST_VOXELS, size * 2 // 3)
    eroded: NDArray[np.bool_] = binary_erosion(filled) | voxels
    return eroded


def signed_distance_to_cloud(points: torch.Tensor, surface: OrientedPoints) -> torch.Tensor:
    """Signed distance to the surface that oriented points sample, negative behind the nearest one's plane."""
    distance, behind = distance_to_samples(points, surface)
    return torch.where(behind, -distance, distance)


def read_pcd(path: str | Path) -> NDArray[np.float64]:
    """Reads a point cloud file of the Point Cloud Library, ASCII or binary.

    Returns:
        ``(N, 3)``, or ``(N, 6)`` with RGB in [0, 1].

    Raises:
        ValueError: The file is no such point cloud, is compressed, or has no x, y and z.
    """
    content = Path(path).read_bytes()
    header: dict[str, list[str]] = {}
    offset = 0
    while "DATA" not in header:
        end = content.find(b"\n", offset)
        if end < 0:
            raise ValueError(f"{Path(path).name} is not a PCD file: it has no DATA line")
        words = content[offset:end].decode("ascii", "replace").split()
        offset = end + 1
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
    try:
        kind = header["DATA"][0]
        counts = [int(c) for c in header.get("COUNT", ["1"] * len(header["FIELDS"]))]
        codes = [t.lower() + s for t, s in zip(header["TYPE"], header["SIZE"], strict=True)]
        dtype = np.dtype(
            [
                (name, f"<{code}", (count,) if count > 1 else ())
                for name, code, count in zip(header["FIELDS"], codes, counts, strict=True)
            ]
        )
        number = int(header["POINTS"][0])
        if kind == "ascii":
            rows = np.loadtxt(content[offset:].decode("ascii").splitlines(), ndmin=2, max_rows=number)
            columns = {
                n: rows[:, k] for n, k in zip(dtype.names or (), np.cumsum([0, *counts[:-1]]), strict=True)
            }
        elif kind == "binary":
            table = np.frombuffer(content, dtype, count=number, offset=offset)
            columns = {name: table[name] for name in dtype.names or ()}
        else:
            raise ValueError(f"{Path(path).name}: PCD data of the kind {kind!r} are not supported")
        xyz = np.stack([np.asarray(columns[axis], np.float64) for axis in "xyz"], axis=1)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{Path(path).name} is not a complete PCD file: {error}") from error
    packed = columns.get("rgb", columns.get("rgba"))
    if packed is None:
        return xyz
    name = "rgb" if "rgb" in columns else "rgba"
    # Colours are packed into the bits of one number, which older files declare as floating point.
    as_float = header["TYPE"][header["FIELDS"].index(name)] == "F"
    bits = packed.astype(np.float32).view(np.uint32) if as_float else packed.astype(np.uint32)
    rgb = np.stack([(bits >> shift & 255) / 255.0 for shift in (16, 8, 0)], axis=1)
    return np.hstack((xyz, rgb))
