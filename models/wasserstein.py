"""Wasserstein distortion over a steerable pyramid: how far local statistics of two pictures are apart.

The distance of Qiu, Wagner, Ballé and Theis (arXiv 2310.03629, section II): features of both pictures are
pooled to a mean and a standard deviation around every position, and the distortion is the 2-Wasserstein
distance between Gaussians with these moments, ``(mean - mean')^2 + (std - std')^2``. Small windows make it a
squared error, large ones compare textures. No trained features are needed.

::

    picture -> luma, two chroma -> level 0 -> blur, halve -> level 1 -> ... -> residual
                                     | five derivatives        |                 |
                                     v                         v                 v
                           mean and std in windows            ...         squared error
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 4
"""Octaves with oriented bands; the residual is at 1/16 of the resolution."""

WINDOW_OCTAVES = 3
"""Windows are made by blurring and halving so many times: a Gaussian of 4.6 samples of the band's level."""

# Derivatives of a binomial window, close to those of a Gaussian, whose first and second derivatives each span
# all their rotations (Freeman and Adelson, PAMI 1991).
_SMOOTH = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_FIRST = (-1 / 8, -2 / 8, 0.0, 2 / 8, 1 / 8)
_SECOND = (1 / 4, 0.0, -2 / 4, 0.0, 1 / 4)
_BANDS = ((_SMOOTH, _FIRST), (_FIRST, _SMOOTH), (_SMOOTH, _SECOND), (_FIRST, _FIRST), (_SECOND, _SMOOTH))

_SMALLEST_VARIANCE = 1e-6
_SMALLEST_SIDE = 8


def wasserstein_distortion(x: Tensor, y: Tensor) -> Tensor:
    """Wasserstein distortion of pictures, differentiable.

    Args:
        x: ``(B, 3, H, W)`` RGB in [0, 1], float32.
        y: The same shape.

    Returns:
        ``(B,)``, non-negative; squared intensities, so times 255^2 in 8-bit steps. Chroma is compared from
        half the resolution on.

    Raises:
        ValueError: A side is below 8 pixels.

    Example:
        >>> x = torch.rand(1, 3, 64, 64)
        >>> float(wasserstein_distortion(x, x))
        0.0
    """
    if min(x.shape[-2:]) < _SMALLEST_SIDE:
        raise ValueError(
            f"pictures must have sides of at least {_SMALLEST_SIDE} pixels, got {tuple(x.shape)}"
        )
    return torch.stack([distance.mean(dim=(1, 2, 3)) for distance in _distances(x, y)]).sum(0)


def local_distortion(x: Tensor, y: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the Wasserstein distortion of pictures comes from.

    Args:
        x: ``(B, 3, H, W)`` RGB in [0, 1], float32, sides of at least 8 pixels.
        y: The same shape.
        size: Rows and columns of the answer.

    Returns:
        ``(B, *size)``; the mean is about the distortion.

    Example:
        >>> x = torch.zeros(1, 3, 64, 64)
        >>> y = x.clone()
        >>> y[..., :16] = 1
        >>> found = local_distortion(x, y, (4, 4))
        >>> bool((found[..., 0] > found[..., 3]).all())
        True
    """
    found = [
        F.interpolate(distance.mean(1, keepdim=True), size=size, mode="bilinear", align_corners=False)
        for distance in _distances(x, y)
    ]
    return torch.stack(found).sum(0)[:, 0]


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared distances of moments, ``(B, C, h, w)``, level by level, then those of the residual."""
    first, second = luma_chroma(x), luma_chroma(y)
    for level in range(LEVELS):
        if min(first.shape[-2:]) < _SMALLEST_SIDE:
            break
        channels = slice(0, 3 if level else 1)
        yield _band_distance(first[:, channels], second[:, channels])
        first, second = halve(first), halve(second)
    yield (first - second).square()


def luma_chroma(x: Tensor) -> Tensor:
    """Luma and the differences of blue and red to it, ``(B, 3, H, W)`` from RGB of that shape."""
    red, green, blue = x.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack((luma, 0.564 * (blue - luma), 0.713 * (red - luma)), dim=1)


def halve(x: Tensor) -> Tensor:
    """Blurs with a binomial window and takes every other sample, ``(B, C, H, W)``."""
    x = _filter(x, _SMOOTH, dim=2, stride=2)
    return _filter(x, _SMOOTH, dim=3, stride=2)


def oriented_bands(x: Tensor) -> Tensor:
    """First and second derivatives, ``(B, C, H, W)`` to ``(B, 5 C, H, W)``."""
    columns = {taps: _filter(x, taps, dim=2) for taps in (_SMOOTH, _FIRST, _SECOND)}
    return torch.cat(
        [_filter(columns[vertical], horizontal, dim=3) for vertical, horizontal in _BANDS], dim=1
    )


def _band_distance(x: Tensor, y: Tensor) -> Tensor:
    mean_x, std_x = _moments(oriented_bands(x))
    mean_y, std_y = _moments(oriented_bands(y))
    return (mean_x - mean_y).square() + (std_x - std_y).square()


def _moments(bands: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in windows, on a coarser grid."""
    moments = torch.stack((bands, bands.square())).flatten(0, 1)
    for _ in range(WINDOW_OCTAVES):
        if min(moments.shape[-2:]) >= len(_SMOOTH):
            moments = halve(moments)
    mean, square = moments.chunk(2)
    # The root's slope is infinite at zero.
    return mean, (square - mean.square()).clamp(min=0).add(_SMALLEST_VARIANCE).sqrt()


def _filter(x: Tensor, taps: tuple[float, ...], dim: int, stride: int = 1) -> Tensor:
    """Correlates along one axis, mirrored at the borders; sums of slices, which compile to one kernel."""
    size, reach = x.shape[dim], len(taps) // 2
    padding = [reach, reach, 0, 0] if dim == 3 else [0, 0, reach, reach]
    padded = F.pad(x, padding, mode="reflect")
    count = (size - 1) // stride + 1
    parts = [
        weight * padded.narrow(dim, start, stride * (count - 1) + 1)[_every(dim, stride)]
        for start, weight in enumerate(taps)
        if weight
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _every(dim: int, stride: int) -> tuple[slice, ...]:
    return tuple(slice(None, None, stride if axis == dim else 1) for axis in range(4))
