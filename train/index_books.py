"""Third stage of the index codec's training: books of 8, 16, ... codes for extreme rates, all else frozen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.index.granularity import GrainMap, fractions_of_detail, route, routing_scores
from latentpress.models.index.model import IndexModel, adopt_network
from latentpress.models.index.network import build_index_network
from latentpress.models.index.quantiser import LinearCodebook
from latentpress.train.data.images import CropBatch
from latentpress.train.index_checkpoint import load_network
from latentpress.train.index_module import write_validation
from latentpress.train.index_validation import BookValidation
from latentpress.train.optimizer import MuonAdam
from latentpress.train.reconstruction_loss import ReconstructionLoss
from latentpress.train.recorded_training import RecordedTraining

_MOST_DETAIL = 0.15
"""Small books are for low rates: at most so much of a picture is split when one is trained."""


class BookTerms(NamedTuple):
    """The loss of a batch.

    Attributes:
        loss: Scalar to minimise.
        squared_error: Mean squared error in 8-bit steps, detached.
        wasserstein: Wasserstein distortion in squared 8-bit steps, detached.
        book_error: Squared error of the codes, detached.
    """

    loss: Tensor
    squared_error: Tensor
    wasserstein: Tensor
    book_error: Tensor


def random_books(quality: Tensor, count: int) -> Tensor:
    """Numbers of reduced books, ``(B,)`` int64 in [0, count), from qualities ``(B,)`` in [0, 100].

    Example:
        >>> random_books(torch.tensor([0.0, 49.0, 100.0]), 7).tolist()
        [0, 3, 6]
    """
    return (quality * (count / 100)).long().clamp(max=count - 1)


@torch.no_grad()
def mostly_coarse(image: Tensor) -> GrainMap:
    """Granularities of the lowest rates: half of the pictures all coarse, the others with a few splits."""
    detail = (2 * torch.rand(image.shape[0], device=image.device) - 1).clamp(min=0) * _MOST_DETAIL
    return route(routing_scores(image), *fractions_of_detail(detail))


class IndexBooksTraining(RecordedTraining):
    """Makes the books of an :class:`IndexModel` by K-means and fine-tunes them.

    Args:
        network: The model; its encoder and decoder come from ``init_from``.
        lr: Peak learning rate.
        book_weight: Of the books' error in the loss.
        usage_batches: Batches over which the codes' use is counted before K-means.
        absolute_error: Weight of the mean absolute error.
        squared_error: Weight of the mean squared error.
        dissimilarity: Weight of one minus MS-SSIM.
        wasserstein: Weight of the Wasserstein distortion.
        pattern: Weight of the pattern that the error has in cells.
        compile_network: On a GPU, compile the loss and record it with its gradients as a CUDA graph.
        init_from: Checkpoint of the first or second stage.
    """

    def __init__(
        self,
        network: IndexModel,
        lr: float = 1e-3,
        book_weight: float = 0.05,
        usage_batches: int = 50,
        absolute_error: float = 0.5,
        squared_error: float = 4.0,
        dissimilarity: float = 0.15,
        wasserstein: float = 150.0,
        pattern: float = 0.0,
        compile_network: bool = True,
        init_from: str | None = None,
    ) -> None:
        super().__init__(network, compile_network)
        self.lr = lr
        self.book_weight = book_weight
        self.usage_batches = usage_batches
        self.reconstruction = ReconstructionLoss(
            absolute_error, squared_error, dissimilarity, wasserstein, pattern
        )
        self.validation = BookValidation()
        network.requires_grad_(False)
        network.books.requires_grad_(True)
        settings = {name: value for name, value in network.config.items() if not name.startswith("prior_")}
        trained = build_index_network(**settings)
        if init_from is not None:
            load_network(trained, init_from)
        adopt_network(network, trained)
        self._quantiser: LinearCodebook | None = trained.quantiser

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the books."""
        return MuonAdam([{"params": list(self.network.books.parameters()), "matrices": False}], lr=self.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the model again."""
        checkpoint["network_config"] = dict(self.network.config)

    def on_train_start(self) -> None:
        """Counts how often each code is coarse and makes the books; a resumed run has them already."""
        quantiser, self._quantiser = self._quantiser, None
        if self.global_step or quantiser is None:
            return
        quantiser.to(self.device).eval()
        usage = torch.zeros(len(quantiser.basis), device=self.device)
        for _, batch in zip(range(self.usage_batches), self.trainer.train_dataloader, strict=False):
            with torch.no_grad():
                coarse = self.network.encoder(batch.image.to(self.device).float() / 255).coarse
                usage += quantiser(coarse).indexes.flatten().bincount(minlength=len(usage))
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(usage)
        self.network.books.fill(quantiser.codebook(), usage, self.network.encoder.heads[0])

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> BookTerms:
        """The loss of a batch of crops, see :class:`RecordedTraining`."""
        target = image.float() / 255
        book = random_books(quality, self.network.books.full)
        grains = mostly_coarse(target)
        decoded, chosen = self.network.reconstruct(target, grains, book)
        terms = self.reconstruction(decoded, target)
        weight = grains.coarse_mask().float()
        book_error = (chosen.error * weight).sum() / weight.sum().clamp(min=1)
        loss = self.reconstruction.total(terms) + self.book_weight * book_error
        return BookTerms(
            loss,
            terms.squared_error.detach() * 255**2,
            terms.wasserstein.detach() * 255**2,
            book_error.detach(),
        )

    def training_step(self, batch: CropBatch, batch_index: int) -> None:
        """One batch of crops."""
        terms = self.backward_of_batch(batch)
        self.optimizers().step()
        if self.global_step % self.trainer.log_every_n_steps == 0:
            psnr = 10 * torch.log10(255**2 / terms.squared_error)
            values = {"loss": terms.loss.detach(), "psnr": psnr, "wasserstein": terms.wasserstein}
            self.log_dict({**values, "book_error": terms.book_error}, prog_bar=True)

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Of the part that this stage trains."""
        return self.network.books.parameters()

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's points."""
        self.validation.reset()

    def validation_step(self, image: Tensor, batch_index: int) -> None:
        """One picture with every book."""
        self.validation.add(self.network, image)

    def on_validation_epoch_end(self) -> None:
        """Averages over the pictures and writes ``rd_points.jsonl``."""
        write_validation(self)
