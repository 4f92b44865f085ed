"""What all trainings with recorded steps share: gradients of a batch, launched at once on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from latentpress.train.cuda_graph import GraphedBackward


class RecordedTraining(lightning.LightningModule):
    """Base of modules whose loss is compiled and recorded, with its gradients, as a CUDA graph.

    ::

        batch -> loss_of_batch -> gradients, averaged over all devices -> optimiser, which may be recorded too

    A subclass says what the loss of a batch is, and calls :meth:`backward_of_batch` in its training step.

    Args:
        network: What is trained, as ``self.network``.
        compile_network: On a GPU, compile the loss and record it; elsewhere it runs as it is.

    Attributes:
        compile_loss: False in subclasses whose loss is recorded as it is, without being compiled.
    """

    compile_loss = True

    def __init__(self, network: nn.Module, compile_network: bool = True) -> None:
        super().__init__()
        self.network = network
        self.compile_network = compile_network
        # The optimiser's step is part of what is recorded, so Lightning must not drive it.
        self.automatic_optimization = False
        self._graph: GraphedBackward[Any] | None = None

    def loss_of_batch(self, *batch: Tensor) -> Any:
        """A named tuple whose first entry is the scalar to minimise; the others are detached."""
        raise NotImplementedError

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that have gradients: all of the network unless a stage trains a part of it."""
        return self.network.parameters()

    def backward_of_batch(self, batch: tuple[Tensor, ...]) -> Any:
        """Leaves the gradients of a batch, averaged over all devices, in the parameters.

        Args:
            batch: Arguments of :meth:`loss_of_batch`; on a GPU, of the same shapes every time.

        Returns:
            What :meth:`loss_of_batch` returned; the next call overwrites it.
        """
        if self.device.type != "cuda" or not self.compile_network:
            self.optimizers().zero_grad()
            terms = self.loss_of_batch(*batch)
            self.manual_backward(terms[0])
            return terms
        if self._graph is None:
            loss = torch.compile(self.loss_of_batch) if self.compile_loss else self.loss_of_batch
            self._graph = GraphedBackward(loss, self.trained_parameters(), tuple(batch))
            self.optimizers().optimizer.capture = True
        return self._graph(*batch)
