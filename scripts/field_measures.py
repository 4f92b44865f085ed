"""How well a decoded velocity field stands for the true one: errors, statistics, spectra and densities."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRADIENT_EDGES = np.linspace(-12.0, 12.0, 97)
"""Of derivatives, in units of the true ones' root mean square; what is beyond counts into the last bins."""

Q_EDGES = np.linspace(-12.0, 12.0, 61)
R_EDGES = np.linspace(-12.0, 12.0, 61)
"""Of the invariants, in units of the true mean square strain and its power 3/2."""


_Q_R_BINS: Any = (Q_EDGES, R_EDGES)


class Measures(NamedTuple):
    """Numbers for a table.

    Attributes:
        nrmse: Root mean square error over the root mean square of the field.
        psnr: dB, the peak being the range of the true field; infinite without an error.
        gradient: Mean square gradient, that is dissipation, over the true one.
        skewness: Of longitudinal derivatives (central differences, as all below).
        flatness: Of the same.
        divergence: Root mean square divergence, grid spacing 1.
        small_scales: Energy in shells 24 to 40 (of a box of 128) over the true one.
        gradient_distance: Half the integrated difference of the densities of longitudinal derivatives.
        q_r_distance: The same of the joint density of the invariants Q and R.
    """

    nrmse: float
    psnr: float
    gradient: float
    skewness: float
    flatness: float
    divergence: float
    small_scales: float
    gradient_distance: float
    q_r_distance: float


class Densities(NamedTuple):
    """Curves for a plot.

    Attributes:
        wave_numbers: Of the shells, in cycles a box side of 128 points.
        spectrum: Energy in them.
        longitudinal: Density of derivatives of components along their own axes, on :data:`GRADIENT_EDGES`.
        transverse: Of all others.
        q_r: Joint density of the invariants, on :data:`Q_EDGES` by :data:`R_EDGES`.
    """

    wave_numbers: Floats
    spectrum: Floats
    longitudinal: Floats
    transverse: Floats
    q_r: Floats


class TrueField:
    """A velocity field and everything decoded ones are held against, computed once.

    Args:
        field: ``(3, D, H, W)``, at least 4 points a side.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(3, 8, 8, 8)).astype(np.float32)
        >>> true = TrueField(x)
        >>> true.measure(x).nrmse, true.measure(x).q_r_distance
        (0.0, 0.0)
    """

    def __init__(self, field: NDArray[Any]) -> None:
        if field.ndim != 4 or field.shape[0] != 3 or min(field.shape[1:]) < 4:
            raise ValueError(f"expected velocities (3, D, H, W), got shape {field.shape}")
        self.field = field.astype(np.float64)
        self.square = float(np.square(self.field).mean())
        self.range = float(self.field.max() - self.field.min())
        self._gradient = differences(self.field)
        self._derivative = math.sqrt(float(np.square(_longitudinal(self._gradient)).mean()))
        self._strain = float(np.square(_strain(self._gradient)).sum((0, 1)).mean())
        self.densities = self.densities_of(self._gradient, self.field)

    def measure(self, decoded: NDArray[Any]) -> Measures:
        """Compares a field of the same shape."""
        values = decoded.astype(np.float64)
        gradient = differences(values)
        found = self.densities_of(gradient, values)
        along = _longitudinal(gradient)
        variance = float(np.square(along).mean()) or 1.0
        error = float(np.square(values - self.field).mean())
        bands = [_band(densities) for densities in (found, self.densities)]
        return Measures(
            nrmse=math.sqrt(error / self.square),
            psnr=20 * math.log10(self.range / math.sqrt(error)) if error else math.inf,
            gradient=float(np.square(gradient).mean() / np.square(self._gradient).mean()),
            skewness=float((along**3).mean() / variance**1.5),
            flatness=float((along**4).mean() / variance**2),
            divergence=math.sqrt(float(np.square(along.sum(0)).mean())),
            small_scales=bands[0] / bands[1] if bands[1] else math.nan,
            gradient_distance=_distance(found.longitudinal, self.densities.longitudinal),
            q_r_distance=_distance(found.q_r, self.densities.q_r),
        )

    def densities_of(self, gradient: Floats, field: Floats) -> Densities:
        """Curves of a field, in the true one's units."""
        along = _longitudinal(gradient)
        across = np.stack([gradient[i, j] for i in range(3) for j in range(3) if i != j])
        wave_numbers, energy = spectrum(field)
        return Densities(
            wave_numbers=wave_numbers,
            spectrum=energy,
            longitudinal=_histogram(along / self._derivative),
            transverse=_histogram(across / self._derivative),
            q_r=self._joint(gradient),
        )

    def decoded_densities(self, decoded: NDArray[Any]) -> Densities:
        """Curves of a decoded field."""
        values = decoded.astype(np.float64)
        return self.densities_of(differences(values), values)

    def _joint(self, gradient: Floats) -> Floats:
        """Density of the second and third invariant of the gradient, as of a flow without divergence."""
        tensor = np.moveaxis(gradient, (0, 1), (-2, -1))
        second = -0.5 * np.einsum("...ij,...ji->...", tensor, tensor) / self._strain
        third = -np.linalg.det(tensor) / self._strain**1.5
        inside = [np.clip(x, edges[0], edges[-1]) for x, edges in ((second, Q_EDGES), (third, R_EDGES))]
        counts, _, _ = np.histogram2d(inside[0].ravel(), inside[1].ravel(), bins=_Q_R_BINS)
        return counts / second.size


def differences(field: Floats) -> Floats:
    """Central differences inside the borders, ``(component, axis, D - 2, H - 2, W - 2)``."""
    inner = slice(1, -1)
    found = []
    for axis in range(3):
        forward, backward = [inner] * 3, [inner] * 3
        forward[axis], backward[axis] = slice(2, None), slice(None, -2)
        found.append(0.5 * (field[(slice(None), *forward)] - field[(slice(None), *backward)]))
    return np.stack(found, axis=1)


def spectrum(field: Floats) -> tuple[Floats, Floats]:
    """Energy in shells of unit width, under a Hann window, since fields need not be periodic.

    Returns:
        Wave numbers in cycles a box side of 128 points, and the energy of each shell.
    """
    sizes = field.shape[1:]
    windowed = field
    for axis, size in enumerate(sizes, 1):
        shape = [1] * 4
        shape[axis] = size
        windowed = windowed * np.hanning(size + 1)[:-1].reshape(shape)
    modes = np.fft.rfftn(windowed, axes=(1, 2, 3), norm="forward")
    weight = np.full(modes.shape[-1], 2.0)
    weight[0] = 1.0
    if sizes[-1] % 2 == 0:
        weight[-1] = 1.0
    density = 0.5 * (np.square(np.abs(modes)) * weight).sum(0)
    axes = [np.fft.fftfreq(size) * 128 for size in sizes[:-1]]
    axes.append(np.arange(modes.shape[-1]) * (128 / sizes[-1]))
    squares: Floats = sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij"))
    # Shells as wide as the longest axis resolves, so that none is empty.
    width = 128 / max(sizes)
    number = np.floor(np.sqrt(squares) / width + 0.5).astype(np.int64)
    energy = np.bincount(number.ravel(), density.ravel())[: max(sizes) // 2 + 1].astype(np.float64)
    return np.arange(len(energy)) * np.float64(width), energy


def _band(densities: Densities) -> float:
    k = densities.wave_numbers
    return float(densities.spectrum[(k >= 23.5) & (k < 40.5)].sum())


def _longitudinal(gradient: Floats) -> Floats:
    return np.stack([gradient[i, i] for i in range(3)])


def _strain(gradient: Floats) -> Floats:
    strain: Floats = 0.5 * (gradient + gradient.swapaxes(0, 1))
    return strain


def _histogram(values: Floats) -> Floats:
    width = GRADIENT_EDGES[1] - GRADIENT_EDGES[0]
    counts, _ = np.histogram(np.clip(values, GRADIENT_EDGES[0], GRADIENT_EDGES[-1]), GRADIENT_EDGES)
    return counts / (values.size * width)


def _distance(found: Floats, true: Floats) -> float:
    """Total variation: 0 for equal densities, 1 for disjoint ones."""
    return 0.5 * float(np.abs(found / found.sum() - true / true.sum()).sum())
