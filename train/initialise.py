"""Starts an image network as the best linear transform codec, instead of from noise.

At first every block passes its input on unchanged, the analysis projects pixels on their principal
components in two stages (8x8 pixels, then 2x2 of those), the synthesis is its transpose, and the gains are
the inverse of the quantisation steps that theory asks for. Training begins from a working codec at all rates;
left to itself, a network is long in finding the precise linear part that high rates need.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import lightning
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from latentpress.models.image.transforms import PATCH
from latentpress.models.layers import ContrastNormalisation, DepthConvBlock, space_to_depth

if TYPE_CHECKING:
    from latentpress.models.image.network import ImageNetwork

_NOISE = 0.01
"""Standard deviation of weights that have no principal component to hold."""

_SMALLEST_DEVIATION = 0.01
"""Of a channel, in multiples of the mean over channels, that is still brought to one."""


class PrincipalComponents(Callback):
    """Initialises a fresh run's :class:`ImageNetwork` from crops of its training pictures.

    A run that is resumed, or started from other weights, is left alone.

    Args:
        crops: Crops to take the statistics of.
    """

    def __init__(self, crops: int = 256) -> None:
        self.crops = crops

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Initialises the network, alike on all devices."""
        if trainer.global_step or getattr(module, "init_from", None) is not None:
            return
        batches = (batch.image for batch in trainer.train_dataloader)
        crops: list[Tensor] = []
        while sum(map(len, crops)) < self.crops and (batch := next(batches, None)) is not None:
            crops.append(batch.to(module.device))
        initialise(module.network, torch.cat(crops), module.lambda_min, module.lambda_max)
        if torch.distributed.is_initialized():
            # Eigenvectors of near-equal eigenvalues may differ between devices.
            for parameter in module.network.parameters():
                torch.distributed.broadcast(parameter.detach(), src=0)


@torch.no_grad()
def initialise(network: ImageNetwork, crops: Tensor, lambda_min: float, lambda_max: float) -> None:
    """Makes a network the linear transform codec that fits some pictures best.

    Args:
        network: Changed in place.
        crops: ``(B, S, S, 3)`` uint8, S a multiple of 16, on the network's device.
        lambda_min: Lambda at quality 0.
        lambda_max: Lambda at quality 100.
    """
    analysis, synthesis = network.analysis, network.synthesis
    # Token mixing blocks start as the identity by themselves.
    for block in (m for t in (analysis, synthesis) for m in t.modules() if isinstance(m, DepthConvBlock)):
        block.pass_on()
    patches = space_to_depth(crops.float() / 255 - 0.5, PATCH)
    _set(analysis.stem, _principal_rows(patches, analysis.stem.out_features))
    shallow = analysis.stem(patches)
    squares = space_to_depth(shallow, 2)
    _set(analysis.down.linear, _principal_rows(squares, analysis.down.linear.out_features))
    deep = analysis.down.linear(squares)
    for transform in (analysis, synthesis):
        _whiten(transform.blocks, shallow)
        _whiten(transform.deep_blocks, deep)
    _set(analysis.head, torch.eye(*analysis.head.weight.shape))
    _set(synthesis.stem, analysis.head.weight.T)
    _set(synthesis.up.linear, analysis.down.linear.weight.T)
    _set(synthesis.head, analysis.stem.weight.T)
    line = torch.linspace(-_log_step(lambda_min), -_log_step(lambda_max), network.gain.knots.shape[0])
    network.gain.knots.copy_(line[:, None].expand_as(network.gain.knots))
    network.inverse_gain.knots.copy_(-network.gain.knots)


def _whiten(blocks: nn.ModuleList, x: Tensor) -> None:
    """Lets every channel count alike where blocks normalise their input ``(..., channels)``."""
    deviation = x.flatten(0, -2).square().mean(0).sqrt()
    for block in blocks.modules():
        if isinstance(block, ContrastNormalisation):
            # Channels beyond the principal ones hold next to nothing, and stay small.
            block.weight.copy_(1 / deviation.clamp(min=float(deviation.mean()) * _SMALLEST_DEVIATION))


def _log_step(weight: float) -> float:
    """Logarithm of the best step of a uniform quantiser, where a bit costs what the error it saves is worth.

    A coefficient costs ``-log2(step)`` bits and ``weight 255^2 / 3 * step^2 / 12`` of distortion, since the
    squared error is averaged over three channels.
    """
    return 0.5 * math.log(18 / (math.log(2) * weight * 255**2))


def _principal_rows(x: Tensor, count: int) -> Tensor:
    """The first principal directions of ``(..., channels)``, most energy first, ``(count, channels)``."""
    samples = x.flatten(0, -2).double()
    _, vectors = torch.linalg.eigh(samples.T @ samples)
    rows = vectors.flip(1).T[:count].float()
    missing = torch.randn(count - len(rows), rows.shape[1], device=rows.device) * _NOISE
    return torch.cat((rows, missing))


def _set(linear: nn.Linear, weight: Tensor) -> None:
    linear.weight.copy_(weight)
    nn.init.zeros_(linear.bias)
