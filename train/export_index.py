"""Turns a trained index model into a weight file: float16 transforms, integer prior and tables of the map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.grain_map_coder import TABLES_EACH, tables_from_counts
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.index.model import build_index_model


def export_index(
    config: Mapping[str, Any], state: Mapping[str, Tensor], tables: TableSet | None = None
) -> WeightFile:
    """Makes the weight file of an index codec.

    Args:
        config: Arguments of ``build_index_model``.
        state: The trained model's state, float32.
        tables: Of the granularity map; guessed ones if None.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    model = build_index_model(**config)
    model.load_state_dict(dict(state))
    model.prior = convert(model.prior)
    tensors: dict[str, NDArray[Any]] = {}
    for name, tensor in model.state_dict().items():
        array = tensor.detach().cpu().numpy()
        tensors[name] = array.astype(np.float16) if array.dtype == np.float32 else array
    tables = tables or tables_from_counts(np.zeros((2 * TABLES_EACH, 2)))
    tensors.update({f"tables.{name}": array for name, array in tables.to_arrays().items()})
    return WeightFile("index", dict(config), tensors)
