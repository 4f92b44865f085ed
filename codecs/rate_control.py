"""Finds the quality that meets a target, with as few trial encodings as possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from latentpress.models.quality import QUALITY_MAX

T = TypeVar("T")

LEAST_ERROR = 1e-9
"""Stands for no error at all where its logarithm is taken: less than a wrong byte in the largest picture."""

# How much the logarithm of a measure rises over all settings, about; of bytes or errors of Kodak's pictures.
_USUAL_GROWTH = 3.0

_MOST_SECANTS = 6

# What a search near a setting aims at is a little less than its target: to miss it costs a trial.
_MARGIN = 0.003


class QualitySearch(Generic[T]):
    """Searches the largest integer setting whose measure does not exceed a target.

    The measure (bytes, or the squared error when settings run downwards) must rise with the setting, apart
    from ripples. Trials follow the logarithm of the measure, so that a handful is enough.

    Args:
        trial: Encodes at a setting.
        measure: Positive number of a trial's result.
        highest: Largest setting; the smallest is 0.

    Example:
        >>> QualitySearch(lambda s: s, lambda r: 1.01**r, 1000).at_most(100.0)
        462
    """

    def __init__(self, trial: Callable[[int], T], measure: Callable[[T], float], highest: int) -> None:
        self._trial = trial
        self._measure = measure
        self._highest = highest

    def at_most(self, target: float) -> T | None:
        """The result at the largest setting within the target; None if even setting 0 exceeds it."""
        return self._run(target)[0]

    def closest(self, target: float) -> T:
        """The result at the largest setting within the target, or at setting 0 if even that exceeds it."""
        within, lowest = self._run(target)
        return lowest if within is None else within

    def _run(self, target: float) -> tuple[T | None, T]:
        steps = bracketing(target, self._measure, range(self._highest + 1))
        setting = next(steps)
        while True:
            result = self._trial(setting)
            try:
                setting = steps.send(result)
            except StopIteration as end:
                found: tuple[T | None, T] = end.value
                return found


def bracketing(
    target: float, measure: Callable[[T], float], settings: Sequence[int]
) -> Generator[int, T, tuple[T | None, T]]:
    """The settings that a search tries, each chosen by what those before it gave.

    The secant method on logarithms, from the middle on, kept between the settings that are known to be on
    either side of the target. Curves like those of codecs take it four or five trials. Where secants are no
    help, it halves.

    Args:
        target: What the measure must not exceed.
        measure: Positive number of a trial's result.
        settings: By the measure, from the lowest on.

    Yields:
        A setting, and is sent the result of trying it.

    Returns:
        The result at the last setting within the target, None if the first one exceeds it; and the last
        result of all, which then is that of the first setting.

    Example:
        >>> steps = bracketing(100.0, float, range(1001))
        >>> next(steps), steps.send(1.01**500), steps.send(1.01**362)
        (500, 362, 462)
    """
    highest = len(settings) - 1
    low, high = -1, highest + 1  # of which nothing is known
    growth = _USUAL_GROWTH / max(1, highest)
    place, secants = highest // 2, 0
    last: tuple[int, float] | None = None
    within: T | None = None
    while True:
        result = yield settings[place]
        excess = math.log(measure(result)) - math.log(target)
        if excess > 0:
            high = place
        else:
            low, within = place, result
        if high - low <= 1:
            return within, result
        if last is not None:
            growth = (excess - last[1]) / (place - last[0])
        last = place, excess
        distance = abs(excess) / growth if growth * highest > abs(excess) else float(highest)
        if low < 0 or high > highest:
            # Past the target rather than short of it, so that it lies between.
            middle = round(place - math.copysign(1.1 * distance + 2, excess))
        elif secants < _MOST_SECANTS:
            secants += 1
            middle = math.floor(place - math.copysign(distance, excess))
        else:
            middle = (low + high) // 2
        place = min(high - 1, max(low + 1, middle))


def search_nearby(
    trial: Callable[[int], T],
    measure: Callable[[T], float],
    target: float,
    start: int,
    growth: float,
    highest: int,
    most_trials: int,
) -> list[T]:
    """Searches the largest setting within a target with few trials, which take long, close to a known one.

    Args:
        trial: Encodes at a setting.
        measure: Positive number of a trial's result, rising with the setting.
        target: What the measure should come close to, from below.
        start: The first setting to try.
        growth: How much the logarithm of the measure rises in a step of the setting, about.
        highest: Largest setting; the smallest is 0.
        most_trials: At least 1.

    Returns:
        The results of all trials, whether they are within the target or not.

    Example:
        >>> search_nearby(lambda s: s, lambda r: 1.01**r, 100.0, 400, 0.012, 1000, 3)
        [400, 451, 460]
    """
    results = []
    inside: tuple[int, float] | None = None
    outside: tuple[int, float] | None = None
    setting = start
    for _ in range(most_trials):
        results.append(trial(setting))
        excess = math.log(measure(results[-1])) - math.log(target)
        if excess > 0:
            outside = (setting, excess)
        else:
            inside = (setting, excess)
        if inside is not None and outside is not None:
            growth = (outside[1] - inside[1]) / (outside[0] - inside[0])
        if growth <= 0:
            break
        low = -1 if inside is None else inside[0]
        high = highest + 1 if outside is None else outside[0]
        setting = min(max(math.floor(setting - (excess + _MARGIN) / growth), 0), high - 1)
        if setting <= low:
            break
    return results


def quality_to_tenths(quality: float) -> int:
    """Rounds a quality to the tenths that are coded.

    Raises:
        ValueError: It is outside [0, 100].

    Example:
        >>> quality_to_tenths(49.96)
        500
    """
    if not 0 <= quality <= QUALITY_MAX:
        raise ValueError(f"quality must be within 0 and {QUALITY_MAX}, got {quality}")
    return round(quality * 10)
