"""A gain on the small scales of decoded turbulence, so that shells of wave numbers get back their energy.

A network that makes errors small leaves out what it cannot know, so decoded small scales are too weak, or too
strong where there was hardly anything. A stream that says how much energy they had is taken at its word
(:func:`matching_logarithms`). Otherwise the gain is a guess: by how much follows from ratio, quality and wave
number, and from the flow: how much energy it has at two wave numbers that every ratio keeps. This is measured
once for some weights (:mod:`latentpress.train.fit_field_gain`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latentpress.models.field.projection import STENCIL

BANDS = 33
"""Wave numbers that have a gain, equally spaced from 0 to the Nyquist wave number along an axis."""

SEEN = (4, 8)
"""Bands whose energy densities tell flows apart: an eighth and a quarter of the Nyquist wave number."""

LEAST_SIDE = 32
"""Fields with fewer samples along an axis have too few waves in those bands."""

LARGEST = 2.5
"""No factor is larger, and none is smaller than its inverse: what is hardly there cannot be made true."""

TRANSMITTED = slice(4, 22)
"""Bands whose energy a stream may say: no codec loses that below, and simulations have none beyond."""

LARGEST_MATCH = 4.0
"""No factor to an energy that a stream says is larger, and none is smaller than its inverse."""

_UNMATCHED = 28
"""The first band behind those where the factor of the last of them has faded to 1."""

_MARGIN = 16
"""Samples that an open axis is continued by at both ends: about as far as gains reach."""

_ALIKE = 4.0
"""Standard deviations from the mean flow of the measurement up to which gains are trusted."""

_FLOOR = 1e-12

_PLANES = 8


class SpectralGain:
    """A factor for every wave number, guessed by the quality and the flow.

    ::

        densities in two bands -> logarithms -> (- mean) spread -> u;  log factor = (1, u) . row of its band

    Fields whose u is longer than four are unlike the flows that were measured: their factors fade to 1.

    Args:
        rows: ``(Q, BANDS, 3)``, at Q qualities, equally spaced over [0, 100]: a constant and the
            coefficients of u. Between qualities, and between bands, logarithms are interpolated linearly.
        spread: ``(Q, 2, 3)``: matrix and, in the last column, mean that turn logarithms into u.

    Raises:
        ValueError: The arrays are none of these.

    Example:
        >>> rows = torch.zeros(2, BANDS, 3)
        >>> rows[0, -1, 0] = math.log(2)
        >>> gain = SpectralGain(rows, torch.zeros(2, 2, 3))
        >>> alternating = (-1.0) ** torch.arange(32).expand(1, 32, 32, 32)
        >>> [round(float(gain(alternating, quality, (True,) * 3)[0, 0, 0, 0]), 3) for quality in (0, 50, 100)]
        [2.0, 1.414, 1.0]
    """

    def __init__(self, rows: Tensor, spread: Tensor) -> None:
        count = len(rows)
        fits = rows.shape == (count, BANDS, 3) and spread.shape == (count, 2, 3) and count >= 2
        if not fits or not bool(rows.isfinite().all() and spread.isfinite().all()):
            raise ValueError(
                f"gains have finite rows (Q, {BANDS}, 3) and spread (Q, 2, 3), got "
                f"{tuple(rows.shape)} and {tuple(spread.shape)}"
            )
        self.rows = rows.double()
        self.spread = spread.double()

    def logarithms(self, densities: Tensor, quality: float) -> Tensor:
        """Natural logarithms of the factors of a flow.

        Args:
            densities: ``(BANDS,)``, of :func:`band_densities`.
            quality: In [0, 100].

        Returns:
            ``(BANDS,)`` float64.
        """
        seen = densities[list(SEEN)].double().cpu().clamp(min=_FLOOR).log()
        u = (self.spread[:, :, :2] @ (seen - self.spread[:, :, 2])[..., None])[..., 0]
        found = self.rows[:, :, 0] + (self.rows[:, :, 1:] @ u[..., None])[..., 0]
        limit = math.log(LARGEST)
        beyond = (u.square().sum(1) - _ALIKE**2).clamp(min=0)
        found = found.clamp(-limit, limit) * torch.exp(-0.5 * beyond)[:, None]
        return interpolated(found, torch.tensor(quality / 100, dtype=torch.float64))

    def __call__(self, field: Tensor, quality: float, periodic: Sequence[bool]) -> Tensor:
        """Multiplies the waves of a field, see :func:`with_factors`.

        Args:
            field: ``(C, D, H, W)`` float32 of unit variance, any device.
            quality: In [0, 100].
            periodic: Axes that continue at their far ends.

        Returns:
            Same shape; the same tensor if an axis is too short, or no factor differs from 1.
        """
        if min(field.shape[1:]) < LEAST_SIDE:
            return field
        return with_factors(field, self.logarithms(band_densities(field, periodic), quality), periodic)


def matching_logarithms(true: Tensor, found: Tensor) -> Tensor:
    """Natural logarithms of the factors that give waves the energy that they should have.

    ::

        log factor = log(true / found) / 2, fading to 0 behind the last band that has a true energy

    Args:
        true: Densities of the bands :data:`TRANSMITTED`, ``(18,)``.
        found: Those of the field as it is, ``(BANDS,)``, of :func:`band_densities`.

    Returns:
        ``(BANDS,)`` float64 on the CPU, at most log 4 either way.

    Example:
        >>> matching_logarithms(torch.full((18,), 2.0), torch.ones(BANDS))[[3, 4, 21, 24, 28]].exp()
        tensor([1.0000, 1.4142, 1.4142, 1.2190, 1.0000], dtype=torch.float64)
    """
    logarithms = torch.zeros(BANDS, dtype=torch.float64)
    quotient = true.double().cpu().clamp(min=_FLOOR) / found[TRANSMITTED].double().cpu().clamp(min=_FLOOR)
    limit = math.log(LARGEST_MATCH)
    logarithms[TRANSMITTED] = (0.5 * quotient.log()).nan_to_num().clamp(-limit, limit)
    behind = slice(TRANSMITTED.stop, _UNMATCHED)
    steps = _UNMATCHED - TRANSMITTED.stop + 1
    fading = torch.arange(steps - 1, 0, -1, dtype=torch.float64) / steps
    logarithms[behind] = logarithms[TRANSMITTED.stop - 1] * fading
    return logarithms


def with_factors(field: Tensor, logarithms: Tensor, periodic: Sequence[bool]) -> Tensor:
    """Multiplies the waves of a field.

    Periodic axes go through Fourier transforms. Open ones are continued at both ends by their reflection
    in the end's value, which has the same slope, and go through cosine transforms::

        field -> continued -> cosines, Fourier -> * factor(|k|) -> back -> cropped

    Args:
        field: ``(C, D, H, W)`` float32, any device, at least :data:`LEAST_SIDE` samples a side.
        logarithms: Natural ones of the factors, ``(BANDS,)``.
        periodic: Axes that continue at their far ends.

    Returns:
        Same shape; the same tensor if no factor differs from 1.
    """
    if not bool(logarithms.any()):
        return field
    shape = [n + 2 * _MARGIN * (not wrap) for n, wrap in zip(field.shape[1:], periodic, strict=True)]
    cosines = {axis: cosine_matrix(shape[axis]).to(field.device) for axis in range(3) if not periodic[axis]}
    waves = _wave_numbers(shape, periodic).to(field.device)
    factors = interpolated(logarithms.float().to(field.device), waves).exp()
    # One component after another: transforms of all would need several times the field's memory.
    return torch.stack([_filtered(component, factors, cosines, periodic) for component in field])


def band_densities(field: Tensor, periodic: Sequence[bool], divergence: bool = True) -> Tensor:
    """Mean energy of the waves around each band's wave number; white noise has its variance everywhere.

    Open axes are windowed first. A wave counts in the two bands next to it, the more the nearer.

    Args:
        field: ``(C, D, H, W)`` float32.
        periodic: Axes that continue at their far ends.
        divergence: Counts the part that has divergence, too. Otherwise the field has three components, and
            energies are about those of :func:`latentpress.models.field.projection.solenoidal`: of a periodic
            field just those, as a window and ends make a difference.

    Returns:
        ``(BANDS,)`` float64; NaN where there are no waves.

    Example:
        >>> noise = torch.randn(3, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> band_densities(2 * noise, (True, False, True))[8:24].mean().round()
        tensor(4., dtype=torch.float64)
    """
    sizes = field.shape[1:]
    window = torch.ones((), device=field.device)
    for axis, (size, wraps) in enumerate(zip(sizes, periodic, strict=True)):
        if not wraps:
            # Its mean square is 3/8.
            hann = torch.hann_window(size, device=field.device) / math.sqrt(3 / 8)
            window = window * _along_axis(hann, axis)
    squares = torch.zeros((*sizes[:2], sizes[2] // 2 + 1), dtype=torch.float64, device=field.device)
    numbers = [] if divergence else _derivatives(sizes, all(periodic), field.device)
    along: Tensor | None = None
    for axis, component in enumerate(field):
        modes = torch.fft.rfftn(component * window, norm="ortho")
        squares += modes.abs().square()
        if numbers:
            part = modes * _along_axis(numbers[axis], axis)
            along = part if along is None else along + part
    if along is not None:
        first, second, third = (_along_axis(number.square(), axis) for axis, number in enumerate(numbers))
        squares -= along.abs().square() / (first + second + third).clamp(min=_FLOOR)
    return _in_bands(squares, sizes) / len(field)


def _along_axis(vector: Tensor, axis: int) -> Tensor:
    """A vector that is to be multiplied along one of three axes."""
    return vector.reshape([-1 if other == axis else 1 for other in range(3)])


def _derivatives(sizes: Sequence[int], exact: bool, device: torch.device) -> list[Tensor]:
    """What the derivative of a wave is, without its phase, along each axis: as :func:`solenoidal` has it."""
    found = []
    for axis, size in enumerate(sizes):
        cycles = torch.fft.rfftfreq(size) if axis == 2 else torch.fft.fftfreq(size)
        # A Nyquist mode has no sign, hence no derivative.
        angle = torch.where(cycles.abs() == 0.5, 0.0, 2 * math.pi * cycles)
        if not exact:
            angle = torch.stack([2 * w * torch.sin(n * angle) for n, w in enumerate(STENCIL, 1)]).sum(0)
        found.append(angle.to(device))
    return found


def _in_bands(squares: Tensor, sizes: Sequence[int]) -> Tensor:
    """Means of what the waves of a real transform have, for each band ``(BANDS,)``."""
    waves = _wave_numbers(sizes, (True,) * 3).to(squares.device)
    # Of a real transform, all but the first and the last plane stand for two waves.
    weight = torch.full((squares.shape[2],), 2.0, dtype=torch.float64, device=squares.device)
    weight[0] = 1.0
    if sizes[2] % 2 == 0:
        weight[-1] = 1.0
    sums = torch.zeros(2, BANDS, dtype=torch.float64, device=squares.device)
    # A few planes at a time stay in a processor's cache.
    for start in range(0, len(waves), _PLANES):
        part = slice(start, start + _PLANES)
        place = (waves[part].flatten().double() * (BANDS - 1)).clamp(max=BANDS - 1)
        low = place.long().clamp(max=BANDS - 2)
        share = place - low
        counts = weight.expand(squares[part].shape)
        for row, values in enumerate(((squares[part] * counts).flatten(), counts.flatten())):
            upper = values * share
            sums[row] += torch.bincount(low, values - upper, minlength=BANDS)
            sums[row] += torch.bincount(low + 1, upper, minlength=BANDS)
    return sums[0] / sums[1]


def interpolated(values: Tensor, place: Tensor) -> Tensor:
    """Values at equally spaced places from 0 to 1, linearly interpolated along the first axis.

    Places beyond have the first or last value.

    Example:
        >>> interpolated(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.25, 0.75, 2.0])).tolist()
        [0.5, 2.5, 4.0]
    """
    position = place.clamp(0, 1) * (len(values) - 1)
    low = position.long().clamp(max=len(values) - 2)
    share = (position - low).to(values.dtype)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    return values[low] + share * (values[low + 1] - values[low])


def cosine_matrix(size: int) -> Tensor:
    """Orthonormal matrix of the cosine transform (DCT-II), ``(size, size)``; its rows are waves.

    Example:
        >>> bool(torch.allclose(cosine_matrix(5) @ cosine_matrix(5).T, torch.eye(5), atol=1e-6))
        True
    """
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    matrix = torch.cos(math.pi * torch.arange(size, dtype=torch.float64)[:, None] * place)
    matrix *= math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def _wave_numbers(shape: Sequence[int], periodic: Sequence[bool]) -> Tensor:
    """Wave numbers, as shares of the Nyquist wave number, of a field's transforms.

    Along the last of the periodic axes the transform is a real one, along open axes a cosine transform.
    """
    last = max((axis for axis in range(3) if periodic[axis]), default=None)
    axes = []
    for axis, size in enumerate(shape):
        if not periodic[axis]:
            axes.append(torch.arange(size) / size)
        else:
            axes.append(2 * (torch.fft.rfftfreq(size) if axis == last else torch.fft.fftfreq(size)))
    first, second, third = (axis.square() for axis in axes)
    return (first[:, None, None] + second[:, None] + third).sqrt()


def _filtered(x: Tensor, factors: Tensor, cosines: dict[int, Tensor], periodic: Sequence[bool]) -> Tensor:
    sizes = x.shape
    wraps = [axis for axis in range(3) if periodic[axis]]
    for axis, matrix in cosines.items():
        x = _along(matrix, _continued(x, axis), axis)
    if wraps:
        modes = torch.fft.rfftn(x, dim=wraps) * factors
        x = torch.fft.irfftn(modes, s=[x.shape[axis] for axis in wraps], dim=wraps)
    else:
        x = x * factors
    for axis, matrix in cosines.items():
        x = _along(matrix.T, x, axis).narrow(axis, _MARGIN, sizes[axis])
    return x


def _continued(x: Tensor, axis: int) -> Tensor:
    size = x.shape[axis]
    before = x.narrow(axis, 1, _MARGIN).flip(axis)
    behind = x.narrow(axis, size - 1 - _MARGIN, _MARGIN).flip(axis)
    return torch.cat((2 * x.narrow(axis, 0, 1) - before, x, 2 * x.narrow(axis, size - 1, 1) - behind), axis)


def _along(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """Multiplies along an axis."""
    return torch.tensordot(matrix, x, dims=([1], [axis])).movedim(0, axis)
