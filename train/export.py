"""Turns a trained network into a weight file: float16 transforms, integer entropy networks and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.image import INTEGER_PARTS
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.image.network import ImageNetwork, build_image_network

# Logarithms of gains: a float16 error there would be a relative error of every latent.
_FULL_PRECISION = ("knots",)


def export_image(
    config: Mapping[str, Any], state: Mapping[str, Tensor], tables: TableSet | None = None
) -> WeightFile:
    """Makes the weight file of an image codec.

    Args:
        config: Arguments of ``build_image_network``.
        state: The trained network's state, float32.
        tables: Frequency tables, one for every entry of the scale table; Gaussian ones if None.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    network = build_image_network(**config)
    network.load_state_dict(dict(state))
    tensors: dict[str, NDArray[Any]] = {}
    for part in INTEGER_PARTS:
        setattr(network, part, convert(getattr(network, part)))
    for name, tensor in network.state_dict().items():
        array = tensor.detach().cpu().numpy()
        if array.dtype == np.float32 and not name.endswith(_FULL_PRECISION):
            array = array.astype(np.float16)
        tensors[name] = array
    tables = tables or gaussian_tables(scale_table().numpy())
    tensors.update({f"tables.{name}": array for name, array in tables.to_arrays().items()})
    return WeightFile("image", dict(config), tensors)


def network_from_checkpoint(path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
    return checkpoint["network_config"], state


def rebuild(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ImageNetwork:
    """The float network of a checkpoint, in evaluation mode."""
    network = build_image_network(**config)
    network.load_state_dict(dict(state))
    return network.eval()
