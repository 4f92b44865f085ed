"""The rate-distortion plot of an evaluation."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from latentpress.scripts.rate_distortion import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from latentpress.train.metrics.anchors import RatePoints

OWN_COLOUR = "#be123c"
# Distinct for most readers with a colour deficiency, and all weaker than our own.
COLOURS = ("#1d4ed8", "#0f766e", "#7c3aed", "#b45309", "#64748b", "#0891b2", "#4d7c0f", "#a21caf")
STYLES = ("-", "--", "-.", ":")
FIRST_CHOICE = "vtm"
SAMPLES = 200


def rd_plot(curve: Sequence[Mean], anchors: Mapping[str, RatePoints], label: str, title: str) -> bytes:
    """Draws PSNR over bits, and with anchors also the bits against one of them at equal PSNR.

    Args:
        curve: Our averages, rising in quality.
        anchors: Other curves by name.
        label: What our curve is called.
        title: Heading.

    Returns:
        A PNG file.

    Raises:
        ModuleNotFoundError: The extra ``demo`` is not installed.
    """
    from matplotlib.figure import Figure

    reference = FIRST_CHOICE if FIRST_CHOICE in anchors else next(iter(anchors), None)
    figure = Figure(figsize=(13, 5.6) if reference else (7.5, 5.6), layout="constrained")
    axes = figure.subplots(1, 2 if reference else 1, squeeze=False)[0]
    finite = [point for point in curve if math.isfinite(point.psnr)]
    _draw_curves(axes[0], finite, anchors, label)
    if reference is not None:
        _draw_differences(axes[1], finite, anchors, reference)
    figure.suptitle(title, fontsize=13)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _draw_curves(axes: Axes, curve: Sequence[Mean], anchors: Mapping[str, RatePoints], label: str) -> None:
    right = max((point.bpp for point in curve), default=1.0) * 1.06
    bottom = min((point.psnr for point in curve), default=20.0) - 1.0
    for k, (name, anchor) in enumerate(anchors.items()):
        axes.plot(anchor.bpp, anchor.psnr, label=name, **_look(k))
    axes.plot(
        [point.bpp for point in curve],
        [point.psnr for point in curve],
        label=label,
        color=OWN_COLOUR,
        lw=2.4,
        marker="o",
        ms=5,
        zorder=5,
    )
    axes.set_xlim(0.0, right)
    tops = [point.psnr for point in curve]
    tops += [q for anchor in anchors.values() for r, q in zip(*anchor, strict=True) if r <= right]
    axes.set_ylim(bottom, max(tops, default=50.0) + 1.0)
    axes.set_xlabel("bits per pixel, from files")
    axes.set_ylabel("PSNR, dB (RGB, 8 bit), mean over pictures")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False, ncols=2 if len(anchors) > 5 else 1, fontsize=9)


def _draw_differences(
    axes: Axes, curve: Sequence[Mean], anchors: Mapping[str, RatePoints], reference: str
) -> None:
    """At low magnification all curves look alike; this is the same data as a difference."""
    import numpy as np
    from scipy.interpolate import PchipInterpolator

    from latentpress.train.metrics.anchors import RatePoints

    def log_rate(bpp: Sequence[float], psnr: Sequence[float]) -> PchipInterpolator | None:
        rising = all(a < b for a, b in pairwise(psnr))
        return PchipInterpolator(psnr, np.log(bpp)) if rising and len(psnr) > 1 else None

    base = log_rate(*anchors[reference])
    own = RatePoints(tuple(point.bpp for point in curve), tuple(point.psnr for point in curve))
    ours: list[float] = []
    for k, points in enumerate([*anchors.values(), own]):
        rate = log_rate(*points)
        if base is None or rate is None:
            continue
        grid = np.linspace(max(base.x[0], rate.x[0]), min(base.x[-1], rate.x[-1]), SAMPLES)
        percent = 100.0 * np.expm1(rate(grid) - base(grid))
        if points is own:
            ours = percent.tolist()
            axes.plot(grid, percent, color=OWN_COLOUR, lw=2.4, zorder=5)
        else:
            axes.plot(grid, percent, **_look(k))
    if curve:
        axes.set_xlim(min(own.psnr) - 0.5, max(own.psnr) + 0.5)
        # An old codec that needs several times the bits would press all others into one line.
        axes.set_ylim(min([*ours, -30.0]) - 5.0, max([*ours, 60.0]) + 5.0)
    axes.set_xlabel("PSNR, dB")
    axes.set_ylabel(f"bits against {reference} at equal PSNR, %")
    axes.grid(alpha=0.25)


def _look(k: int) -> dict[str, Any]:
    """Colour and line style of the k-th anchor, a pair that no other has."""
    style = STYLES[k // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": style, "lw": 1.3}
