"""Measures the lattice that a decoder puts into coarse cells and medium quarters.

:mod:`latentpress.models.index.cell_lattice` says what becomes of it. The weights get it as part of their
appearance, so that both of their fingerprints stay::

    python -m latentpress.train.index_lattice --weights assets/weights/index.safetensors --photographs PHOTOS

Photographs are decoded with maps by local entropy. A lattice is what many cells have in common, so the mean
of the cells in a window is compared with that of the photograph's. Directions are those, of all that are not
smooth, in which decoded means have most energy that the photographs' have not; windows with little contrast
count most, because a lattice is seen there. About a minute on a CPU. To be run after
``index_texture``, which changes what is left.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.index import LATTICE_NAMES, IndexCodec
from latentpress.codecs.weights import APPEARANCE, WeightFile, read_weight_file
from latentpress.models.index.cell_lattice import LatticeDirections
from latentpress.models.index.granularity import (
    CELL,
    QUARTER,
    GrainMap,
    fractions_of_detail,
    route,
    routing_scores,
)
from latentpress.train.card import write_with_card
from latentpress.train.fit_grain_tables import pictures_below
from latentpress.train.index_texture import cells_of, smooth_cells

DIRECTIONS = 3
"""Of each granularity: more take away more of what is right, for less and less lattice."""

WINDOW = 32
"""Side of the windows in which cells are averaged, in pixels."""

DETAILS = (0.4, 0.55, 0.7)
"""Of the maps, in turn; about 0.06 to 0.15 bits a pixel."""

_SIDES = (CELL, QUARTER)
_LARGEST_SIDE = 512
_CONTRAST = 5.0 / 255
"""Standard deviation below which contrast hides nothing."""


class Means(NamedTuple):
    """Means of the cells in windows.

    Attributes:
        decoded: ``(n, d)``.
        true: ``(n, d)``, of the photograph.
        contrast: ``(n,)``, standard deviation of the photograph in the window.
    """

    decoded: Tensor
    true: Tensor
    contrast: Tensor


@torch.inference_mode()
def lattice_directions(codec: IndexCodec, pictures: Iterable[Tensor]) -> LatticeDirections:
    """Finds the lattice that a codec's pictures have.

    Args:
        codec: The codec, of weights without a lattice's directions.
        pictures: ``(H, W, 3)`` uint8.

    Raises:
        ValueError: No picture has a window of coarse cells, or none of medium quarters.
    """
    found: tuple[list[Means], list[Means]] = ([], [])
    for number, picture in enumerate(pictures):
        height, width = (min(side, _LARGEST_SIDE) // WINDOW * WINDOW for side in picture.shape[:2])
        image = picture[None, :height, :width].float() / 255
        if not image.numel():
            continue
        decoded, grains = _decoded(codec, image, DETAILS[number % len(DETAILS)])
        masks = (grains.coarse_mask(), grains.medium_mask())
        for means, mask, side in zip(found, masks, _SIDES, strict=True):
            means.append(window_means(decoded, image, mask, side))
    return LatticeDirections(*_both(found))


def window_means(decoded: Tensor, true: Tensor, mask: Tensor, side: int) -> Means:
    """Averages cells in those windows of which a mask has three quarters.

    Args:
        decoded: ``(1, H, W, 3)``, sides multiples of 32.
        true: Of the same shape.
        mask: ``(1, H / side, W / side)`` bool, the cells that count.
        side: Of a cell.

    Example:
        >>> image = torch.rand(1, 64, 96, 3)
        >>> window_means(image, image, torch.ones(1, 8, 12).bool(), 8).decoded.shape
        torch.Size([6, 192])
    """
    each = WINDOW // side
    weights = mask[0, None].float()
    share = F.avg_pool2d(weights, each)[0]
    kept = share >= 0.75

    def means(image: Tensor) -> Tensor:
        cells = cells_of(image, side)[0].permute(2, 0, 1)
        return (F.avg_pool2d(cells * weights, each) / share.clamp(min=0.5))[:, kept].T

    contrast = cells_of(true, WINDOW)[0].unflatten(-1, (-1, 3)).std(dim=2).mean(-1)
    return Means(means(decoded), means(true), contrast[kept])


def with_lattice(weights: WeightFile, directions: LatticeDirections | None) -> WeightFile:
    """Weights with a lattice's directions in the place of those that they may have; None for none."""
    named = [APPEARANCE + name for name in LATTICE_NAMES]
    kept = {name: array for name, array in weights.tensors.items() if name not in named}
    if directions is not None:
        kept |= {
            name: found.numpy().astype(np.float16) for name, found in zip(named, directions, strict=True)
        }
    return dataclasses.replace(weights, tensors=kept)


def _decoded(codec: IndexCodec, image: Tensor, detail: float) -> tuple[Tensor, GrainMap]:
    """What a picture becomes, with a map that is made without measuring."""
    grains = route(routing_scores(image), *(x[None] for x in fractions_of_detail(torch.tensor(detail))))
    book = torch.tensor([codec.model.books.full])
    return codec.finished(
        codec.model.synthesise(codec.model.analyse(image, book), grains, book), grains
    ), grains


def _both(found: Sequence[list[Means]]) -> Iterator[Tensor]:
    for means, side in zip(found, _SIDES, strict=True):
        count = sum(len(some.contrast) for some in means)
        if not count:
            raise ValueError(f"no photograph has windows with cells of {side} pixels")
        yield _excess_directions(Means(*(torch.cat(parts) for parts in zip(*means, strict=True))), side)


def _excess_directions(means: Means, side: int) -> Tensor:
    """Directions ``(k, side * side * 3)`` with most energy that photographs have not."""
    smooth = smooth_cells(side)
    weights = 1 / (means.contrast + _CONTRAST)[:, None]
    decoded, true = (
        ((some - (some @ smooth.T) @ smooth) * weights).double() for some in (means.decoded, means.true)
    )
    _, directions = torch.linalg.eigh(decoded.T @ decoded - true.T @ true)
    return directions[:, -DIRECTIONS:].T.float()


def main(args: Sequence[str] | None = None) -> None:
    """Gives an index codec's weight file the directions of its lattice, and refreshes its card.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.index_lattice", description=main.__doc__
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file, changed in place")
    parser.add_argument("--photographs", required=True, metavar="FOLDER", help="training pictures")
    parser.add_argument("--most", type=int, default=150, metavar="N", help="photographs (default: 150)")
    options = parser.parse_args(args)
    try:
        weights = with_lattice(read_weight_file(options.weights), None)
        found = lattice_directions(IndexCodec(weights), pictures_below(options.photographs, options.most))
        write_with_card(with_lattice(weights, found), options.weights)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(
        f"directions of the lattice: {len(found.coarse)} of coarse cells, {len(found.medium)} of medium ones"
    )


if __name__ == "__main__":
    main()
