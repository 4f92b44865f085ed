"""Turns the four trained stages of the shape codec into one weight file."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.card import ModelCard, card_path
from latentpress.codecs.shape_model import INTEGER_PARTS
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.shape.system import ShapeSystem
from latentpress.train.card import write_card
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.export import WEIGHTS_LICENCE

# Logarithms of gains: a float16 error there would be a relative error of every code value.
_FULL_PRECISION = ("knots", "prior.mean", "prior.deviation")

# The part of each stage's network that the codec needs: prefix there, prefix in the system.
_PARTS = {
    "autoencoder": ("generator.", "generator."),
    "encoder": ("encoder.", "encoder."),
    "bridge": ("", "bridge."),
    "prior": ("", "prior."),
}


def export_shape(
    configs: Mapping[str, Mapping[str, Any] | None],
    states: Mapping[str, Mapping[str, Tensor]],
    prices: Mapping[str, Sequence[float]],
    tables: TableSet | None = None,
) -> WeightFile:
    """Makes the weight file of a shape codec.

    Args:
        configs: Arguments of the stages' build functions, by ``autoencoder``, ``encoder``, ``bridge`` and
            ``prior``; the last may be None.
        states: States of the stages' networks, float32, by the same names.
        prices: ``geometry`` and ``colour``: error that a bit is worth at quality 0 and at quality 100.
        tables: Frequency tables, one for every entry of the scale table; Gaussian ones if None.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    system = ShapeSystem(**{k: None if v is None else dict(v) for k, v in configs.items()})
    state = {}
    for stage, tensors in states.items():
        inside, outside = _PARTS[stage]
        state.update(
            {outside + k.removeprefix(inside): v for k, v in tensors.items() if k.startswith(inside)}
        )
    system.load_state_dict(state)
    for part in INTEGER_PARTS:
        setattr(system.bridge, part, convert(getattr(system.bridge, part)))
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in system.state_dict().items():
        array = tensor.detach().cpu().numpy()
        if array.dtype == np.float32 and not name.endswith(_FULL_PRECISION):
            array = array.astype(np.float16)
        arrays[name] = array
    tables = tables or gaussian_tables(scale_table().numpy())
    arrays.update({f"tables.{name}": array for name, array in tables.to_arrays().items()})
    config: dict[str, Any] = {k: None if v is None else dict(v) for k, v in configs.items()}
    config["geometry_price"] = [float(v) for v in prices["geometry"]]
    config["colour_price"] = [float(v) for v in prices["colour"]]
    return WeightFile("shape", config, arrays)


def write_export(
    checkpoints: Mapping[str, str | None], out: str | Path, training_data: str, training: str
) -> ModelCard:
    """Exports the stages' checkpoints to a weight file and writes the model card beside it.

    Args:
        checkpoints: By stage; they are unpickled, so they must be one's own.
        out: The weight file, ``.safetensors``.
        training_data: What the weights were trained on.
        training: How they were trained.
    """
    configs: dict[str, Any] = dict.fromkeys(_PARTS)
    states: dict[str, dict[str, Tensor]] = {}
    for stage, path in checkpoints.items():
        if path is not None:
            configs[stage], states[stage] = network_from_checkpoint(path)
    prices = torch.load(checkpoints["bridge"], map_location="cpu", weights_only=False)["prices"]
    weights = export_shape(configs, states, prices)
    content = weights.to_bytes()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(content)
    low, high = weights.config["geometry_price"]
    card = ModelCard(
        name=Path(out).stem,
        family=weights.family,
        config=weights.config,
        fingerprint=weights.fingerprint().hex(),
        parameters=sum(array.size for k, array in weights.tensors.items() if not k.startswith("tables.")),
        bytes=len(content),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        license=WEIGHTS_LICENCE,
        training_data=training_data,
        training=training,
        # The price of a bit is what the lambda of other families is the inverse of.
        lambda_range=(1 / low, 1 / high),
    )
    write_card(card, out)
    return card


def main(args: Sequence[str] | None = None) -> None:
    """Exports the checkpoints of the four stages.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.export_shape",
        description="Exports the stages of the shape codec to a weight file and its model card.",
    )
    parser.add_argument("--autoencoder", required=True, metavar="FILE", help="checkpoint of stage 1")
    parser.add_argument(
        "--prior", metavar="FILE", help="checkpoint of stage 2; without, nothing is generated"
    )
    parser.add_argument("--encoder", required=True, metavar="FILE", help="checkpoint of stage 3")
    parser.add_argument("--bridge", required=True, metavar="FILE", help="checkpoint of stage 4")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file, .safetensors")
    parser.add_argument("--training-data", required=True, metavar="TEXT", help="what it was trained on")
    parser.add_argument("--training", required=True, metavar="TEXT", help="how it was trained")
    options = parser.parse_args(args)
    if Path(options.out).suffix != ".safetensors":
        parser.error(f"--out must end in .safetensors, got {options.out}")
    checkpoints = {stage: getattr(options, stage) for stage in _PARTS}
    try:
        card = write_export(checkpoints, options.out, options.training_data, options.training)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{card.parameters} parameters, {card.bytes} bytes, weights {card.fingerprint}")
    print(f"written: {options.out}, {card_path(options.out)}")


if __name__ == "__main__":
    main()
