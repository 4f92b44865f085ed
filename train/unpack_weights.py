"""Turns shipped weights back into checkpoints, for training that goes on where the original ones are lost.

    python -m latentpress.train.unpack_weights --weights index --out runs/shipped

What a weight file has is there again: integer layers as numbers, transforms in float16 as they ship. What it
never had starts anew: optimisers, discriminators, the generator's own encoder of shapes and the decoder that
their frozen encoder was trained with. The image codec needs no checkpoint: its ``init_from`` reads weight
files.

::

    index.safetensors -> index-1.ckpt (encoder, codebook, decoder), index-4.ckpt (books and prior, too)
    field.safetensors -> field-8.ckpt, field-8-realistic.ckpt, field-64.ckpt, ...
    shape.safetensors -> shape-autoencoder.ckpt, shape-encoder.ckpt, shape-prior.ckpt, shape-bridge.ckpt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentpress.codecs.byte_weights import from_bytes
from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.registry import weights_path
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.models.field.network import build_field_network
from latentpress.models.index.model import IndexModel, build_index_model
from latentpress.models.index.network import IndexNetwork, build_index_network
from latentpress.models.index.quantiser import unit_vectors
from latentpress.models.shape.bridge import build_shape_bridge
from latentpress.models.shape.flow_prior import build_flow_prior
from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.models.shape.point_encoder import build_implicit_autoencoder
from latentpress.train.warm_start import real_numbers

_REALISTIC = "realistic."


def checkpoints_of(weights: WeightFile) -> dict[str, dict[str, Any]]:
    """What the stages' checkpoints would hold of their networks, by name.

    Args:
        weights: Of the family ``index``, ``field`` or ``shape``.

    Raises:
        ValueError: They are of another family, or lack an array.
    """
    if weights.family == "index":
        return _index_checkpoints(weights)
    if weights.family == "field":
        return _field_checkpoints(weights)
    if weights.family == "shape":
        return _shape_checkpoints(weights)
    raise ValueError(f"weights of the family {weights.family!r} cannot be made checkpoints again")


def _index_checkpoints(weights: WeightFile) -> dict[str, dict[str, Any]]:
    config = dict(weights.config)
    model = build_index_model(**config)
    _fill(model, _numbers(weights.tensors))
    network = build_index_network(**{k: v for k, v in config.items() if not k.startswith("prior_")})
    _fill_network(network, model)
    return {
        "index-1": _checkpoint(network.config, network.state_dict()),
        "index-4": _checkpoint(model.config, model.state_dict()),
    }


@torch.no_grad()
def _fill_network(network: IndexNetwork, model: IndexModel) -> None:
    """The first stage's network: the full book becomes its codebook, that book's head its coarse head."""
    network.encoder.load_state_dict(model.encoder.state_dict())
    network.decoder.load_state_dict(model.decoder.state_dict())
    books = model.books
    head = network.encoder.heads[0]
    head.weight.copy_(books.heads[books.full])
    head.bias.copy_(books.head_biases[books.full])
    full = books.books[-1]
    codes = books.directions[full.first_row : full.first_row + full.size]
    network.quantiser.basis.copy_(unit_vectors(codes))
    nn.init.eye_(network.quantiser.mixing)


def _field_checkpoints(weights: WeightFile) -> dict[str, dict[str, Any]]:
    found = {}
    for ratio, config in weights.config["networks"].items():
        prefix = f"ratio{ratio}."
        own = {k.removeprefix(prefix): v for k, v in weights.tensors.items() if k.startswith(prefix)}
        faithful = {k: v for k, v in own.items() if not k.startswith(_REALISTIC)}
        realistic = {k.removeprefix(_REALISTIC): v for k, v in own.items() if k.startswith(_REALISTIC)}
        network = build_field_network(**config)
        _fill(network, _numbers(faithful))
        found[f"field-{ratio}"] = _checkpoint(network.config, network.state_dict())
        if realistic:
            enhancer = network.synthesis.enhancer
            _fill(enhancer, _numbers(from_bytes(realistic)))
            found[f"field-{ratio}-realistic"] = _checkpoint(network.config, enhancer.state_dict())
    return found


def _shape_checkpoints(weights: WeightFile) -> dict[str, dict[str, Any]]:
    networks: dict[str, Any] = {
        "autoencoder": build_shape_autoencoder(**weights.config["autoencoder"]),
        "encoder": build_implicit_autoencoder(**weights.config["encoder"]),
        "bridge": build_shape_bridge(**weights.config["bridge"]),
    }
    shipped = {"generator": networks["autoencoder"].generator, "encoder": networks["encoder"].encoder}
    shipped["bridge"] = networks["bridge"]
    if weights.config["prior"] is not None:
        shipped["prior"] = networks["prior"] = build_flow_prior(**weights.config["prior"])
    for name, network in shipped.items():
        prefix = f"{name}."
        own = {k.removeprefix(prefix): v for k, v in weights.tensors.items() if k.startswith(prefix)}
        _fill(network, _numbers(own))
    return {f"shape-{name}": _checkpoint(n.config, n.state_dict()) for name, n in networks.items()}


def _checkpoint(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "network_config": dict(config),
        "state_dict": {f"network.{name}": tensor.clone() for name, tensor in state.items()},
        "callbacks": {},
    }


def _numbers(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return real_numbers({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})


@torch.no_grad()
def _fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fills a network whose every array must be there."""
    own = network.state_dict()
    wrong = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    if wrong:
        raise ValueError(f"the weights have no {wrong[0]} that fits")
    network.load_state_dict({name: state[name].to(value.dtype) for name, value in own.items()})


def main(args: Sequence[str] | None = None) -> int:
    """Writes checkpoints.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        0, or 1 where a checkpoint is there already.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.unpack_weights",
        description="Turns shipped weights back into checkpoints that training can start from.",
    )
    parser.add_argument("--weights", required=True, help="shipped name or path of a weight file")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="for the checkpoints")
    options = parser.parse_args(args)
    try:
        path = weights_path(options.weights)
        found = checkpoints_of(read_weight_file(path))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    # Exports of fields want to know which lambdas the ends of the qualities stand for.
    lambdas = read_card(card_path(path)).lambda_range if card_path(path).is_file() else None
    for name, content in found.items():
        target = options.out / f"{name}.ckpt"
        if target.exists():
            print(f"{target} is there already", file=sys.stderr)
            return 1
        torch.save({**content, "lambda_range": lambdas}, target)
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
