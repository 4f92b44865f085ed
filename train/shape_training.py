"""What the stages of the shape codec's training have in common: optimiser, recorded steps, records."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.recorded_training import RecordedTraining
from latentpress.train.validation_log import append_records
from latentpress.train.warm_start import copy_matching


class ShapeTraining(RecordedTraining):
    """Base of the stages: a subclass says what the loss of a batch and what the figures of validation are.

    ::

        batch -> loss_of_batch (compiled, recorded as a CUDA graph) -> gradients -> MuonAdam
        held-out batch -> figures_of_batch -> mean over batches -> shape_validation.jsonl

    Args:
        network: The network to train; its ``config`` builds it again.
        lr: Peak learning rate; :class:`latentpress.train.schedule.TimeBudget` shapes it.
        weight_decay: Of the hidden matrices under Muon, whose updates never shrink by themselves.
        compile_network: On a GPU, compile the loss and record it with its gradients as a CUDA graph.
        init_from: Checkpoint of the same stage whose arrays are taken over where name and shape agree,
            perhaps of :mod:`latentpress.train.unpack_weights`; it is unpickled, so it must be one's own.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        weight_decay: float = 0.02,
        compile_network: bool = True,
        init_from: str | None = None,
    ) -> None:
        super().__init__(network, compile_network)
        if init_from is not None:
            copy_matching(network, network_from_checkpoint(init_from).state)
        self.lr = lr
        self.weight_decay = weight_decay
        self._figures: list[dict[str, Tensor]] = []

    def figures_of_batch(self, *batch: Tensor) -> dict[str, Tensor]:
        """Scalars to average over held-out batches, by name."""
        terms = self.loss_of_batch(*batch)
        return {name: value.detach() for name, value in terms._asdict().items()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Muon and Adam over the network's parameters."""
        return MuonAdam(parameter_groups(self.network), lr=self.lr, weight_decay=self.weight_decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the network again."""
        checkpoint["network_config"] = dict(self.network.config)

    def training_step(self, batch: tuple[Tensor, ...], batch_index: int) -> None:
        """One batch."""
        terms = self.backward_of_batch(batch)
        optimizer = self.optimizers()
        optimizer.step()
        # Logging waits for the device, so it happens seldom.
        if self.global_step % self.trainer.log_every_n_steps == 0:
            values = {name: value.detach() for name, value in terms._asdict().items()}
            self.log_dict({**values, "lr": optimizer.param_groups[0]["lr"]}, prog_bar=True)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's figures."""
        self._figures = []

    def validation_step(self, batch: tuple[Tensor, ...], batch_index: int) -> None:
        """Figures of one held-out batch, in full precision."""
        with torch.autocast(self.device.type, enabled=False):
            self._figures.append(self.figures_of_batch(*batch))

    def on_validation_epoch_end(self) -> None:
        """Averages over the batches and writes ``shape_validation.jsonl``."""
        records: list[dict[str, Any]] = []
        if self._figures:
            means = {
                name: round(float(torch.stack([f[name] for f in self._figures]).mean()), 6)
                for name in self._figures[0]
            }
            records = [{"stage": type(self).__name__, "step": self.global_step, **means}]
        append_records(self.trainer, "shape_validation.jsonl", records)


def frozen(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Loads weights into a network that is used but not trained."""
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
