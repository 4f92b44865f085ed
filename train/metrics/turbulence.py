"""Statistics of turbulent flows and of what they carry: balances, spectrum, moments, resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlowStatistics:
    """What characterises one snapshot of a flow in a periodic box of side 2 pi, all from float64 transforms.

    Attributes:
        energy: Kinetic energy a unit of mass.
        dissipation: ``2 nu`` times the mean squared strain rate.
        reynolds: Taylor-microscale Reynolds number.
        skewness: Of longitudinal derivatives, pooled over the axes.
        flatness: Of the same.
        divergence: Root mean square divergence over root mean square velocity gradient.
        resolution: Largest kept wave number times the Kolmogorov length.
        tail: Dissipation in the last kept shell over that in the strongest shell.
        spectrum: Energy in shells of unit width, from wave number 0.
    """

    energy: float
    dissipation: float
    reynolds: float
    skewness: float
    flatness: float
    divergence: float
    resolution: float
    tail: float
    spectrum: tuple[float, ...]


def wave_vectors(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Wave vectors of a real transform of a cube, ``(3, N, N, N/2+1)`` float64."""
    full = torch.fft.fftfreq(size, 1 / size, device=device, dtype=torch.float64)
    half = torch.arange(size // 2 + 1, device=device, dtype=torch.float64)
    return torch.stack(torch.meshgrid(full, full, half, indexing="ij"))


def energy_spectrum(velocity: Tensor) -> Tensor:
    """Energy in shells of unit width.

    Args:
        velocity: ``(3, N, N, N)`` on a periodic cube of side 2 pi.

    Returns:
        ``(N/2 + 1,)`` float64; its sum is the energy of the modes up to wave number N/2.

    Example:
        >>> x = torch.arange(16) * (2 * math.pi / 16)
        >>> u = torch.zeros(3, 16, 16, 16); u[0] = torch.sin(3 * x)
        >>> round(float(energy_spectrum(u)[3]), 6)
        0.25
    """
    size = velocity.shape[-1]
    modes = torch.fft.rfftn(velocity.double(), dim=(1, 2, 3), norm="forward")
    weight = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64, device=velocity.device)
    weight[0] = weight[-1] = 1.0
    density = 0.5 * modes.abs().square().sum(0) * weight
    shell = wave_vectors(size, velocity.device).square().sum(0).sqrt().round().long().flatten()
    return torch.bincount(shell, density.flatten(), minlength=size)[: size // 2 + 1]


def spectral_gradient(velocity: Tensor) -> Tensor:
    """``gradient[i, j]`` is the derivative of component i along axis j, ``(3, 3, N, N, N)`` float64."""
    size = velocity.shape[-1]
    modes = torch.fft.rfftn(velocity.double(), dim=(1, 2, 3))
    k = wave_vectors(size, velocity.device)
    k = torch.where(k.abs() == size // 2, 0.0, k)  # the derivative of a Nyquist mode is not defined
    return torch.fft.irfftn(1j * k[None] * modes[:, None], s=(size,) * 3, dim=(2, 3, 4))


def derivative_moments(gradient: Tensor) -> tuple[float, float]:
    """Skewness and flatness of the longitudinal derivatives, pooled: ``gradient`` is ``(3, 3, ...)``."""
    values = torch.stack([gradient[i, i] for i in range(3)]).double()
    variance = values.square().mean()
    skewness = values.pow(3).mean() / variance.pow(1.5)
    return float(skewness), float(values.pow(4).mean() / variance.square())


def flow_statistics(velocity: Tensor, viscosity: float) -> FlowStatistics:
    """Statistics of a snapshot.

    Args:
        velocity: ``(3, N, N, N)``, component i along axis i, any device.
        viscosity: Kinematic.
    """
    size = velocity.shape[-1]
    gradient = spectral_gradient(velocity)
    spectrum = energy_spectrum(velocity)
    energy = float(0.5 * velocity.double().square().sum(0).mean())
    strain = 0.5 * (gradient + gradient.transpose(0, 1))
    dissipation = 2 * viscosity * float(strain.square().sum((0, 1)).mean())
    skewness, flatness = derivative_moments(gradient)
    divergence = sum(gradient[i, i] for i in range(3))
    mean_square_gradient = float(gradient.square().sum((0, 1)).mean())
    shells = torch.arange(len(spectrum), dtype=torch.float64, device=spectrum.device)
    dissipated = shells.square() * spectrum
    largest = size // 3
    rms = math.sqrt(2 * energy / 3)
    taylor = math.sqrt(15 * viscosity * rms**2 / dissipation) if dissipation else math.inf
    return FlowStatistics(
        energy=energy,
        dissipation=dissipation,
        reynolds=rms * taylor / viscosity,
        skewness=skewness,
        flatness=flatness,
        divergence=math.sqrt(float(divergence.square().mean()) / max(mean_square_gradient, 1e-300)),
        resolution=largest * (viscosity**3 / max(dissipation, 1e-300)) ** 0.25,
        tail=float(dissipated[largest] / dissipated.max()),
        spectrum=tuple(spectrum.tolist()),
    )


def objections(statistics: FlowStatistics, power: float | None = 1.0) -> list[str]:
    """Why a snapshot is no resolved, stationary isotropic turbulence; empty if it is.

    Args:
        statistics: Of the snapshot.
        power: Energy input the dissipation is held against; None for a decaying flow.
    """
    found = []
    if power is not None and not 0.6 * power <= statistics.dissipation <= 1.6 * power:
        found.append(f"dissipates {statistics.dissipation:.3f} where {power:g} comes in")
    if not -0.65 <= statistics.skewness <= -0.35:
        found.append(f"derivative skewness {statistics.skewness:.3f} is not within -0.65 and -0.35")
    if statistics.divergence > 1e-4:
        found.append(f"relative divergence {statistics.divergence:.1e} is above 1e-4")
    if statistics.resolution < 1.3:
        found.append(f"k_max eta is {statistics.resolution:.2f}, below 1.3")
    if statistics.tail > 0.1:
        found.append(f"the last shell dissipates {statistics.tail:.1%} of the strongest")
    return found


@dataclass(frozen=True)
class ScalarStatistics:
    """What characterises a passive scalar with a mean gradient along the first axis.

    Attributes:
        mean: Of the fluctuations, over their root mean square.
        variance: Of the fluctuations.
        dissipation: ``2 D`` times the mean squared gradient: variance that mixing destroys a unit of time.
        production: ``-2 G`` times the flux down the mean gradient: what the flow adds to it.
        tail: Dissipation in the last kept shell over that in the strongest shell.
    """

    mean: float
    variance: float
    dissipation: float
    production: float
    tail: float


def scalar_statistics(
    scalar: Tensor, velocity: Tensor, diffusivity: float, gradient: float = 1.0
) -> ScalarStatistics:
    """Statistics of a snapshot.

    Args:
        scalar: Fluctuations ``(N, N, N)``.
        velocity: ``(3, N, N, N)`` of the same snapshot.
        diffusivity: Of the scalar.
        gradient: Mean gradient along the first axis.
    """
    size = scalar.shape[-1]
    values = scalar.double()
    # Twice the energy of a velocity with one component is its variance.
    shells = 2 * energy_spectrum(values[None])
    k = torch.arange(len(shells), dtype=torch.float64, device=shells.device)
    modes = torch.fft.rfftn(values, norm="forward")
    weight = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64, device=values.device)
    weight[0] = weight[-1] = 1.0
    squares = wave_vectors(size, values.device).square().sum(0)
    dissipated = k.square() * shells
    variance = float(values.var(unbiased=False))
    return ScalarStatistics(
        mean=float(values.mean()) / max(math.sqrt(variance), 1e-300),
        variance=variance,
        dissipation=2 * diffusivity * float((modes.abs().square() * weight * squares).sum()),
        production=-2 * gradient * float((velocity[0].double() * values).mean()),
        tail=float(dissipated[size // 3] / dissipated.max()),
    )


def scalar_objections(statistics: ScalarStatistics, stationary: bool = True) -> list[str]:
    """Why a snapshot is no resolved, well mixed scalar; empty if it is.

    Args:
        statistics: Of the snapshot.
        stationary: The flow is forced, so that production and dissipation are about equal. Both fluctuate
            much, because the largest eddies carry the flux.
    """
    found = []
    if abs(statistics.mean) > 1e-4:
        found.append(f"the fluctuations have the mean {statistics.mean:.1e}")
    if stationary and not 0.4 <= statistics.dissipation / max(statistics.production, 1e-300) <= 2.5:
        found.append(
            f"mixing destroys {statistics.dissipation:.3f} where the flow adds {statistics.production:.3f}"
        )
    if statistics.tail > 0.1:
        found.append(f"the last shell of the scalar dissipates {statistics.tail:.1%} of the strongest")
    return found
