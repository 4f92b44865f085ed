"""The adversarial stage: a second enhancer decodes the same streams to fields with the right small scales.

Encoder, entropy model and lapped transform stay as they are, so the bytes do. A copy of the decoder's
enhancer learns to restore what the rate took away: against a relativistic average discriminator (arXiv
1807.00734), and by the statistics that matter to users of turbulence.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.field.network import build_field_network
from latentpress.models.field.projection import solenoidal
from latentpress.models.field.transforms import Discriminator, Enhancer
from latentpress.train.cuda_graph import GraphedBackward
from latentpress.train.data.flows import FlowBatch, ValidationFlow
from latentpress.train.export import network_from_checkpoint
from latentpress.train.field_module import FLOAT32_BITS, nrmse
from latentpress.train.metrics.derivatives import central_differences, derivative_statistics, longitudinal
from latentpress.train.metrics.turbulence import energy_spectrum
from latentpress.train.optimizer import MuonAdam
from latentpress.train.spectrum_loss import SpectrumLoss
from latentpress.train.validation_log import append_records

_BAND_LEVELS = 3


class GeneratorTerms(NamedTuple):
    """The generator's loss and its parts, detached but for the first.

    Attributes:
        loss: Scalar to minimise.
        pixel: Squared error over that of the faithful decoder.
        gradient: The same for derivatives.
        adversarial: Relativistic loss.
        statistics: Deviation of band energies and derivative moments.
        divergence: Excess of mean square divergence over the gradient's.
        spectrum: Deviation of energies in bands of wave numbers.
    """

    loss: Tensor
    pixel: Tensor
    gradient: Tensor
    adversarial: Tensor
    statistics: Tensor
    divergence: Tensor
    spectrum: Tensor


class DiscriminatorTerms(NamedTuple):
    """The discriminator's loss.

    Attributes:
        loss: Scalar to minimise.
        margin: Mean score of real fields above that of decoded ones, detached.
    """

    loss: Tensor
    margin: Tensor


class Decoded(NamedTuple):
    """What the frozen codec makes of a batch.

    Attributes:
        linear: Output of the lapped transform, the enhancers' input.
        faithful: Output of the faithful decoder.
    """

    linear: Tensor
    faithful: Tensor


class FieldAdversarial(lightning.LightningModule):
    """Trains the realistic decoder of a field codec.

    ::

        field -> frozen codec -> linear --> enhancer (trained) -> fake -> discriminator <- field
                                   |-----> faithful enhancer -> scales of the pixel and gradient losses

    Args:
        checkpoint: Of the finished faithful training; it is unpickled, so it must be one's own.
        discriminator_channels: Width of the discriminator's first layer.
        lr: Peak learning rate of both networks.
        pixel_weight: Of the squared error.
        gradient_weight: Of the squared error of derivatives.
        adversarial_weight: Of the relativistic loss.
        statistics_weight: Of band energies and derivative moments.
        divergence_weight: Of the divergence.
        spectrum_weight: Of the spectrum.
        crop_size: Of the data, which are cubes.
        init_from: Checkpoint of an earlier adversarial stage of the same codec, to start both networks from;
            of one made of shipped weights, the enhancer alone.
        compile_network: On a GPU, compile the losses and record them with their gradients as CUDA graphs.
        val_qualities: Qualities measured in validation.
    """

    def __init__(
        self,
        checkpoint: str,
        discriminator_channels: int = 32,
        lr: float = 3e-4,
        pixel_weight: float = 0.3,
        gradient_weight: float = 0.1,
        adversarial_weight: float = 0.05,
        statistics_weight: float = 1.0,
        divergence_weight: float = 1.0,
        spectrum_weight: float = 1.0,
        crop_size: int = 64,
        init_from: str | None = None,
        compile_network: bool = True,
        val_qualities: tuple[float, ...] = (25, 50, 75),
    ) -> None:
        super().__init__()
        config, state = network_from_checkpoint(checkpoint)
        codec = build_field_network(**config)
        codec.load_state_dict(state)
        self.codec = codec.eval().requires_grad_(False)
        self.network: Enhancer = copy.deepcopy(codec.synthesis.enhancer).train().requires_grad_(True)
        self.discriminator = Discriminator(discriminator_channels)
        if init_from is not None:
            _fill(self.network, self.discriminator, init_from)
        self.lr = lr
        self.pixel_weight = pixel_weight
        self.gradient_weight = gradient_weight
        self.adversarial_weight = adversarial_weight
        self.statistics_weight = statistics_weight
        self.divergence_weight = divergence_weight
        self.spectrum_weight = spectrum_weight
        self.spectrum_loss = SpectrumLoss(crop_size)
        self.compile_network = compile_network
        self.val_qualities = tuple(float(q) for q in val_qualities)
        self.automatic_optimization = False
        self._decode = self._decoded
        self._graphs: tuple[GraphedBackward[DiscriminatorTerms], GraphedBackward[GeneratorTerms]] | None = (
            None
        )
        self._records: list[dict[str, Any]] = []

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the enhancer and for the discriminator."""
        return [
            MuonAdam([{"params": list(part.parameters())}], lr=self.lr, betas=(0.5, 0.99))
            for part in (self.network, self.discriminator)
        ]

    def train(self, mode: bool = True) -> FieldAdversarial:
        """Switches to training; the frozen codec always rounds as in coding."""
        super().train(mode)
        self.codec.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the codec again."""
        checkpoint["network_config"] = dict(self.codec.config)

    @torch.no_grad()
    def _decoded(self, field: Tensor, quality: Tensor, periodic: Tensor) -> Decoded:
        y_hat = self.codec.code(field, quality, periodic).y_hat
        linear = self.codec.synthesis.linear(y_hat, periodic)
        return Decoded(linear, self.codec.synthesis.enhancer(linear, quality, periodic))

    def training_step(self, batch: FlowBatch, batch_index: int) -> None:
        """One step of the discriminator, then one of the generator."""
        generator_optimizer, discriminator_optimizer = self.optimizers()
        graphed = self.device.type == "cuda" and self.compile_network
        if graphed and self._graphs is None:
            self._decode = torch.compile(self._decoded)
            decoded = self._decode(*batch)
            self._graphs = (
                GraphedBackward(
                    torch.compile(self.discriminator_loss),
                    self.discriminator.parameters(),
                    (batch.field, decoded.linear, batch.quality, batch.periodic),
                ),
                GraphedBackward(
                    torch.compile(self.generator_loss),
                    self.network.parameters(),
                    (batch.field, *decoded, batch.quality, batch.periodic),
                ),
            )
            for optimizer in (generator_optimizer, discriminator_optimizer):
                optimizer.optimizer.capture = True
        decoded = self._decode(*batch)
        if graphed:
            rivals = self._graphs[0](batch.field, decoded.linear, batch.quality, batch.periodic)
            discriminator_optimizer.step()
            terms = self._graphs[1](batch.field, *decoded, batch.quality, batch.periodic)
            generator_optimizer.step()
        else:
            discriminator_optimizer.zero_grad()
            rivals = self.discriminator_loss(batch.field, decoded.linear, batch.quality, batch.periodic)
            self.manual_backward(rivals.loss)
            discriminator_optimizer.step()
            generator_optimizer.zero_grad()
            terms = self.generator_loss(batch.field, *decoded, batch.quality, batch.periodic)
            self.manual_backward(terms.loss)
            generator_optimizer.step()
        if batch_index % self.trainer.log_every_n_steps == 0:
            values = {name: value.detach() for name, value in terms._asdict().items()}
            self.log_dict({**values, "margin": rivals.margin}, prog_bar=True)

    def discriminator_loss(
        self, field: Tensor, linear: Tensor, quality: Tensor, periodic: Tensor
    ) -> DiscriminatorTerms:
        """Relativistic average loss: real fields should score above the average decoded one."""
        with torch.no_grad():
            fake = self.network(linear, quality, periodic)
        real_score, fake_score = self.discriminator(field), self.discriminator(fake)
        real_score, fake_score = real_score.float(), fake_score.float()
        loss = (
            F.softplus(fake_score.mean() - real_score).mean()
            + F.softplus(fake_score - real_score.mean()).mean()
        )
        return DiscriminatorTerms(loss, (real_score.mean() - fake_score.mean()).detach())

    def generator_loss(
        self, field: Tensor, linear: Tensor, faithful: Tensor, quality: Tensor, periodic: Tensor
    ) -> GeneratorTerms:
        """The weighted sum of all that the enhancer is to achieve."""
        fake = self.network(linear, quality, periodic)
        # The discriminator's parameters take no part, else their gradients would be recorded as well.
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        real_score = torch.func.functional_call(self.discriminator, frozen, field).float()
        fake_score = torch.func.functional_call(self.discriminator, frozen, fake).float()
        adversarial = (
            F.softplus(real_score - fake_score.mean()).mean()
            + F.softplus(real_score.mean() - fake_score).mean()
        )
        pixel = _relative_error(fake, field, faithful)
        true, found, known = (central_differences(x) for x in (field, fake, faithful))
        gradient = _relative_error(found, true, known)
        statistics = band_energy_loss(fake, field) + moment_loss(found, true)
        energy = true.square().sum((-1, -2)).mean((1, 2, 3))
        excess = longitudinal(found).sum(-1).square().mean((1, 2, 3)) / energy
        divergence = excess.mean()
        spectrum = self.spectrum_loss(fake, field)
        loss = (
            self.pixel_weight * pixel
            + self.gradient_weight * gradient
            + self.adversarial_weight * adversarial
            + self.statistics_weight * statistics
            + self.divergence_weight * divergence
            + self.spectrum_weight * spectrum
        )
        parts = (pixel, gradient, adversarial, statistics, divergence, spectrum)
        return GeneratorTerms(loss, *(part.detach() for part in parts))

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's records."""
        self._records = []

    def validation_step(self, flow: ValidationFlow, batch_index: int) -> None:
        """Errors and statistics of both decoders at every quality."""
        truth = _statistics(flow.field, bool(flow.periodic.all()))
        for quality in self.val_qualities:
            level = torch.tensor([quality], device=flow.field.device)
            with torch.autocast(flow.field.device.type, enabled=False):
                coded = self.codec.code(flow.field, level, flow.periodic)
                linear = self.codec.synthesis.linear(coded.y_hat, flow.periodic)
                fields = {
                    "faithful": self.codec.synthesis.enhancer(linear, level, flow.periodic),
                    "realistic": self.network(linear, level, flow.periodic),
                }
            ratio = FLOAT32_BITS * flow.field.numel() / float(coded.y_bits + coded.z_bits)
            record: dict[str, Any] = {
                "flow": flow.name,
                "quality": quality,
                "ratio": round(ratio, 2),
                "truth": truth,
            }
            for name, field in fields.items():
                field = solenoidal(field[0].permute(3, 0, 1, 2), flow.periodic[0].tolist())
                field = field.permute(1, 2, 3, 0)[None]
                statistics = _statistics(field, bool(flow.periodic.all()))
                record[name] = {"nrmse": round(nrmse(flow.field, field), 5), **statistics}
            self._records.append(record)

    def on_validation_epoch_end(self) -> None:
        """Writes ``realistic.jsonl`` in the log folder."""
        records = [{"step": self.global_step, **record} for record in self._records]
        append_records(self.trainer, "realistic.jsonl", records)


def _fill(enhancer: Enhancer, discriminator: Discriminator, checkpoint: str) -> None:
    """Fills both networks, the discriminator only if there is one in the checkpoint.

    The checkpoint is unpickled, so it must be one's own.
    """
    enhancer.load_state_dict(network_from_checkpoint(checkpoint).state)
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    prefix = "discriminator."
    judge = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if judge:
        discriminator.load_state_dict(judge)


def band_energy_loss(found: Tensor, true: Tensor) -> Tensor:
    """Mean squared logarithm of the ratio of energies in bands of scales.

    Bands are differences of binomial smoothings with growing reach; energies are pooled over the batch's
    samples one by one, so that each field keeps its own.

    Args:
        found: ``(B, D, H, W, 3)``.
        true: Same shape.
    """
    total = found.new_zeros(())
    for level in range(_BAND_LEVELS):
        found_smooth, true_smooth = (_smooth(x, 2**level) for x in (found, true))
        margin = 2 ** (level + 1)
        energies = [
            _inner(a - b, margin).square().mean((1, 2, 3, 4))
            for a, b in ((found, found_smooth), (true, true_smooth))
        ]
        total = total + (energies[0] / energies[1].clamp(min=1e-12)).clamp(min=1e-4).log().square().mean()
        found, true = found_smooth, true_smooth
    return total


def moment_loss(found: Tensor, true: Tensor) -> Tensor:
    """Squared differences of skewness and of the logarithm of flatness of longitudinal derivatives.

    Args:
        found: ``(B, D, H, W, 3, 3)`` differences, see :func:`central_differences`.
        true: Same shape.
    """
    moments = []
    for differences in (found, true):
        along = longitudinal(differences)
        scaled = along / along.square().mean((1, 2, 3, 4), keepdim=True).clamp(min=1e-12).sqrt()
        moments.append((scaled.pow(3).mean((1, 2, 3, 4)), scaled.pow(4).mean((1, 2, 3, 4)).log()))
    return sum((a - b).square().mean() for a, b in zip(*moments, strict=True))


def _relative_error(found: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Squared error over that of another estimate, averaged over the batch."""
    axes = tuple(range(1, found.ndim))
    return ((found - true).square().mean(axes) / (known - true).square().mean(axes).clamp(min=1e-12)).mean()


def _smooth(x: Tensor, reach: int) -> Tensor:
    """Binomial smoothing (1, 2, 1) / 4 along every axis, samples ``reach`` apart; ends wrap around."""
    for axis in (1, 2, 3):
        x = 0.5 * x + 0.25 * (x.roll(reach, axis) + x.roll(-reach, axis))
    return x


def _inner(x: Tensor, margin: int) -> Tensor:
    return x[:, margin:-margin, margin:-margin, margin:-margin]


def _statistics(field: Tensor, periodic: bool) -> dict[str, float]:
    found = derivative_statistics(field[0])
    record = {name: float(f"{value:.4g}") for name, value in vars(found).items()}
    if periodic:
        size = field.shape[1]
        spectrum = energy_spectrum(field[0].permute(3, 0, 1, 2))
        # Shells 24 to 40 of a box of 128 points.
        record["small_scales"] = float(
            f"{float(spectrum[size * 24 // 128 : size * 40 // 128 + 1].sum()):.4g}"
        )
    return record


def discriminator_state(module: FieldAdversarial) -> dict[str, Tensor]:
    """The discriminator's weights, for export."""
    return {
        name: tensor.detach().cpu() for name, tensor in nn.Module.state_dict(module.discriminator).items()
    }
