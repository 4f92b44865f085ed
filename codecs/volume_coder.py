"""Latents of volumes to bytes and back: :class:`LatentCoder` with three axes that may be periodic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from latentpress.codecs.latent_coder import LatentCoder
from latentpress.models.entropy.context import Prediction
from latentpress.models.entropy.volume import volume_step_mask

Axes = tuple[bool, bool, bool]
"""Which of the three axes are periodic."""


class VolumeCoder(LatentCoder):
    """Codes y and z of a volume with integer networks; the same for encoder and decoder.

    Set the periodic axes around every call:

    ::

        with coder.axes(periodic):
            coded = coder.encode(y, z, quality)
    """

    _periodic: Axes = (False, False, False)

    @contextmanager
    def axes(self, periodic: Axes) -> Iterator[None]:
        """Networks inside see volumes that continue at the far ends of these axes."""
        before, self._periodic = self._periodic, periodic
        try:
            yield
        finally:
            self._periodic = before

    def _features(self, z_units: Tensor, quality: Tensor) -> Tensor:
        features: Tensor = self.hyper_synthesis(z_units, quality, self._flags(quality.device))
        return features

    def _predict(self, step: int, features: Tensor, y_hat: Tensor) -> Prediction:
        prediction: Prediction = self.context(step, features, y_hat, self._flags(features.device))
        return prediction

    def _mask(self, step: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        depth, height, width = shape
        return volume_step_mask(step, (depth, height, width), self.latent_channels, device)

    def _flags(self, device: torch.device) -> Tensor:
        return torch.tensor([self._periodic], device=device)
