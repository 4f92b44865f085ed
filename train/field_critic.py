"""The critic's stage: a small discriminator learns to say how far decoded flows are from the truth.

The discriminators of the adversarial stages have millions of weights, know one ratio each and only tell
decoded fields from true ones. This one is narrow enough to ship, sees what all decoders of all ratios make of
a flow, and damaged flows, and is asked for the error itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional import spearman_corrcoef

from latentpress.models.field.network import FieldNetwork, build_field_network
from latentpress.models.field.transforms import Discriminator, Enhancer
from latentpress.train.data.flows import FlowBatch, ValidationFlow
from latentpress.train.export import network_from_checkpoint
from latentpress.train.field_corruption import LEARNED
from latentpress.train.optimizer import MuonAdam

HIGHEST_SCORE = 3.0
"""Of a field without error: three digits are right."""

_CORRUPTED = 0.4
"""Share of a batch that is damaged after decoding."""

_UNTOUCHED = 0.2
"""Share of a batch that is not decoded at all."""


class Scored(NamedTuple):
    """Fields for the critic.

    Attributes:
        field: ``(B, D, H, W, 3)``, of the size of the true ones.
        score: ``(B,)``, what the critic should say.
    """

    field: Tensor
    score: Tensor


class FieldCritic(lightning.LightningModule):
    """Trains the critic of a field codec.

    ::

        flow -> one of the codecs, faithful or realistic -> damage to some --> critic -> score
          +--------------------------------------- NRMSE -> -log10, 0 to 3 ------> smooth L1

    Args:
        faithful: Checkpoints of the finished faithful trainings, unpickled, so they must be one's own.
        realistic: Checkpoints of the adversarial stages, as many or none.
        channels: Width of the critic's first layer.
        lr: Peak learning rate.
        val_qualities: Qualities scored in validation.
    """

    def __init__(
        self,
        faithful: Sequence[str],
        realistic: Sequence[str] = (),
        channels: int = 8,
        lr: float = 2e-3,
        val_qualities: Sequence[float] = (0, 25, 50, 75, 100),
    ) -> None:
        super().__init__()
        if len(realistic) not in (0, len(faithful)) or not faithful:
            raise ValueError("give checkpoints of the codecs, and as many realistic ones or none")
        self.codecs = nn.ModuleList(_frozen_codec(path) for path in faithful)
        enhancers = [_realistic(codec, path) for codec, path in zip(self.codecs, realistic, strict=False)]
        self.enhancers = nn.ModuleList(enhancers)
        self.network = Discriminator(channels)
        self.channels = channels
        self.lr = lr
        self.val_qualities = tuple(float(q) for q in val_qualities)
        self.automatic_optimization = False
        self._random: torch.Generator | None = None
        self._records: list[dict[str, Any]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam for the critic."""
        return MuonAdam([{"params": list(self.network.parameters())}], lr=self.lr)

    def train(self, mode: bool = True) -> FieldCritic:
        """Switches to training; the codecs always round as in coding."""
        super().train(mode)
        self.codecs.eval()
        self.enhancers.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the critic again."""
        checkpoint["network_config"] = {"channels": self.channels}

    def training_step(self, batch: FlowBatch, batch_index: int) -> None:
        """One batch, decoded at one ratio by one of its decoders."""
        codec = batch_index % len(self.codecs)
        realistic = bool(self.enhancers) and batch_index // len(self.codecs) % 2 == 1
        fields = self.scored(batch, codec, realistic)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        found = self.network(fields.field).float().mean((1, 2, 3))
        loss = F.smooth_l1_loss(found, fields.score, beta=0.2)
        self.manual_backward(loss)
        optimizer.step()
        if batch_index % self.trainer.log_every_n_steps == 0:
            self.log_dict({"loss": loss.detach()}, prog_bar=True)

    @torch.no_grad()
    def scored(self, batch: FlowBatch, number: int, realistic: bool) -> Scored:
        """Decodes a batch, damages a part of it and leaves another part as it is.

        Args:
            batch: Flows.
            number: Of the codec.
            realistic: Decode with its second enhancer.
        """
        random = self._generator(batch.field.device)
        count = len(batch.field)
        kind = torch.rand(count, generator=random, device=batch.field.device)
        untouched = (kind < _UNTOUCHED)[:, None, None, None, None]
        decoded = self.decoded(batch.field, batch.quality, batch.periodic, number, realistic)
        decoded = torch.where(untouched, batch.field, decoded)
        strength = torch.rand(count, generator=random, device=batch.field.device)
        # Untouched fields are damaged as often as others, so that a critic cannot know one by the other.
        damaged = torch.rand(count, generator=random, device=batch.field.device) < _CORRUPTED
        corrupted = decoded.clone()
        for place, corrupt in enumerate(LEARNED.values()):
            mine = damaged & (torch.arange(count, device=damaged.device) % len(LEARNED) == place)
            one = corrupt(decoded, strength, random)
            corrupted = torch.where(mine[:, None, None, None, None], one, corrupted)
        axes = (1, 2, 3, 4)
        error = (corrupted - batch.field).square().mean(axes) / batch.field.square().mean(axes)
        score = (-0.5 * error.clamp(min=1e-12).log10()).clamp(0, HIGHEST_SCORE)
        # The codec scores fields of unit variance, whatever noise has added to it.
        size = (batch.field.square().mean(axes) / corrupted.square().mean(axes)).sqrt()
        return Scored(corrupted * size[:, None, None, None, None], score)

    def decoded(
        self, field: Tensor, quality: Tensor, periodic: Tensor, number: int, realistic: bool
    ) -> Tensor:
        """What one of the codecs makes of flows."""
        codec = self.codecs[number]
        y_hat = codec.code(field, quality, periodic).y_hat
        linear = codec.synthesis.linear(y_hat, periodic)
        enhancer = self.enhancers[number] if realistic else codec.synthesis.enhancer
        return enhancer(linear, quality, periodic).float()

    def _generator(self, device: torch.device) -> torch.Generator:
        if self._random is None or self._random.device != device:
            self._random = torch.Generator(device).manual_seed(1 + self.global_step)
        return self._random

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's scores."""
        self._records = []

    def validation_step(self, flow: ValidationFlow, batch_index: int) -> None:
        """Scores one field as all decoders make it at every quality."""
        with torch.autocast(flow.field.device.type, enabled=False):
            for number in range(len(self.codecs)):
                for quality in self.val_qualities:
                    level = torch.tensor([quality], device=flow.field.device)
                    for realistic in (False, True)[: 2 if self.enhancers else 1]:
                        found = self.decoded(flow.field, level, flow.periodic, number, realistic)
                        error = (found - flow.field).square().mean() / flow.field.square().mean()
                        score = float(self.network(found / found.square().mean().sqrt()).mean())
                        self._records.append(
                            {
                                "flow": flow.name,
                                "codec": number,
                                "quality": quality,
                                "realistic": realistic,
                                "nrmse": float(f"{math.sqrt(float(error)):.4g}"),
                                "score": float(f"{score:.4g}"),
                            }
                        )

    def on_validation_epoch_end(self) -> None:
        """Writes ``critic.jsonl`` in the log folder: the rank correlation of score and error, and both."""
        if not self.trainer.is_global_zero or len(self._records) < 2:
            return
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        errors, scores = (
            torch.tensor([record[key] for record in self._records]) for key in ("nrmse", "score")
        )
        correlation = round(float(spearman_corrcoef(-errors, scores)), 4)
        line = {"step": self.global_step, "spearman": correlation, "scored": self._records}
        print(f"critic: Spearman of score and -NRMSE {correlation}", flush=True)
        with open(folder / "critic.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _frozen_codec(path: str) -> FieldNetwork:
    config, state = network_from_checkpoint(path)
    codec = build_field_network(**config)
    codec.load_state_dict(state)
    return codec.eval().requires_grad_(False)


def _realistic(codec: FieldNetwork, path: str) -> Enhancer:
    faithful = codec.synthesis.enhancer
    enhancer = Enhancer(faithful.stem.out_features, len(faithful.blocks))
    enhancer.load_state_dict(network_from_checkpoint(path).state)
    return enhancer.eval().requires_grad_(False)
