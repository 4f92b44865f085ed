"""Second stage of the index codec's training: the decoder alone, against a discriminator.

Encoder and codebook are frozen, so streams stay what they are (as in MS-ILLM, arXiv 2301.11189).
The discriminator has a head start, its weight in the decoder's loss grows late and stays small, and LeCAM
(arXiv 2104.03310) keeps it from winning on the few pictures there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.index.discriminator import PatchDiscriminator
from latentpress.models.index.network import IndexNetwork
from latentpress.train.cuda_graph import GraphedBackward
from latentpress.train.data.images import CropBatch
from latentpress.train.index_checkpoint import load_network
from latentpress.train.index_module import ADAM_MODULES, random_grains, write_validation
from latentpress.train.index_validation import IndexValidation
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.reconstruction_loss import ReconstructionLoss

BALANCE_INTERVAL = 50
"""Batches between measurements of the two gradients."""

BALANCE_CROPS = 8

LARGEST_BALANCE = 1e3
"""Of the weight: a verdict that says nothing has no gradient either."""


class DecoderTerms(NamedTuple):
    """The decoder's loss of a batch.

    Attributes:
        loss: Scalar to minimise.
        squared_error: Mean squared error in 8-bit steps, detached.
        wasserstein: Wasserstein distortion in squared 8-bit steps, detached.
        image: Decoded pictures ``(B, 3, H, W)``, detached.
        target: Originals ``(B, 3, H, W)`` in [0, 1].
    """

    loss: Tensor
    squared_error: Tensor
    wasserstein: Tensor
    image: Tensor
    target: Tensor


class DiscriminatorTerms(NamedTuple):
    """The discriminator's loss of a batch.

    Attributes:
        loss: Scalar to minimise.
        real: Mean logit of originals, detached.
        decoded: Mean logit of decoded pictures, detached.
    """

    loss: Tensor
    real: Tensor
    decoded: Tensor


class IndexAdversarialTraining(lightning.LightningModule):
    """Fine-tunes the decoder of an :class:`IndexNetwork` against a :class:`PatchDiscriminator`.

    ::

        picture -> frozen encoder, codebook -> decoder -> decoded --> reconstruction loss --+--> decoder
                                                             +--> discriminator -> logit ---+
        picture, decoded -> discriminator -> hinge loss + LeCAM -> discriminator

    Args:
        network: The network, of the first stage's widths.
        discriminator_channels: Width of the discriminator.
        lr: Peak learning rate of the decoder.
        discriminator_lr: Peak learning rate of the discriminator.
        adversarial_share: How strongly the discriminator's verdict moves pixels, once it has grown, as a
            fraction of what the reconstruction does: the gradients with respect to the decoded picture are
            measured now and then, and the weight follows (as VQGAN does for its last layer, arXiv
            2012.09841). With 0 there is no discriminator, and the decoder goes on by reconstruction alone.
        start_step: Batches in which the discriminator trains alone with no weight.
        ramp_steps: Batches over which the weight grows.
        lecam_weight: Of LeCAM in the discriminator's loss.
        all_coarse: Fraction of the pictures that are coarse everywhere.
        absolute_error: Weight of the mean absolute error.
        squared_error: Weight of the mean squared error.
        dissimilarity: Weight of one minus MS-SSIM.
        wasserstein: Weight of the Wasserstein distortion.
        pattern: Weight of the pattern that the error has in cells.
        compile_network: On a GPU, compile the losses and record them as CUDA graphs.
        init_from: Checkpoint of the first stage.
        val_details: Details measured in validation.
    """

    real_average: Tensor
    decoded_average: Tensor
    weight_now: Tensor

    def __init__(
        self,
        network: IndexNetwork,
        discriminator_channels: int = 48,
        lr: float = 4e-4,
        discriminator_lr: float = 2e-4,
        adversarial_share: float = 0.5,
        start_step: int = 300,
        ramp_steps: int = 700,
        lecam_weight: float = 0.1,
        all_coarse: float = 0.3,
        absolute_error: float = 0.5,
        squared_error: float = 4.0,
        dissimilarity: float = 0.15,
        wasserstein: float = 150.0,
        pattern: float = 0.0,
        compile_network: bool = True,
        init_from: str | None = None,
        val_details: Sequence[float] = (0, 0.1, 0.3, 0.6, 1),
    ) -> None:
        super().__init__()
        self.network = network
        self.discriminator = PatchDiscriminator(discriminator_channels)
        self.lr = lr
        self.discriminator_lr = discriminator_lr
        self.adversarial_share = adversarial_share
        self.start_step = start_step
        self.ramp_steps = ramp_steps
        self.lecam_weight = lecam_weight
        self.all_coarse = all_coarse
        self.compile_network = compile_network
        self.reconstruction = ReconstructionLoss(
            absolute_error, squared_error, dissimilarity, wasserstein, pattern
        )
        self.validation = IndexValidation(val_details)
        for name in ("real_average", "decoded_average", "weight_now"):
            self.register_buffer(name, torch.zeros(()))
        self.automatic_optimization = False
        self._decoder_graph: GraphedBackward[DecoderTerms] | None = None
        self._discriminator_graph: GraphedBackward[DiscriminatorTerms] | None = None
        if init_from is not None:
            load_network(network, init_from)
        network.encoder.requires_grad_(False)
        network.quantiser.requires_grad_(False)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """One optimiser for the decoder, one for the discriminator."""
        decoder = MuonAdam(parameter_groups(self.network.decoder, ADAM_MODULES), lr=self.lr)
        # Callbacks set the module's learning rate everywhere; the factor makes it the discriminator's.
        group = {
            "params": list(self.discriminator.parameters()),
            "matrices": False,
            "betas": (0.5, 0.9),
            "lr_factor": self.discriminator_lr / self.lr,
        }
        return [decoder, MuonAdam([group], lr=self.lr)], []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the network again."""
        checkpoint["network_config"] = dict(self.network.config)

    def _decoder_loss(self, image: Tensor, quality: Tensor) -> DecoderTerms:
        target = image.float() / 255
        grains = random_grains(target, quality, self.all_coarse)
        with torch.no_grad():
            codes = self.network.quantise(target).vectors()
        decoded = self.network.decoder(codes, grains)
        terms = self.reconstruction(decoded, target)
        planes = decoded.permute(0, 3, 1, 2)
        # Detached, so that no gradient of the decoder's loss is ever left in the discriminator.
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        loss = self.reconstruction.total(terms)
        if self.adversarial_share:
            verdict = torch.func.functional_call(self.discriminator, frozen, (planes,)).mean()
            loss = loss - self.weight_now * verdict
        return DecoderTerms(
            loss,
            terms.squared_error.detach() * 255**2,
            terms.wasserstein.detach() * 255**2,
            planes.detach(),
            target.permute(0, 3, 1, 2),
        )

    def _discriminator_loss(self, image: Tensor, target: Tensor) -> DiscriminatorTerms:
        real, decoded = self.discriminator(target), self.discriminator(image)
        hinge = F.relu(1 - real).mean() + F.relu(1 + decoded).mean()
        lecam = (
            F.relu(real - self.decoded_average).square().mean()
            + F.relu(self.real_average - decoded).square().mean()
        )
        loss = hinge + self.lecam_weight * lecam
        return DiscriminatorTerms(loss, real.mean().detach(), decoded.mean().detach())

    def training_step(self, batch: CropBatch, batch_index: int) -> None:
        """One batch of crops: the decoder's step, then the discriminator's."""
        optimizer, opponent = self.optimizers()
        progress = (self.global_step - self.start_step) / max(1, self.ramp_steps)
        if not self.adversarial_share:
            self._step_alone(batch)
            return
        growth = min(1.0, max(0.0, progress))
        if growth and batch_index % BALANCE_INTERVAL == 0:
            self.weight_now.copy_(growth * self.adversarial_share * self.balance(batch))
        decoder, discriminator = self._backward(batch)
        optimizer.step()
        # Lightning counts the steps of its own optimisers, and a batch is one step.
        opponent.optimizer.step()
        self.real_average.lerp_(discriminator.real, 0.01)
        self.decoded_average.lerp_(discriminator.decoded, 0.01)
        if self.global_step % self.trainer.log_every_n_steps == 0:
            values = {
                "loss": decoder.loss.detach(),
                "psnr": 10 * torch.log10(255**2 / decoder.squared_error),
                "wasserstein": decoder.wasserstein,
                "discriminator": discriminator.loss.detach(),
                "real": discriminator.real,
                "decoded": discriminator.decoded,
            }
            self.log_dict(values, prog_bar=True)

    def balance(self, batch: CropBatch) -> Tensor:
        """Size of the reconstruction's gradient over that of the verdict's, at the decoded pictures.

        Args:
            batch: Of which a few crops are looked at.
        """
        image, quality = (part[:BALANCE_CROPS] for part in batch)
        target = image.float() / 255
        with torch.no_grad():
            grains = random_grains(target, quality, self.all_coarse)
            decoded = self.network.decoder(self.network.quantise(target).vectors(), grains)
        with torch.enable_grad():
            decoded.requires_grad_()
            error = self.reconstruction.total(self.reconstruction(decoded, target))
            verdict = self.discriminator(decoded.permute(0, 3, 1, 2)).float().mean()
            sizes = [torch.autograd.grad(loss, decoded)[0].norm() for loss in (error, verdict)]
        return (sizes[0] / sizes[1].clamp(min=1e-12)).clamp(max=LARGEST_BALANCE)

    def _step_alone(self, batch: CropBatch) -> None:
        """A step of the decoder without an opponent, not recorded: for short runs without a GPU."""
        optimizer, _ = self.optimizers()
        optimizer.zero_grad()
        decoder = self._decoder_loss(*batch)
        self.manual_backward(decoder.loss)
        optimizer.step()
        if self.global_step % self.trainer.log_every_n_steps == 0:
            psnr = 10 * torch.log10(255**2 / decoder.squared_error)
            values = {"loss": decoder.loss.detach(), "psnr": psnr, "wasserstein": decoder.wasserstein}
            self.log_dict(values, prog_bar=True)

    def _backward(self, batch: CropBatch) -> tuple[DecoderTerms, DiscriminatorTerms]:
        """Leaves the gradients of both losses in their parameters."""
        optimizer, opponent = self.optimizers()
        if self.device.type != "cuda" or not self.compile_network:
            optimizer.zero_grad()
            decoder = self._decoder_loss(*batch)
            self.manual_backward(decoder.loss)
            opponent.optimizer.zero_grad()
            discriminator = self._discriminator_loss(decoder.image, decoder.target)
            self.manual_backward(discriminator.loss)
            return decoder, discriminator
        if self._decoder_graph is None:
            self._decoder_graph = GraphedBackward(
                torch.compile(self._decoder_loss), self.network.decoder.parameters(), tuple(batch)
            )
            decoder = self._decoder_graph(*batch)
            self._discriminator_graph = GraphedBackward(
                torch.compile(self._discriminator_loss),
                self.discriminator.parameters(),
                (decoder.image, decoder.target),
            )
            optimizer.optimizer.capture = opponent.optimizer.capture = True
        decoder = self._decoder_graph(*batch)
        return decoder, self._discriminator_graph(decoder.image, decoder.target)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's points."""
        self.validation.reset()

    def validation_step(self, image: Tensor, batch_index: int) -> None:
        """One picture at every detail."""
        self.validation.add(self.network, image)

    def on_validation_epoch_end(self) -> None:
        """Averages over the pictures and writes ``rd_points.jsonl``."""
        write_validation(self)
