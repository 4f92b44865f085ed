"""Keeps latents of pictures that no training has prepared an analysis for within what decoders can undo.

Gated networks multiply what they see, block after block. A photograph stays small, but a chessboard, a
dithered page or noise can grow a thousandfold in every block, and what comes out is no description of the
picture any more: it costs more bytes than the pixels and decodes to nothing like them. So where latents have
left the range of photographs, the picture is made tamer and analysed again::

    picture -> analysis -> y -> hyper analysis -> z -> within bounds? -> y
       ^                                                    | no
       '-- finest detail or contrast reduced, only there <--'

What comes back better of these latents, those of one round more, and mild ones as they were first, is taken.

Decoders know nothing of it. Pictures that stay within bounds are not changed, not even in the last bit, and
neither are those that come back better without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.entropy.hyperprior import HYPER_STRIDE
from latentpress.models.image.transforms import STRIDE

LARGEST_Y = 24.0
"""Before the gain of the quality. With the weights that ship, photographs and black text stay well below."""

LARGEST_Z = 64.0
"""In quantisation steps; photographs and black text stay well below."""

MOST_ROUNDS = 12

_CONTRAST = 0.75
_NEIGHBOURHOOD = 33
_FALLBACK_LIMIT = 1000.0

# Times the bound that latents may be if they serve better than those of a tamer picture.
_MILD = 4.0

# An entropy model rounds around its own means, so what is near the edge may come out either way.
_SHIFTS = (0.0, 0.25, -0.25)

Synthesis = Callable[[Tensor, float], Tensor]


def tamed_analysis(
    pictures: Tensor,
    analyse: Callable[[Tensor], Tensor],
    hyper_analyse: Callable[[Tensor], Tensor],
    synthesise: Synthesis,
) -> Tensor:
    """Analyses pictures, made tamer where that is needed.

    Args:
        pictures: ``(B, 3, H, W)``, sides multiples of those of a position.
        analyse: Makes of them y ``(B, h, w, M)`` before the gain.
        hyper_analyse: Makes of that z ``(B, ceil(h/4), ceil(w/4), Z)`` in quantisation steps.
        synthesise: Makes of y, quantised with steps that are shifted by a share of one, about what decoders
            will, ``(B, 3, H, W)``.

    Returns:
        y, finite. If nothing helps, it is that of the pictures as they came, clamped: then the networks are
        like that.

    Example:
        >>> bright = torch.full((1, 3, 16, 16), 100.0)
        >>> def spread(y, shift):
        ...     return y.permute(0, 3, 1, 2).expand(1, 3, 16, 16)
        >>> y = tamed_analysis(bright, lambda x: x[:, 0, ::16, ::16, None], lambda y: y, spread)
        >>> round(float(y), 3)
        100.0
    """
    first = y = analyse(pictures)
    original = pictures
    touched = torch.zeros(y.shape[:3], dtype=torch.bool, device=y.device)
    for number in range(MOST_ROUNDS + 1):
        wild = _wild(y, hyper_analyse)
        if not bool(wild.any()):
            if number == 0:
                return y
            further = analyse(_tamer(pictures, touched, number))
            return _best(original, first, (y, further), hyper_analyse, synthesise)
        touched |= wild
        if number < MOST_ROUNDS:
            pictures = _tamer(pictures, wild, number)
            y = analyse(pictures)
    return _finite(first)


def _best(
    pictures: Tensor,
    first: Tensor,
    tamed: Sequence[Tensor],
    hyper_analyse: Callable[[Tensor], Tensor],
    synthesise: Synthesis,
) -> Tensor:
    """Of each picture of the batch the latents that it comes back from with the smallest error.

    Those that are far out of bounds cost more than they are worth, however well they come back. Latents just
    within bounds can decode to anything once they are rounded, so those of one round more are tried as well.
    """
    best = tamed[0]
    least = _error(pictures, best, synthesise)
    for y, allowed in (
        (tamed[1], ~_wild(tamed[1], hyper_analyse).flatten(1).any(1)),
        (first, first.abs().amax((1, 2, 3)) <= _MILD * LARGEST_Y),
    ):
        if bool(allowed.any()):
            error = _error(pictures, y, synthesise)
            better = allowed & (error < least)
            best = torch.where(better[:, None, None, None], y, best)
            least = torch.where(better, error, least)
    return best


def _error(pictures: Tensor, y: Tensor, synthesise: Synthesis) -> Tensor:
    """The largest squared error over shifts of the quantiser, for each picture of the batch; never NaN."""
    errors = [(synthesise(y, shift) - pictures).square().mean((1, 2, 3)) for shift in _SHIFTS]
    return torch.stack(errors).nan_to_num(math.inf, math.inf).amax(0)


def _finite(y: Tensor) -> Tensor:
    return y.nan_to_num(0.0, _FALLBACK_LIMIT, -_FALLBACK_LIMIT).clamp(-_FALLBACK_LIMIT, _FALLBACK_LIMIT)


def _wild(y: Tensor, hyper_analyse: Callable[[Tensor], Tensor]) -> Tensor:
    """Which positions ``(B, h, w)`` of y are out of bounds, or have a z that is; NaN is."""
    wild = ~(y.abs() <= LARGEST_Y).all(dim=-1)
    wild_z = ~(hyper_analyse(y).abs() <= LARGEST_Z).all(dim=-1)
    return wild | _enlarged(wild_z, HYPER_STRIDE, wild.shape[1:])


def _tamer(pictures: Tensor, wild: Tensor, number: int) -> Tensor:
    """Pictures with less detail or, every other time, less contrast at and around some positions."""
    around = F.max_pool2d(wild[:, None].float(), 3, stride=1, padding=1) > 0
    where = _enlarged(around[:, 0], STRIDE, pictures.shape[2:])[:, None]
    changed = _less_contrast(pictures) if number % 2 else _less_detail(pictures)
    return torch.where(where, changed, pictures)


def _less_detail(pictures: Tensor) -> Tensor:
    """Smoothed by 1 6 1 each way: half of what changes from pixel to pixel is left, and most of the rest."""
    x = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 6 * x[..., 1:-1] + x[..., 2:]) / 8
    return (x[..., :-2, :] + 6 * x[..., 1:-1, :] + x[..., 2:, :]) / 8


def _less_contrast(pictures: Tensor) -> Tensor:
    """Nearer to the mean of what is around each pixel."""
    mean = F.avg_pool2d(
        pictures, _NEIGHBOURHOOD, stride=1, padding=_NEIGHBOURHOOD // 2, count_include_pad=False
    )
    return mean + _CONTRAST * (pictures - mean)


def _enlarged(flags: Tensor, stride: int, size: torch.Size) -> Tensor:
    """Flags ``(B, h, w)``, each repeated over a square, cropped to ``(B, *size)``."""
    height, width = size
    large = flags.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)
    return large[:, :height, :width]
