"""Turns a trained critic into a weight file of its own, which no stream depends on.

It stays in float32, for its filters cancel a flow to a thousandth to see the error in it, and is small.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentpress.codecs.card import ModelCard, card_path
from latentpress.codecs.field_quality import FAMILY
from latentpress.codecs.registry import weights_path
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole
from latentpress.models.field.critic import ErrorCritic
from latentpress.train.card import write_card
from latentpress.train.checkpoint import TrainedNetwork, network_from_checkpoint
from latentpress.train.export import WEIGHTS_LICENCE


def export_critic(trained: TrainedNetwork, codec: str) -> WeightFile:
    """Makes the weight file of a critic.

    Args:
        trained: Of the critic's stage.
        codec: Fingerprint of the weights whose decoded fields it has learned from, in hexadecimal.
    """
    tensors = {name: tensor.numpy().astype(np.float32) for name, tensor in trained.state.items()}
    return WeightFile(FAMILY, {"network": dict(trained.config), "codec": codec}, tensors)


def main(args: Sequence[str] | None = None) -> None:
    """Exports a checkpoint to a weight file and its model card.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.field_critic_export", description=__doc__
    )
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="of the critic's stage; it is unpickled"
    )
    parser.add_argument(
        "--codec", default="field", help="weights whose decoded fields it has learned from (default: field)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file, .safetensors")
    parser.add_argument(
        "--training-data", default="isotropic turbulence, simulated, decoded and damaged while training"
    )
    parser.add_argument("--training", default="see docs/field.md")
    options = parser.parse_args(args)
    codec = read_weight_file(weights_path(options.codec)).fingerprint().hex()
    trained = network_from_checkpoint(options.checkpoint)
    weights = export_critic(trained, codec)
    content = weights.to_bytes()
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, content)
    card = ModelCard(
        name=out.stem,
        family=FAMILY,
        config=weights.config,
        fingerprint=weights.fingerprint().hex(),
        parameters=sum(p.numel() for p in ErrorCritic(**trained.config).parameters()),
        bytes=len(content),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        license=WEIGHTS_LICENCE,
        training_data=options.training_data,
        training=options.training,
        lambda_range=None,
    )
    write_card(card, out)
    print(f"{card.bytes} bytes, critic {card.fingerprint}; written: {out}, {card_path(out)}")


if __name__ == "__main__":
    main()
