"""The critic's stage: a small network learns to say how far decoded flows are from the truth.

The discriminators of the adversarial stages have millions of weights, know one ratio each and only tell
decoded fields from true ones. This one is narrow enough to ship, sees what all decoders of all ratios make of
a flow, and damaged flows, and is asked for the error itself: a regression, not a game against a decoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import spearman_corrcoef

from latentpress.models.field.critic import HIGHEST_SCORE, ErrorCritic
from latentpress.train.data.decoded_flows import DecodedBatch, FlowPairs
from latentpress.train.field_corruption import LEARNED

_CORRUPTED = 0.4
"""Share of a batch that is damaged after decoding."""

_SIDES = (32, 48, 64)
"""Of the tiles that are cut out after the damage: some as large as the codec's, some smaller."""

_FIRST_BATCHES = 10
"""Batches that are only remembered, for the means and deviations of what the network sees."""

_UPDATES = 20
"""Steps of the optimiser for each batch."""

_PICKED = 128
"""Samples of such a step."""

_JITTER = 0.2
"""Noise on standardised numbers: there are few flows, and the network shall not know each."""

_WEIGHT_DECAY = 0.05

_VAL_STRENGTHS = (0.2, 0.5, 0.8)


class Scored(NamedTuple):
    """Fields for the critic.

    Attributes:
        field: ``(B, D, H, W, 3)``, of the size of the true ones.
        score: ``(B,)``, what the critic should say.
    """

    field: Tensor
    score: Tensor


class Remembered(NamedTuple):
    """What the filters made of fields.

    Attributes:
        described: ``(B, n)``, see :meth:`ErrorCritic.described`.
        score: ``(B,)``, what the critic should say.
    """

    described: Tensor
    score: Tensor


class FieldCritic(lightning.LightningModule):
    """Trains the critic of a field codec.

    ::

        decoded flows (see DecodedFlowModule) -> damage to some -> tiles -> filters -> memory
          memory -> random samples, jittered -> MLP -> score -> smooth L1 <- -log10 of the error, up to 4

    Decoding, damage and filters take a hundred times as long as a step of the MLP, and filters are not
    trained. So what they made of a field is remembered, and every batch is followed by many steps on what is
    there so far.

    Args:
        filters: Of the critic, at each scale.
        width: Of its MLP.
        lr: Peak learning rate.
    """

    def __init__(self, filters: int = 24, width: int = 48, lr: float = 2e-3) -> None:
        super().__init__()
        self.network = ErrorCritic(filters, width)
        self.config = {"filters": filters, "width": width}
        self.lr = lr
        self.automatic_optimization = False
        self._random: torch.Generator | None = None
        self._memory: list[Remembered] = []
        self._records: list[dict[str, Any]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with weight decay."""
        return torch.optim.AdamW(self.network.parameters(), lr=self.lr, weight_decay=_WEIGHT_DECAY)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to build the critic again."""
        checkpoint["network_config"] = self.config

    def training_step(self, batch: DecodedBatch, batch_index: int) -> None:
        """One batch to the memory, and steps on what is in there."""
        with torch.no_grad():
            fields = self.scored(batch)
            self._memory.append(Remembered(self.network.described(fields.field), fields.score))
        if len(self._memory) < _FIRST_BATCHES:
            return
        described, score = (torch.cat(parts) for parts in zip(*self._memory, strict=True))
        if len(self._memory) == _FIRST_BATCHES and self.global_step == 0:
            self.network.standardise(described)
        standardised = self.network.standardised(described)
        random = self._generator(described.device)
        optimizer = self.optimizers()
        total = 0.0
        for _ in range(_UPDATES):
            picked = torch.randint(len(score), (_PICKED,), generator=random, device=score.device)
            seen = standardised[picked]
            seen = seen + _JITTER * torch.randn(seen.shape, generator=random, device=seen.device)
            loss = F.smooth_l1_loss(self.network.estimate(seen), score[picked], beta=0.2)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += float(loss.detach())
        if batch_index % self.trainer.log_every_n_steps == 0:
            print(f"{len(score)} samples, loss {total / _UPDATES:.4f}", flush=True)

    @torch.no_grad()
    def scored(self, batch: DecodedBatch) -> Scored:
        """Damages a part of a batch, true and decoded fields alike, and cuts tiles out of it."""
        field, decoded = batch.field, batch.decoded
        random = self._generator(field.device)
        count = len(field)
        strength = torch.rand(count, generator=random, device=field.device)
        damaged = torch.rand(count, generator=random, device=field.device) < _CORRUPTED
        kind = torch.randint(len(LEARNED), (count,), generator=random, device=field.device)
        corrupted = decoded.clone()
        # Whole boxes are damaged: where damage meets the border of a tile, it would give itself away.
        for place, corrupt in enumerate(LEARNED.values()):
            mine = damaged & (kind == place)
            if bool(mine.any()):
                corrupted[mine] = corrupt(decoded[mine], strength[mine], random)
        sides = [side for side in _SIDES if side <= field.shape[1]] or [field.shape[1]]
        side = sides[int(torch.randint(len(sides), (), generator=random, device=field.device))]
        return scored(field, corrupted, side)

    def _generator(self, device: torch.device) -> torch.Generator:
        if self._random is None or self._random.device != device:
            self._random = torch.Generator(device).manual_seed(1 + self.global_step)
        return self._random

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation's scores."""
        self._records = []

    def validation_step(self, flows: FlowPairs, batch_index: int) -> None:
        """Scores one box: true, as all decoders made it, and damaged."""
        true = flows.true
        found = [("truth", true), *((flow.name, flow.field[None]) for flow in flows.decoded)]
        random = torch.Generator(true.device).manual_seed(batch_index)
        for kind, corrupt in LEARNED.items():
            for strength in _VAL_STRENGTHS:
                damaged = corrupt(true, torch.tensor([strength], device=true.device), random)
                found.append((f"{kind}, strength {strength:g}", damaged))
        with torch.autocast(true.device.type, enabled=False):
            for name, field in found:
                unit = field / field.square().mean().sqrt()
                error = (field - true).square().mean().sqrt()
                score = float(self.network(unit))
                self._records.append(
                    {
                        "box": batch_index,
                        "field": name,
                        "nrmse": float(f"{float(error):.4g}"),
                        "score": float(f"{score:.4g}"),
                    }
                )

    def on_validation_epoch_end(self) -> None:
        """Writes ``critic.jsonl`` in the log folder: the rank correlation of score and error, and both."""
        # Asking for log_dir makes the devices talk to each other, so all of them must.
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        if not self.trainer.is_global_zero or len(self._records) < 2:
            return
        folder.mkdir(parents=True, exist_ok=True)
        errors, scores = (
            torch.tensor([record[key] for record in self._records]) for key in ("nrmse", "score")
        )
        correlation = round(float(spearman_corrcoef(-errors, scores)), 4)
        away = (scores + errors.clamp(min=10**-HIGHEST_SCORE).log10()).abs().mean()
        line = {
            "step": self.global_step,
            "spearman": correlation,
            "mean_deviation": round(float(away), 4),
            "scored": self._records,
        }
        print(f"critic: Spearman of score and -NRMSE {correlation}, off by {float(away):.3f}", flush=True)
        with open(folder / "critic.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def scored(true: Tensor, field: Tensor, side: int) -> Scored:
    """What a critic should say of the first tiles of fields.

    Args:
        true: ``(B, D, H, W, 3)``, boxes of unit variance.
        field: The same, decoded or damaged.
        side: Of the tiles.
    """
    axes = (1, 2, 3, 4)
    # The codec scores fields of unit variance, whatever noise has added to them.
    size = (true.square().mean(axes) / field.square().mean(axes)).sqrt()
    mine, theirs = (x[:, :side, :side, :side] for x in (field, true))
    squares = (mine - theirs).square().mean(axes).clamp(min=10 ** (-2 * HIGHEST_SCORE))
    return Scored(mine * size[:, None, None, None, None], -0.5 * squares.log10())
