"""Stage 1 of the shape codec: the generator with its own encoder, a variational autoencoder of shapes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from latentpress.models.shape.generator import TRUNCATION, ShapeAutoencoder
from latentpress.train.shape_losses import field_errors
from latentpress.train.shape_training import ShapeTraining


class GeneratorTerms(NamedTuple):
    """The loss of a batch, and what it is made of; see :class:`latentpress.train.shape_losses.FieldErrors`.

    Attributes:
        loss: Scalar to minimise.
        truncated: Error of the truncated distance.
        surface: Decoded distance on the surface.
        sign: Cross entropy of inside and outside.
        colour: Error of the colour.
        divergence: Of the latents from a standard normal distribution, in nats a value.
    """

    loss: Tensor
    truncated: Tensor
    surface: Tensor
    sign: Tensor
    colour: Tensor
    divergence: Tensor


class GeneratorTraining(ShapeTraining):
    """Trains a :class:`ShapeAutoencoder`.

    Args:
        network: The autoencoder.
        lr: Peak learning rate.
        weight_decay: Of the hidden matrices.
        divergence_weight: Of the Kullback-Leibler term: enough that the prior can follow, little enough that
            details survive.
        sign_weight: Of the cross entropy.
        colour_weight: Of the colour error.
        compile_network: Compile and record the step on a GPU.
        init_from: Checkpoint of the same stage to start from, see the base class.
    """

    def __init__(
        self,
        network: ShapeAutoencoder,
        lr: float = 1.5e-3,
        weight_decay: float = 0.02,
        divergence_weight: float = 1e-3,
        sign_weight: float = 0.3,
        colour_weight: float = 0.5,
        compile_network: bool = True,
        init_from: str | None = None,
    ) -> None:
        super().__init__(network, lr, weight_decay, compile_network, init_from)
        self.divergence_weight = divergence_weight
        self.sign_weight = sign_weight
        self.colour_weight = colour_weight

    def loss_of_batch(self, points: Tensor, surface: Tensor, queries: Tensor) -> GeneratorTerms:
        """The loss of a :class:`latentpress.train.data.shape_pool.ShapeBatch`."""
        output = self.network(points)
        errors = field_errors(self.network.generator, output.field, surface, queries)
        means = [error.mean() for error in errors]
        truncated, on_surface, sign, colour = means
        loss = (truncated + on_surface) / TRUNCATION + self.sign_weight * sign
        loss = loss + self.colour_weight * colour + self.divergence_weight * output.divergence
        return GeneratorTerms(loss, *(mean.detach() for mean in means), output.divergence.detach())
