"""Training of the image network: the rate-distortion loss over all qualities, and validation curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.image.network import ImageNetwork, ImageNetworkOutput
from latentpress.models.quality import QUALITY_MAX
from latentpress.train.data.images import CropBatch
from latentpress.train.metrics.anchors import kodak_anchors
from latentpress.train.metrics.bd_rate import bd_rate
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.recorded_training import RecordedTraining
from latentpress.train.validation_log import append_records
from latentpress.train.warm_start import warm_start


class LossTerms(NamedTuple):
    """The loss of a batch, and what it is made of.

    Attributes:
        loss: Scalar to minimise.
        bpp: Mean rate in bits per pixel, detached.
        squared_error: Mean squared error in 8-bit steps, detached.
    """

    loss: Tensor
    bpp: Tensor
    squared_error: Tensor


def balanced_lambdas(quality: Tensor, lambda_min: float, lambda_max: float) -> tuple[Tensor, Tensor]:
    """Lambdas of qualities, and factors with which the losses of all qualities weigh the same.

    Args:
        quality: ``(B,)`` in [0, 100].
        lambda_min: Lambda at quality 0.
        lambda_max: Lambda at quality 100.
    """
    weight = lambda_min * (lambda_max / lambda_min) ** (quality / QUALITY_MAX)
    # The geometric mean of the lambdas keeps the loss near one whatever their range.
    return weight, (lambda_min * lambda_max) ** 0.25 / weight.sqrt()


def squared_errors(decoded: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each picture, in 8-bit steps, ``(B,)``.

    Beyond the range of pictures the error counts linearly: a crop that is decoded to garbage, as a step too
    far can make of one, must not have the gradient to itself.

    Args:
        decoded: ``(B, H, W, 3)``, around [0, 1].
        target: The pictures, in [0, 1].
    """
    error = (decoded - target).abs()
    return torch.where(error < 1, error.square(), 2 * error - 1).mean(dim=(1, 2, 3)) * 255**2


def rate_distortion_loss(
    output: ImageNetworkOutput, target: Tensor, quality: Tensor, lambda_min: float, lambda_max: float
) -> LossTerms:
    """The loss ``(bpp + lambda 255^2 MSE) / sqrt(lambda)`` of a batch in which every picture has its quality.

    Lambda grows geometrically with the quality. At the optimum the rate grows about as ``sqrt(lambda)``, so
    the division lets all qualities weigh the same.

    Args:
        output: Of the network.
        target: The pictures, ``(B, H, W, 3)`` in [0, 1].
        quality: ``(B,)`` in [0, 100].
        lambda_min: Lambda at quality 0.
        lambda_max: Lambda at quality 100.
    """
    bpp = (output.y_bits + output.z_bits) / (target.shape[1] * target.shape[2])
    squared_error = squared_errors(output.image, target)
    weight, balance = balanced_lambdas(quality, lambda_min, lambda_max)
    loss = ((bpp + weight * squared_error) * balance).mean()
    return LossTerms(loss, bpp.mean().detach(), squared_error.mean().detach())


class ImageTraining(RecordedTraining):
    """Trains an :class:`ImageNetwork` and validates it as rate-distortion points.

    Args:
        network: The network to train.
        lambda_min: Lambda at quality 0.
        lambda_max: Lambda at quality 100.
        lr: Peak learning rate; :class:`latentpress.train.schedule.TimeBudget` shapes it.
        matrices_with_muon: Muon for hidden matrices; otherwise Adam moves everything.
        weight_decay: Of the hidden matrices under Muon, whose updates never shrink by themselves.
        compile_network: On a GPU, compile the loss and record it with its gradients as a CUDA graph.
        init_from: Weights to start from, see :func:`latentpress.train.warm_start.warm_start`.
        val_qualities: Qualities measured in validation.
    """

    def __init__(
        self,
        network: ImageNetwork,
        lambda_min: float = 0.0009,
        lambda_max: float = 0.14,
        lr: float = 1e-3,
        matrices_with_muon: bool = True,
        weight_decay: float = 0.0,
        compile_network: bool = True,
        init_from: str | None = None,
        val_qualities: Sequence[float] = (0, 12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100),
    ) -> None:
        super().__init__(network, compile_network)
        self.lambda_min = lambda_min
        self.lambda_max = lambda_max
        self.lr = lr
        self.matrices_with_muon = matrices_with_muon
        self.weight_decay = weight_decay
        self.val_qualities = tuple(float(q) for q in val_qualities)
        self._points: list[Tensor] = []
        self.init_from = init_from
        if init_from is not None:
            warm_start(network, init_from)

    @property
    def trained_part(self) -> nn.Module:
        """What is trained: all of the network unless a subclass trains a part of it."""
        return self.network

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of what is trained."""
        return self.trained_part.parameters()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Muon and Adam over the parameters of what is trained."""
        groups = parameter_groups(self.trained_part)
        if not self.matrices_with_muon:
            groups = [{"params": list(self.trained_parameters()), "matrices": False}]
        return MuonAdam(groups, lr=self.lr, weight_decay=self.weight_decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the network again."""
        checkpoint["network_family"] = self.network.family
        checkpoint["network_config"] = dict(self.network.config)
        checkpoint["lambda_range"] = (self.lambda_min, self.lambda_max)

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> LossTerms:
        """The loss of a batch of crops, see :class:`RecordedTraining`."""
        target = image.float() / 255
        return rate_distortion_loss(
            self.network(target, quality), target, quality, self.lambda_min, self.lambda_max
        )

    def training_step(self, batch: CropBatch, batch_index: int) -> None:
        """One batch of crops."""
        terms = self.backward_of_batch(batch)
        optimizer = self.optimizers()
        optimizer.step()
        # Logging waits for the device, so it happens seldom.
        if self.global_step % self.trainer.log_every_n_steps == 0:
            psnr = 10 * torch.log10(255**2 / terms.squared_error)
            values = {"loss": terms.loss.detach(), "bpp": terms.bpp, "psnr": psnr}
            self.log_dict({**values, "lr": optimizer.param_groups[0]["lr"]}, prog_bar=True)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's points."""
        self._points = []

    def validation_step(self, image: Tensor, batch_index: int) -> None:
        """Rate (likelihood of the rounded latents) and 8-bit PSNR of one picture at every quality."""
        target = image[None].float() / 255
        rows = []
        for quality in self.val_qualities:
            # Coding runs in full precision, so validation does.
            with torch.autocast(image.device.type, enabled=False):
                output = self.network(target, torch.tensor([quality], device=image.device))
            decoded = (output.image.clamp(0, 1) * 255).round()
            mse = (decoded - image[None].float()).square().mean()
            bpp = (output.y_bits + output.z_bits)[0] / (image.shape[0] * image.shape[1])
            rows.append(torch.stack((bpp, 10 * torch.log10(255**2 / mse))))
        self._points.append(torch.stack(rows))

    def on_validation_epoch_end(self) -> None:
        """Averages over the pictures, writes ``rd_points.jsonl`` and logs the BD-rate against VTM."""
        if not self._points:
            return
        total = torch.stack(self._points).double().sum(0)
        count = torch.tensor(float(len(self._points)), device=total.device, dtype=torch.float64)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        count = self.trainer.strategy.reduce(count, reduce_op="sum")
        bpp, psnr = (total / count).T.tolist()
        record: dict[str, Any] = {"step": self.global_step, "qualities": self.val_qualities}
        record.update(bpp=[round(v, 5) for v in bpp], psnr=[round(v, 4) for v in psnr])
        anchor = kodak_anchors()["vtm"]
        try:
            record["bd_rate_vtm"] = round(bd_rate(anchor.bpp, anchor.psnr, bpp, psnr), 3)
        except ValueError as error:  # an untrained network has no monotone curve
            record["bd_rate_vtm"] = None
            record["bd_rate_note"] = str(error)
        append_records(self.trainer, "rd_points.jsonl", [record])
