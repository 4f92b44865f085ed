"""Weight files that leave out what they have in common with another one.

Two codecs may differ in their entropy models alone and share the transforms, which are most of either. Then
one file holds everything, and the other its own arrays and the name of the first::

    image.safetensors      transforms, hyperprior, entropy model A
    image-max.safetensors  entropy model B; "the rest is in image, fingerprint 59ec..., channels sorted so"

Reading the second gives all arrays, as if it held them; its fingerprint is over all of them. A slice-wise
entropy model wants the latent's channels in an order of its own, so shared arrays with that axis are sorted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.byte_weights import SCALE_SUFFIX
from latentpress.codecs.weights import SHARED, WeightFile, read_weight_file, shipped_weights

ORDER = "latent_order"
"""Array with the other file's channel at every place."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

# Where transforms and hyper analysis have the latent's channels.
_LATENT_AXIS = {
    "analysis.head.weight": 0,
    f"analysis.head.weight{SCALE_SUFFIX}": 0,
    "analysis.head.bias": 0,
    "gain.knots": 1,
    "inverse_gain.knots": 1,
    "synthesis.stem.weight": 1,
    "hyper_analysis.stem.weight": 1,
}
_SORTED_BY = "analysis.head.weight"

Arrays = Mapping[str, NDArray[Any]]


def without_shared(weights: WeightFile, base: WeightFile, name: str) -> bytes:
    """The bytes of a weight file that leaves out what another one has.

    Args:
        weights: All arrays.
        base: The other file, with all of its own.
        name: Of the other file, without its suffix. Both will have to be in one folder, or the other one
            among the weights that ship.

    Raises:
        ValueError: They have nothing in common, or the name is none.

    Example:
        >>> base = WeightFile("image", {}, {"a": np.arange(4), "b": np.zeros(3)})
        >>> weights = WeightFile("image", {"width": 2}, {"a": np.arange(4), "b": np.ones(3)})
        >>> len(without_shared(weights, base, "base")) < len(weights.to_bytes()) + 200
        True
    """
    from safetensors.numpy import save

    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a weight file")
    order = order_between(weights.tensors, base.tensors)
    common = {k for k, v in in_order(base.tensors, order).items() if _equal(weights.tensors.get(k), v)}
    if not common:
        raise ValueError(f"these weights have nothing in common with {name}")
    own = {k: np.ascontiguousarray(v) for k, v in weights.tensors.items() if k not in common}
    if order is not None:
        own[ORDER] = order
    shared = {"name": name, "fingerprint": base.fingerprint().hex(), "arrays": sorted(common)}
    return save(own, weights.metadata() | {SHARED: json.dumps(shared)})


def with_shared(own: WeightFile, description: str, folder: Path) -> WeightFile:
    """The inverse: all arrays of a weight file that leaves some out.

    Args:
        own: What the file holds.
        description: What it says of the rest, JSON.
        folder: Where the other file is looked for before those that ship.

    Raises:
        ValueError: The description is none, the other file is not there, is another one or does not fit.
    """
    try:
        found = json.loads(description)
        name, fingerprint, common = found["name"], found["fingerprint"], set(found["arrays"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"what it shares with another file is not told: {error!r}") from error
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a weight file")
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        path = shipped_weights().get(name, path)
    if not path.is_file():
        raise ValueError(f"it needs the weight file {name}.safetensors, which is not beside it")
    base = read_weight_file(path, shared=False)
    if base.fingerprint().hex() != fingerprint:
        raise ValueError(f"it needs {name} with the fingerprint {fingerprint}, {path} is another")
    tensors = dict(own.tensors)
    order = tensors.pop(ORDER, None)
    if not common <= set(base.tensors) or common & set(tensors):
        raise ValueError(f"what it shares with {name} are not arrays of that file")
    taken = in_order(base.tensors, order)
    return WeightFile(own.family, own.config, tensors | {name: taken[name] for name in common})


def order_between(tensors: Arrays, base: Arrays) -> NDArray[np.int32] | None:
    """The base's channel at every place of the latent; None if all are where they are there, or not found.

    Args:
        tensors: Arrays of an image codec.
        base: Those of another with the same analysis.
    """
    wanted, rows = tensors.get(_SORTED_BY), base.get(_SORTED_BY)
    if wanted is None or rows is None or wanted.shape != rows.shape or wanted.dtype != rows.dtype:
        return None
    places = {row.tobytes(): number for number, row in enumerate(np.ascontiguousarray(rows))}
    found = [places.get(row.tobytes(), -1) for row in np.ascontiguousarray(wanted)]
    if sorted(found) != list(range(len(rows))) or found == list(range(len(rows))):
        return None
    return np.array(found, np.int32)


def in_order(base: Arrays, order: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """Arrays with the latent's channels in another order.

    Args:
        base: Arrays of an image codec.
        order: The old channel at every new place, ``(M,)``; None leaves all where they are.

    Raises:
        ValueError: It is no such order.
    """
    if order is None:
        return dict(base)
    result = dict(base)
    for name, axis in _LATENT_AXIS.items():
        array = base.get(name)
        if array is None:
            continue
        if array.ndim <= axis or not np.array_equal(np.sort(order), np.arange(array.shape[axis])):
            raise ValueError(f"{ORDER} is no order of the channels of {name}")
        result[name] = np.take(array, order, axis)
    return result


def _equal(own: NDArray[Any] | None, other: NDArray[Any]) -> bool:
    return own is not None and own.dtype == other.dtype and np.array_equal(own, other)
