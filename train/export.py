"""Turns a trained network into a weight file: float16 transforms, integer entropy networks and tables."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.byte_weights import in_bytes
from latentpress.codecs.card import ModelCard, card_path
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_transforms import INTEGER_PARTS
from latentpress.codecs.weights import WeightFile
from latentpress.codecs.whole_files import write_whole
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.gaussian import scale_table
from latentpress.models.image.families import IMAGE, build_from_config
from latentpress.models.image.network import ImageNetwork
from latentpress.train.card import refreshed, write_card
from latentpress.train.checkpoint import network_from_checkpoint

# Logarithms of gains: a float16 error there would be a relative error of every latent.
_FULL_PRECISION = ("knots",)

WEIGHTS_LICENCE = "Apache-2.0"
"""SPDX identifier of the licence of exported weights."""


def export_image(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    tables: TableSet | None = None,
    family: str = IMAGE,
    matrices_in_bytes: Sequence[str] = (),
) -> WeightFile:
    """Makes the weight file of an image codec.

    Args:
        config: Arguments that build the network.
        state: The trained network's state, float32.
        tables: Frequency tables, one for every entry of the scale table; Gaussian ones if None.
        family: Of the network.
        matrices_in_bytes: Which matrices of the transforms take one byte a number instead of two, as patterns
            of their names (those of ``fnmatch``). Blocks that were added to trained ones hardly suffer.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    network = rebuild(config, state, family)
    tensors: dict[str, NDArray[Any]] = {}
    for part in INTEGER_PARTS:
        setattr(network, part, convert(getattr(network, part)))
    for name, tensor in network.state_dict().items():
        array = tensor.detach().cpu().numpy()
        if array.ndim == 2 and array.dtype == np.float32 and _matches(name, matrices_in_bytes):
            tensors.update(in_bytes(name, array))
            continue
        if array.dtype == np.float32 and not name.endswith(_FULL_PRECISION):
            array = array.astype(np.float16)
        tensors[name] = array
    tables = tables or gaussian_tables(scale_table().numpy())
    tensors.update({f"tables.{name}": array for name, array in tables.to_arrays().items()})
    return WeightFile(family, dict(config), tensors)


def exported(network: ImageNetwork, device: torch.device | str = "cpu") -> ImageCodec:
    """The codec of a trained network.

    Args:
        network: Left as it is.
        device: Where the codec runs.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return ImageCodec(export_image(network.config, state, family=network.family), device)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def recorded_family(path: str) -> str:
    """The family of the network in a checkpoint.

    Args:
        path: A checkpoint of ``latentpress train``; it is unpickled, so it must be one's own.
    """
    return str(torch.load(path, map_location="cpu", weights_only=False).get("network_family", IMAGE))


def rebuild(config: Mapping[str, Any], state: Mapping[str, Tensor], family: str = IMAGE) -> ImageNetwork:
    """The float network of a checkpoint, in evaluation mode."""
    network = build_from_config(family, config)
    network.load_state_dict(dict(state))
    return network.eval()


def recorded_lambdas(path: str) -> tuple[float, float] | None:
    """Lambdas at qualities 0 and 100 that a checkpoint was trained with; None if it does not say.

    Args:
        path: A checkpoint of ``latentpress train``; it is unpickled, so it must be one's own.
    """
    found = torch.load(path, map_location="cpu", weights_only=False).get("lambda_range")
    return None if found is None else (float(found[0]), float(found[1]))


def write_export(
    checkpoint: str,
    out: str | Path,
    training_data: str,
    training: str,
    lambda_range: tuple[float, float] | None = None,
    reports: Sequence[str | Path] = (),
    matrices_in_bytes: Sequence[str] = (),
) -> ModelCard:
    """Exports a checkpoint to a weight file and writes the model card beside it.

    Args:
        checkpoint: Of ``latentpress train``; it is unpickled, so it must be one's own.
        out: The weight file, ``.safetensors``.
        training_data: What the weights were trained on.
        training: How they were trained.
        lambda_range: Lambdas at qualities 0 and 100; None for those the checkpoint records.
        reports: JSON files of ``latentpress eval`` for these weights.
        matrices_in_bytes: As for :func:`export_image`.

    Raises:
        ValueError: The lambdas are neither given nor recorded, or a report is of other weights.
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    lambda_range = lambda_range or recorded_lambdas(checkpoint)
    if lambda_range is None:
        raise ValueError(f"{checkpoint} does not record its lambdas: say which they were")
    config, state = network_from_checkpoint(checkpoint)
    family = recorded_family(checkpoint)
    weights = export_image(config, state, family=family, matrices_in_bytes=matrices_in_bytes)
    content = weights.to_bytes()
    write_whole(out, content)
    card = ModelCard(
        name=Path(out).stem,
        family=weights.family,
        config=weights.config,
        fingerprint=weights.fingerprint().hex(),
        parameters=sum(p.numel() for p in build_from_config(weights.family, config).parameters()),
        bytes=len(content),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        license=WEIGHTS_LICENCE,
        training_data=training_data,
        training=training,
        lambda_range=lambda_range,
    )
    card = refreshed(card, out, reports)
    write_card(card, out)
    return card


def main(args: Sequence[str] | None = None) -> None:
    """Exports a checkpoint to a weight file and its model card.

    Args:
        args: Arguments; None for those of the process.
    """
    description = (
        "Exports a checkpoint to a weight file and its model card. Texts may be the name of a text file."
    )
    parser = argparse.ArgumentParser(prog="python -m latentpress.train.export", description=description)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint; it is unpickled")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file, .safetensors")
    parser.add_argument("--training-data", required=True, metavar="TEXT", help="what it was trained on")
    parser.add_argument("--training", required=True, metavar="TEXT", help="how it was trained")
    parser.add_argument(
        "--lambda-range", type=float, nargs=2, metavar="LAMBDA", help="default: as the checkpoint records"
    )
    parser.add_argument(
        "--rd",
        action="append",
        default=[],
        metavar="REPORT",
        help="JSON of `latentpress eval`, once a data set",
    )
    parser.add_argument(
        "--matrices-in-bytes",
        nargs="*",
        default=[],
        metavar="PATTERN",
        help="matrices of the transforms that take one byte a number, such as 'analysis.blocks.[4-7].*'",
    )
    options = parser.parse_args(args)
    if Path(options.out).suffix != ".safetensors":
        parser.error(f"--out must end in .safetensors, got {options.out}")
    try:
        card = write_export(
            options.checkpoint,
            options.out,
            _text_or_file(options.training_data),
            _text_or_file(options.training),
            tuple(options.lambda_range) if options.lambda_range else None,
            options.rd,
            options.matrices_in_bytes,
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{card.parameters} parameters, {card.bytes} bytes, weights {card.fingerprint}")
    print(f"written: {options.out}, {card_path(options.out)}")


def _text_or_file(text: str) -> str:
    """The content of a file if there is one of this name, the text itself otherwise."""
    try:
        return Path(text).read_text("utf-8").strip() if Path(text).is_file() else text
    except OSError:  # a text too long for a file name
        return text


if __name__ == "__main__":
    main()
