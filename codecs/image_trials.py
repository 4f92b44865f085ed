"""Encodings of one picture: the search for a rate or an error, and the effort that is spent on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from latentpress.codecs.base import Progress
from latentpress.codecs.bitstream import SectionType
from latentpress.codecs.image_payload import QUALITY_TENTHS_MAX
from latentpress.codecs.image_refinement import RatePoint, slope
from latentpress.codecs.image_targets import squared_error_of_psnr, unmet_bytes, unmet_psnr
from latentpress.codecs.image_transforms import with_channels
from latentpress.codecs.picture_input import PictureInput
from latentpress.codecs.rate_control import LEAST_ERROR, QualitySearch, search_nearby

if TYPE_CHECKING:
    from latentpress.codecs.image_model import ImageModel

NEIGHBOURHOOD = 100
"""How far, in tenths of a quality, the slope of the rate-distortion curve is measured to both sides."""

MOST_REFINEMENTS = 3
"""For a target: a refined picture leaves room in it, so the quality is moved and refined again."""

# A search without effort takes about so many encodings; only the progress that is reported depends on it.
_USUAL_ENCODINGS = 5


class Trial(NamedTuple):
    """One encoding.

    Attributes:
        payload: The payload section.
        y_hat: The latent as it will be decoded.
        quality: ``(1,)``.
    """

    payload: bytes
    y_hat: Tensor
    quality: Tensor

    @property
    def tenths(self) -> int:
        """The quality in tenths."""
        return round(float(self.quality) * 10)

    @property
    def sections(self) -> list[tuple[int, bytes]]:
        """The stream's sections that hold the picture."""
        return [(SectionType.PAYLOAD, self.payload)]


class Trials:
    """Makes and compares encodings of one picture.

    Args:
        model: The model.
        source: The picture.
        iterations: Steps of refinement; 0 for none.
        notify: Called with the fraction done and the stage.
    """

    def __init__(self, model: ImageModel, source: PictureInput, iterations: int, notify: Progress) -> None:
        self._model = model
        self._source = source
        self._picture = source.pixels()
        self._iterations = iterations
        self._notify = notify
        self._count = 0
        self._expected = self._work_of_refinement

    def at(self, tenths: int) -> Trial:
        """The picture as the analysis has it."""
        self._advance(f"encoding at quality {tenths / 10:g}")
        return self._model.encode_payload(self._picture, tenths)

    def best_at(self, tenths: int) -> Trial:
        """The picture with the iterations spent on it; ``bits + lambda error`` is never more than without."""
        plain = self.at(tenths)
        if not self._iterations:
            return plain
        multiplier = self._slope_at(tenths)
        if multiplier is None:  # a picture that no bits make better
            return plain
        refined = self._refined(plain, multiplier)

        def loss(trial: Trial) -> float:
            point = self._point(trial)
            return point.bpp + multiplier * point.squared_error

        return min(plain, refined, key=loss)

    def within(self, limit: float, total: Callable[[Trial], int]) -> Trial:
        """The picture with the least error whose stream, as ``total`` counts it, has at most ``limit`` bytes.

        Raises:
            ValueError: No stream of it is that small.
        """
        found = self._meet(total, limit, self.squared_error, lambda setting: setting)
        if total(found) > limit:
            raise unmet_bytes(limit, total(found))
        return found

    def reaching_psnr(self, psnr: float) -> Trial:
        """The smallest stream whose picture has at least a PSNR in dB.

        Raises:
            ValueError: No stream of it has.
        """
        target = squared_error_of_psnr(psnr)
        # Searching downwards from the best quality: the largest step down whose error stays within.
        found = self._meet(
            self.squared_error, target, lambda t: len(t.payload), lambda setting: QUALITY_TENTHS_MAX - setting
        )
        error = self.squared_error(found)
        if error > target:
            raise unmet_psnr(psnr, error)
        return found

    def squared_error(self, trial: Trial) -> float:
        """Mean squared error of what can be seen of the decoded picture, in squared 8-bit steps; positive."""
        decoded = self._model.synthesise(trial.y_hat, trial.quality)
        channels, height, width = self._picture.shape
        decoded = with_channels(decoded[:, :height, :width], channels)
        return max(LEAST_ERROR, self._source.squared_error(decoded))

    def _meet(
        self,
        measure: Callable[[Trial], float],
        target: float,
        cost: Callable[[Trial], float],
        tenths_of: Callable[[int], int],
    ) -> Trial:
        """The cheapest trial whose measure is within the target; without any, the one that comes closest.

        The measure rises with a setting. ``tenths_of`` makes it a quality, and a quality a setting again.
        """
        self._expected = _USUAL_ENCODINGS + 2 + MOST_REFINEMENTS * self._work_of_refinement
        plain = QualitySearch(lambda s: self.at(tenths_of(s)), measure, QUALITY_TENTHS_MAX).closest(target)
        if not self._iterations:
            return plain
        start = tenths_of(plain.tenths)
        low, high = max(0, start - NEIGHBOURHOOD), min(QUALITY_TENTHS_MAX, start + NEIGHBOURHOOD)
        growth = math.log(measure(self.at(tenths_of(high))) / measure(self.at(tenths_of(low)))) / (high - low)
        refined = search_nearby(
            lambda s: self.best_at(tenths_of(s)),
            measure,
            target,
            start,
            growth,
            QUALITY_TENTHS_MAX,
            MOST_REFINEMENTS,
        )
        found = [plain, *refined]
        fitting = [trial for trial in found if measure(trial) <= target]
        return min(fitting, key=cost) if fitting else min(found, key=measure)

    def _refined(self, plain: Trial, multiplier: float) -> Trial:
        where = f"at quality {plain.tenths / 10:g}"

        def step(number: int) -> None:
            self._advance(f"refining {where}, step {number + 1} of {self._iterations}")

        latents = self._model.refined_latents(self._picture, plain, multiplier, self._iterations, step)
        self._advance(f"encoding {where}")
        return self._model.encode_latents(self._picture, plain.tenths, latents)

    def _slope_at(self, tenths: int) -> float | None:
        """Lambda of the picture at a quality, from its neighbourhood or else from all qualities."""
        for distance in (NEIGHBOURHOOD, QUALITY_TENTHS_MAX):
            coarse = self._point(self.at(max(0, tenths - distance)))
            fine = self._point(self.at(min(QUALITY_TENTHS_MAX, tenths + distance)))
            found = slope(coarse, fine)
            if found is not None:
                return found
        return None

    def _point(self, trial: Trial) -> RatePoint:
        _, height, width = self._picture.shape
        return RatePoint(len(trial.payload) * 8 / (height * width), self.squared_error(trial))

    @property
    def _work_of_refinement(self) -> int:
        """Encodings and steps, which take about as long each."""
        return self._iterations + 4

    def _advance(self, stage: str) -> None:
        # How many encodings a search takes is not known beforehand; the fraction only ever rises.
        fraction = self._count / self._expected if self._iterations else 1 - 0.8**self._count
        self._notify(min(fraction, 0.99), stage)
        self._count += 1
