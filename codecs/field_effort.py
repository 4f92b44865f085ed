"""How an effort is spent on a field: group by group of components, never to its harm.

::

    plain latents -> bytes, error    quality -+10 -> lambda, the slope of this group's own curve
         |                                              |
         +--> descent (codecs/field_refinement.py) <----+
                  |
              bytes, error --> whichever has the smaller bits + lambda * error
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Progress, no_progress
from latentpress.codecs.field_networks import RatioModel
from latentpress.codecs.field_payload import QUALITY_TENTHS_MAX
from latentpress.codecs.field_refinement import FieldRefiner, Scene
from latentpress.codecs.latent_refinement import Latents, iterations_of
from latentpress.codecs.volume_coder import Axes

NEIGHBOURHOOD = 100
"""How far, in tenths of a quality, the slope of the rate-distortion curve is measured to both sides."""

MOST_REFINEMENTS = 3
"""For a target in bytes: refined latents take other bytes, so the quality is moved and refined again."""


class Effort:
    """What may be spent on an encoding, and who is told how far it is.

    Args:
        effort: 0 (none) to 10.
        notify: Called with the fraction done and the stage; what it raises ends the encoding.

    Raises:
        TypeError: The effort is no whole number.
        ValueError: It is outside [0, 10].

    Attributes:
        iterations: Steps of descent.

    Example:
        >>> Effort(0).iterations, Effort(2).iterations
        (0, 40)
    """

    def __init__(self, effort: int, notify: Progress = no_progress) -> None:
        self.iterations = iterations_of(effort)
        self._notify = notify
        self._done = 0
        self._refinements = 1

    def expect(self, refinements: int) -> None:
        """Says how many descents there will be at most."""
        self._refinements = max(1, refinements)
        self._done = 0

    def step(self, number: int) -> None:
        """Tells that a step of descent begins."""
        fraction = self._done / (self._refinements * self.iterations)
        self._done += 1
        self._notify(min(0.99, fraction), f"refining, step {number + 1} of {self.iterations}")


@dataclass(frozen=True)
class Subject:
    """Three components to be coded, maybe with what is around them.

    Attributes:
        values: ``(3, D, H, W)`` float64 of unit variance, with the samples around.
        counts: Boolean, same shape: where an error counts.
        periodic: Axes along which ``values`` continue at their far ends.
        axes: Axes along which the coded latents do.
        inner: The coded latents among those of ``values``; empty for all.
        region: The samples whose error is looked at; empty for all.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.bool_]
    periodic: Axes
    axes: Axes
    inner: tuple[slice, ...] = ()
    region: tuple[slice, ...] = ()

    def at(self, model: RatioModel, tenths: int) -> tuple[Tensor, Scene]:
        """The latents of the analysis at a quality, and what they are held against."""
        latent = model.analyse(self.values, tenths, self.periodic)
        key = (slice(None), *self.region)
        values, counts = (
            torch.from_numpy(x[key].astype(np.float32)).to(model.device).permute(1, 2, 3, 0)[None]
            for x in (self.values, self.counts)
        )
        if not self.inner:
            return latent, Scene(values, counts, self.periodic)
        quality, _ = model.operands(tenths, self.periodic)
        with torch.inference_mode():
            around = latent / model.network.gain(quality)[:, None, None, None, :]
        y = latent[(slice(None), *self.inner)].contiguous()
        return y, Scene(values, counts, self.periodic, around, self.inner, self.region)


class _Trial(NamedTuple):
    data: bytes
    squared_error: float

    @property
    def bits(self) -> int:
        return 8 * len(self.data)


class _Trials:
    """Encodings of one subject."""

    def __init__(self, refiner: FieldRefiner, subject: Subject) -> None:
        self._refiner = refiner
        self._model = refiner.model
        self._subject = subject

    def plain(self, tenths: int) -> tuple[_Trial, Latents, Scene]:
        y, scene = self._subject.at(self._model, tenths)
        latents = Latents(y, self._model.hyper_latent(y, tenths, self._subject.axes))
        return self.of(latents, scene, tenths), latents, scene

    def of(self, latents: Latents, scene: Scene, tenths: int) -> _Trial:
        data, y_hat = self._model.code_both(*latents, tenths, self._subject.axes)
        return _Trial(data, self._refiner.squared_error(y_hat, scene, tenths))

    def slope(self, tenths: int) -> float | None:
        """Bits that one squared error less costs; None where more bits do not make the error smaller."""
        for distance in (NEIGHBOURHOOD, QUALITY_TENTHS_MAX):
            coarse, _, _ = self.plain(max(0, tenths - distance))
            fine, _, _ = self.plain(min(QUALITY_TENTHS_MAX, tenths + distance))
            bits, error = fine.bits - coarse.bits, coarse.squared_error - fine.squared_error
            if bits > 0 and error > 0:
                return bits / error
        return None


def refined_bytes(refiner: FieldRefiner, subject: Subject, tenths: int, effort: Effort) -> bytes:
    """Codes a subject with an effort; ``bits + lambda * squared error`` is never more than without.

    Args:
        refiner: Of the networks to code with.
        subject: What is coded.
        tenths: Quality.
        effort: More than none.

    Returns:
        As :meth:`RatioModel.code` writes them.
    """
    trials = _Trials(refiner, subject)
    plain, latents, scene = trials.plain(tenths)
    multiplier = trials.slope(tenths)
    if multiplier is None:
        return plain.data
    found = refiner.refine(latents, scene, tenths, subject.axes, multiplier, effort.iterations, effort.step)
    refined = trials.of(found, scene, tenths)
    return min(plain, refined, key=lambda t: t.bits + multiplier * t.squared_error).data
