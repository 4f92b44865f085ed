"""Indices that suit one picture: descent through the decoder, as more effort of the index codec.

The nearest code is the best one for vectors by themselves. What a picture becomes depends on all of them, and
on what the decoder makes of each: another code nearby may well give local statistics that are closer to the
original's. Directions before quantisation are moved by gradient descent through the frozen decoder, and codes
are chosen anew in every step::

    directions -> nearest codes -> decoder -> texture -> Wasserstein distortion + a little squared error
        ^                                                               + distance from where they began
        '------------- Adam <- gradient, past the quantisation <---------------'

The distance is there for the rate: the prior expects what the encoder says, so a code that is chosen for
nothing costs bits for nothing. Any decoder reads the result. The idea is that of refining latents (arXiv
2006.04240, :mod:`latentpress.codecs.latent_refinement`), for indices in the place of rounded numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.effort import check_effort
from latentpress.models.index.codebooks import CodeBooks
from latentpress.models.index.encoder import GrainVectors
from latentpress.models.index.granularity import CELL, GrainMap
from latentpress.models.index.model import IndexModel
from latentpress.models.index.prior import GrainIndexes
from latentpress.models.index.quantiser import nearest_codes, unit_vectors
from latentpress.models.wasserstein import wasserstein_distortion

STEPS = (0, 0, 6, 10, 14, 18, 22, 26, 32, 40, 50)
"""Steps of descent by effort."""

LEARNING_RATE = 0.01
"""Of Adam, in lengths of the directions."""

DISTANCE_WEIGHT = 10.0
"""Of the mean squared distance of directions to the encoder's, against distortions in squared 8-bit steps."""

ERROR_WEIGHT = 0.01
"""Of the mean squared error."""

TILE = 32
"""Cells each way that are refined together: more would take more memory than a phone has."""

MARGIN = 4
"""Cells around a tile that are decoded with it."""

_GRAINS = (1, 2, 4)
"""Positions each way of a cell, by granularity."""

Finish = Callable[[Tensor, GrainMap], Tensor]
"""From the decoder's output and its map to the picture."""


def steps_of(effort: int) -> int:
    """Steps of descent for an effort.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is outside [0, 10].

    Example:
        >>> steps_of(1), steps_of(10)
        (0, 50)
    """
    return STEPS[check_effort(effort)]


class Area(NamedTuple):
    """Cells that are refined together.

    Attributes:
        rows: Rows of cells that are decoded.
        columns: Columns of cells that are decoded.
        inner_rows: Rows of cells whose indices are kept.
        inner_columns: Columns of cells whose indices are kept.
    """

    rows: slice
    columns: slice
    inner_rows: slice
    inner_columns: slice


def areas_of(rows: int, columns: int) -> list[Area]:
    """Tiles of a picture of so many cells, of about the same size, with their margins.

    Example:
        >>> [(area.rows, area.inner_rows) for area in areas_of(40, 3)]
        [(slice(0, 24, None), slice(0, 20, None)), (slice(16, 40, None), slice(20, 40, None))]
    """

    def parts(size: int) -> Iterator[tuple[slice, slice]]:
        count = math.ceil(size / TILE)
        edges = [round(size * number / count) for number in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            yield slice(max(0, start - MARGIN), min(size, stop + MARGIN)), slice(start, stop)

    return [
        Area(outer_rows, outer_columns, inner_rows, inner_columns)
        for outer_rows, inner_rows in parts(rows)
        for outer_columns, inner_columns in parts(columns)
    ]


class IndexRefinement:
    """Refines the indices of one picture.

    Args:
        model: The frozen model.
        finish: What is done to the decoder's output.
        image: The picture, ``(1, 16h, 16w, 3)`` in [0, 1].
        book: Number of the coarse indices' book.
        features: Of the encoder.

    Attributes:
        book: Number of the coarse indices' book.
        indexes: As refined so far.
    """

    def __init__(
        self,
        model: IndexModel,
        finish: Finish,
        image: Tensor,
        book: int,
        features: GrainVectors,
    ) -> None:
        self.book = book
        self._model = model
        self._finish = finish
        # What was made in inference mode cannot be part of a graph.
        with torch.inference_mode(False), torch.no_grad():
            self._image = image.clone()
            books, heads = model.books, model.encoder.heads
            coarse, medium, fine = (x.float().clone() for x in features)
            vectors = (
                F.linear(coarse, books.heads[book], books.head_biases[book]),
                heads[1](medium),
                heads[2](fine),
            )
            self._start = [unit_vectors(x) for x in vectors]
            self._codes = [_codes_of(books, number) for number in (book, books.full, books.full)]
            self._now = [x.clone() for x in self._start]
        self.indexes = self._nearest(self._now)

    def run(self, grains: GrainMap, steps: int, notify: Callable[[float], None]) -> None:
        """Refines the indices that a map has.

        Args:
            grains: The map.
            steps: Of descent; more than one call may be made, and the next goes on where one ended.
            notify: Called with the fraction done.
        """
        areas = areas_of(*grains.split.shape[1:])
        with torch.inference_mode(False), torch.enable_grad():
            whole = GrainMap(grains.split.clone(), grains.fine.clone())
            for number, area in enumerate(areas):
                self._refine_area(area, whole, steps, _part(notify, number, len(areas)))
        self.indexes = self._nearest(self._now)

    def _refine_area(self, area: Area, grains: GrainMap, steps: int, notify: Callable[[float], None]) -> None:
        cut = [_positions(area.rows, area.columns, grain) for grain in _GRAINS]
        part = GrainMap(grains.split[cut[0]], grains.fine[cut[1]])
        masks = (part.coarse_mask(), part.medium_mask(), part.fine_mask())
        free = [x[where].clone().requires_grad_(True) for x, where in zip(self._now, cut, strict=True)]
        start = [x[where] for x, where in zip(self._start, cut, strict=True)]
        target = self._image[_positions(area.rows, area.columns, CELL)].permute(0, 3, 1, 2)
        optimizer = torch.optim.Adam(free, lr=LEARNING_RATE)
        best, least = [x.detach().clone() for x in free], math.inf
        for step in range(steps + 1):
            notify(step / (steps + 1))
            loss = self._distortion(free, part, target) + DISTANCE_WEIGHT * _distance(free, start, masks)
            if float(loss.detach()) < least:
                best, least = [x.detach().clone() for x in free], float(loss.detach())
            if step < steps:
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        inner = [_positions(area.inner_rows, area.inner_columns, grain) for grain in _GRAINS]
        kept = slice(area.inner_rows.start - area.rows.start, area.inner_rows.stop - area.rows.start)
        kept_columns = slice(
            area.inner_columns.start - area.columns.start, area.inner_columns.stop - area.columns.start
        )
        for whole, where, found, grain in zip(self._now, inner, best, _GRAINS, strict=True):
            whole[where] = unit_vectors(found[_positions(kept, kept_columns, grain)])

    def _distortion(self, free: list[Tensor], grains: GrainMap, target: Tensor) -> Tensor:
        """Of what the nearest codes decode to, in squared 8-bit steps; gradients pass by the quantisation."""
        vectors = []
        for directions, (codes, table) in zip(free, self._codes, strict=True):
            unit = F.normalize(directions, dim=-1)
            nearest = F.embedding(nearest_codes(unit.detach(), codes), table)
            vectors.append(nearest + (unit - unit.detach()) * unit.shape[-1] ** 0.5)
        decoded = self._finish(self._model.decoder(GrainVectors(*vectors), grains), grains)
        picture = decoded.clamp(0, 1).permute(0, 3, 1, 2)
        squared = (picture - target).square().mean()
        return 255**2 * (wasserstein_distortion(target, picture).mean() + ERROR_WEIGHT * squared)

    def _nearest(self, directions: list[Tensor]) -> GrainIndexes:
        found = (nearest_codes(x, codes) for x, (codes, _) in zip(directions, self._codes, strict=True))
        return GrainIndexes(*found)


def _codes_of(books: CodeBooks, number: int) -> tuple[Tensor, Tensor]:
    """Directions and vectors of a book's codes, ``(K, d)`` each."""
    book = books.books[number]
    rows = slice(book.first_row, book.first_row + book.size)
    return unit_vectors(books.directions[rows]), books.vectors[rows]


def _part(notify: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    """Tells how much of everything is done, from how much of one of several areas is."""
    return lambda done: notify((number + done) / count)


def _positions(rows: slice, columns: slice, grain: int) -> tuple[slice, slice, slice]:
    """Where cells lie on a grid with so many positions each way of a cell."""
    return (
        slice(None),
        slice(rows.start * grain, rows.stop * grain),
        slice(columns.start * grain, columns.stop * grain),
    )


def _distance(free: list[Tensor], start: list[Tensor], masks: tuple[Tensor, ...]) -> Tensor:
    """Mean squared distance of the directions that a map has."""
    total = free[0].new_zeros(())
    for directions, first, mask in zip(free, start, masks, strict=True):
        total = total + ((F.normalize(directions, dim=-1) - first).square().sum(-1) * mask).sum()
    return total / torch.stack([mask.sum() for mask in masks]).sum()
