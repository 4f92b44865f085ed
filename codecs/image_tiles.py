"""Where the tiles of a picture are. No torch here.

::

    tile 0 | tile 1 | tile 2       raster order; all are squares of one size, except that those of the last
    -------+--------+-------       column and row end where the picture does
    tile 3 | tile 4 | tile 5

A tile is what is coded by itself: its latents, and nothing that overlaps. The transforms see beyond it: what
is analysed, and what is synthesised, is a *window*, the tile and as much around it as reaches into it. So the
latents, and the pixels, are those of a picture without tiles, and there is nothing to blend.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

TILE_STEP = 64
"""Sides of tiles are multiples of it, in pixels: as many as a position of the side information stands for."""

STRIDE = 16
"""Pixels of the picture per position of the latent, each way."""

HYPER_STRIDE = 4
"""Positions of the latent per position of the side information, each way."""

T = TypeVar("T")


class Region(NamedTuple):
    """A rectangle, in pixels of a picture or in positions of a latent.

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column after the last."""
        return self.left + self.width

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Its columns."""
        return slice(self.left, self.right)

    def grown(self, reach: int, within: Region) -> Region:
        """The same with ``reach`` more on every side, as far as there is something.

        Example:
            >>> Region(0, 10, 5, 5).grown(2, within=Region(0, 0, 100, 100))
            Region(top=0, left=8, height=7, width=9)
        """
        top, left = max(self.top - reach, within.top), max(self.left - reach, within.left)
        bottom, right = min(self.bottom + reach, within.bottom), min(self.right + reach, within.right)
        return Region(top, left, bottom - top, right - left)

    def seen_from(self, other: Region) -> Region:
        """The same with the corner of another as its origin."""
        return self._replace(top=self.top - other.top, left=self.left - other.left)

    def positions(self) -> Region:
        """The positions of a latent that a region of a picture touches.

        Example:
            >>> Region(0, 17, 32, 16).positions()
            Region(top=0, left=1, height=2, width=2)
        """
        top, left = self.top // STRIDE, self.left // STRIDE
        return Region(top, left, -(-self.bottom // STRIDE) - top, -(-self.right // STRIDE) - left)

    def hyper_positions(self) -> Region:
        """The positions of the side information that positions of the latent touch."""
        top, left = self.top // HYPER_STRIDE, self.left // HYPER_STRIDE
        bottom, right = -(-self.bottom // HYPER_STRIDE), -(-self.right // HYPER_STRIDE)
        return Region(top, left, bottom - top, right - left)

    def pixels(self) -> Region:
        """The region of a picture that positions of a latent stand for."""
        return Region(*(STRIDE * number for number in self))


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a picture.

    Attributes:
        height: Of the picture, in pixels.
        width: Of the picture.
        tile_size: Side of a tile in pixels; 0 if the picture is one tile.

    Example:
        >>> grid = TileGrid(100, 200, tile_size=64)
        >>> grid.count, grid.tile(7)
        (8, Region(top=64, left=192, height=36, width=8))
    """

    height: int
    width: int
    tile_size: int

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile_size) if self.tile_size else 1

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return -(-self.width // self.tile_size) if self.tile_size else 1

    @property
    def picture(self) -> Region:
        """All of it."""
        return Region(0, 0, self.height, self.width)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def tile(self, number: int) -> Region:
        """The pixels of a tile."""
        row, column = divmod(number, self.columns)
        top, left = row * self.tile_size, column * self.tile_size
        side = self.tile_size or max(self.height, self.width)
        return Region(top, left, min(side, self.height - top), min(side, self.width - left))

    def touched(self, region: Region) -> Region:
        """The rows and columns of tiles that a region of the picture touches.

        Example:
            >>> TileGrid(640, 640, 64).touched(Region(60, 64, 10, 64))
            Region(top=0, left=1, height=2, width=1)
        """
        if not self.tile_size:
            return Region(0, 0, 1, 1)
        top, left = region.top // self.tile_size, region.left // self.tile_size
        bottom, right = (-(-end // self.tile_size) for end in (region.bottom, region.right))
        return Region(top, left, bottom - top, right - left)

    def bounds(self, tiles: Region) -> Region:
        """The pixels of tiles, given their rows and columns.

        Example:
            >>> TileGrid(100, 200, 64).bounds(Region(1, 2, 1, 2))
            Region(top=64, left=128, height=36, width=72)
        """
        first = self.tile(tiles.top * self.columns + tiles.left)
        last = self.tile((tiles.bottom - 1) * self.columns + tiles.right - 1)
        return Region(first.top, first.left, last.bottom - first.top, last.right - first.left)

    def numbers(self, tiles: Region) -> list[int]:
        """Numbers of tiles, given their rows and columns."""
        columns = range(tiles.left, tiles.right)
        return [row * self.columns + column for row in range(tiles.top, tiles.bottom) for column in columns]


def checked_region(region: Sequence[int], picture: Region) -> Region:
    """Checks a region that somebody asks for.

    Args:
        region: Top row, left column, height and width, in pixels.
        picture: All of the picture.

    Raises:
        TypeError: It is not four whole numbers.
        ValueError: It is empty, or not within the picture.

    Example:
        >>> checked_region((0, 10, 5, 20), Region(0, 0, 100, 30)).right
        30
    """
    try:
        found = Region(*(operator.index(number) for number in region))
    except TypeError:
        raise TypeError(f"a region is four whole numbers (y, x, height, width), got {region!r}") from None
    inside = (
        min(found.top, found.left) >= 0 and found.bottom <= picture.height and found.right <= picture.width
    )
    if not inside or min(found.height, found.width) < 1:
        raise ValueError(
            f"the region {tuple(found)} (y, x, height, width) is not within a picture of "
            f"{picture.height} rows and {picture.width} columns"
        )
    return found


def batches(items: Iterable[T], kind: Callable[[T], Hashable], most: int) -> Iterator[list[T]]:
    """Puts items of a kind together.

    Args:
        items: In any order, which they keep among their kind.
        kind: What those of a batch have in common, such as a size.
        most: Items of a batch.

    Example:
        >>> list(batches("aAbBa", str.lower, 2))
        [['a', 'A'], ['a'], ['b', 'B']]
    """
    kinds: dict[Hashable, list[T]] = {}
    for item in items:
        kinds.setdefault(kind(item), []).append(item)
    for same in kinds.values():
        for start in range(0, len(same), most):
            yield list(itertools.islice(same, start, start + most))
