"""Starts a network from the weights of another one, as far as they fit.

The transforms and the hyperprior of ``image`` and ``image-max`` have the same shapes, so training of the
larger codec need not begin from noise. The entropy models differ. A slice-wise one codes channels in their
order, so before they are taken over, the other network's latent channels are sorted as ISCS does: the salient
core comes first, and auxiliary channels follow. The transforms compute the same picture before and after.

Transforms may be deeper than those they start from. Blocks that the other network lacks begin as the
identity, so the deeper network computes the same pictures, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from latentpress.codecs.byte_weights import from_bytes
from latentpress.codecs.weights import FORMAT, read_weight_file
from latentpress.models.channel_order.permutation import permute_latent
from latentpress.models.channel_order.saliency import order_channels
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.image.families import IMAGE, IMAGE_MAX, build_from_config
from latentpress.models.image.network import ImageNetwork
from latentpress.models.layers import DepthConvBlock
from latentpress.train.export import network_from_checkpoint, recorded_family

_TRANSFORMS = ("analysis.", "synthesis.")
_NEIGHBOURS = ".neighbours.weight"


class WarmStart(NamedTuple):
    """What became of the tensors of a network.

    Attributes:
        taken: Names of those that were taken over.
        fresh: Names of those that keep their own start.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]


def warm_start(network: ImageNetwork, path: str | Path) -> WarmStart:
    """Fills a network from a file, as far as names and shapes agree.

    Args:
        network: Changed in place.
        path: A checkpoint of ``latentpress train`` (unpickled, so it must be one's own), a weight file, or a
            safetensors file of the same network's state, all of which must fit.

    Raises:
        ValueError: The transforms are shallower than those in the file, or do not fit otherwise.
        RuntimeError: A state is not one of this network.
    """
    found = network_in(Path(path))
    if found is None:
        network.load_state_dict(load_file(path))
        return WarmStart(tuple(network.state_dict()), ())
    source = found
    if source.family == IMAGE and network.family == IMAGE_MAX:
        sort_latent(source, core_channels(network))
    result = copy_matching(network, source.state_dict())
    added, own = _pass_on_added_blocks(network, source), network.state_dict()
    left = [name for name in source.state_dict() if name not in own]
    missing = [name for name in result.fresh if not name.startswith(added)]
    # Token mixing blocks may come and go.
    wrong = [name for name in (*missing, *left) if name.startswith(_TRANSFORMS) and "mixers" not in name]
    if wrong:
        raise ValueError(f"the transforms in {path} do not fit this network, {wrong[0]} for one")
    return result


@torch.no_grad()
def copy_matching(network: nn.Module, state: Mapping[str, Tensor]) -> WarmStart:
    """Copies the tensors whose names and shapes agree."""
    own = network.state_dict()
    taken = [name for name, value in own.items() if name in state and state[name].shape == value.shape]
    for name in taken:
        own[name].copy_(state[name])
    return WarmStart(tuple(taken), tuple(name for name in own if name not in set(taken)))


def _pass_on_added_blocks(network: ImageNetwork, source: ImageNetwork) -> tuple[str, ...]:
    """Makes blocks that the source lacks the identity; returns how the names of their arrays begin."""
    known = {name for name, _ in source.named_modules()}
    added = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, DepthConvBlock) and name.startswith(_TRANSFORMS) and name not in known
    }
    for block in added.values():
        block.pass_on()
    return tuple(f"{name}." for name in added)


def core_channels(network: ImageNetwork) -> int:
    """Channels that a slice-wise network codes in its first part."""
    context = network.context
    stages = context.schedule.stages
    return sum(len(stage.slices) for stage in stages if stage.part == 0) * context.slice_channels


def sort_latent(network: ImageNetwork, core: int) -> Tensor:
    """Sorts the latent channels of a trained network: core first, then auxiliary ones.

    Args:
        network: Changed in place. Transforms and hyperprior compute what they did, but for the order of
            channels; the entropy model does not.
        core: Channels of the core.

    Returns:
        The old channel at every new place, ``(M,)`` int64.
    """
    order = order_channels(network, core).order
    permute_latent(network, order, allow_retraining=True)
    return order


def network_in(path: Path) -> ImageNetwork | None:
    """The network in a file, on real numbers; None if the file holds nothing but a state.

    Args:
        path: A checkpoint of ``latentpress train`` (unpickled, so it must be one's own) or a weight file.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                return None
        weights = read_weight_file(path)
        network = build_from_config(weights.family, weights.config)
        arrays = from_bytes(weights.tensors)
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items() if not k.startswith("tables.")}
        copy_matching(network, real_numbers(tensors))
        return network
    config, state = network_from_checkpoint(str(path))
    network = build_from_config(recorded_family(str(path)), config)
    network.load_state_dict(state)
    return network


def real_numbers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Integer layers' weights as numbers, next to those that are anyway.

    Args:
        tensors: Of a weight file, by name.

    Returns:
        The state of the network before its layers became integers; float32.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        shift = tensors.get(f"{name.rpartition('.')[0]}.shift")
        if tensor.dtype.is_floating_point:
            result[name] = tensor.float()
        elif name.endswith(".weight") and shift is not None:
            # The one layer whose weights have another name before.
            own = f"{name.removesuffix('weight')}taps" if name.endswith(_NEIGHBOURS) else name
            result[own] = tensor.float() * 2.0 ** -int(shift)
        elif name.endswith((".bias", ".knots", ".weight")):
            result[name] = tensor.float() / UNIT
        elif name.endswith(".exponent"):
            result[name] = tensor
    return result
