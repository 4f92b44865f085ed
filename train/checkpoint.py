"""What a checkpoint of ``latentpress train`` holds of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class TrainedNetwork(NamedTuple):
    """A trained network, as a checkpoint holds it.

    Attributes:
        config: Arguments of the function that builds it.
        state: Its averaged weights; its last ones if no average was kept.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]


def network_from_checkpoint(path: str | Path) -> TrainedNetwork:
    """Configuration and averaged weights of a training checkpoint.

    Args:
        path: A checkpoint of ``latentpress train``; it is unpickled, so it must be one's own.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    state = {
        k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items() if k.startswith("network.")
    }
    for name, callback in checkpoint.get("callbacks", {}).items():
        if name.startswith("AveragedWeights") and callback["average"]:
            state = {k: v.cpu() for k, v in callback["average"].items()}
    return TrainedNetwork(checkpoint["network_config"], state)
