"""Effort at encode time for the field codec: finds latents with a better balance of rate and distortion.

::

    latents at quality q -> stochastic Gumbel annealing through the frozen decoder -> latents for the coder
                             ^ bits + lambda * squared error, lambda measured at q

As for pictures (:mod:`latentpress.codecs.image_refinement`, which says why lambda is measured), with three
axes, a field's gaps left out of the error, and blocks whose samples also depend on latents around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.codecs.field_networks import RatioModel, full_precision
from latentpress.codecs.latent_refinement import Latents, refine_latents
from latentpress.codecs.table_rate import TableRate
from latentpress.codecs.volume_coder import Axes
from latentpress.models.entropy.context import STEPS
from latentpress.models.entropy.fixed_point import to_float
from latentpress.models.entropy.latent_model import Rounding
from latentpress.models.entropy.volume import Octants, VolumeContextModel, neighbourhood


class Scene(NamedTuple):
    """What latents are held against.

    Attributes:
        values: The field, ``(1, D, H, W, 3)`` float32 of unit variance, on the network's device.
        weights: Of the same shape: one where an error counts, zero in gaps and in components that are not
            there.
        periodic: Axes along which samples continue at their far ends.
        around: Latents of the field and of what is around it, ``(1, d, h, w, M)`` scaled back for the
            synthesis; None if there is nothing around.
        inner: Where among them those are that are looked for, along d, h and w.
        region: Where ``values`` are among the samples that the synthesis makes of them all.
    """

    values: Tensor
    weights: Tensor
    periodic: Axes
    around: Tensor | None = None
    inner: tuple[slice, ...] = ()
    region: tuple[slice, ...] = ()


class FieldRefiner:
    """Refines latents of fields against the networks of one ratio.

    It has a copy of the entropy networks on real numbers, beside the integers that code, because integers
    have no gradient; the transforms are shared. The integers code the result, so the copy's roundings cost a
    bit here and there and nothing else.

    Memory is what it takes to differentiate the decoder once over the whole field or block.

    Args:
        model: The networks.

    Attributes:
        model: The same.
    """

    def __init__(self, model: RatioModel) -> None:
        self.model = model
        network = model.network
        # In inference mode, weights would be made that no gradient passes.
        with torch.inference_mode(False):
            self._hyper_prior = to_float(network.hyper_prior)
            self._hyper_synthesis = to_float(network.hyper_synthesis)
            self._context = cast(VolumeContextModel, to_float(network.context))
        self._rate = TableRate(model.coder.tables)

    def refine(
        self,
        latents: Latents,
        scene: Scene,
        tenths: int,
        axes: Axes,
        multiplier: float,
        iterations: int,
        notify: Callable[[int], None] | None = None,
    ) -> Latents:
        """Finds latents that cost less or give more than those of the analysis.

        Args:
            latents: Of the analysis, y ``(1, d, h, w, M)`` and z, in quantisation steps.
            scene: What they are held against.
            tenths: The quality they were made for.
            axes: Along which the latents continue at their far ends.
            multiplier: Lambda, in bits for one squared error of a value of unit variance.
            iterations: Steps of descent.
            notify: Called before every step with its number. What it raises ends the descent.

        Returns:
            New latents, not rounded: the coder's rounding settles them.
        """
        device = self.model.device
        with torch.inference_mode(False), full_precision(device):
            quality, flags = self.model.operands(tenths, axes)
            # Tensors of an inference mode around this cannot take part.
            scene = scene._replace(
                values=scene.values.clone(),
                weights=scene.weights.clone(),
                around=None if scene.around is None else scene.around.clone(),
            )

            # Made here, as a recorded step may bring nothing to the device.
            _, periodic = self.model.operands(tenths, scene.periodic)

            def objective(y: Tensor, z: Tensor, rounding: Rounding) -> Tensor:
                y_hat, bits = self._quantise(y, z, quality, flags, rounding)
                return bits + multiplier * self._squared_error(y_hat, scene, quality, periodic)

            return refine_latents(latents, objective, iterations, notify)

    def squared_error(self, y_hat: Tensor, scene: Scene, tenths: int) -> float:
        """Sum of weighted squared errors of what a decoder makes of a latent.

        Args:
            y_hat: ``(1, d, h, w, M)`` in quantisation steps.
            scene: What it is held against.
            tenths: Quality.
        """
        with torch.inference_mode(), full_precision(self.model.device):
            quality, periodic = self.model.operands(tenths, scene.periodic)
            return float(self._squared_error(y_hat, scene, quality, periodic))

    def _quantise(
        self, y: Tensor, z: Tensor, quality: Tensor, flags: Tensor, rounding: Rounding
    ) -> tuple[Tensor, Tensor]:
        """The latent as a decoder would have it, and the bits of y and z.

        It goes the way of ``VolumeContextModel.code``, on real numbers.
        """
        context, channels = self._context, y.shape[-1]
        sides = (y.shape[1], y.shape[2], y.shape[3])
        z_scale = self._hyper_prior(quality)[:, None, None, None, :].expand_as(z)
        z_hat = rounding(z, z_scale)
        bits = self._rate(z_hat, z_scale).sum()
        features = self._hyper_synthesis(z_hat, quality, flags)[:, : sides[0], : sides[1], : sides[2]]
        octants = Octants(sides, y.device)
        split = octants.split(y)
        there = octants.split(torch.ones_like(y[..., :1]))
        decoded = torch.zeros_like(split)
        for step in range(STEPS):
            x, shrunk = context.hidden(step, features, octants.join(decoded), flags)
            chosen = octants.channels(step, channels)
            head = cast(nn.Linear, context.heads[step])
            both = _grouped(head, octants.split(x), torch.cat((chosen, chosen + channels), 1))
            mean, raw_scale = both.chunk(2, dim=-1)
            if step > 0:
                around = octants.split(neighbourhood(shrunk[..., : context.predicted], flags))
                rows = octants.channels(step, context.predicted)
                linear = _grouped(cast(nn.Linear, context.predictors[step - 1]), around, rows)
                mean = mean + F.pad(linear, (0, mean.shape[-1] - linear.shape[-1]))
            mean = context.scale.grow(mean, chosen[:, None])
            where = chosen[:, None].expand(-1, split.shape[1], -1)
            residual = rounding(split.gather(-1, where) - mean, raw_scale)
            decoded = decoded.scatter(-1, where, residual + mean)
            bits = bits + (self._rate(residual, raw_scale) * there).sum()
        return octants.join(decoded), bits

    def _squared_error(self, y_hat: Tensor, scene: Scene, quality: Tensor, periodic: Tensor) -> Tensor:
        network = self.model.network
        latent = y_hat / network.gain(quality)[:, None, None, None, :]
        if scene.around is not None:
            whole = scene.around.clone()
            whole[(slice(None), *scene.inner)] = latent
            latent = whole
        field: Tensor = network.synthesis(latent, quality, periodic)
        if scene.region:
            field = field[(slice(None), *scene.region)]
        _, depth, height, width, _ = scene.values.shape
        error: Tensor = (field[:, :depth, :height, :width] - scene.values) * scene.weights
        total: Tensor = error.square().sum()
        return total


def _grouped(layer: nn.Linear, x: Tensor, channels: Tensor) -> Tensor:
    """Channels ``(G, r)`` of a layer, other ones for each group of positions ``(G, n, channels_in)``."""
    product = x @ layer.weight[channels].mT
    return product if layer.bias is None else product + layer.bias[channels][:, None]
