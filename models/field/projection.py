"""Projection of a velocity field on the fields without divergence."""

from __future__ import annotations

import torch
from torch import Tensor


def solenoidal(velocity: Tensor) -> Tensor:
    """Removes the gradient part of a periodic velocity field (Leray projection, in Fourier space).

    For a flow without divergence, an error of a codec along the removed part is removed with it.

    Args:
        velocity: ``(3, D, H, W)``, component i along axis i, on a uniform grid with equal spacings.

    Returns:
        Same shape and type; the mean is kept.

    Example:
        >>> x = torch.rand(3, 8, 8, 8)
        >>> once = solenoidal(x)
        >>> torch.allclose(solenoidal(once), once, atol=1e-5)
        True
    """
    if velocity.ndim != 4 or velocity.shape[0] != 3:
        raise ValueError(f"expected three components on three axes, got shape {tuple(velocity.shape)}")
    shape = velocity.shape[1:]
    modes = torch.fft.rfftn(velocity.float(), dim=(1, 2, 3))
    axes = [torch.fft.fftfreq(n, device=velocity.device) for n in shape[:2]]
    axes.append(torch.fft.rfftfreq(shape[2], device=velocity.device))
    # A Nyquist mode has no sign, hence no direction: it stays as it is.
    axes = [torch.where(axis.abs() == 0.5, 0.0, axis) for axis in axes]
    k = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    square = k.square().sum(0)
    along = (k * modes).sum(0) / torch.where(square == 0, 1.0, square)
    return torch.fft.irfftn(modes - k * along, s=shape, dim=(1, 2, 3)).to(velocity.dtype)
