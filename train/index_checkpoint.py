"""From one stage of the index codec's training to the next: networks out of checkpoints."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from latentpress.train.checkpoint import network_from_checkpoint


def load_network(network: nn.Module, path: str | Path) -> None:
    """Fills a network from a checkpoint of the same configuration.

    Raises:
        ValueError: The checkpoint is of another configuration.
    """
    trained = network_from_checkpoint(path)
    if dict(trained.config) != dict(network.config):
        different = sorted(
            k for k in {**trained.config, **network.config} if trained.config.get(k) != network.config.get(k)
        )
        raise ValueError(f"{path} was trained with other settings: {', '.join(different)}")
    network.load_state_dict(dict(trained.state))
