"""Stage 4 of the shape codec: the bridge from the frozen encoder through a compact code to the generator."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentpress.models.quality import QUALITY_MAX
from latentpress.models.shape.bridge import CodeQuality, ShapeBridge
from latentpress.models.shape.flow_prior import FlowPrior, build_flow_prior
from latentpress.models.shape.generator import ShapeAutoencoder, build_shape_autoencoder
from latentpress.models.shape.point_encoder import PointEncoder, build_implicit_autoencoder
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.data.generated import generated_samples
from latentpress.train.data.shape_pool import ShapePool
from latentpress.train.shape_losses import FieldErrors, field_errors
from latentpress.train.shape_training import ShapeTraining, frozen

_WHOLE_CODE_SHARE = 0.6


class BridgeTerms(NamedTuple):
    """The loss of a batch, and what it is made of.

    Attributes:
        loss: Scalar to minimise.
        geometry_bits: Mean, a shape.
        colour_bits: Mean, a shape.
        truncated: Error of the truncated distance, longest side 2.
        surface: Decoded distance on the surface.
        colour: Error of the colour.
        latent: Squared error of the generator's latent over its variance.
        correlation: Mean square of the correlations between code channels.
    """

    loss: Tensor
    geometry_bits: Tensor
    colour_bits: Tensor
    truncated: Tensor
    surface: Tensor
    colour: Tensor
    latent: Tensor
    correlation: Tensor


class _FrozenNetworks(NamedTuple):
    """What the bridge connects. In a tuple, Lightning neither saves nor trains them."""

    autoencoder: ShapeAutoencoder
    encoder: PointEncoder
    prior: FlowPrior | None

    @classmethod
    def load(cls, autoencoder: str, encoder: str, prior: str | None) -> _FrozenNetworks:
        """Reads the checkpoints of the other stages."""
        config, state = network_from_checkpoint(autoencoder)
        generating = frozen(build_shape_autoencoder(**config), state)
        config, state = network_from_checkpoint(encoder)
        implicit = frozen(build_implicit_autoencoder(**config), state)
        if prior is None:
            return cls(generating, implicit.encoder, None)
        config, state = network_from_checkpoint(prior)
        return cls(generating, implicit.encoder, frozen(build_flow_prior(**config), state))


def price(quality: Tensor, lowest: float, highest: float) -> Tensor:
    """Error that a bit is worth at a quality, geometric between quality 0 and quality 100.

    Args:
        quality: ``(B,)`` in [0, 100].
        lowest: At quality 0.
        highest: At quality 100; smaller, because there bits are cheap.

    Example:
        >>> price(torch.tensor([0.0, 50.0, 100.0]), 1e-2, 1e-4)
        tensor([1.0000e-02, 1.0000e-03, 1.0000e-04])
    """
    return lowest * (highest / lowest) ** (quality / QUALITY_MAX)


def channel_correlation(code: Tensor) -> Tensor:
    """Mean squared correlation between different channels of a code ``(B, 64, K)``, over batch and tokens.

    The decorrelation term of Squeeze3D, between the K channels instead of between the shapes of a batch.
    """
    values = code.flatten(0, 1)
    values = values - values.mean(0)
    values = values / (values.square().mean(0) + 1e-4).sqrt()
    gram = values.T @ values / len(values)
    size = gram.shape[0]
    off_diagonal = gram - torch.diag_embed(gram.diagonal())
    return off_diagonal.square().sum() / (size * (size - 1))


class BridgeTraining(ShapeTraining):
    """Trains a :class:`ShapeBridge` between a frozen encoder and a frozen generator.

    Args:
        network: The bridge.
        autoencoder: Checkpoint of stage 1: the generator, and the latents it should get.
        encoder: Checkpoint of stage 3: the frozen encoder.
        prior: Checkpoint of stage 2, for generated shapes to train on; None for none.
        generated: Number of generated shapes.
        geometry_price: Error of the distance that a bit is worth at quality 0 and at quality 100.
        colour_price: Error of the colour that a bit is worth at quality 0 and at quality 100.
        latent_weight: Of the latent's error.
        correlation_weight: Of the correlation between code channels.
        lr: Peak learning rate.
        weight_decay: Of the hidden matrices.
        compile_network: Compile and record the step on a GPU.
        init_from: Checkpoint of the same stage to start from, see the base class.
    """

    def __init__(
        self,
        network: ShapeBridge,
        autoencoder: str,
        encoder: str,
        prior: str | None = None,
        generated: int = 8192,
        geometry_price: tuple[float, float] = (6e-5, 2.5e-7),
        colour_price: tuple[float, float] = (1e-4, 2e-6),
        latent_weight: float = 0.02,
        correlation_weight: float = 0.1,
        lr: float = 1.5e-3,
        weight_decay: float = 0.02,
        compile_network: bool = True,
        init_from: str | None = None,
    ) -> None:
        super().__init__(network, lr, weight_decay, compile_network, init_from)
        self._frozen = _FrozenNetworks.load(autoencoder, encoder, prior)
        self.generated = generated
        self.geometry_price = tuple(geometry_price)
        self.colour_price = tuple(colour_price)
        self.latent_weight = latent_weight
        self.correlation_weight = correlation_weight

    def setup(self, stage: str) -> None:
        """Adds generated shapes to the training data, as in the paper."""
        device = self.trainer.strategy.root_device
        for network in self._frozen:
            if network is not None:
                network.to(device)
        autoencoder, _, prior = self._frozen
        if prior is None or not self.generated:
            return
        data = self.trainer.datamodule
        made = generated_samples(prior, autoencoder.generator, self.generated, data.counts, seed=1)
        if made is None:
            print("no generated shape has a surface: training goes on without", flush=True)
            return
        data.replace_pool(ShapePool(type(made).stack([data.pool(device).samples, made])))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the prices: the encoder weighs bits and errors by them when it refines a code."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["prices"] = {"geometry": list(self.geometry_price), "colour": list(self.colour_price)}

    def loss_of_batch(self, points: Tensor, surface: Tensor, queries: Tensor) -> BridgeTerms:
        """The loss of a :class:`latentpress.train.data.shape_pool.ShapeBatch`."""
        quality, geometry_sent, colour_sent = self._random_rates(points)
        return self._terms(points, surface, queries, quality, geometry_sent, colour_sent)

    def figures_of_batch(self, points: Tensor, surface: Tensor, queries: Tensor) -> dict[str, Tensor]:
        """Bits and errors at a few qualities."""
        figures = {}
        for level in (0, 20, 40, 60, 80, 100):
            at = points.new_full((len(points),), float(level))
            everything = torch.full_like(at, 1e3)
            terms = self._terms(points, surface, queries, CodeQuality(at, at), everything, everything)
            figures.update({f"{name}_{level}": value.detach() for name, value in terms._asdict().items()})
        return figures

    def _random_rates(self, points: Tensor) -> tuple[CodeQuality, Tensor, Tensor]:
        batch, device = len(points), points.device
        # Stratified over the batch: every step sees all rates, which steadies the gradient.
        steps = torch.arange(batch, device=device)
        geometry = (steps + torch.rand(batch, device=device)) * (QUALITY_MAX / batch)
        colour = torch.rand(batch, device=device) * QUALITY_MAX
        sent = []
        for prior in (self.network.geometry_prior, self.network.colour_prior):
            cut = 1 + (torch.rand(batch, device=device) * (prior.groups - 1)).floor()
            whole = torch.rand(batch, device=device) < _WHOLE_CODE_SHARE
            sent.append(torch.where(whole, torch.full_like(cut, prior.groups), cut))
        return CodeQuality(geometry, colour), sent[0], sent[1]

    def _terms(
        self,
        points: Tensor,
        surface: Tensor,
        queries: Tensor,
        quality: CodeQuality,
        geometry_sent: Tensor,
        colour_sent: Tensor,
    ) -> BridgeTerms:
        autoencoder, encoder, _ = self._frozen
        with torch.no_grad():
            tokens = encoder(points)
            posterior = autoencoder.encoder(points)
        output = self.network(tokens, quality, geometry_sent, colour_sent)
        field = autoencoder.generator(*output.latent)
        errors = field_errors(autoencoder.generator, field, surface, queries)
        loss = self._rate_distortion(errors, output.geometry_bits, output.colour_bits, quality)
        difference = torch.cat(output.latent, dim=-1) - posterior.mean
        latent = (difference.square() / (posterior.log_variance.exp() + 0.1)).mean()
        correlation = channel_correlation(output.code.geometry) + channel_correlation(output.code.colour)
        loss = loss + self.latent_weight * latent + self.correlation_weight * correlation
        shown = (output.geometry_bits, output.colour_bits, errors.truncated, errors.surface, errors.colour)
        return BridgeTerms(loss, *(x.mean().detach() for x in (*shown, latent, correlation)))

    def _rate_distortion(
        self, errors: FieldErrors, geometry_bits: Tensor, colour_bits: Tensor, quality: CodeQuality
    ) -> Tensor:
        """Errors plus the price of the bits, weighted so that all qualities count about the same."""
        geometry_price = price(quality.geometry, *self.geometry_price)
        colour_price = price(quality.colour, *self.colour_price)
        geometry = errors.truncated + errors.surface + 0.01 * errors.sign + geometry_price * geometry_bits
        colour = errors.colour + colour_price * colour_bits
        # At the optimum errors fall about as the cube root of the price.
        middle = (self.geometry_price[0] * self.geometry_price[1]) ** 0.5
        geometry = geometry * (middle / geometry_price) ** (1 / 3) / 0.02
        middle = (self.colour_price[0] * self.colour_price[1]) ** 0.5
        colour = colour * (middle / colour_price) ** (1 / 3) / 0.2
        return (geometry + colour).mean()
