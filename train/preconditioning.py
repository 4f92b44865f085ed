"""Lets Muon take steps of one size in what a layer puts out, not in its weights.

::

    a few batches -> what every matrix multiplies -> second moments (columns, columns) -> preconditioners

Muon moves all singular directions of a matrix by the same amount, whatever the matrix multiplies. In the
image network that has a standard deviation of 2.2 in one direction, the mean brightness, and of 0.05 in the
middle one of 288, so a step changes what comes out along the first 50 times as much. Gated blocks square
that, and runs lost their loss. In coordinates in which no direction is stronger than the middle one, they do
not.
"""

from __future__ import annotations

from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from latentpress.train.optimizer import MuonAdam


class SecondMoments:
    """Collects, while it is entered, the second moments of what linear layers see.

    Args:
        network: Whose layers.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3))
        >>> with SecondMoments(network) as moments:
        ...     _ = network(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        >>> moments.mean()["0.weight"].tolist()
        [[0.5, 0.0], [0.0, 4.5]]
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> SecondMoments:
        """Begins to watch."""
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_pre_hook(self._watch(name)))
        return self

    def __exit__(self, *error: object) -> None:
        """Stops watching."""
        for handle in self._handles:
            handle.remove()

    def mean(self) -> dict[str, Tensor]:
        """By name of the layer's weight, ``(columns, columns)`` float32; of layers that saw something."""
        return {f"{name}.weight": total / self._counts[name] for name, total in self._sums.items()}

    def _watch(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen = arguments[0].detach().float().flatten(0, -2)
            self._sums[name] = self._sums.get(name, torch.zeros((), device=seen.device)) + seen.mT @ seen
            self._counts[name] = self._counts.get(name, 0) + len(seen)

        return hook


def preconditioner(moment: Tensor) -> Tensor:
    """What makes the strong directions of an input as strong as its middle one, and leaves the weak alone.

    Args:
        moment: Second moments of the input, ``(n, n)``.

    Returns:
        ``(n, n)`` symmetric, eigenvalues in (0, 1], same type and device.

    Example:
        >>> preconditioner(torch.diag(torch.tensor([0.01, 1.0, 100.0]))).diagonal().tolist()
        [1.0, 1.0, 0.10000000149011612]
    """
    values, directions = torch.linalg.eigh(moment.double())
    deviation = values.clamp(min=0).sqrt()
    middle = deviation.median().clamp(min=1e-12)
    found = directions * (middle / deviation.clamp(min=middle)) @ directions.mT
    return found.to(moment.dtype)


class Preconditioning(Callback):
    """Measures what matrices multiply, before the first step, and tells the optimiser.

    It is measured anew whenever a run is resumed, from the first batches of that part, averaged over devices.

    Args:
        batches: How many.
    """

    def __init__(self, batches: int = 2) -> None:
        self.batches = batches

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Runs the network without gradients."""
        network = module.network
        with torch.no_grad(), SecondMoments(network) as moments:
            for _, batch in zip(range(self.batches), trainer.train_dataloader, strict=False):
                network(batch.image.to(module.device).float() / 255, batch.quality.to(module.device))
        parameters = dict(network.named_parameters())
        found = {}
        for name, moment in moments.mean().items():
            if name in parameters:
                shared = trainer.strategy.reduce(moment, reduce_op="mean")
                found[parameters[name]] = preconditioner(shared)
        if torch.distributed.is_initialized():
            # Eigenvectors may differ between devices in the last digits, and weights would drift apart.
            for factor in found.values():
                torch.distributed.broadcast(factor, src=0)
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, MuonAdam):
                optimizer.precondition(found.items())
