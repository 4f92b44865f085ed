"""Colours for numbers, for slices of fields: matplotlib's tables, which are even to the eye."""

from __future__ import annotations

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"


def colour_tables() -> dict[str, list[list[int]]]:
    """256 colours each, red, green and blue from 0 to 255: ``sequential`` for values, the other for errors.

    Example:
        >>> tables = colour_tables()
        >>> len(tables["sequential"]), tables["sequential"][0]
        (256, [68, 1, 84])
    """
    from matplotlib import colormaps

    return {
        name: [[round(255 * part) for part in colormaps[table](level)[:3]] for level in range(256)]
        for name, table in (("sequential", SEQUENTIAL), ("diverging", DIVERGING))
    }
