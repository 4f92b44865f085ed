"""Networks filled from weight files, with the proof that their integer layers are exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


def fill_network(network: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Fills a network whose entropy parts are integer networks already, and proves these.

    Args:
        network: Changed in place.
        tensors: Arrays by the names of the network's parameters and buffers, all of them.

    Raises:
        ValueError: The arrays do not fit the network.
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    try:
        network.load_state_dict({name: torch.from_numpy(np.asarray(v)) for name, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit their configuration: {error}") from error
    for module in network.modules():
        prove: Any = getattr(module, "prove_exact", None)
        if prove is not None:
            prove()
