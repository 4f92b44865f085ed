"""Refinement of a code for one shape: gradient descent through the frozen decoder, bits included."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.codecs.shape_photometric import SeenRays, photometric_error
from latentpress.models.entropy.blocks import LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.fixed_point import (
    UNIT,
    FixedPointLinear,
    FixedPointProduct,
    FixedPointQualityVector,
    FixedPointRectifier,
)
from latentpress.models.quality import QualityVector
from latentpress.models.shape.bridge import CodeQuality, ShapeBridge
from latentpress.models.shape.generator import TRUNCATION, ShapeGenerator

STEPS_PER_EFFORT = 20
_SURFACE = 2048
_QUERIES = 2048
_RAYS = 512
_COLOUR_REACH = 0.02
_HULL_WEIGHT = 0.25
_SILHOUETTE_WEIGHT = 8.0
"""Few of the rays pass near the outline, where alone an error moves the surface."""


class RefinementTarget(NamedTuple):
    """What a decoded field should be, on the networks' device.

    Attributes:
        surface: ``(N, 3)`` points of the surface.
        queries: ``(Q, 4)`` positions and signed distances.
        colour: ``(N, 3)`` RGB at the surface points, or None.
        rays: Of photographs, which then count as much as the surface, or None.
    """

    surface: Tensor
    queries: Tensor
    colour: Tensor | None
    rays: SeenRays | None = None


class FreeCode(NamedTuple):
    """A code before it is scaled by the gains of a quality.

    Attributes:
        geometry: ``(1, 64, Kg)``.
        colour: ``(1, 64, Kc)``, or None.
    """

    geometry: Tensor
    colour: Tensor | None


def float_bridge(bridge: ShapeBridge) -> ShapeBridge:
    """A copy of a bridge whose integer priors compute in float, so that bits have gradients."""
    twin = copy.deepcopy(bridge)
    for name in ("geometry_prior", "colour_prior"):
        setattr(twin, name, _float_layer(getattr(twin, name)))
    return twin


def _float_layer(module: nn.Module) -> nn.Module:
    if isinstance(module, FixedPointLinear):
        linear = nn.Linear(module.weight.shape[1], module.weight.shape[0])
        linear.weight.data = module.weight.float() * 2.0 ** -int(module.shift)
        linear.bias.data = module.bias.float() / UNIT
        return linear.requires_grad_(False).to(module.weight.device)
    if isinstance(module, FixedPointQualityVector):
        vector = QualityVector(module.knots.shape[1], module.knots.shape[0])
        vector.knots.data = module.knots.float() / UNIT
        return vector.requires_grad_(False).to(module.knots.device)
    if isinstance(module, FixedPointRectifier):
        return LeakyRectifier()
    if isinstance(module, FixedPointProduct):
        return RectifiedProduct()
    for name, child in module.named_children():
        setattr(module, name, _float_layer(child))
    return module


class Refinement:
    """Descends on errors plus the price of bits, for one shape.

    ::

        code -> * gain -> round (straight through) -> bridge -> generator -> errors at random samples
                   |                                                            |
                   +-> prior -> bits * price -----------------------------------+--> loss -> Adam on the code

    Args:
        bridge: With float priors, see :func:`float_bridge`.
        generator: The frozen generator.
        target: The shape.
        prices: Error that a bit of geometry and of colour is worth, at a quality.
        seed: Of the samples.
    """

    def __init__(
        self,
        bridge: ShapeBridge,
        generator: ShapeGenerator,
        target: RefinementTarget,
        prices: Callable[[CodeQuality], tuple[float, float]],
        seed: int = 0,
    ) -> None:
        self.bridge = bridge
        self.generator = generator
        self.target = target
        self.prices = prices
        self._random = torch.Generator(target.surface.device).manual_seed(seed)

    def run(
        self,
        start: FreeCode,
        quality: CodeQuality,
        groups: tuple[int, int],
        steps: int,
        lr: float = 0.15,
        notify: Callable[[float], None] | None = None,
    ) -> FreeCode:
        """Refines a code at one quality.

        Args:
            start: To begin with.
            quality: ``(1,)`` each.
            groups: Channel groups of geometry and colour that are sent.
            steps: Of Adam.
            lr: Its rate at the start, in quantisation steps.
            notify: Called with the fraction done.
        """
        if not steps:
            return start
        gains = self._gains(quality)
        codes = [part.detach() * gain for part, gain in zip(start, gains, strict=True) if part is not None]
        codes = [code.clone().requires_grad_() for code in codes]
        optimizer = torch.optim.Adam(codes, lr=lr, betas=(0.9, 0.98))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - 0.95 * step / steps)
            optimizer.zero_grad()
            with torch.enable_grad():
                torch.autograd.backward(self._loss(codes, quality, groups))
            optimizer.step()
            if notify is not None:
                notify((step + 1) / steps)
        free = [code.detach() / gain for code, gain in zip(codes, gains, strict=False)]
        return FreeCode(free[0], free[1] if len(free) > 1 else None)

    def _gains(self, quality: CodeQuality) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            geometry = self.bridge.geometry_gain(quality.geometry)[:, None]
            return geometry, self.bridge.colour_gain(quality.colour)[:, None]

    def _loss(self, codes: list[Tensor], quality: CodeQuality, groups: tuple[int, int]) -> Tensor:
        device = codes[0].device
        sent = [torch.full((1,), float(count), device=device) for count in groups]
        geometry = self.bridge.quantise_geometry(codes[0], quality, sent[0], noise=True)
        geometry_price, colour_price = self.prices(quality)
        latent = self.bridge.decode_geometry(geometry.value, quality)
        painted = colour_bits = None
        if len(codes) > 1:
            colour = self.bridge.quantise_colour(codes[1], geometry.value, quality, sent[1], noise=True)
            painted = self.bridge.decode_colour(geometry.value, colour.value, quality)
            colour_bits = colour.bits.sum()
        field = self.generator(latent, painted)
        index = torch.randint(len(self.target.surface), (_SURFACE,), generator=self._random, device=device)
        chosen = torch.randint(len(self.target.queries), (_QUERIES,), generator=self._random, device=device)
        surface, queries = self.target.surface[index], self.target.queries[chosen]
        decoded = self.generator.signed_distance(field, torch.cat((surface, queries[:, :3]))[None])[0]
        at_surface, at_queries = decoded[:_SURFACE], decoded[_SURFACE:]
        wanted = queries[:, 3].clamp(-TRUNCATION, TRUNCATION)
        error = at_queries - wanted
        beyond = (wanted.abs() >= TRUNCATION) & (error * wanted > 0)
        errors: Tensor = (
            torch.where(beyond, torch.zeros_like(error), error.abs()).mean() + at_surface.abs().mean()
        )
        paint_error = torch.zeros((), device=device)
        if self.target.rays is not None:
            # A surface that was carved lies outside of every dent: the photographs say where it really is.
            seen = torch.randint(
                len(self.target.rays.opaque), (_RAYS,), generator=self._random, device=device
            )
            silhouette, paint_error = photometric_error(self.generator, field, self.target.rays.chosen(seen))
            errors = _HULL_WEIGHT * errors + _SILHOUETTE_WEIGHT * silhouette
        loss = errors + geometry_price * geometry.bits.sum()
        if colour_bits is not None and self.target.colour is not None:
            noise = torch.randn(surface.shape, generator=self._random, device=device) * _COLOUR_REACH
            found = self.generator.colour_at(field, (surface + noise)[None])[0]
            # Squared, as what is looked at is pictures; about what the plain error of a tenth counts for.
            difference = 10 * (found - self.target.colour[index]).square().mean()
            # Colour errors are about ten times the distances; prices say how they compare.
            loss = loss + 0.1 * (difference + paint_error + colour_price * colour_bits)
        return loss
