"""Encodings of one picture in tiles: the search for a rate or an error, and the effort that is spent on it.

All tiles have one quality. A search would take many encodings of a large picture, so it begins with a sample
of its tiles, and encodes all of them a few times close to what that found::

    sample of tiles -> QualitySearch -> quality, slope -> all tiles, at most three times -> the best that fits
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from latentpress.codecs.base import Progress
from latentpress.codecs.image_payload import QUALITY_TENTHS_MAX, ImageHeader
from latentpress.codecs.image_refinement import ImageRefiner, RatePoint, slope
from latentpress.codecs.image_stream import image_sections
from latentpress.codecs.image_targets import squared_error_of_psnr, unmet_bytes, unmet_psnr
from latentpress.codecs.image_trials import NEIGHBOURHOOD
from latentpress.codecs.picture_input import SquaredErrors
from latentpress.codecs.rate_control import LEAST_ERROR, QualitySearch, search_nearby
from latentpress.codecs.tiled_encoding import EncodedTile, TiledEncoder

SAMPLED_TILES = 12
"""Tiles that a search begins with: spread over the picture, they cost and err about as all of it."""

MOST_ENCODINGS = 3
"""Of all tiles, close to where the sample says that the target is."""

_ENTRY_BYTES = 7
"""Of a tile in the index, about."""


class TiledTrial(NamedTuple):
    """One encoding.

    Attributes:
        header: Of the stream.
        tiles: All of them.
    """

    header: ImageHeader
    tiles: Sequence[EncodedTile]

    @property
    def sections(self) -> list[tuple[int, bytes]]:
        """The stream's sections that hold the picture."""
        return image_sections(self.header, [tile.parts for tile in self.tiles])


class _Sample(NamedTuple):
    """What a sample of tiles says of all: bytes, and the mean squared error if that was asked for."""

    bytes: float
    squared_error: float


class TiledTrials:
    """Makes and compares encodings of one picture.

    Args:
        encoder: Of the picture.
        squared_error: Of a trial, the mean over the samples of the decoded 8-bit picture; positive.
        refiner: Makes what refines latents; only asked if there are iterations.
        iterations: Steps of refinement for each tile; 0 for none.
        notify: Called with the fraction done and the stage.
    """

    def __init__(
        self,
        encoder: TiledEncoder,
        squared_error: Callable[[TiledTrial], float],
        refiner: Callable[[], ImageRefiner],
        iterations: int,
        notify: Progress,
    ) -> None:
        self._encoder = encoder
        self._squared_error = squared_error
        self._refiner = refiner
        self._iterations = iterations
        self._notify = notify
        self._done = 0.0
        self._sample = _spread(encoder.grid.count, SAMPLED_TILES)

    def best_at(self, tenths: int) -> TiledTrial:
        """The picture at a quality."""
        return self._at(tenths, share=1.0)

    def within(self, limit: float, total: Callable[[TiledTrial], int]) -> TiledTrial:
        """The best picture found whose stream, as ``total`` counts it, has at most ``limit`` bytes.

        Raises:
            ValueError: No stream of it is that small.
        """
        found = self._meet(
            total, lambda tenths: self._sampled(tenths, measure=False).bytes, limit, lambda setting: setting
        )
        if total(found) > limit:
            raise unmet_bytes(limit, total(found))
        return found

    def reaching_psnr(self, psnr: float) -> TiledTrial:
        """The smallest stream found whose picture has at least a PSNR in dB.

        Raises:
            ValueError: No stream of it has.
        """
        target = squared_error_of_psnr(psnr)
        found = self._meet(
            self._squared_error,
            lambda tenths: self._sampled(tenths).squared_error,
            target,
            lambda setting: QUALITY_TENTHS_MAX - setting,
        )
        error = self._squared_error(found)
        if error > target:
            raise unmet_psnr(psnr, error)
        return found

    def _meet(
        self,
        measure: Callable[[TiledTrial], float],
        estimate: Callable[[int], float],
        target: float,
        tenths_of: Callable[[int], int],
    ) -> TiledTrial:
        """The trial at the largest setting found whose measure is within the target; without any, at 0.

        The measure rises with a setting. ``tenths_of`` makes it a quality, and a quality a setting again. A
        sample estimates the measure at a quality.
        """
        tried: dict[int, float] = {}

        def sampled(setting: int) -> int:
            if setting not in tried:
                tried[setting] = estimate(tenths_of(setting))
            return setting

        start = QualitySearch(sampled, tried.__getitem__, QUALITY_TENTHS_MAX).closest(target)
        low, high = max(0, start - NEIGHBOURHOOD), min(QUALITY_TENTHS_MAX, start + NEIGHBOURHOOD)
        growth = math.log(tried[sampled(high)] / tried[sampled(low)]) / (high - low)
        trials = search_nearby(
            lambda setting: self._at(tenths_of(setting), share=0.5),
            measure,
            target,
            start,
            growth,
            QUALITY_TENTHS_MAX,
            MOST_ENCODINGS,
        )
        fitting = [trial for trial in trials if measure(trial) <= target]
        while not fitting:
            lowest = min(trials, key=lambda trial: tenths_of(trial.header.quality_tenths))
            setting = tenths_of(lowest.header.quality_tenths)
            if setting == 0:
                return lowest
            # The sample was far off. Steps that double end at 0 soon.
            step = NEIGHBOURHOOD // 4 * 2 ** (len(trials) - 1)
            trials.append(self._at(tenths_of(max(0, setting - step)), share=0.5))
            fitting = [trial for trial in trials[-1:] if measure(trial) <= target]
        return max(fitting, key=lambda trial: tenths_of(trial.header.quality_tenths))

    def _at(self, tenths: int, share: float) -> TiledTrial:
        """All tiles at a quality; the work is said to be a share of what is left to do."""
        numbers = range(self._encoder.grid.count)
        multiplier = self._slope_at(tenths) if self._iterations else None
        before, rest = self._done, (1 - self._done) * share

        def notify(fraction: float, stage: str) -> None:
            self._notify(before + rest * fraction, f"{stage} at quality {tenths / 10:g}")

        if multiplier is None:
            tiles = self._encoder.encode(tenths, numbers, notify)
        else:
            tiles = [self._refined(number, tenths, multiplier, notify) for number in numbers]
        self._done = before + rest
        return TiledTrial(self._encoder.header(tenths), tiles)

    def _refined(self, number: int, tenths: int, multiplier: float, notify: Progress) -> EncodedTile:
        count = self._encoder.grid.count

        def step(done: int) -> None:
            stage = f"refining tile {number + 1} of {count}, step {done + 1} of {self._iterations},"
            notify((number + done / self._iterations) / count, stage)

        (plain,) = self._encoder.encode(tenths, [number], lambda *_: None, measure=True)
        return self._encoder.refine(
            number, tenths, plain, self._refiner(), multiplier, self._iterations, step
        )

    def _sampled(self, tenths: int, measure: bool = True) -> _Sample:
        before, rest = self._done, (1 - self._done) * 0.02
        self._notify(before, f"sampling at quality {tenths / 10:g}")
        tiles = self._encoder.encode(tenths, self._sample, lambda *_: None, measure)
        self._done = before + rest
        grid = self._encoder.grid
        areas = [grid.tile(number).height * grid.tile(number).width for number in self._sample]
        scale = grid.height * grid.width / sum(areas)
        errors = sum((tile.errors for tile in tiles if tile.errors is not None), SquaredErrors(0.0, 0))
        return _Sample(
            scale * sum(tile.bytes for tile in tiles) + _ENTRY_BYTES * grid.count,
            max(LEAST_ERROR, errors.mean),
        )

    def _slope_at(self, tenths: int) -> float | None:
        """Lambda of the picture at a quality, from a sample; None if no bits make it better."""
        for distance in (NEIGHBOURHOOD, QUALITY_TENTHS_MAX):
            ends = max(0, tenths - distance), min(QUALITY_TENTHS_MAX, tenths + distance)
            found = slope(*(self._point(self._sampled(end)) for end in ends))
            if found is not None:
                return found
        return None

    def _point(self, sample: _Sample) -> RatePoint:
        grid = self._encoder.grid
        return RatePoint(8 * sample.bytes / (grid.height * grid.width), sample.squared_error)


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` numbers below ``count``, spread evenly.

    Example:
        >>> _spread(5, 12), _spread(100, 4)
        ([0, 1, 2, 3, 4], [12, 37, 62, 87])
    """
    chosen = min(count, most)
    return [(2 * k + 1) * count // (2 * chosen) for k in range(chosen)]
