"""Stage 2 of the shape codec: the flow-matching prior over the generator's latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.shape.flow_prior import FlowPrior
from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.data.shape_pool import BatchSizes
from latentpress.train.shape_training import ShapeTraining, frozen

_STATISTICS_BATCHES = 32


class PriorTerms(NamedTuple):
    """The loss of a batch.

    Attributes:
        loss: Mean squared error of the velocity.
        error: The same, detached.
    """

    loss: Tensor
    error: Tensor


class PriorTraining(ShapeTraining):
    """Trains a :class:`FlowPrior` on the latents of a frozen autoencoder.

    Args:
        network: The prior.
        autoencoder: Checkpoint of stage 1.
        lr: Peak learning rate.
        weight_decay: Of the hidden matrices.
        compile_network: Compile and record the step on a GPU.
        init_from: Checkpoint of the same stage to start from, see the base class.
    """

    def __init__(
        self,
        network: FlowPrior,
        autoencoder: str,
        lr: float = 1.5e-3,
        weight_decay: float = 0.02,
        compile_network: bool = True,
        init_from: str | None = None,
    ) -> None:
        super().__init__(network, lr, weight_decay, compile_network, init_from)
        config, state = network_from_checkpoint(autoencoder)
        # Within a tuple it is no submodule: Lightning neither saves it nor puts it into training mode.
        self._frozen = (frozen(build_shape_autoencoder(**config), state),)

    @torch.no_grad()
    def setup(self, stage: str) -> None:
        """Measures mean and deviation of the latents, before the average of the weights begins."""
        device = self.trainer.strategy.root_device
        pool = self.trainer.datamodule.pool(device)
        generator = torch.Generator(device).manual_seed(0)
        encoder = self._frozen[0].to(device).encoder
        sizes: BatchSizes = self.trainer.datamodule.sizes
        found = [encoder(pool.batch(sizes, generator).points).mean for _ in range(_STATISTICS_BATCHES)]
        latents = torch.cat(found)
        self.network.mean.copy_(latents.mean(0))
        self.network.deviation.copy_(latents.std(0).clamp(min=1e-3))

    def loss_of_batch(self, points: Tensor, surface: Tensor, queries: Tensor) -> PriorTerms:
        """The loss of a :class:`latentpress.train.data.shape_pool.ShapeBatch`."""
        with torch.no_grad():
            data = self.network.normalise(self._frozen[0].encoder(points).mean)
        noise = torch.randn_like(data)
        # Most of what there is to learn lies in the middle of the path (arXiv 2403.03206, section 3.1).
        time = torch.sigmoid(torch.randn_like(data[:, 0, 0]))
        mixed = torch.lerp(noise, data, time[:, None, None])
        error = (self.network(mixed, time) - (data - noise)).square().mean()
        return PriorTerms(error, error.detach())
