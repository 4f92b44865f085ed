"""What the field codec accepts: arrays and bounds, checked before anything is done with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.field_payload import DTYPES


def checked_field(x: NDArray[Any] | Tensor) -> tuple[NDArray[Any], bool]:
    """The values as ``(C, D, H, W)``, and whether the field has two dimensions.

    Raises:
        TypeError: x is no array or tensor of float32 or float64.
        ValueError: It has no axes of a field, or is empty.
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy() if x.dtype in (torch.float32, torch.float64) else x
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        came = getattr(x, "dtype", type(x).__name__)
        raise TypeError(
            f"expected a float32 or float64 array or tensor (C, D, H, W) or (C, H, W), got {came}"
        )
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(f"expected a field of shape (C, D, H, W) or (C, H, W), got {x.shape}")
    flat = x.ndim == 3
    x = x.astype(DTYPES[x.dtype == np.float64][1:])
    return (x[:, None] if flat else x), flat


def checked_bound(name: str, given: float | None) -> float:
    """A bound, if it can be one.

    Raises:
        ValueError: It is negative or not finite.
    """
    if given is None or not 0 <= given < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {given}")
    return float(given)


def bound_of(values: NDArray[Any], max_error: float | None, relative_error: float | None) -> float:
    """The bound that is meant, one of both being given; 0 where a range is none or too large for a number.

    Raises:
        ValueError: It is negative or not finite.
    """
    if max_error is not None:
        return checked_bound("max_error", max_error)
    given = checked_bound("relative_error", relative_error)
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0.0
    with np.errstate(over="ignore"):
        bound = given * float(finite.max() - finite.min())
    return bound if math.isfinite(bound) else 0.0
