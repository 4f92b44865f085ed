"""How hard an encoder tries: one scale for all codecs."""

from __future__ import annotations

EFFORT_MAX = 10


def check_effort(effort: int) -> int:
    """An effort as it is, if it is one.

    Args:
        effort: 0 (as fast as possible) to 10.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is outside.

    Example:
        >>> check_effort(3)
        3
    """
    if isinstance(effort, bool) or not isinstance(effort, int):
        raise TypeError(f"effort must be a whole number, got {effort!r}")
    if not 0 <= effort <= EFFORT_MAX:
        raise ValueError(f"effort must be within 0 and {EFFORT_MAX}, got {effort}")
    return effort
