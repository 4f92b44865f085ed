"""Turns trained field networks into one weight file: float16 transforms, integer entropy networks and tables.

::

    ratio8.analysis...   ratio8.context...   ratio8.realistic...   ratio64. ...   tables. ...

Realistic enhancers decide no symbol and keep no bound: their matrices are int8 with scales. The critic is a
file of its own, see :mod:`latentpress.train.field_critic_export`.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.byte_weights import in_bytes
from latentpress.codecs.card import ModelCard, card_path
from latentpress.codecs.field_networks import INTEGER_PARTS
from latentpress.codecs.field_payload import RATIOS
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.volume import volume_scale_table
from latentpress.models.field.network import build_field_network
from latentpress.train.card import write_card
from latentpress.train.export import WEIGHTS_LICENCE, network_from_checkpoint

# Logarithms of gains: a float16 error there would be a relative error of every latent.
_FULL_PRECISION = ("knots",)


class TrainedRatio(NamedTuple):
    """What training made for one ratio.

    Attributes:
        config: Arguments of ``build_field_network``.
        state: The network's weights, float32.
        realistic: The realistic enhancer's weights, or None.
    """

    config: Mapping[str, int]
    state: Mapping[str, Tensor]
    realistic: Mapping[str, Tensor] | None = None


def export_field(trained: Mapping[int, TrainedRatio], tables: TableSet | None = None) -> WeightFile:
    """Makes the weight file of a field codec.

    Args:
        trained: By ratio.
        tables: Frequency tables, one for every entry of the volumes' scale table; Gaussian ones if None.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for ratio, one in trained.items():
        network = build_field_network(**one.config)
        network.load_state_dict(dict(one.state))
        for part in INTEGER_PARTS:
            setattr(network, part, convert(getattr(network, part)))
        tensors |= {
            f"ratio{ratio}.{name}": _stored(name, tensor) for name, tensor in network.state_dict().items()
        }
        for name, tensor in (one.realistic or {}).items():
            tensors |= _in_bytes(f"ratio{ratio}.realistic.{name}", tensor)
    config: dict[str, Any] = {"networks": {str(r): dict(t.config) for r, t in trained.items()}}
    tables = tables or gaussian_tables(volume_scale_table().numpy())
    tensors |= {f"tables.{name}": array for name, array in tables.to_arrays().items()}
    return WeightFile("field", config, tensors)


def trained_ratio(faithful: str, realistic: str | None = None) -> TrainedRatio:
    """Averaged weights of a ratio's checkpoints, which are unpickled, so they must be one's own."""
    config, state = network_from_checkpoint(faithful)
    return TrainedRatio(config, state, None if realistic is None else network_from_checkpoint(realistic)[1])


def _states(trained: Mapping[int, TrainedRatio]) -> list[Mapping[str, Tensor]]:
    """Weights of everything that is exported."""
    return [state for one in trained.values() for state in (one.state, one.realistic) if state is not None]


def _stored(name: str, tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    if array.dtype == np.float32 and not name.endswith(_FULL_PRECISION):
        return array.astype(np.float16)
    return array


def _in_bytes(name: str, tensor: Tensor) -> dict[str, NDArray[Any]]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return {name: array} if name.endswith(_FULL_PRECISION) else in_bytes(name, array)


def main(args: Sequence[str] | None = None) -> None:
    """Exports checkpoints to a weight file and its model card.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m latentpress.train.field_export", description=__doc__)
    parser.add_argument(
        "--faithful", nargs="+", required=True, metavar="FILE", help="checkpoints, by rising ratio"
    )
    parser.add_argument(
        "--realistic", nargs="*", default=[], metavar="FILE", help="of the adversarial stages"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file, .safetensors")
    parser.add_argument("--training-data", default="isotropic turbulence, simulated while training")
    parser.add_argument("--training", default="see docs/field.md")
    options = parser.parse_args(args)
    if len(options.faithful) > len(RATIOS) or len(options.realistic) not in (0, len(options.faithful)):
        parser.error(f"give at most {len(RATIOS)} faithful checkpoints, and as many realistic ones or none")
    realistic = options.realistic or [None] * len(options.faithful)
    trained = {
        ratio: trained_ratio(one, other)
        for ratio, one, other in zip(RATIOS, options.faithful, realistic, strict=False)
    }
    weights = export_field(trained)
    content = weights.to_bytes()
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    lambdas = [
        torch.load(path, map_location="cpu", weights_only=False)["lambda_range"] for path in options.faithful
    ]
    card = ModelCard(
        name=out.stem,
        family=weights.family,
        config=weights.config,
        fingerprint=weights.fingerprint().hex(),
        parameters=sum(tensor.numel() for state in _states(trained) for tensor in state.values()),
        bytes=len(content),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        license=WEIGHTS_LICENCE,
        training_data=options.training_data,
        training=options.training,
        lambda_range=(min(low for low, _ in lambdas), max(high for _, high in lambdas)),
    )
    write_card(card, out)
    print(f"{card.bytes} bytes, weights {card.fingerprint}; written: {out}, {card_path(out)}")


if __name__ == "__main__":
    main()
