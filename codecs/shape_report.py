"""What a shape's encoder gives: a stream, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Report:
    """What a stream will give, measured by its encoder.

    Attributes:
        bytes: Length of the stream.
        chamfer: Chamfer distance between original and decoded mesh where the longest side is 2: the mean of
            the two directed mean distances between 30000 samples of each, or the cloud's own points. Infinite
            where nothing is decoded.
        quality: Of the geometry, 0 to 100; None for polygons.
        colour_quality: Of the colour; None for a shape without and for polygons.
        steps: Of the refinement.
        mode: ``generator`` or ``polygons``.
    """

    bytes: int
    chamfer: float
    quality: float | None
    colour_quality: float | None
    steps: int
    mode: str = "generator"


class EncodedShape(NamedTuple):
    """A stream and what is known of it.

    Attributes:
        data: The stream.
        report: What it will give.
    """

    data: bytes
    report: Report
