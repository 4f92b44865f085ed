"""Starts a field network as the best linear lapped transform codec, or from the network of a smaller ratio.

A fresh network's enhancers do nothing at first. Its boundary filter is the one whose lapped transform codes
the training fields with the fewest bits, its latent the principal components of the filtered blocks, its
gains the inverse of the quantisation steps that theory asks for. Training begins from a working codec at
all rates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import lightning
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.context import STEPS
from latentpress.models.entropy.gaussian import INDEX_OFFSET, INDEX_SLOPE, SCALE_COUNT, SCALE_MIN
from latentpress.models.entropy.volume import VOLUME_LOG_SCALE_STEP, neighbourhood, volume_step_mask
from latentpress.models.field.transforms import STRIDE
from latentpress.models.volume import fold
from latentpress.train.field_transfer import transfer

if TYPE_CHECKING:
    from latentpress.models.field.network import FieldNetwork

_STEPS_AN_ERROR = math.log(5)
"""Logarithm of quantisation steps over the root mean square error they lead to."""

LARGEST_EXPONENT = 12
"""Of the powers of two that shrink latents before networks see them."""

# The error a filter is made for: below what the codec will make, as filters for larger errors overlap less
# well.
_ERROR_TIMES_LAMBDA = 0.04
_LARGEST_ERROR = 3e-5


class FieldStart(Callback):
    """Initialises a fresh run's :class:`FieldNetwork`; a resumed run is left alone.

    Args:
        batches: Training batches to take the statistics of.
    """

    def __init__(self, batches: int = 16) -> None:
        self.batches = batches

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Initialises the network, alike on all devices."""
        if trainer.global_step:
            return
        if module.transfer_from is not None:
            transfer(module.network, module.transfer_from, module.lambda_min, module.lambda_max)
        else:
            fields = []
            for batch, _ in zip(trainer.train_dataloader, range(self.batches), strict=False):
                fields.append((batch.field.to(module.device), batch.periodic.to(module.device)))
            initialise(module.network, fields, module.lambda_min, module.lambda_max)
        if torch.distributed.is_initialized():
            # Eigenvectors of near-equal eigenvalues may differ between devices.
            for parameter in module.network.parameters():
                torch.distributed.broadcast(parameter.detach(), src=0)


def initialise(
    network: FieldNetwork, fields: list[tuple[Tensor, Tensor]], lambda_min: float, lambda_max: float
) -> None:
    """Makes a network the linear lapped transform codec that fits some fields best.

    Args:
        network: Changed in place.
        fields: Pairs of ``(B, S, S, S, 3)`` and ``(B, 3)`` boolean, on the network's device.
        lambda_min: Lambda at quality 0.
        lambda_max: Lambda at quality 100.
    """
    allowed = min(_LARGEST_ERROR, _ERROR_TIMES_LAMBDA / math.sqrt(lambda_min * lambda_max))
    matrix = lapped_matrix(autocovariance(fields[0][0], 3 * STRIDE), STRIDE, allowed)
    with torch.no_grad():
        analysis, synthesis = network.analysis, network.synthesis
        analysis.boundary.matrix.copy_(matrix)
        synthesis.boundary.matrix.copy_(matrix.inverse())
        moments: Tensor | None = None
        count = 0
        for field, periodic in fields:
            samples = fold(analysis.boundary(field, periodic), STRIDE).flatten(0, -2).double()
            moments = samples.T @ samples + (0 if moments is None else moments)
            count += len(samples)
        values, vectors = torch.linalg.eigh(moments / count)
        rows = vectors.flip(1).T[: network.latent_channels].float()
        analysis.head.weight.copy_(rows)
        synthesis.stem.weight.copy_(rows.T)
        line = gain_line(network.gain.knots.shape[0], lambda_min, lambda_max).to(rows)
        network.gain.knots.copy_(line[:, None].expand_as(network.gain.knots))
        for enhancer in (analysis.enhancer, synthesis.enhancer):
            enhancer.gain.knots.copy_(-line[:, None] - _STEPS_AN_ERROR)
        deviations = values.flip(0)[: network.latent_channels].clamp(min=0).sqrt() * line.mean().exp()
        network.context.scale.exponent.copy_(deviations.log2().clamp(0, LARGEST_EXPONENT).round())
        _expect_scales(network.context.heads, deviations.float())
        fit_predictors(network, fields)


def gain_line(knots: int, lambda_min: float, lambda_max: float) -> Tensor:
    """Logarithms of the inverse quantisation step at equally spaced qualities.

    A coefficient costs ``-log2(step)`` bits and ``lambda / 3 * step^2 / 12`` of distortion, since the
    squared error is averaged over three components.
    """
    ends = [-0.5 * math.log(18 / (math.log(2) * value)) for value in (lambda_min, lambda_max)]
    return torch.linspace(ends[0], ends[1], knots)


def autocovariance(field: Tensor, lags: int) -> Tensor:
    """Mean product of samples 0 to ``lags - 1`` apart, pooled over axes and components, ``(lags,)`` float64.

    Lags as long as the shortest axis are given the value of the longest that is shorter.
    """
    found = []
    longest = min(field.shape[1:4]) - 1
    for lag in (min(lag, longest) for lag in range(lags)):
        pairs = [
            (
                field.narrow(axis, 0, field.shape[axis] - lag)
                * field.narrow(axis, lag, field.shape[axis] - lag)
            )
            for axis in (1, 2, 3)
        ]
        found.append(torch.stack([p.double().mean() for p in pairs]).mean())
    return torch.stack(found)


def lapped_matrix(covariance: Tensor, block: int, allowed_error: float, iterations: int = 400) -> Tensor:
    """The boundary filter whose lapped transform needs the fewest bits for a stationary signal.

    Even and odd parts of the samples around a boundary are filtered by a matrix each, as in the
    literature's factored filters. Filtering both boundaries of a block gives it a covariance S, and undoing
    the filter amplifies an error by a factor g. At a given error the rate of the best transform after the
    filter is ``log det(I + S g / error) / 2`` a block, which gradient descent minimises.

    Args:
        covariance: ``(3 * block,)`` of the signal, by lag.
        block: Side of a block.
        allowed_error: Mean square error over the signal's variance.
        iterations: Of the descent.

    Returns:
        ``(block, block)`` float32, on the covariance's device.
    """
    r = covariance.cpu().double() / float(covariance[0])
    lag = (torch.arange(3 * block)[:, None] - torch.arange(3 * block)).abs()
    # Sample covariances of short lags need not be positive definite.
    values, vectors = torch.linalg.eigh(r[lag])
    sigma = (vectors * values.clamp(min=1e-9)) @ vectors.T
    half = block // 2
    eye, small = torch.eye(block, dtype=torch.float64), torch.eye(half, dtype=torch.float64)
    butterfly = torch.cat((torch.cat((small, small.flip(0)), 1), torch.cat((small.flip(0), -small), 1)))
    butterfly = butterfly / math.sqrt(2)
    parts = [small.clone().requires_grad_(True) for _ in range(2)]

    def matrix() -> Tensor:
        return butterfly @ torch.block_diag(*parts) @ butterfly

    def bits() -> Tensor:
        mixing = matrix()
        outer = torch.zeros(block, 3 * block, dtype=torch.float64)
        outer[:half, half : half + block] = mixing[half:]
        outer[half:, block + half : 2 * block + half] = mixing[:half]
        amplified = mixing.inverse().square().sum() / block
        return torch.logdet(eye + outer @ sigma @ outer.T * (amplified / allowed_error))

    optimizer = torch.optim.Adam(parts, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    with torch.enable_grad():
        for _ in range(iterations):
            optimizer.zero_grad()
            bits().backward()
            optimizer.step()
            schedule.step()
    return matrix().detach().float().to(covariance.device)


@torch.no_grad()
def fit_predictors(network: FieldNetwork, fields: list[tuple[Tensor, Tensor]], quality: float = 50.0) -> None:
    """Least squares for the linear predictors of the context model, and the scales of what they leave.

    A channel is coded in a given step at one class of positions only, so every step's regression sees just
    the pattern of known neighbours that it will meet.

    Args:
        network: Changed in place; its transforms are initialised already.
        fields: As for :func:`initialise`.
        quality: At which latents are quantised.
    """
    context = network.context
    count = context.predicted
    device = fields[0][0].device
    width = 7 * count
    grams = torch.zeros(STEPS - 1, STEPS, width, width, dtype=torch.float64, device=device)
    products = torch.zeros(STEPS - 1, STEPS, width, count, dtype=torch.float64, device=device)
    squares = torch.zeros(STEPS - 1, STEPS, count, dtype=torch.float64, device=device)
    members = torch.zeros(STEPS, dtype=torch.float64, device=device)
    for field, periodic in fields:
        level = torch.full((len(field),), quality, device=device)
        y = network.analysis(field, level, periodic) * network.gain(level)[:, None, None, None, :]
        y = context.scale.shrink(torch.round(y))[..., :count]
        shape = tuple(y.shape[1:4])
        # Classes are told by the quarter that the first step codes.
        classes = volume_step_mask(0, shape, STEPS, device).long().argmax(-1)
        known = torch.zeros_like(y)
        for step in range(STEPS):
            mask = volume_step_mask(step, shape, count, device)
            if step:
                around = neighbourhood(known, periodic).double()
                for number in range(STEPS):
                    x, target = (
                        around[:, classes == number].flatten(0, 1),
                        y[:, classes == number].flatten(0, 1),
                    )
                    target = target.double()
                    grams[step - 1, number] += x.T @ x
                    products[step - 1, number] += x.T @ target
                    squares[step - 1, number] += target.square().sum(0)
                    members[number] += len(x) / (STEPS - 1)
            known = torch.where(mask, y, known)
    corner = volume_step_mask(0, (2, 2, 2), STEPS).long().argmax(-1).flatten().tolist()
    for step in range(1, STEPS):
        mask = volume_step_mask(step, (2, 2, 2), count, device).flatten(0, 2)
        weight = torch.zeros(count, width, device=device)
        left = torch.ones(count, device=device, dtype=torch.float64)
        for number in range(STEPS):
            chosen = mask[corner.index(number)]
            gram, product = grams[step - 1, number], products[step - 1, number][:, chosen]
            ridge = 1e-6 * gram.diagonal().mean() * torch.eye(width, dtype=torch.float64, device=device)
            solution = torch.linalg.solve(gram + ridge + 1e-12 * torch.eye(width, device=device), product)
            weight[chosen] = solution.T.float()
            explained = (2 * product * solution - solution * (gram @ solution)).sum(0)
            rest = (squares[step - 1, number][chosen] - explained) / members[number].clamp(min=1)
            left[chosen] = rest.clamp(min=1e-12).sqrt()
        context.predictors[step - 1].weight.copy_(weight)
        _set_scales(
            context.heads[step], context.scale.grow(F.pad(left, (0, network.latent_channels - count)))[:count]
        )


def _set_scales(head: nn.Linear, deviations: Tensor) -> None:
    """Biases of a head that make it expect these deviations of the first channels."""
    index = (deviations.clamp(min=SCALE_MIN) / SCALE_MIN).log() / VOLUME_LOG_SCALE_STEP
    raw = (index.clamp(max=SCALE_COUNT - 1) - INDEX_OFFSET) / INDEX_SLOPE
    start = head.out_features // 2
    head.bias[start : start + len(raw)] = raw.to(head.bias)


def _expect_scales(heads: nn.ModuleList, deviations: Tensor) -> None:
    """Lets the context model expect the standard deviations that the principal components have."""
    for head in heads:
        # No means at first but those of the predictors, and scales that features hardly move.
        head.weight[: head.out_features // 2].zero_()
        head.weight[head.out_features // 2 :].mul_(0.1)
        head.bias.zero_()
        _set_scales(head, deviations)
