"""How close a decoded flow is to the truth, judged without it: the critic's score.

A network that has seen what the field codec makes of flows, and flows damaged otherwise, estimates how far a
field is from the one that it came from. It is asked for the error itself: unlike the adversary of the
realistic decoders, it knows more than true and false. What it knows is turbulence: fields of another kind get
scores that mean nothing.

::

    field (3, D, H, W) -> unit variance -> tiles of 64^3 -> critic -> their errors -> the field's

Its weights are a file of their own, as no stream depends on them: fingerprints do not change with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.weights import WeightFile
from latentpress.models.field.critic import SIDE_FACTOR, SMALLEST_SIDE, ErrorCritic
from latentpress.models.field.transforms import COMPONENTS

FAMILY = "field-critic"
"""Of the weight files of critics."""

_TILE = 64
"""Side of the boxes it was trained with; larger fields are looked at in tiles of this size."""


class FlowCritic:
    """Scores velocity fields.

    Args:
        weights: A weight file of the family ``field-critic``.
        device: Where it runs.

    Attributes:
        codec: Fingerprint of the weights whose decoded fields it knows, in hexadecimal.

    Raises:
        ValueError: The weights are of another family, or do not fit.

    Example:
        >>> arrays = {name: tensor.numpy() for name, tensor in ErrorCritic(2, 4).state_dict().items()}
        >>> config = {"network": {"filters": 2, "width": 4}, "codec": "00" * 8}
        >>> critic = FlowCritic(WeightFile(FAMILY, config, arrays))
        >>> isinstance(critic.score(torch.rand(3, 16, 16, 16)), float)
        True
    """

    def __init__(self, weights: WeightFile, device: torch.device | str = "cpu") -> None:
        if weights.family != FAMILY:
            raise ValueError(f"weights of the family {weights.family!r} are no critic")
        try:
            config, self.codec = dict(weights.config["network"]), str(weights.config["codec"])
            network = build_network(lambda: ErrorCritic(**config), config, weights.tensors)
        except (KeyError, TypeError) as error:
            raise ValueError(f"these weights do not say which critic they are: {error}") from error
        fill_network(network, weights.tensors)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)

    @torch.inference_mode()
    def score(self, field: Tensor) -> float:
        """The score of a field: an estimate of ``-log10(NRMSE)``, from about 0 for noise to 4 for the truth.

        Args:
            field: ``(3, D, H, W)`` velocities, component i along axis i, finite, at least 16 points a side.

        Raises:
            ValueError: The field is no velocity field in three dimensions, too small, or not finite.
        """
        if field.ndim != 4 or field.shape[0] != COMPONENTS or min(field.shape[1:]) < SMALLEST_SIDE:
            raise ValueError(
                "the critic scores velocities (3, D, H, W) of at least "
                f"{SMALLEST_SIDE} points a side, got {tuple(field.shape)}"
            )
        centred = field.double() - field.double().mean(dim=(1, 2, 3), keepdim=True)
        size = float(centred.square().mean().sqrt())
        if not math.isfinite(size):
            raise ValueError("the critic scores fields whose values are all finite")
        scaled = (centred / (size or 1.0)).float()
        with torch.autocast(self._device.type, enabled=False):
            found = [
                float(self._network(tile.permute(1, 2, 3, 0)[None].to(self._device)))
                for tile in _tiles(scaled)
            ]
        # Errors of tiles are averaged as squares, as over the field, and not as logarithms.
        return -0.5 * math.log10(fmean(10 ** (-2 * score) for score in found))


def shipped_critic() -> Path:
    """Where the critic is that comes with the library."""
    return Path(str(resources.files("latentpress.assets"))) / "critics" / "field-critic.safetensors"


def _tiles(field: Tensor) -> Iterator[Tensor]:
    """Tiles that cover a field; the last along an axis reaches back where the side is no multiple."""
    lengths = [min(_TILE, side // SIDE_FACTOR * SIDE_FACTOR) for side in field.shape[1:]]
    starts = [_starts(side, length) for side, length in zip(field.shape[1:], lengths, strict=True)]
    depth, height, width = lengths
    for i in starts[0]:
        for j in starts[1]:
            for k in starts[2]:
                yield field[:, i : i + depth, j : j + height, k : k + width]


def _starts(side: int, length: int) -> list[int]:
    return [*range(0, side - length, length), side - length]
