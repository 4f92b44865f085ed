"""Short trainings one after the other, for comparing networks: no logging, no checkpoints, one process.

``latentpress train`` trains weights that ship. This trains many variants for minutes each from one pool of
decoded pictures, and starts quickly: on a GPU the step is recorded as a CUDA graph, but not compiled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.image.network import ImageNetwork
from latentpress.train.cuda_graph import GraphedBackward
from latentpress.train.data.images import CropBatch, CropStream, ImagePool
from latentpress.train.image_module import LossTerms, rate_distortion_loss
from latentpress.train.initialise import initialise
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.schedule import learning_rate_factor

_INITIAL_CROPS = 256
_CLOCK_EVERY = 10


class ShortRunSettings(NamedTuple):
    """How networks are trained.

    Attributes:
        minutes: The longest a run may take, without its start.
        steps: The most steps it may make; None for as many as there is time for.
        batch_size: Crops a step.
        lr: Peak learning rate.
        warmup_steps: Steps over which it rises.
        constant_until: Fraction of the run at the peak rate, then it falls linearly.
        lambda_min: Lambda at quality 0.
        lambda_max: Lambda at quality 100.
        weight_decay: Of hidden matrices.
        seed: Of crops and qualities.
        bfloat16: Autocast to bfloat16.
    """

    minutes: float
    steps: int | None = None
    batch_size: int = 32
    lr: float = 1.5e-3
    warmup_steps: int = 50
    constant_until: float = 0.3
    lambda_min: float = 0.0006
    lambda_max: float = 0.14
    weight_decay: float = 0.02
    seed: int = 1
    bfloat16: bool = False


class ShortRun(NamedTuple):
    """What a run did.

    Attributes:
        steps: Steps made.
        seconds: Spent on them, without the start.
        loss: Mean over the last tenth of the looks at it; NaN if it was never looked at.
    """

    steps: int
    seconds: float
    loss: float


def train_shortly(network: ImageNetwork, pool: ImagePool, settings: ShortRunSettings) -> ShortRun:
    """Trains a network in place, from principal components.

    Args:
        network: On the pool's device.
        pool: Decoded pictures.
        settings: How.

    Raises:
        FloatingPointError: The loss is not finite at the end.
    """
    network.train()
    batches = iter(CropStream(pool, settings.batch_size, settings.seed))
    generator = torch.Generator(pool.device).manual_seed(settings.seed)
    initialise(network, pool.crops(_INITIAL_CROPS, generator), settings.lambda_min, settings.lambda_max)
    optimizer = MuonAdam(parameter_groups(network), lr=settings.lr, weight_decay=settings.weight_decay)
    backward = _backward(network, settings, optimizer, next(batches))
    losses: list[float] = []
    steps, progress = 0, 0.0
    start = time.monotonic()
    while progress < 1:
        factor = learning_rate_factor(progress, settings.constant_until, 0.01)
        factor *= min(1.0, (steps + 1) / settings.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * factor
        terms = backward(next(batches))
        optimizer.step()
        steps += 1
        if steps % _CLOCK_EVERY == 0 or settings.steps is not None:
            if steps % _CLOCK_EVERY == 0:
                losses.append(float(terms.loss.detach()))  # waits for the device, so the clock is right
            spent = (time.monotonic() - start) / (60 * settings.minutes)
            made = steps / settings.steps if settings.steps else 0.0
            progress = max(progress, spent, made)
    network.eval()
    recent = losses[-max(1, len(losses) // 10) :]
    loss = sum(recent) / len(recent) if recent else math.nan
    if recent and not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} after {steps} steps")
    return ShortRun(steps, time.monotonic() - start, loss)


class Point(NamedTuple):
    """Rate and distortion at one quality, means over pictures.

    Attributes:
        quality: 0 to 100.
        bpp: Bits per pixel, from likelihoods of rounded latents.
        psnr: Of 8-bit pixels, in dB.
    """

    quality: float
    bpp: float
    psnr: float


@torch.no_grad()
def validate(network: ImageNetwork, pictures: Sequence[Tensor], qualities: Sequence[float]) -> list[Point]:
    """Rate-distortion points in full precision with true rounding.

    Args:
        network: In evaluation mode.
        pictures: ``(H, W, 3)`` uint8 on its device, sides multiples of 16.
        qualities: 0 to 100 each.
    """
    points = []
    for quality in qualities:
        totals = torch.zeros(2, dtype=torch.float64)
        for picture in pictures:
            at = torch.tensor([float(quality)], device=picture.device)
            output = network(picture[None].float() / 255, at)
            decoded = (output.image.clamp(0, 1) * 255).round()
            error = (decoded - picture[None].float()).square().mean()
            bits = (output.y_bits + output.z_bits)[0] / (picture.shape[0] * picture.shape[1])
            totals += torch.stack((bits, 10 * torch.log10(255**2 / error))).double().cpu()
        bpp, psnr = (totals / len(pictures)).tolist()
        points.append(Point(float(quality), bpp, psnr))
    return points


def _backward(
    network: ImageNetwork, settings: ShortRunSettings, optimizer: MuonAdam, example: CropBatch
) -> Callable[[CropBatch], LossTerms]:
    """What leaves the gradients of a batch in the parameters."""
    device = example.image.device

    def loss(image: Tensor, quality: Tensor) -> LossTerms:
        target = image.float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            output = network(target, quality)
        return rate_distortion_loss(output, target, quality, settings.lambda_min, settings.lambda_max)

    if device.type == "cuda":
        graph = GraphedBackward(loss, network.parameters(), tuple(example))
        optimizer.capture = True
        return lambda batch: graph(*batch)

    def plain(batch: CropBatch) -> LossTerms:
        optimizer.zero_grad()
        terms = loss(*batch)
        terms.loss.backward()
        return terms

    return plain
