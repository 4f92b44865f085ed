"""Energies of small scales in a second decoder of fields, written from docs/bitstream.md with numpy alone."""

import numpy as np

from latentpress.codecs.bitstream import decode_varint

BANDS = 33
FIRST, LAST, END = 4, 21, 28
MARGIN = 16

Periodic = tuple[bool, bool, bool]


def read_section(section: bytes, groups: int) -> list[np.ndarray]:
    """Energies of the bands 4 to 21 of every whole group."""
    numbers, offset = [], 0
    for _ in range(groups * (LAST - FIRST + 1)):
        value, offset = decode_varint(section, offset)
        numbers.append(-(value + 1) // 2 if value % 2 else value // 2)
    assert offset == len(section)
    levels = np.array(numbers).reshape(groups, -1).cumsum(1).cumsum(1)
    assert np.abs(levels).max() <= 2000
    return list(np.exp(levels / 64))


def band_energies(values: np.ndarray, periodic: Periodic) -> np.ndarray:
    """Of all bands, by a whole Fourier transform."""
    for axis, (size, around) in enumerate(zip(values.shape[1:], periodic, strict=True), 1):
        if not around:
            window = (1 - np.cos(2 * np.pi * np.arange(size) / size)) / 2 / np.sqrt(3 / 8)
            values = values * np.expand_dims(window, [other for other in range(3) if other != axis - 1])
    squares = np.square(np.abs(np.fft.fftn(values, axes=(1, 2, 3), norm="ortho"))).mean(0)
    place = np.minimum(32 * wave_numbers([2 * np.abs(np.fft.fftfreq(n)) for n in values.shape[1:]]), 32)
    total, count = np.zeros(BANDS), np.zeros(BANDS)
    for band in range(BANDS):
        share = np.maximum(0, 1 - np.abs(place - band))
        total[band], count[band] = (share * squares).sum(), share.sum()
    return total / np.where(count > 0, count, np.nan)


def matched(values: np.ndarray, said: np.ndarray, periodic: Periodic) -> np.ndarray:
    """Three components of unit variance with the energies that a section says."""
    found = band_energies(values, periodic)
    logarithms = np.zeros(BANDS)
    quotient = np.maximum(said, 1e-12) / np.maximum(found[FIRST : LAST + 1], 1e-12)
    logarithms[FIRST : LAST + 1] = np.clip(np.log(quotient) / 2, -np.log(4), np.log(4))
    beyond = np.arange(LAST + 1, END)
    logarithms[beyond] = logarithms[LAST] * (END - beyond) / (END - LAST)

    axes = []
    for axis, around in enumerate(periodic, 1):
        if not around:
            values = np.moveaxis(values, axis, 0)
            before, behind = values[MARGIN:0:-1], values[-2 : -2 - MARGIN : -1]
            values = np.concatenate((2 * values[0] - before, values, 2 * values[-1] - behind))
            values = np.moveaxis(np.tensordot(cosines(len(values)), values, 1), 0, axis)
        size = values.shape[axis]
        axes.append(2 * np.abs(np.fft.fftfreq(size)) if around else np.arange(size) / size)
    factors = np.exp(np.interp(32 * wave_numbers(axes), np.arange(BANDS), logarithms))
    wraps = [axis for axis, around in enumerate(periodic, 1) if around]
    values = np.fft.ifftn(np.fft.fftn(values, axes=wraps) * factors, axes=wraps).real
    for axis, around in enumerate(periodic, 1):
        if not around:
            values = np.moveaxis(values, axis, 0)
            values = np.tensordot(cosines(len(values)).T, values, 1)[MARGIN:-MARGIN]
            values = np.moveaxis(values, 0, axis)
    return values


def wave_numbers(axes: list[np.ndarray]) -> np.ndarray:
    """As shares of the Nyquist wave number of an axis."""
    return np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))


def cosines(size: int) -> np.ndarray:
    """The orthonormal DCT-II; row j is the wave j."""
    matrix = np.cos(np.pi * np.outer(np.arange(size), np.arange(size) + 0.5) / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix
