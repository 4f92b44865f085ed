"""Published rate-distortion points of other codecs on Kodak, shipped as data with their sources."""

from __future__ import annotations

import json
from importlib import resources
from typing import NamedTuple


class RatePoints(NamedTuple):
    """A rate-distortion curve.

    Attributes:
        bpp: Bits per pixel, rising.
        psnr: PSNR in dB over RGB, at the same points.
    """

    bpp: tuple[float, ...]
    psnr: tuple[float, ...]


def kodak_anchors() -> dict[str, RatePoints]:
    """The anchors of ``assets/data/kodak_anchors.json`` by name; the file names their sources.

    Example:
        >>> kodak_anchors()["vtm"].bpp[0]
        0.04824
    """
    text = resources.files("latentpress.assets").joinpath("data/kodak_anchors.json").read_text("utf-8")
    return {
        name: RatePoints(tuple(points["bpp"]), tuple(points["psnr"]))
        for name, points in json.loads(text)["codecs"].items()
    }
