"""Training of a field network: the rate-distortion loss over all qualities of one ratio, and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.models.field.network import FieldNetwork, FieldNetworkOutput
from latentpress.models.field.projection import solenoidal
from latentpress.models.quality import QUALITY_MAX
from latentpress.train.data.flows import FlowBatch, ValidationFlow
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.recorded_training import RecordedTraining
from latentpress.train.validation_log import append_records

FLOAT32_BITS = 32

# The rate grows about as this power of lambda over the range of ratios that matters.
_RATE_EXPONENT = 0.4

# Weights that hold an orthogonal transform to many digits: an ordinary step of Adam would be noise to them.
_PRECISE = ("analysis.head.weight", "synthesis.stem.weight", "boundary.matrix")
_PRECISE_LR_FACTOR = 3e-4
_PREDICTORS = "context.predictors"
_PREDICTORS_LR_FACTOR = 0.02


class LossTerms(NamedTuple):
    """The loss of a batch, and what it is made of.

    Attributes:
        loss: Scalar to minimise.
        rate: Mean rate in bits a voxel of all components, detached.
        squared_error: Mean squared error in units of the field's variance, detached.
    """

    loss: Tensor
    rate: Tensor
    squared_error: Tensor


def rate_distortion_loss(
    output: FieldNetworkOutput, target: Tensor, quality: Tensor, lambda_min: float, lambda_max: float
) -> LossTerms:
    """The loss ``(rate + lambda NRMSE^2) / lambda^0.4`` of a batch in which every field has its quality.

    Lambda grows geometrically with the quality. The division lets all qualities weigh about the same.

    Args:
        output: Of the network.
        target: The fields, ``(B, D, H, W, 3)``, unit variance.
        quality: ``(B,)`` in [0, 100].
        lambda_min: Lambda at quality 0, in bits a voxel.
        lambda_max: Lambda at quality 100.
    """
    rate = (output.y_bits + output.z_bits) / math.prod(target.shape[1:4])
    squared_error = (output.field - target).square().mean(dim=(1, 2, 3, 4))
    weight = lambda_min * (lambda_max / lambda_min) ** (quality / QUALITY_MAX)
    # The geometric mean of the lambdas keeps the loss near one whatever their range.
    balance = (math.sqrt(lambda_min * lambda_max) / weight) ** _RATE_EXPONENT
    loss = ((rate + weight * squared_error) * balance).mean()
    return LossTerms(loss, rate.mean().detach(), squared_error.mean().detach())


class FieldTraining(RecordedTraining):
    """Trains a :class:`FieldNetwork` and validates it as points of byte ratio and NRMSE.

    Args:
        network: The network to train.
        lambda_min: Lambda at quality 0, bits a voxel for the square of the NRMSE.
        lambda_max: Lambda at quality 100.
        lr: Peak learning rate; :class:`latentpress.train.schedule.TimeBudget` shapes it.
        compile_network: On a GPU, compile the loss and record it with its gradients as a CUDA graph.
        transfer_from: A checkpoint of a smaller ratio, whose weights this network starts with.
        val_qualities: Qualities measured in validation.
        reference_ratios: Byte ratios at which validation states the interpolated NRMSE.
    """

    def __init__(
        self,
        network: FieldNetwork,
        lambda_min: float = 2.5e3,
        lambda_max: float = 2.5e5,
        lr: float = 1.5e-3,
        compile_network: bool = True,
        transfer_from: str | None = None,
        val_qualities: Sequence[float] = (0, 25, 50, 75, 100),
        reference_ratios: Sequence[float] = (64, 512, 2048),
    ) -> None:
        super().__init__(network, compile_network)
        self.lambda_min = lambda_min
        self.lambda_max = lambda_max
        self.lr = lr
        self.transfer_from = transfer_from
        self.val_qualities = tuple(float(q) for q in val_qualities)
        self.reference_ratios = tuple(float(r) for r in reference_ratios)
        self._records: list[dict[str, Any]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Muon and Adam over the network's parameters, with small steps for the lapped transform."""
        return MuonAdam(field_parameter_groups(self.network), lr=self.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the network again."""
        checkpoint["network_config"] = dict(self.network.config)
        checkpoint["lambda_range"] = (self.lambda_min, self.lambda_max)

    def loss_of_batch(self, field: Tensor, quality: Tensor, periodic: Tensor) -> LossTerms:
        """The loss of a batch of crops, see :class:`RecordedTraining`."""
        output = self.network(field, quality, periodic)
        return rate_distortion_loss(output, field, quality, self.lambda_min, self.lambda_max)

    def training_step(self, batch: FlowBatch, batch_index: int) -> None:
        """One batch of crops."""
        terms = self.backward_of_batch(batch)
        optimizer = self.optimizers()
        optimizer.step()
        # Logging waits for the device, so it happens seldom.
        if self.global_step % self.trainer.log_every_n_steps == 0:
            values = {"loss": terms.loss.detach(), "rate": terms.rate, "nrmse": terms.squared_error.sqrt()}
            self.log_dict({**values, "lr": optimizer.param_groups[0]["lr"]}, prog_bar=True)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's points."""
        self._records = []

    def validation_step(self, flow: ValidationFlow, batch_index: int) -> None:
        """Byte ratio (likelihood of the rounded latents) and NRMSE of one field at every quality."""
        points = []
        for quality in self.val_qualities:
            # Coding runs in full precision, so validation does.
            with torch.autocast(flow.field.device.type, enabled=False):
                output = self.network(
                    flow.field, torch.tensor([quality], device=flow.field.device), flow.periodic
                )
            decoded = output.field
            if bool(flow.periodic.all()):
                decoded = solenoidal(decoded[0].permute(3, 0, 1, 2)).permute(1, 2, 3, 0)[None]
            bits = float(output.y_bits + output.z_bits)
            ratio = FLOAT32_BITS * flow.field.numel() / bits
            points.append((ratio, nrmse(flow.field, output.field), nrmse(flow.field, decoded)))
        ratios, errors, projected = map(list, zip(*points, strict=True))
        record = {"flow": flow.name, "ratios": ratios, "nrmse": errors}
        if bool(flow.periodic.all()):
            record["nrmse_solenoidal"] = projected
        for name in [name for name in record if name.startswith("nrmse")]:
            record[f"{name}_at"] = error_at_ratios(ratios, record[name], self.reference_ratios)
        self._records.append(record)

    def on_validation_epoch_end(self) -> None:
        """Writes ``rate_points.jsonl`` in the log folder, one line a field."""
        head = {"step": self.global_step, "qualities": self.val_qualities}
        records = [{**head, **_rounded(record)} for record in self._records]
        append_records(self.trainer, "rate_points.jsonl", records)


def field_parameter_groups(network: torch.nn.Module) -> list[dict[str, Any]]:
    """Muon's matrices, Adam's other parameters, the lapped transform and the linear predictors."""
    parameters = dict(network.named_parameters())
    precise = [p for name, p in parameters.items() if name.endswith(_PRECISE)]
    predictors = [p for name, p in parameters.items() if name.startswith(_PREDICTORS)]
    chosen = set(map(id, precise + predictors))
    groups = parameter_groups(network)
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in chosen]
    return [
        *groups,
        {"params": precise, "matrices": False, "lr_factor": _PRECISE_LR_FACTOR},
        {"params": predictors, "matrices": False, "lr_factor": _PREDICTORS_LR_FACTOR},
    ]


def nrmse(field: Tensor, decoded: Tensor) -> float:
    """Root mean square error over the root mean square of the field."""
    error = (decoded.double() - field.double()).square().mean()
    return math.sqrt(float(error / field.double().square().mean()))


def error_at_ratios(
    ratios: Sequence[float], errors: Sequence[float], wanted: Sequence[float]
) -> dict[str, float]:
    """Errors at some byte ratios, by interpolation of logarithms; only those within the measured range.

    Example:
        >>> error_at_ratios([10.0, 1000.0], [0.001, 0.1], [100, 5000])
        {'100': 0.01}
    """
    order = np.argsort(ratios)
    x, y = np.log(np.asarray(ratios)[order]), np.log(np.asarray(errors)[order])
    inside = [ratio for ratio in wanted if x[0] <= math.log(ratio) <= x[-1]]
    return {f"{ratio:g}": round(float(np.exp(np.interp(math.log(ratio), x, y))), 6) for ratio in inside}


def _rounded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [float(f"{v:.5g}") for v in value] if isinstance(value, list) else value
        for name, value in record.items()
    }
