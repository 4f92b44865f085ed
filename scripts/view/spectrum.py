"""How the energy of a field is spread over length scales."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Spectrum(NamedTuple):
    """Energy by wavenumber.

    Attributes:
        wavenumbers: Waves in the length of the longest axis, 1, 2, ... up to what the grid can hold.
        energy: Of all components in each shell; its sum is half the mean square fluctuation.
    """

    wavenumbers: list[int]
    energy: list[float]


def energy_spectrum(field: NDArray[Any], periodic: bool = False) -> Spectrum:
    """Adds up a field's energy in shells of the Fourier space.

    Args:
        field: ``(C, D, H, W)`` or ``(C, H, W)``; values that are not finite count as the mean.
        periodic: Whether the field continues at its far ends. If not, a Hann window takes out the jump there.

    Example:
        >>> x = np.sin(2 * np.pi * 3 * np.arange(32) / 32)
        >>> found = energy_spectrum(np.broadcast_to(x, (1, 32, 32)), periodic=True)
        >>> found.wavenumbers[np.argmax(found.energy)], round(sum(found.energy), 6)
        (3, 0.25)
    """
    sizes = field.shape[1:]
    longest = max(sizes)
    window = np.ones((1,) * len(sizes)) if periodic else _window(sizes)
    # What the window takes away is given back, on average.
    share = float(np.square(window).mean())
    frequencies = [np.fft.fftfreq(size) * longest for size in sizes[:-1]]
    frequencies.append(np.fft.rfftfreq(sizes[-1]) * longest)
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*frequencies, indexing="ij")))
    shells = np.rint(radius).astype(np.int64).ravel()
    # The half of the last axis that a real transform leaves out mirrors the other.
    weight = np.full(sizes[-1] // 2 + 1, 2.0)
    weight[0] = 1.0
    if sizes[-1] % 2 == 0:
        weight[-1] = 1.0
    energy = np.zeros(int(shells.max()) + 1)
    for component in field:
        values = component.astype(np.float64)
        finite = np.isfinite(values)
        mean = float(values[finite].mean()) if finite.any() else 0.0
        waves = np.fft.rfftn(np.where(finite, values - mean, 0.0) * window)
        power = np.square(np.abs(waves)) * weight
        energy += np.bincount(shells, power.ravel(), len(energy))
    energy *= 0.5 / (share * float(np.prod(sizes)) ** 2)
    last = min(longest // 2, len(energy) - 1)
    return Spectrum(list(range(1, last + 1)), [float(value) for value in energy[1 : last + 1]])


def _window(sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """Hann windows along every axis that is long enough for one, multiplied."""
    window = np.ones((1,) * len(sizes))
    for axis, size in enumerate(sizes):
        if size > 2:
            shape = [1] * len(sizes)
            shape[axis] = size
            window = window * np.hanning(size + 2)[1:-1].reshape(shape)
    return window
