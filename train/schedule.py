"""Callbacks that give a run its shape: a time budget with its learning rate, and averaged weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback


def learning_rate_factor(progress: float, constant_until: float, final: float) -> float:
    """Constant, then linear towards ``final`` at the end of the budget.

    Args:
        progress: Fraction of the budget spent, 0 to 1.
        constant_until: Fraction at which the descent begins.
        final: Factor at the end.

    Example:
        >>> learning_rate_factor(0.2, 0.5, 0.0), learning_rate_factor(0.75, 0.5, 0.0)
        (1.0, 0.5)
    """
    if progress <= constant_until:
        return 1.0
    fraction = min(1.0, (progress - constant_until) / (1 - constant_until))
    return 1.0 - fraction * (1.0 - final)


class TimeBudget(Callback):
    """Ends a run after so many minutes and shapes the learning rate by the time spent.

    Rented machines are paid by the minute: a schedule in steps would end too early or be cut off. The
    clock is rank 0's, shared every few steps, so that all devices use the same rate.

    Args:
        minutes: Length of the run, without validation; a resumed run counts what it has spent before.
        warmup_steps: Steps over which the rate rises linearly at the start of every process.
        constant_until: Fraction of the budget at the peak rate.
        final: Factor of the peak rate at the end.
        share_every: Steps between two looks at the clock.
        deadline: Unix time at which the run must end, for a machine that goes back then. Takes the place of
            ``minutes``, which would have to guess how long the start takes.
    """

    def __init__(
        self,
        minutes: float,
        warmup_steps: int = 300,
        constant_until: float = 0.3,
        final: float = 0.01,
        share_every: int = 50,
        deadline: float | None = None,
    ) -> None:
        self.minutes = minutes
        self.warmup_steps = warmup_steps
        self.constant_until = constant_until
        self.final = final
        self.share_every = share_every
        self.deadline = deadline
        self.spent = 0.0
        self._clock: float | None = None
        self._steps_here = 0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, batch_index: int
    ) -> None:
        """Looks at the clock and sets the learning rate."""
        if self._steps_here % self.share_every == 0:
            now = time.monotonic()
            # The first steps compile; that time is not training.
            if self._clock is not None and self._steps_here > self.share_every:
                self.spent += (now - self._clock) / 60
            self._clock = now
            if self.deadline is not None:
                self.minutes = self.spent + max(0.0, self.deadline - time.time()) / 60
            shared = torch.tensor((self.spent, self.minutes), dtype=torch.float64, device=module.device)
            self.spent, self.minutes = trainer.strategy.broadcast(shared).tolist()
            if self.spent >= self.minutes:
                trainer.should_stop = True
        self._steps_here += 1
        factor = learning_rate_factor(self.spent / max(self.minutes, 1e-9), self.constant_until, self.final)
        factor *= min(1.0, self._steps_here / max(1, self.warmup_steps))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = module.lr * factor

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Leaves the time of validation out of the budget."""
        if self._clock is not None:
            self._clock = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Minutes spent, for a checkpoint."""
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the minutes spent; a finished budget starts anew."""
        self.spent = state_dict["spent"] if state_dict["spent"] < self.minutes else 0.0


class TimedCheckpoint(Callback):
    """Writes ``checkpoints/last.ckpt`` in the log folder every few minutes and at the end.

    Lightning's own callback knows no time interval when the module drives its optimiser itself, as ours do.

    Args:
        minutes: Between two checkpoints.
        share_every: Steps between two looks at the clock, which is rank 0's.
    """

    def __init__(self, minutes: float = 4.0, share_every: int = 200) -> None:
        self.minutes = minutes
        self.share_every = share_every
        self._path: Path | None = None
        self._last = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Starts the clock. All devices ask for the folder, because they agree on it together."""
        self._path = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        self._last = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_index: int,
    ) -> None:
        """Writes a checkpoint when it is time."""
        if (batch_index + 1) % self.share_every:
            return
        due = time.monotonic() - self._last >= 60 * self.minutes
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Writes the last checkpoint."""
        self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        if self._path is None or trainer.fast_dev_run:
            return
        # A run that is cut off while writing must still have the checkpoint before.
        partial = self._path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self._path)
        self._last = time.monotonic()


class AveragedWeights(Callback):
    """Keeps an exponential moving average of the network and validates with it.

    Args:
        decay: Of the average a step; early on it is shorter, ``(1 + n) / (10 + n)`` after n steps.
        every: Steps between two updates, which each make up for all of them.
    """

    def __init__(self, decay: float = 0.999, every: int = 8) -> None:
        self.decay = decay
        self.every = every
        self.average: dict[str, torch.Tensor] = {}
        self._backup: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Starts the average at the current weights, unless a checkpoint brought one."""
        current = module.network.state_dict()
        stored = self.average
        self.average = {k: stored[k].to(v) if k in stored else v.detach().clone() for k, v in current.items()}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_index: int,
    ) -> None:
        """Moves the average."""
        steps = trainer.global_step
        if steps % self.every:
            return
        decay = min(self.decay, (1 + steps) / (10 + steps)) ** self.every
        current = module.network.state_dict()
        trained = {name for name, _ in module.network.named_parameters()}
        with torch.no_grad():
            moving = [name for name in current if name in trained]
            torch._foreach_lerp_(
                [self.average[name] for name in moving], [current[name] for name in moving], 1 - decay
            )
            # Tables and the like are not averaged: between two of them may be none.
            for name in current.keys() - trained:
                self.average[name].copy_(current[name])

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Puts the average in."""
        if self.average:
            self._backup = {k: v.detach().clone() for k, v in module.network.state_dict().items()}
            module.network.load_state_dict(self.average)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Puts the trained weights back."""
        if self._backup:
            module.network.load_state_dict(self._backup)
            self._backup = {}

    def state_dict(self) -> dict[str, Any]:
        """The average, for a checkpoint."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the average."""
        self.average = state_dict["average"]
