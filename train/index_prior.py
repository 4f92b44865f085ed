"""Fourth stage of the index codec's training: the index prior, everything else frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.index.model import IndexModel
from latentpress.train.data.images import CropBatch
from latentpress.train.index_checkpoint import load_network
from latentpress.train.index_module import random_grains, write_validation
from latentpress.train.index_prior_loss import masks_of, predict_bits, random_knowledge
from latentpress.train.index_validation import PriorValidation
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.recorded_training import RecordedTraining

_ADAM_MODULES = (
    "coarse_embedding",
    "medium_embedding",
    "fine_embedding",
    "book_embedding",
    "coarse_head",
    "medium_head",
    "fine_head",
)


class PriorTerms(NamedTuple):
    """The loss of a batch.

    Attributes:
        loss: Scalar to minimise.
        coarse: Mean bits of a coarse index that was asked for, detached.
        medium: The same for medium ones.
        fine: The same for fine ones.
    """

    loss: Tensor
    coarse: Tensor
    medium: Tensor
    fine: Tensor


class IndexPriorTraining(RecordedTraining):
    """Trains the prior of an :class:`IndexModel`.

    Args:
        network: The model; everything but the prior comes from ``init_from``.
        lr: Peak learning rate.
        weight_decay: Of the hidden matrices under Muon.
        blind: Fraction of the pictures of which nothing is known, as when packets must stand alone.
        repair: Fraction of the pictures with indices lost at random.
        reduced: Fraction of the pictures that are coarse everywhere, with a reduced book.
        compile_network: On a GPU, compile the loss and record it with its gradients as a CUDA graph.
        init_from: Checkpoint of the third stage.
        val_details: Details measured in validation, 0 (all coarse) to 1 (all fine), with the full book.
        val_books: Numbers of the books measured in validation, all coarse.
    """

    def __init__(
        self,
        network: IndexModel,
        lr: float = 1.5e-3,
        weight_decay: float = 0.02,
        blind: float = 0.1,
        repair: float = 0.2,
        reduced: float = 0.25,
        compile_network: bool = True,
        init_from: str | None = None,
        val_details: Sequence[float] = (0, 0.1, 0.3, 0.6, 1),
        val_books: Sequence[int] = (0, 2, 4, 6),
    ) -> None:
        super().__init__(network, compile_network)
        self.lr = lr
        self.weight_decay = weight_decay
        self.blind = blind
        self.repair = repair
        self.reduced = reduced
        self.validation = PriorValidation(val_details, val_books)
        if init_from is not None:
            load_network(network, init_from)
        network.requires_grad_(False)
        network.prior.requires_grad_(True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Muon and Adam over the prior."""
        groups = parameter_groups(self.network.prior, _ADAM_MODULES)
        return MuonAdam(groups, lr=self.lr, weight_decay=self.weight_decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the model again."""
        checkpoint["network_config"] = dict(self.network.config)

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> PriorTerms:
        """The loss of a batch of crops, see :class:`RecordedTraining`."""
        target = image.float() / 255
        with torch.no_grad():
            # Reduced books have the lowest qualities, the rest of the range has all granularities.
            reduced = quality < 100 * self.reduced
            full = self.network.books.full
            book = (quality * (full / (100 * self.reduced))).long().clamp(max=full)
            book = torch.where(reduced, book.clamp(max=max(0, full - 1)), full)
            grains = random_grains(target, quality, self.reduced + 0.15)
            indexes = self.network.analyse(target, book)
            mode = torch.rand_like(quality)
            blind = (mode < self.blind)[:, None, None]
            repair = ((mode >= self.blind) & (mode < self.blind + self.repair))[:, None, None]
            knowledge = tuple(random_knowledge(index, blind, repair) for index in indexes)
        bits = predict_bits(
            self.network.prior, indexes, grains, book, knowledge, repair.flatten().to(target.dtype)
        )
        means = []
        for found, state, mask in zip(bits, knowledge, masks_of(grains), strict=True):
            weight = (state.asked & mask).float()
            means.append((found * weight).sum() / weight.sum().clamp(min=1))
        return PriorTerms(torch.stack(means).sum(), *(mean.detach() for mean in means))

    def training_step(self, batch: CropBatch, batch_index: int) -> None:
        """One batch of crops."""
        terms = self.backward_of_batch(batch)
        self.optimizers().step()
        if self.global_step % self.trainer.log_every_n_steps == 0:
            values = {"loss": terms.loss.detach(), "coarse": terms.coarse, "medium": terms.medium}
            self.log_dict({**values, "fine": terms.fine}, prog_bar=True)

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Of the part that this stage trains."""
        return self.network.prior.parameters()

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's points."""
        self.validation.reset()

    def validation_step(self, image: Tensor, batch_index: int) -> None:
        """One picture at every detail and with some books."""
        self.validation.add(self.network, image)

    def on_validation_epoch_end(self) -> None:
        """Averages over the pictures and writes ``rd_points.jsonl``."""
        write_validation(self)
