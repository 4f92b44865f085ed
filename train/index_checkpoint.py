"""From one stage of the index codec's training to the next: networks out of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class TrainedNetwork(NamedTuple):
    """What a checkpoint holds of a network.

    Attributes:
        config: Arguments of the function that builds it.
        state: Its averaged weights.
    """

    config: Mapping[str, Any]
    state: Mapping[str, Tensor]


def read_checkpoint(path: str | Path) -> TrainedNetwork:
    """Reads a checkpoint of ``latentpress train``.

    Args:
        path: The checkpoint; it is unpickled, so it must be one's own.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    state = {
        k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items() if k.startswith("network.")
    }
    for name, callback in checkpoint.get("callbacks", {}).items():
        if name.startswith("AveragedWeights") and callback["average"]:
            state = {k: v.cpu() for k, v in callback["average"].items()}
    return TrainedNetwork(checkpoint["network_config"], state)


def load_network(network: nn.Module, path: str | Path) -> None:
    """Fills a network from a checkpoint of the same configuration.

    Raises:
        ValueError: The checkpoint is of another configuration.
    """
    trained = read_checkpoint(path)
    if dict(trained.config) != dict(network.config):
        different = sorted(
            k for k in {**trained.config, **network.config} if trained.config.get(k) != network.config.get(k)
        )
        raise ValueError(f"{path} was trained with other settings: {', '.join(different)}")
    network.load_state_dict(dict(trained.state))
