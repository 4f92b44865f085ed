"""Reorders the latent channels of a trained network without changing what it computes.

Channel ``order[i]`` of the old latent becomes channel ``i`` of the new one. Rows that write the latent or
predict it, factors that scale it and columns that read it move together. What that preserves:

**Analysis, hyper analysis and synthesis: under any order.** The latent y comes out permuted, the side
information z and the picture unchanged. In floating point this holds up to the order of summation: layers
that read the latent add the same products in another sequence, and a matrix product may treat a row
differently according to its place. A latent that lies within such an error of the border between two integers
may be rounded to the other one.

**The entropy model: as far as it treats channels alike.** A network of CompressAI with a mean-scale
hyperprior or an autoregressive context predicts all channels of a position from the same information, so any
order preserves it. In :class:`~latentpress.models.entropy.context.ContextModel` the number of a channel
decides in which step it is coded, in a slice-wise model in which stage; "quarter" below stands for both:

- An order that keeps every channel inside its quarter preserves every prediction of every step. The integer
  networks sum integers, whose sums do not depend on the order, and one power of two scales the whole layer.
  So for the same y and z means, table indexes, symbols and decoded latents are equal, permuted, exactly, on
  any machine. The range coder meets the same pairs of symbol and table in another sequence within a step, so
  the information content is the same and the bytes are not. Converting to integers and permuting commute.
- An order that moves whole quarters, the new quarter q taking the old quarter q XOR a with their channels in
  any order inside, codes the same channels together, with the squares of 2x2 positions displaced by one row
  or column, or both. It is not preserving: the features of the hyper synthesis depend on where in its 4x4
  square a position is, and every head has learnt its rows only where they are used.
- Any other order lets other channels be decoded before a channel than those its predictions were trained
  with.

The last two are refused unless ``allow_retraining`` says that the entropy model will be trained again.
Weights with permuted channels have a fingerprint of their own: streams made before do not decode with them.
An optimiser's moments are not permuted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentpress.models.channel_order.ports import LatentPorts, ports_of
from latentpress.models.entropy.fixed_point import FixedPointLinear


class ChangesPredictions(ValueError):
    """The order would change what the entropy model predicts from, so that it needs to be trained again."""


def preserves_predictions(ports: LatentPorts, order: Tensor) -> bool:
    """Whether an order keeps every channel among those that the entropy model treats like it.

    Args:
        ports: Adapter of the network.
        order: ``(M,)`` int64, the old channel at every new place.

    Example:
        >>> from latentpress.models.image.network import build_image_network
        >>> ports = ports_of(build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1))
        >>> preserves_predictions(ports, torch.tensor([1, 0, 2, 3, 4, 5, 7, 6]))
        True
        >>> preserves_predictions(ports, torch.tensor([2, 3, 0, 1, 4, 5, 6, 7]))
        False
    """
    return all(set(order[block.start : block.stop].tolist()) == set(block) for block in ports.interchangeable)


def preserving_order(ports: LatentPorts, order: Tensor) -> Tensor:
    """The order that ranks channels as another does, but only inside the blocks that can be reordered freely.

    Args:
        ports: Adapter of the network.
        order: ``(M,)`` int64, the old channel at every new place.

    Returns:
        ``(M,)`` int64; for this order :func:`preserves_predictions` is true.

    Example:
        >>> from latentpress.models.image.network import build_image_network
        >>> ports = ports_of(build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1))
        >>> preserving_order(ports, torch.arange(8).flip(0)).tolist()
        [1, 0, 3, 2, 5, 4, 7, 6]
    """
    rank = torch.argsort(_checked(order, ports.latent_channels))
    blocks = [torch.tensor(block) for block in ports.interchangeable]
    return torch.cat([block[torch.argsort(rank[block])] for block in blocks])


@torch.no_grad()
def permute_latent(
    model: nn.Module, order: Tensor | Sequence[int], *, allow_retraining: bool = False
) -> None:
    """Reorders the latent channels of a network in place. The module says what this preserves.

    Args:
        model: A network that :func:`~latentpress.models.channel_order.ports.ports_of` knows.
        order: ``(M,)`` integers, the old channel at every new place.
        allow_retraining: Also accept an order after which the entropy model has to be trained again;
            transforms and hyper analysis are preserved even then.

    Raises:
        ChangesPredictions: The entropy model would have to be trained again.
        ValueError: The order is no permutation of the channels.
        TypeError: The network is not known.

    Example:
        >>> from latentpress.models.image.network import build_image_network
        >>> network = build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1)
        >>> old = network.analysis.head.weight.detach().clone()
        >>> permute_latent(network, [1, 0, 2, 3, 4, 5, 6, 7])
        >>> torch.equal(network.analysis.head.weight[0], old[1])
        True
        >>> permute_latent(network, [7, 6, 5, 4, 3, 2, 1, 0])
        Traceback (most recent call last):
        latentpress.models.channel_order.permutation.ChangesPredictions: ...
    """
    ports = ports_of(model)
    channels = ports.latent_channels
    order = _checked(torch.as_tensor(order), channels)
    if not allow_retraining and not preserves_predictions(ports, order):
        raise ChangesPredictions(
            "channels would leave their place in the order of decoding, and the entropy model would have to "
            "be trained again: see preserving_order, or allow_retraining"
        )
    for port in ports.ports():
        tensor = port.tensor
        held = torch.arange(channels) if port.channels is None else torch.tensor(port.channels)
        if not torch.equal(order[held].sort().values, held):
            continue  # allowed: this part of the entropy model will be trained again
        index = torch.arange(tensor.shape[port.axis])
        index[port.start : port.start + len(held)] = port.start + torch.searchsorted(held, order[held])
        tensor.copy_(tensor.index_select(port.axis, index.to(tensor.device)))
        if isinstance(port.module, FixedPointLinear):
            port.module._operands = None  # made of the old weights


def _checked(order: Tensor, channels: int) -> Tensor:
    order = order.detach().cpu().long()
    if order.shape != (channels,) or not torch.equal(order.sort().values, torch.arange(channels)):
        raise ValueError(f"expected every channel from 0 to {channels - 1} once, got {tuple(order.shape)}")
    return order
