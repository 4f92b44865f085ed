"""First stage of the index codec's training: encoder, codebook and decoder together, without an adversary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor

from latentpress.models.index.granularity import (
    GrainMap,
    GrainScores,
    fractions_of_detail,
    route,
    routing_scores,
)
from latentpress.models.index.network import IndexNetwork
from latentpress.train.data.images import CropBatch
from latentpress.train.index_checkpoint import load_network
from latentpress.train.index_validation import IndexValidation
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.reconstruction_loss import ReconstructionLoss
from latentpress.train.recorded_training import RecordedTraining
from latentpress.train.validation_log import append_records

ADAM_MODULES = ("stem", "head", "heads", "coarse_stem", "medium_stem", "fine_stem", "quantiser")
"""Parts of the network whose matrices Adam moves: those that meet pixels, codes or the codebook."""

_ENTROPY_NOISE = 2.0
"""Largest standard deviation, in bits, of what is added to the router's scores in training."""


class IndexLossTerms(NamedTuple):
    """The loss of a batch, and what it is made of.

    Attributes:
        loss: Scalar to minimise.
        squared_error: Mean squared error in 8-bit steps, detached.
        dissimilarity: One minus the MS-SSIM of the luma, detached.
        wasserstein: Wasserstein distortion in squared 8-bit steps, detached.
        codebook_error: Squared error of the codes, detached.
        usage: How often each code occurs, ``(K,)``.
    """

    loss: Tensor
    squared_error: Tensor
    dissimilarity: Tensor
    wasserstein: Tensor
    codebook_error: Tensor
    usage: Tensor


@torch.no_grad()
def random_grains(image: Tensor, quality: Tensor, all_coarse: float) -> GrainMap:
    """Granularities for training: from all coarse to all fine, near the router's choice or far from it.

    Args:
        image: ``(B, H, W, 3)`` in [0, 1].
        quality: ``(B,)`` in [0, 100]; what is above ``all_coarse`` becomes the detail.
        all_coarse: Fraction of the qualities for which every cell is coarse.
    """
    scores = routing_scores(image)
    # Noise makes maps of other routers, and of losses, familiar to the decoder.
    amount = _ENTROPY_NOISE * torch.rand_like(quality)[:, None, None] ** 3
    scores = GrainScores(*(s + amount * torch.randn_like(s) for s in scores))
    # More of the low rates, as in the codec's qualities.
    detail = ((quality / 100 - all_coarse) / (1 - all_coarse)).clamp(0, 1) ** 1.5
    split, fine = fractions_of_detail(detail)
    return route(scores, split, fine ** (4 ** (torch.rand_like(fine) - 0.5)))


class IndexTraining(RecordedTraining):
    """Trains an :class:`IndexNetwork` at random granularities and validates it along the path of qualities.

    Args:
        network: The network to train.
        lr: Peak learning rate; :class:`latentpress.train.schedule.TimeBudget` shapes it.
        codebook_weight: Of the codebook's error in the loss.
        evenness_weight: Of the reward for vectors that are spread evenly over the codes.
        all_coarse: Fraction of the pictures that are coarse everywhere.
        absolute_error: Weight of the mean absolute error.
        squared_error: Weight of the mean squared error.
        dissimilarity: Weight of one minus MS-SSIM.
        wasserstein: Weight of the Wasserstein distortion.
        pattern: Weight of the pattern that the error has in cells.
        weight_decay: Of the hidden matrices under Muon.
        compile_network: On a GPU, compile the loss and record it with its gradients as a CUDA graph.
        init_from: Checkpoint of an earlier run, to start from its averaged weights.
        val_details: Details measured in validation, 0 (all coarse) to 1 (all fine).
    """

    def __init__(
        self,
        network: IndexNetwork,
        lr: float = 1e-3,
        codebook_weight: float = 0.05,
        evenness_weight: float = 0.3,
        all_coarse: float = 0.3,
        absolute_error: float = 0.5,
        squared_error: float = 4.0,
        dissimilarity: float = 0.15,
        wasserstein: float = 150.0,
        pattern: float = 0.0,
        weight_decay: float = 0.0,
        compile_network: bool = True,
        init_from: str | None = None,
        val_details: Sequence[float] = (0, 0.1, 0.3, 0.6, 1),
    ) -> None:
        super().__init__(network, compile_network)
        if init_from is not None:
            load_network(network, init_from)
        self.lr = lr
        self.codebook_weight = codebook_weight
        self.evenness_weight = evenness_weight
        self.all_coarse = all_coarse
        self.weight_decay = weight_decay
        self.reconstruction = ReconstructionLoss(
            absolute_error, squared_error, dissimilarity, wasserstein, pattern
        )
        self.validation = IndexValidation(val_details)
        self.register_buffer("usage", torch.zeros(network.quantiser.basis.shape[0]), persistent=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Muon and Adam over the network's parameters."""
        groups = parameter_groups(self.network, ADAM_MODULES)
        return MuonAdam(groups, lr=self.lr, weight_decay=self.weight_decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the network again."""
        checkpoint["network_config"] = dict(self.network.config)

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> IndexLossTerms:
        """The loss of a batch of crops, see :class:`RecordedTraining`."""
        target = image.float() / 255
        output = self.network(target, random_grains(target, quality, self.all_coarse))
        terms = self.reconstruction(output.image, target)
        loss = self.reconstruction.total(terms) + self.codebook_weight * output.codebook_error
        loss = loss + self.evenness_weight * (1 - output.evenness)
        return IndexLossTerms(
            loss,
            terms.squared_error.detach() * 255**2,
            terms.dissimilarity.detach(),
            terms.wasserstein.detach() * 255**2,
            output.codebook_error.detach(),
            output.usage.detach(),
        )

    def training_step(self, batch: CropBatch, batch_index: int) -> None:
        """One batch of crops."""
        terms = self.backward_of_batch(batch)
        optimizer = self.optimizers()
        optimizer.step()
        self.usage.lerp_(terms.usage, 0.02)
        # Logging waits for the device, so it happens seldom.
        if self.global_step % self.trainer.log_every_n_steps == 0:
            values = {
                "loss": terms.loss.detach(),
                "psnr": 10 * torch.log10(255**2 / terms.squared_error),
                "ms_ssim": 1 - terms.dissimilarity,
                "wasserstein": terms.wasserstein,
                "codebook_error": terms.codebook_error,
                "codes_in_use": (self.usage > 1e-3 * self.usage.mean()).float().mean(),
            }
            self.log_dict({**values, "lr": optimizer.param_groups[0]["lr"]}, prog_bar=True)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's points."""
        self.validation.reset()

    def validation_step(self, image: Tensor, batch_index: int) -> None:
        """One picture at every detail."""
        self.validation.add(self.network, image)

    def on_validation_epoch_end(self) -> None:
        """Averages over the pictures and writes ``rd_points.jsonl``."""
        write_validation(self)


def write_validation(module: lightning.LightningModule) -> None:
    """Adds a line on the last validation of a module to ``rd_points.jsonl`` in its log folder."""
    if not module.validation.pictures:
        return
    record = {"step": module.global_step, **module.validation.summary(module.trainer.strategy)}
    append_records(module.trainer, "rd_points.jsonl", [record])
