"""Residual indices: what is left to say of a picture whose indices are all fine.

A *patch* is 4x4 pixels of a picture minus what the decoder makes of the fine indices. A book of patches comes
from K-means over such differences, sorted by energy, and begins with the patch that changes nothing. In
*marked* cells every 4x4 pixels have the number of a patch, which is added to the decoded picture. Added to
pixels and not to the decoder's vectors: the decoder has seen codes only, and between them its textures are
wrong (docs/index-codecs.md).

Numbers are coded with static tables by the mean of the neighbours' numbers, which stand for energies.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.bitstream.tables import TOTAL
from latentpress.codecs.grain_map_coder import Bits, code_bits, level_of, weighted_neighbours
from latentpress.codecs.index_coder import packet_map
from latentpress.codecs.symbol_channel import SymbolChannel
from latentpress.codecs.weights import WeightFile
from latentpress.models.index.granularity import CELL, FINE, GrainMap
from latentpress.models.index.prior import STEPS, UNKNOWN, step_map
from latentpress.models.layers import depth_to_space, space_to_depth

CLASSES = 8
"""Tables: no neighbour known, then seven by the mean of their numbers."""

PATCH = 3 * FINE * FINE
"""Numbers of a patch."""

_ACROSS = CELL // FINE
_FINE_PLACE = 2
_PREFIX = "residual."

# What a bit is worth in squared error, on the scale of [0, 1]: of the path that rates follow, where better
# cells first and cheaper numbers are traded for each other.
BIT_WORTH = 80 / 255**2

# Distances of so many patches to all of the book are held at once.
_AT_ONCE = 2**12


class Residuals(NamedTuple):
    """Residual indices of a picture.

    Attributes:
        marked: ``(h, w)`` bool, cells that have them.
        indexes: ``(4h, 4w)`` int64, numbers of patches; UNKNOWN where lost or not marked.
    """

    marked: Bits
    indexes: NDArray[np.int64]

    def only_marked(self) -> Residuals:
        """The same as a decoder has them: UNKNOWN outside of marked cells."""
        marked = self.marked.repeat(_ACROSS, axis=0).repeat(_ACROSS, axis=1)
        return Residuals(self.marked, np.where(marked, self.indexes, UNKNOWN))


class PatchChoice(NamedTuple):
    """The best patches for a picture, everywhere.

    Attributes:
        indexes: ``(4h, 4w)`` int64.
        merit: ``(h, w)``, by how much squared error falls in each cell for a bit.
    """

    indexes: NDArray[np.int64]
    merit: NDArray[np.float64]

    def best(self, share: float) -> Residuals:
        """Marks a share of the cells, those with the most merit."""
        order = np.argsort(-self.merit, axis=None, kind="stable")
        marked = np.zeros(self.merit.size, np.bool_)
        marked[order[: round(share * marked.size)]] = True
        return Residuals(marked.reshape(self.merit.shape), self.indexes)


class ResidualBook:
    """Patches, and the tables of their numbers.

    Args:
        patches: ``(K, 48)``: 4x4 pixels in raster order, red, green and blue of each, floating point on the
            scale of [0, 1]. The first is zero.
        tables: One for each class, for symbols of [0, K).

    Raises:
        ValueError: They do not fit together.
    """

    def __init__(self, patches: Tensor, tables: TableSet) -> None:
        if patches.ndim != 2 or patches.shape[1] != PATCH or not bool(patches.isfinite().all()):
            raise ValueError(f"patches have {PATCH} finite numbers each, got {tuple(patches.shape)}")
        if len(tables) != CLASSES or tables.minimums.any() or (tables.lengths != len(patches) + 1).any():
            raise ValueError(f"{len(patches)} patches do not fit their tables")
        self.patches = patches.float()
        self.tables = tables

    @classmethod
    def of(cls, weights: WeightFile, device: torch.device) -> ResidualBook | None:
        """The book that is among the additions of weights; None if there is none.

        Raises:
            ValueError: It is not a whole one.
        """
        held = {k.removeprefix(_PREFIX): v for k, v in weights.added().items() if k.startswith(_PREFIX)}
        if not held:
            return None
        if "patches" not in held:
            raise ValueError("there are tables of residual indices but no patches")
        tables = {k.removeprefix("tables."): v for k, v in held.items() if k.startswith("tables.")}
        return cls(torch.from_numpy(np.array(held["patches"])).to(device), TableSet.from_arrays(tables))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What :meth:`of` reads, by names without the prefix of additions."""
        tables = {f"{_PREFIX}tables.{name}": array for name, array in self.tables.to_arrays().items()}
        return {f"{_PREFIX}patches": self.patches.cpu().numpy().astype(np.float16), **tables}

    def choose(self, error: Tensor) -> PatchChoice:
        """Patches for what a picture has and its decoded indices have not.

        Args:
            error: ``(1, 16h, 16w, 3)``, on the scale of [0, 1].
        """
        wanted = space_to_depth(error, FINE)[0]
        rows, columns = wanted.shape[:2]
        bits = torch.from_numpy(-np.log2(self.tables.table(0)[:-1] / TOTAL)).float().to(error.device)
        handicap = self.patches.square().sum(dim=1) + BIT_WORTH * bits
        parts = torch.split(wanted.flatten(0, 1), _AT_ONCE)
        nearest = [(part @ (2 * self.patches.mT) - handicap).max(dim=1).indices for part in parts]
        found = torch.cat(nearest).view(rows, columns)
        gain = (wanted.square() - (wanted - self.patches[found]).square()).sum(dim=-1)
        merit = _of_cells(gain) / _of_cells(bits[found])
        return PatchChoice(found.cpu().numpy(), merit.double().cpu().numpy())

    def code(
        self,
        channel: SymbolChannel,
        marked: Bits,
        indexes: NDArray[np.int64] | None,
        packet: tuple[int, int] | None = None,
    ) -> NDArray[np.int64]:
        """Codes the indices of marked cells.

        Args:
            channel: Sends or receives.
            marked: ``(h, w)``.
            indexes: ``(4h, 4w)``, or None to receive them.
            packet: A packet's number and how many there are, to code what it has without all else.

        Returns:
            ``(4h, 4w)``; UNKNOWN where nothing was coded.

        Raises:
            StreamError: When receiving, the words cannot be decoded.
        """
        asked = marked.repeat(_ACROSS, axis=0).repeat(_ACROSS, axis=1)
        rows, columns = asked.shape
        found = np.full((rows, columns), UNKNOWN, np.int64)
        if packet is not None:
            number, packets = packet
            turns = [packet_map(rows, columns, _FINE_PLACE, packets) == number]
        else:
            steps = step_map(rows, columns).numpy()
            turns = [steps == step for step in range(STEPS)]
        for turn in turns:
            now = asked & turn
            if now.any():
                symbols = None if indexes is None else indexes[now].astype(np.int32)
                found[now] = channel.exchange(symbols, self._classes(found)[now], self.tables)
        return found

    def picture(self, indexes: NDArray[np.int64]) -> Tensor:
        """What indices ``(4h, 4w)`` add to a picture, ``(1, 16h, 16w, 3)``; nothing where UNKNOWN."""
        numbers = torch.from_numpy(np.where(indexes == UNKNOWN, 0, indexes)).to(self.patches.device)
        known = torch.from_numpy(indexes != UNKNOWN).to(self.patches.device)
        return depth_to_space((self.patches[numbers] * known[..., None])[None], FINE)

    def _classes(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        known = found != UNKNOWN
        total = weighted_neighbours(np.where(known, found, 0))
        seen = weighted_neighbours(known)
        level = (CLASSES - 1) * total // (len(self.patches) * np.maximum(seen, 1))
        return np.where(seen == 0, 0, 1 + level)


def fine_cells(grains: GrainMap) -> Bits:
    """Cells that can have residual indices, ``(h, w)``: those with all quarters fine."""
    fine = grains.fine[0].cpu().numpy()
    cells: Bits = fine[::2, ::2] & fine[::2, 1::2] & fine[1::2, ::2] & fine[1::2, 1::2]
    return cells


def residual_level(marked: Bits, grains: GrainMap) -> int:
    """The level of marked cells, for the header."""
    able = int(fine_cells(grains).sum())
    return level_of(int(marked.sum()) / able) if able else 0


def code_marks(
    channel: SymbolChannel, tables: TableSet, level: int, grains: GrainMap, marked: Bits | None
) -> Bits:
    """Codes which cells have residual indices, as split bits are coded.

    Args:
        channel: Sends or receives.
        tables: Of the map.
        level: Of the marked cells.
        grains: The map.
        marked: ``(h, w)``, or None to receive them.

    Raises:
        StreamError: When receiving, the words cannot be decoded.
    """
    return code_bits(channel, tables, 0, level, fine_cells(grains), marked)


def raw_bits(book: ResidualBook, residuals: Residuals) -> float:
    """What residual indices need without tables."""
    return _ACROSS**2 * int(residuals.marked.sum()) * math.log2(len(book.patches))


def _of_cells(x: Tensor) -> Tensor:
    """Sums over the 4x4 fine positions of every cell, ``(4h, 4w)`` to ``(h, w)``."""
    rows, columns = x.shape
    return x.view(rows // _ACROSS, _ACROSS, columns // _ACROSS, _ACROSS).sum(dim=(1, 3))
