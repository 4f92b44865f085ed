"""Joins the networks of ``image`` and ``image-max`` for training as one, and takes them apart again.

    python -m latentpress.train.twin_weights join --image FILE --image-max FILE --out twin.safetensors
    python -m latentpress.train.twin_weights split --twin CHECKPOINT --out FOLDER

``join`` takes transforms and hyperprior of ``image``, and of ``image-max`` the entropy model; both must have
the same transforms, their channels in any order. ``--shared-blocks 5`` makes that entropy model deeper, by
blocks that begin as the identity. Its result is what ``configs/image/image-twin.yaml`` starts from.
``split`` writes ``image.ckpt`` and ``image-max.ckpt`` for :mod:`latentpress.train.export`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from latentpress.models.channel_order.permutation import permute_latent
from latentpress.models.image.families import (
    IMAGE,
    IMAGE_MAX,
    IMAGE_TWIN,
    build_from_config,
)
from latentpress.models.image.network import ImageNetwork
from latentpress.models.image.twin import TwinImageNetwork, matching_order
from latentpress.train.warm_start import copy_matching, network_in

_CONTEXT = "context."


class Pair(NamedTuple):
    """Two networks with the same transforms, their channels in different orders."""

    image: ImageNetwork
    image_max: ImageNetwork


def join(pair: Pair, shared_blocks: int | None = None) -> TwinImageNetwork:
    """One network for training of two that have the same transforms.

    Args:
        pair: Both networks, left as they are. Modules that skip elements are not taken over.
        shared_blocks: How many blocks the stages of the slice-wise entropy model share; None for as many as
            it has. Those that it lacks begin as the identity.

    Raises:
        ValueError: The transforms differ in more than the order of channels, or the entropy model has more
            blocks.
    """
    image, image_max = pair
    order = matching_order(image, image_max)
    config: dict[str, Any] = dict(image_max.config)
    known = len(image_max.context.blocks)
    if shared_blocks is None:
        shared_blocks = known
    if shared_blocks < known:
        raise ValueError(f"the stages of the entropy model share {known} blocks already")
    config.update(context={**config["context"], "selective": None, "shared_blocks": shared_blocks})
    depth = int(image.config["context_depth"])
    twin = build_from_config(IMAGE_TWIN, {**config, "companion_depth": depth})
    assert isinstance(twin, TwinImageNetwork)
    own_order = {k: v.clone() for k, v in image.state_dict().items()}
    permute_latent(image, order, allow_retraining=True)
    copy_matching(twin, {k: v for k, v in image.state_dict().items() if not k.startswith(_CONTEXT)})
    image.load_state_dict(own_order)
    copy_matching(twin, {k: v for k, v in image_max.state_dict().items() if k.startswith(_CONTEXT)})
    for block in twin.context.blocks[known:]:
        block.pass_on()
    twin.companion.load_state_dict(image.context.state_dict())
    twin.order.copy_(order)
    return twin


def split(twin: TwinImageNetwork) -> Pair:
    """The two networks in one, each with its own copy of the transforms.

    Args:
        twin: Left as it is.
    """
    config = dict(twin.config)
    depth = config.pop("companion_depth")
    state = twin.state_dict()
    image_max = build_from_config(IMAGE_MAX, config)
    image_max.load_state_dict({k: state[k].clone() for k in image_max.state_dict()})
    sizes = {k: v for k, v in config.items() if k not in ("schedule", "context", "token_mixing")}
    image = build_from_config(IMAGE, {**sizes, "context_depth": depth})
    copy_matching(image, {k: v for k, v in state.items() if not k.startswith(_CONTEXT)})
    permute_latent(image, torch.argsort(twin.order), allow_retraining=True)
    image.context.load_state_dict(twin.companion.state_dict())
    return Pair(image, image_max)


def main(args: Sequence[str] | None = None) -> None:
    """Joins two networks in one file, or takes them apart.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.twin_weights",
        description="Joins the networks of image and image-max for training as one, and takes them apart.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    joining = commands.add_parser("join", help="one state of both networks")
    joining.add_argument("--image", type=Path, required=True, help="checkpoint or weights of image")
    joining.add_argument("--image-max", type=Path, required=True, help="checkpoint or weights of image-max")
    joining.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    joining.add_argument(
        "--shared-blocks",
        type=int,
        help="blocks that stages of image-max share (default: as many as there are)",
    )
    splitting = commands.add_parser("split", help="two checkpoints of one")
    splitting.add_argument("--twin", type=Path, required=True, help="checkpoint of latentpress train")
    splitting.add_argument("--out", type=Path, required=True, help="folder for image.ckpt and image-max.ckpt")
    options = parser.parse_args(args)
    try:
        if options.command == "join":
            pair = Pair(_network(options.image, IMAGE), _network(options.image_max, IMAGE_MAX))
            twin = join(pair, options.shared_blocks)
            save_file({k: v.contiguous() for k, v in twin.state_dict().items()}, options.out)
        else:
            _write(split(_network(options.twin, IMAGE_TWIN)), options.twin, options.out)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))


def _network(path: Path, family: str) -> Any:
    network = network_in(path)
    if network is None or network.family != family:
        raise ValueError(f"{path} does not hold a network of {family}")
    return network


def _write(pair: Pair, twin: Path, folder: Path) -> None:
    whole = torch.load(twin, map_location="cpu", weights_only=False, mmap=True)
    folder.mkdir(parents=True, exist_ok=True)
    for network in pair:
        checkpoint = {
            "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
            "network_family": network.family,
            "network_config": dict(network.config),
            "lambda_range": whole["lambda_range"],
        }
        torch.save(checkpoint, folder / f"{network.family}.ckpt")


if __name__ == "__main__":
    main()
