"""Effort at encode time for the image codec: finds latents with a better balance of rate and distortion.

::

    latents at quality q -> stochastic Gumbel annealing through the frozen decoder -> latents for the coder
                             ^ bits + lambda * squared error, lambda measured at q

**The balance.** The lambda a quality was trained with is no part of the weights, and need not be: lambda is
the slope of the picture's own rate-distortion curve, measured by two encodings at qualities around q. The two
agree where training has converged, since at its optimum a little more quality does not change
``bits + lambda error``. And with the slope itself, whatever lowers the sum lies beyond the curve, on the
other side of its tangent; with any other lambda it could just have slid along.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.image_transforms import branches_in_bfloat16
from latentpress.codecs.latent_refinement import Latents, refine_latents
from latentpress.codecs.table_rate import TableRate
from latentpress.models.entropy.fixed_point import to_float
from latentpress.models.entropy.hyperprior import HyperPrior
from latentpress.models.entropy.latent_model import LatentModel, QuantisedLatent, Rounding, to_nearest
from latentpress.models.image.network import ImageNetwork

# Rounds to the chosen point, and is as free to move to the other as can be.
_BARELY = 0.45


class RatePoint(NamedTuple):
    """What an encoding costs and gives.

    Attributes:
        bpp: Bits per pixel.
        squared_error: Mean over the samples of the decoded picture, in squared 8-bit steps.
    """

    bpp: float
    squared_error: float


def slope(coarse: RatePoint, fine: RatePoint) -> float | None:
    """Lambda: the bits per pixel that one squared 8-bit step less costs, between two points of a curve.

    Args:
        coarse: The point with fewer bits and the larger error.
        fine: The other.

    Returns:
        A positive number; None where more bits do not make a smaller error.

    Example:
        >>> slope(RatePoint(0.5, 60.0), RatePoint(0.75, 50.0))
        0.025
    """
    bits, error = fine.bpp - coarse.bpp, coarse.squared_error - fine.squared_error
    return bits / error if bits > 0 and error > 0 else None


def _next_to(y: Tensor, chosen: Tensor) -> Tensor:
    """Moves values whose nearest point is not the chosen one so that it is, though barely."""
    distance = y - chosen
    return torch.where(distance.abs() > 0.5, chosen + distance.clamp(-_BARELY, _BARELY), y)


def _latent_model(context: nn.Module) -> LatentModel:
    assert hasattr(context, "quantise")
    return cast(LatentModel, context)


def _deterministic_cudnn() -> AbstractContextManager[None]:
    """Gives convolutions and their gradients one algorithm, in full precision."""
    manager: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return manager


class Quantised(NamedTuple):
    """Latents of a picture as a decoder would have them.

    Attributes:
        latent: Of y.
        side: Of z.
        bits: What both cost, a scalar.
    """

    latent: QuantisedLatent
    side: QuantisedLatent
    bits: Tensor


class ImageRefiner:
    """Refines latents of pictures against one network.

    It has a copy of the entropy networks on real numbers, beside the integers that code, because integers
    have no gradient; the transforms are shared. The two differ by roundings, around 1/1000 of a quantisation
    step. That may cost a bit here and there and nothing else: the integers are what codes the result.

    Memory is what it takes to differentiate the decoder once over the whole picture.

    Args:
        network: As the codec has it: frozen transforms, integer entropy networks.
        tables: The tables that symbols are coded with.
    """

    def __init__(self, network: ImageNetwork, tables: TableSet) -> None:
        self._network = network
        # In inference mode, weights would be made that no gradient passes.
        with torch.inference_mode(False):
            self._hyper_prior = cast(HyperPrior, to_float(network.hyper_prior))
            self._hyper_synthesis = to_float(network.hyper_synthesis)
            self._context: LatentModel = _latent_model(to_float(network.context))
        self._rate = TableRate(tables)

    def refine(
        self,
        latents: Latents,
        chosen: Tensor,
        picture: Tensor,
        quality: Tensor,
        multiplier: float,
        iterations: int,
        notify: Callable[[int], None] | None = None,
    ) -> Latents:
        """Finds latents of a picture that cost less or give more than those of the analysis.

        Args:
            latents: Of the analysis.
            chosen: What the coder makes of them, y decoded. Where it did not round to the nearest, the
                descent starts from what it did, because that was worth it.
            picture: ``(1, H, W)`` or ``(3, H, W)`` in [0, 1], on the network's device.
            quality: ``(1,)``, which the latents were made for.
            multiplier: Lambda, in bits per pixel for a squared 8-bit step.
            iterations: Steps of descent.
            notify: Called before every step with its number. What it raises ends the descent.

        Returns:
            Latents on the points that the coder can reach: predicted means plus whole steps. Rounding leaves
            them where they are, rate-distortion optimised or not.
        """
        device = quality.device
        with torch.inference_mode(False), torch.autocast(device.type, enabled=False), _deterministic_cudnn():
            # Tensors of an inference mode around this cannot take part.
            picture, quality = picture.clone(), quality.clone()
            pixels = picture.shape[1] * picture.shape[2]

            def objective(y: Tensor, z: Tensor, rounding: Rounding) -> Tensor:
                latent, _, bits = self._quantise(y, z, quality, rounding)
                return bits + pixels * multiplier * self._squared_error(latent.y_hat, picture, quality)

            start = Latents(_next_to(latents.y, chosen), latents.z)
            return self._settled(refine_latents(start, objective, iterations, notify), quality)

    def _quantise(self, y: Tensor, z: Tensor, quality: Tensor, rounding: Rounding) -> Quantised:
        """Both latents as a decoder would have them, and their bits."""
        side = self._hyper_prior.quantise(z, quality, rounding)
        features = self._hyper_synthesis(side.y_hat, quality)[:, : y.shape[1], : y.shape[2]]
        latent = self._context.quantise(features, y, rounding)
        y_bits = self._rate(rounding(y - latent.mean, latent.raw_scale), latent.raw_scale)
        if latent.coded is not None:
            y_bits = y_bits * latent.coded
        z_bits = self._rate(side.y_hat - side.mean, side.raw_scale)
        return Quantised(latent, side, z_bits.sum() + y_bits.sum())

    def _squared_error(self, y_hat: Tensor, picture: Tensor, quality: Tensor) -> Tensor:
        """Of what decoding would show of the picture, but for the rounding to 8 bits."""
        scaled = y_hat * self._network.inverse_gain(quality)[:, None, None, :]
        with branches_in_bfloat16(quality.device):
            decoded: Tensor = self._network.synthesis(scaled, quality)[0].permute(2, 0, 1)
        channels, height, width = picture.shape
        decoded = decoded[:, :height, :width]
        if channels == 1:
            decoded = decoded.mean(dim=0, keepdim=True)
        error: Tensor = (decoded.clamp(0, 1) - picture).square().mean()
        return error * 255**2

    @torch.no_grad()
    def _settled(self, latents: Latents, quality: Tensor) -> Latents:
        latent, side, _ = self._quantise(*latents, quality, to_nearest)
        return Latents(latent.mean + torch.round(latents.y - latent.mean), side.y_hat)
