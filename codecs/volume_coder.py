"""Latents of volumes to bytes and back: :class:`LatentCoder` with three axes that may be periodic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.latent_coder import LatentCoder
from latentpress.models.entropy.hyperprior import HyperPrior
from latentpress.models.entropy.latent_model import Exchange, LatentModel
from latentpress.models.entropy.volume import VolumeContextModel

Axes = tuple[bool, bool, bool]
"""Which of the three axes are periodic."""


class VolumeCoder(LatentCoder):
    """Codes y and z of a volume with integer networks; the same for encoder and decoder.

    Set the periodic axes around every call:

    ::

        with coder.axes(periodic):
            coded = coder.encode(y, z, quality)

    Args:
        hyper_prior: Integer network: distribution of z.
        hyper_synthesis: Integer network: z, quality and axes to features.
        context: Integer network: features and decoded latents to mean and raw scale, step by step.
        tables: One table for every entry of the scale table of volumes.
        latent_channels: M.
    """

    def __init__(
        self,
        hyper_prior: HyperPrior,
        hyper_synthesis: nn.Module,
        context: VolumeContextModel,
        tables: TableSet,
        latent_channels: int,
    ) -> None:
        # It needs the axes in every call, so it is no `LatentModel` by itself: `_code` hands them over.
        model = cast(LatentModel, context)
        super().__init__(hyper_prior, hyper_synthesis, model, tables, latent_channels)
        self._volume_context = context
        self._periodic: Axes = (False, False, False)

    @contextmanager
    def axes(self, periodic: Axes) -> Iterator[None]:
        """Networks inside see volumes that continue at the far ends of these axes."""
        before, self._periodic = self._periodic, periodic
        try:
            yield
        finally:
            self._periodic = before

    def _features(self, z_units: Tensor, quality: Tensor) -> Tensor:
        features: Tensor = self.hyper_synthesis(z_units, quality, axis_flags(self._periodic, quality.device))
        return features

    def _code(self, features: Tensor, exchange: Exchange) -> Tensor:
        flags = axis_flags(self._periodic, features.device)
        y_hat: Tensor = self._volume_context.code(features, exchange, flags)
        return y_hat


@cache
def axis_flags(periodic: Axes, device: torch.device) -> Tensor:
    """Periodic axes as networks take them, ``(1, 3)`` boolean; made once, as bringing them stops a GPU.

    Example:
        >>> axis_flags((True, False, False), torch.device("cpu"))
        tensor([[ True, False, False]])
    """
    # Kept for those who differentiate, too.
    with torch.inference_mode(False):
        return torch.tensor([periodic], dtype=torch.bool, device=device)
