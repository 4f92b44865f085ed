"""Finds the quality that meets a target, with as few trial encodings as possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class QualitySearch(Generic[T]):
    """Searches the largest integer setting whose measure does not exceed a target.

    The measure (bytes, or the squared error when settings run downwards) must rise with the setting, apart
    from ripples. Trials follow the interpolated logarithm of the measure, so that a handful is enough.

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
        low, result = 0, self._trial(0)
        low_log = math.log(self._measure(result)) - math.log(target)
        if low_log > 0:
            return None
        high, top = self._highest, self._trial(self._highest)
        high_log = math.log(self._measure(top)) - math.log(target)
        if high_log <= 0:
            return top
        bisect = False
        while high - low > 1:
            fraction = 0.5 if bisect else -low_log / (high_log - low_log)
            middle = min(high - 1, max(low + 1, round(low + fraction * (high - low))))
            candidate = self._trial(middle)
            middle_log = math.log(self._measure(candidate)) - math.log(target)
            # Interpolation that leaves one end in place for long is worse than halving.
            narrowed = middle - low if middle_log > 0 else high - middle
            bisect = narrowed > (high - low) / 2 and not bisect
            if middle_log > 0:
                high, high_log = middle, middle_log
            else:
                low, low_log, result = middle, middle_log, candidate
        return result
