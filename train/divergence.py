"""A callback that takes a run that diverges back to where it was well, at a lower learning rate."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn


class DivergenceGuard(Callback):
    """Keeps copies of a healthy run on its device, and goes back to one when the loss is lost.

    ::

        loss -> median of the last few -> ordinary: copy now and then
                                       -> not finite, or far above the best: restore, learning rate * factor

    Going back in place costs seconds, while a new process would compile and load everything again. Weights,
    optimiser state and averaged weights are restored; the learning rate is the module's ``lr``, which
    :class:`~latentpress.train.schedule.TimeBudget` shapes.

    Args:
        minutes: Between two copies. The older of two is restored, because the newer may be infected.
        tolerance: A median loss of so many times the lowest is a divergence.
        window: Logged losses that the median is taken of.
        factor: Of the learning rate, each time.
        most: After so many divergences the run ends with an error.
    """

    def __init__(
        self,
        minutes: float = 1.0,
        tolerance: float = 2.5,
        window: int = 5,
        factor: float = 0.5,
        most: int = 5,
    ) -> None:
        self.minutes = minutes
        self.tolerance = tolerance
        self.factor = factor
        self.most = most
        self.divergences = 0
        self._losses: deque[float] = deque(maxlen=window)
        self._lowest = math.inf
        self._copies: deque[list[torch.Tensor]] = deque(maxlen=2)
        self._last = -math.inf

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_index: int,
    ) -> None:
        """Looks at the loss where it was logged."""
        if trainer.global_step % trainer.log_every_n_steps or "loss" not in trainer.callback_metrics:
            return
        # Rank 0 decides for all, as they must stay alike.
        if trainer.strategy.broadcast(self._diverged(float(trainer.callback_metrics["loss"]))):
            self._restore(trainer, module)
        elif trainer.strategy.broadcast(self._due()):
            self._copies.append([tensor.clone() for tensor in _state(trainer, module)])
            self._last = time.monotonic()

    def _diverged(self, loss: float) -> bool:
        self._losses.append(loss)
        if not math.isfinite(loss):
            return True
        if len(self._losses) < (self._losses.maxlen or 1):
            return False
        median = statistics.median(self._losses)
        self._lowest = min(self._lowest, median)
        return median > self.tolerance * self._lowest

    def _due(self) -> bool:
        # The median is slow to notice; a copy must be of a state that nothing speaks against.
        ordinary = self._losses[-1] <= self.tolerance * self._lowest
        return ordinary and time.monotonic() - self._last >= 60 * self.minutes

    def _restore(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.divergences += 1
        if not self._copies or self.divergences > self.most:
            raise RuntimeError(f"the loss is lost at step {trainer.global_step}: {list(self._losses)}")
        module.lr *= self.factor
        rank_zero_warn(
            f"the loss is lost at step {trainer.global_step}; going back, with lr {module.lr:g} from here"
        )
        copy = self._copies[0]
        # In place: recorded CUDA graphs know these tensors by their addresses.
        for tensor, saved in zip(_state(trainer, module), copy, strict=True):
            tensor.copy_(saved)
        self._copies.clear()
        self._copies.append(copy)
        self._losses.clear()

    def state_dict(self) -> dict[str, Any]:
        """How often the run diverged, for a checkpoint."""
        return {"divergences": self.divergences}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the count."""
        self.divergences = state_dict["divergences"]


def _state(trainer: lightning.Trainer, module: lightning.LightningModule) -> Iterator[torch.Tensor]:
    """All tensors that a step changes, in a fixed order."""
    yield from (p.detach() for p in itertools.chain(module.parameters(), module.buffers()))
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                values = optimizer.state.get(parameter, {}).values()
                yield from (value for value in values if isinstance(value, torch.Tensor))
    for callback in trainer.callbacks:
        yield from getattr(callback, "average", {}).values()
