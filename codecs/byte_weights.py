"""Matrices of weight files in one byte a number: rows of int8 with a scale each.

Good enough for what decides no symbol and keeps no bound: rounding changes what such a network adds by about
a hundredth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE_SUFFIX = ".row_scale"
"""Behind the name of an array, that of its scales."""

_LARGEST = 127


def in_bytes(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """An array as a weight file keeps it: int8 with scales if it is a matrix or kernel, else float16.

    Args:
        name: Of the array.
        array: Floating-point numbers; the first axis counts the outputs.

    Example:
        >>> stored = in_bytes("w", np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
        >>> stored["w"].tolist(), stored["w.row_scale"].dtype.name
        ([[127, -64], [0, 0]], 'float32')
    """
    if array.ndim < 2:
        return {name: array.astype(np.float16)}
    rows = array.reshape(len(array), -1).astype(np.float32)
    scale = np.abs(rows).max(1) / _LARGEST
    whole = np.rint(rows / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return {name: whole.reshape(array.shape), name + SCALE_SUFFIX: scale.astype(np.float32)}


def from_bytes(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Inverse of :func:`in_bytes` for all arrays of a network; those without scales stay as they are.

    Example:
        >>> weights = {"w": np.array([[2, -1]], np.int8), "w.row_scale": np.array([0.5], np.float32)}
        >>> from_bytes(weights)["w"].tolist()
        [[1.0, -0.5]]
    """
    found = {}
    for name, array in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = tensors.get(name + SCALE_SUFFIX)
        if scale is not None:
            array = array.astype(np.float32) * scale.reshape(-1, *[1] * (array.ndim - 1))
        found[name] = array
    return found
