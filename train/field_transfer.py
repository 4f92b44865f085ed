"""Progressive transfer: the network of one ratio starts that of the next.

Networks of all ratios have the same layers. Only the number of latent channels differs, and since channels
are ordered by what they carry, the larger ratio takes over the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentpress.train.export import network_from_checkpoint

if TYPE_CHECKING:
    from latentpress.models.field.network import FieldNetwork


def transfer(network: FieldNetwork, checkpoint: str, lambda_min: float, lambda_max: float) -> None:
    """Fills a network with the weights of a network for a smaller ratio.

    Vectors that depend on the quality start from quality 0 of the smaller ratio, the nearest rate; gains
    keep their proportions among the channels and follow the new range of lambda.

    Args:
        network: Changed in place.
        checkpoint: Of the other network's training; it is unpickled, so it must be one's own.
        lambda_min: Lambda at quality 0 of the new network.
        lambda_max: Lambda at quality 100 of the new network.

    Raises:
        ValueError: The other network is not of the same layers, or has fewer latent channels.
    """
    from latentpress.train.field_initialise import gain_line

    config, state = network_from_checkpoint(checkpoint)
    recorded = torch.load(checkpoint, map_location="cpu", weights_only=False)["lambda_range"]
    kept = network.latent_channels
    if config["latent_channels"] < kept:
        raise ValueError(f"cannot start {kept} latent channels from {config['latent_channels']}")
    old = _without(config, "latent_channels")
    if old != _without(network.config, "latent_channels"):
        raise ValueError(f"the checkpoint's network {dict(config)} is not that of {dict(network.config)}")
    target = network.state_dict()
    for name, tensor in state.items():
        chosen = _first_channels(name, tensor, config["latent_channels"], kept)
        if name.endswith("knots"):
            chosen = chosen[:1].expand_as(chosen).clone()
            if name == "gain.knots" or name.endswith("enhancer.gain.knots"):
                sign = 1 if name == "gain.knots" else -1
                shift = gain_line(len(chosen), lambda_min, lambda_max) - gain_line(2, *recorded)[0]
                chosen += sign * shift[:, None]
        elif name == "context.scale.exponent":
            # Coarser steps make smaller latents, so that the networks see the numbers they know.
            coarser = float(gain_line(2, *recorded).mean() - gain_line(2, lambda_min, lambda_max).mean())
            chosen = (chosen - round(coarser / math.log(2))).clamp(min=0)
        target[name].copy_(chosen)


def _first_channels(name: str, tensor: Tensor, channels: int, kept: int) -> Tensor:
    """The part of a parameter that belongs to the first latent channels."""
    if name in ("analysis.head.weight",):
        return tensor[:kept]
    if name in ("synthesis.stem.weight", "hyper_analysis.stem.weight"):
        return tensor[:, :kept]
    if name == "gain.knots":
        return tensor[:, :kept]
    if name == "context.scale.exponent":
        return tensor[:kept]
    if name.startswith("context.predictors."):
        # Both counts are at most what is predicted; columns come in seven sets.
        predicted = min(kept, len(tensor))
        return tensor.unflatten(1, (7, len(tensor)))[:predicted, :, :predicted].flatten(1)
    if name.startswith("context.heads."):
        return torch.cat((tensor[:kept], tensor[channels : channels + kept]))
    if name.startswith("context.adaptors.") and name.endswith("weight"):
        return tensor[:, : tensor.shape[1] - channels + kept]
    return tensor


def _without(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != name}
