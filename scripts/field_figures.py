"""Plots of an evaluation of field codecs: error against ratio, spectra, densities of derivatives, slices."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentpress.scripts.field_evaluation import OWN_NAME, Point, Row, Subject
from latentpress.scripts.field_measures import GRADIENT_EDGES, Q_EDGES, R_EDGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN_COLOURS = ("#be123c", "#f97316", "#7f1d1d")
# Distinct for most readers with a colour deficiency, and all weaker than our own.
COLOURS = ("#1d4ed8", "#0f766e", "#7c3aed", "#b45309", "#0891b2", "#64748b", "#94a3b8")

_DPI = 130
_SLICE_COLUMNS = 6


def figures(subject: Subject, rows: Sequence[Row], points: Sequence[Point], title: str) -> dict[str, bytes]:
    """All plots, as PNG files by name.

    Args:
        subject: The field.
        rows: Decoded fields; spectra, densities and slices are drawn for the middle one of their ratios.
        points: Curves; without any there is no plot of them.
        title: Of every plot.

    Raises:
        ModuleNotFoundError: The extra ``demo`` is not installed.
    """
    found = {}
    if points:
        found["curves"] = _curves(points, title)
    groups = _by_ratio(rows)
    if groups:
        chosen = groups[len(groups) // 2]
        heading = f"{title}, byte ratio about {_nominal(chosen):.0f}"
        found["spectra"] = _spectra(subject, chosen, heading)
        found["invariants"] = _invariants(subject, chosen, heading)
        found["slices"] = _slices(subject, chosen, heading)
    return found


def _by_ratio(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one ratio together, in order: a codec that comes again begins the next group."""
    groups: list[list[Row]] = []
    for row in rows:
        if not groups or row.codec in {other.codec for other in groups[-1]}:
            groups.append([])
        groups[-1].append(row)
    return groups


def _nominal(rows: Sequence[Row]) -> float:
    return float(np.median([row.ratio for row in rows]))


def _looks(names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Colour, width and style of every codec's line."""
    own = [name for name in names if name.startswith(OWN_NAME)]
    others = [name for name in names if not name.startswith(OWN_NAME)]
    looks = {
        name: {"color": OWN_COLOURS[k % len(OWN_COLOURS)], "lw": 2.2, "zorder": 5}
        for k, name in enumerate(own)
    }
    for k, name in enumerate(others):
        style = "--" if name.startswith("control") else "-"
        looks[name] = {"color": COLOURS[k % len(COLOURS)], "lw": 1.3, "linestyle": style}
    return looks


def _curves(points: Sequence[Point], title: str) -> bytes:
    figure = _figure(8.5, 6)
    axes = figure.subplots()
    names = list(dict.fromkeys(point.codec for point in points))
    for name, look in _looks(names).items():
        mine = sorted(point for point in points if point.codec == name)
        mine = sorted(mine, key=lambda point: point.ratio)
        axes.loglog([p.ratio for p in mine], [p.nrmse for p in mine], marker="o", ms=3, label=name, **look)
    axes.set_xlabel("byte ratio, from files")
    axes.set_ylabel("NRMSE")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, fontsize=9)
    return _png(figure, title)


def _spectra(subject: Subject, rows: Sequence[Row], title: str) -> bytes:
    figure = _figure(14, 5.4)
    left, middle, right = figure.subplots(1, 3)
    true = subject.true.densities
    looks = _looks([row.codec for row in rows])
    k = true.wave_numbers[1:]
    left.loglog(k, true.spectrum[1:], color="black", lw=2.6, label="truth")
    centres = 0.5 * (GRADIENT_EDGES[1:] + GRADIENT_EDGES[:-1])
    middle.semilogy(centres, _positive(true.longitudinal), color="black", lw=2.6)
    right.semilogy(centres, _positive(true.transverse), color="black", lw=2.6)
    for row in rows:
        found = subject.true.decoded_densities(row.decoded)
        left.loglog(k, np.maximum(found.spectrum[1:], 1e-30), label=row.codec, **looks[row.codec])
        middle.semilogy(centres, _positive(found.longitudinal), **looks[row.codec])
        right.semilogy(centres, _positive(found.transverse), **looks[row.codec])
    left.set_ylim(float(true.spectrum[1:].max()) * 1e-9, float(true.spectrum.max()) * 3)
    left.set_xlabel("wave number (of a box of 128 points)")
    left.xaxis.set_minor_formatter("")
    left.set_ylabel("energy")
    left.legend(frameon=False, fontsize=8)
    for axes, kind in ((middle, "longitudinal"), (right, "transverse")):
        axes.set_xlabel(f"{kind} derivative over the true root mean square")
        axes.set_ylabel("density")
        axes.set_ylim(1e-6, 2)
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
    return _png(figure, title)


def _positive(density: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(density > 0, density, np.nan)


def _invariants(subject: Subject, rows: Sequence[Row], title: str) -> bytes:
    panels = [("truth", subject.true.densities.q_r)]
    panels += [(row.codec, subject.true.decoded_densities(row.decoded).q_r) for row in rows]
    figure, grid = _panels(len(panels))
    levels = np.linspace(-5.5, -1.0, 10)
    with np.errstate(divide="ignore"):
        for axes, (name, density) in zip(grid, panels, strict=False):
            logarithm = np.log10(np.where(density > 0, density, 1e-12))
            axes.contourf(
                0.5 * (R_EDGES[1:] + R_EDGES[:-1]),
                0.5 * (Q_EDGES[1:] + Q_EDGES[:-1]),
                logarithm,
                levels=levels,
                cmap="magma_r",
                extend="max",
            )
            # Below this line all eigenvalues of the gradient are real.
            r = np.linspace(-12, 12, 200)
            axes.plot(r, -3 * np.cbrt(np.square(r) / 4), color="#64748b", lw=0.8)
            axes.set_title(name, fontsize=9)
            axes.set_xlim(-8, 8)
            axes.set_ylim(-8, 8)
            axes.set_xlabel("R", fontsize=8)
            axes.set_ylabel("Q", fontsize=8)
    return _png(figure, f"{title}: joint density of Q and R (log10)")


def _slices(subject: Subject, rows: Sequence[Row], title: str) -> bytes:
    """One component in the middle plane, and below each what is missing."""
    depth = subject.field.shape[1] // 2
    true = subject.field[0, depth]
    limit = float(np.abs(true).max())
    planes = [row.decoded[0, depth] for row in rows]
    typical = float(np.median([np.abs(plane - true).mean() for plane in planes]))
    factor = 2.0 ** max(0, math.floor(math.log2(limit / max(4 * typical, 1e-30))))
    pairs: list[tuple[str, NDArray[Any], NDArray[Any] | None]] = [("truth", true, None)]
    pairs += [
        (f"{row.codec}\nNRMSE {row.measures.nrmse:.4f}", plane, factor * (plane - true))
        for row, plane in zip(rows, planes, strict=True)
    ]
    columns = min(len(pairs), _SLICE_COLUMNS)
    lines = math.ceil(len(pairs) / columns)
    figure = _figure(2.9 * columns, 6.0 * lines + 0.4)
    grid = figure.subplots(2 * lines, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for number, (name, plane, error) in enumerate(pairs):
        line, column = divmod(number, columns)
        shown = [(name, plane, "RdBu_r")]
        if error is not None:
            shown.append((f"error x {factor:g}", error, "PuOr"))
        for axes, (text, values, colours) in zip(grid[2 * line : 2 * line + 2, column], shown, strict=False):
            axes.imshow(values, vmin=-limit, vmax=limit, cmap=colours, interpolation="nearest")
            axes.set_title(text, fontsize=9)
    return _png(figure, title)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, max(3, math.ceil(math.sqrt(1.6 * count))))
    lines = math.ceil(count / columns)
    figure = _figure(2.9 * columns, 3.1 * lines + 0.4)
    grid = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure, title: str) -> bytes:
    figure.suptitle(title, fontsize=12)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
