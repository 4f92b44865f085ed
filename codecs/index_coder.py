"""Indices to symbols and back: the integer prior drives the range coder along its schedule.

::

    step 0..5 of the coarse indices: indices so far, map -> prior -> group, member -> range coder
    step 0..5 of the medium ones: the same, and all coarse ones
    step 0..5 of the fine ones: the same, and all medium ones

In a packet that has to stand alone no index is known when another is predicted, so that packets can be
decoded in any order and without each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.integer_softmax import frequencies_of
from latentpress.codecs.symbol_channel import SymbolChannel
from latentpress.models.entropy.banded import run_banded
from latentpress.models.entropy.fixed_point import FixedPointLinear
from latentpress.models.entropy.sparse import WORTHWHILE, Positions, grown, run_blocks
from latentpress.models.index.codebooks import GROUP, Book
from latentpress.models.index.granularity import GrainMap
from latentpress.models.index.prior import (
    STEPS,
    UNKNOWN,
    Belief,
    GrainBeliefs,
    GrainIndexes,
    GroupedHead,
    IndexPrior,
    step_map,
)

# An additive sequence of two irrational numbers, rounded to 16 bits: neighbours are far apart in it, and all
# values are equally frequent (R2, a generalisation of the golden ratio).
_ROW_STEP, _COLUMN_STEP, _GRAIN_STEP = 49471, 37345, 20729


class _Grain(NamedTuple):
    """What coding needs of a granularity.

    Attributes:
        head: Of the prior.
        mask: ``(H, W)`` bool, where there are indices.
        book: Whose codes they are, with its place in the head's rows.
    """

    head: GroupedHead
    mask: Tensor
    book: Book


def packet_map(height: int, width: int, grain: int, packets: int) -> NDArray[np.int64]:
    """The packet that every index of a granularity is in; neighbours are in different ones.

    Args:
        height: Rows.
        width: Columns.
        grain: 0 (coarse) to 2 (fine).
        packets: How many there are.

    Returns:
        ``(height, width)`` in [0, packets).

    Example:
        >>> packet_map(4, 4, 0, 5).tolist()
        [[0, 2, 0, 3], [3, 1, 4, 2], [2, 0, 3, 1], [1, 4, 2, 4]]
    """
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    place = (rows * _ROW_STEP + columns * _COLUMN_STEP + grain * _GRAIN_STEP) % 65536
    return place * packets >> 16


class _Features:
    """Features of one granularity, as far as they are needed.

    Args:
        embed: Indices known so far to what is known at every position, ``(1, H, W, C)``.
        above: What comes from the coarser granularity, ``(1, H, W, C)``; None for nothing.
        blocks: Of the prior.
        needed: ``(H, W)`` bool, where features will be asked for.
    """

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        above: Tensor | None,
        blocks: torch.nn.Sequential,
        needed: Tensor,
    ) -> None:
        self._embed = embed
        self._above = above
        self._blocks = blocks
        active = grown(needed, len(blocks))
        sparse = float(active.float().mean()) < WORTHWHILE
        self._positions = Positions(active) if sparse else None

    def __call__(self, known: Tensor) -> Tensor:
        """Features ``(1, H, W, C)``, right wherever they are needed, anything elsewhere."""
        x = self._start(known)
        blocks: Any = self._blocks
        if self._positions is None:
            return run_banded(blocks, x)
        x[0].flatten(0, 1)[self._positions.index] = run_blocks(
            blocks, self._positions.take(x), self._positions
        )
        return x

    def at(self, known: Tensor, now: Tensor) -> Tensor:
        """Features ``(n, C)`` at some of the needed positions, ``(H, W)`` bool, in raster order."""
        x = self._start(known)
        blocks: Any = self._blocks
        if self._positions is None:
            return run_banded(blocks, x, now)
        return run_blocks(blocks, self._positions.take(x), self._positions, self._positions.rows_of(now))

    def _start(self, known: Tensor) -> Tensor:
        """What the blocks begin with, ``(1, H, W, C)``."""
        x = self._embed(known)
        return x if self._above is None else x + self._above


class IndexCoder:
    """Codes indices with an integer prior; the same for encoder and decoder.

    Args:
        prior: Integer network, converted from an :class:`IndexPrior`.
    """

    def __init__(self, prior: IndexPrior) -> None:
        self.prior = prior
        self._full = prior.books[-1]._replace(first_group=0)

    @torch.inference_mode()
    def code(
        self,
        channel: SymbolChannel,
        grains: GrainMap,
        book: int,
        indexes: GrainIndexes | None,
        only_coarse: bool = False,
    ) -> GrainIndexes:
        """Codes all indices of a picture, step by step.

        Args:
            channel: Sends or receives.
            grains: The map, of one picture, on the prior's device.
            book: Number of the coarse indices' book.
            indexes: The indices, of one picture; None to receive them.
            only_coarse: Leave out medium and fine indices.

        Returns:
            The indices coded, :data:`~latentpress.models.index.prior.UNKNOWN` where the map has none.

        Raises:
            StreamError: When receiving, the words cannot be decoded.
        """
        known = unknown_indexes(grains)
        above: Tensor | None = None
        with torch.autocast(grains.split.device.type, enabled=False):
            for place, grain in enumerate(self._grains(grains, book)):
                features = self._features(place, grains, book, above)
                sent = None if indexes is None else indexes[place]
                self._code_grain(channel, grain, known[place], sent, features)
                if only_coarse or not self._goes_on(place, grains):
                    break
                above = features(known[place])
        return known

    @torch.inference_mode()
    def packet_coder(
        self, grains: GrainMap, book: int, packets: int, base: GrainIndexes | None = None
    ) -> Callable[[SymbolChannel, int, GrainIndexes, bool], None]:
        """Prepares the packets of a picture.

        Args:
            grains: The map, of one picture, on the prior's device.
            book: Number of the coarse indices' book.
            packets: How many there are.
            base: What is known without any packet, the coarse indices; None if nothing is, and then coarse
                indices are in packets as well.

        Returns:
            A function that codes one packet, given the channel, the packet's number, all indices, and whether
            to send them; when receiving it fills in the packet's.
        """
        device = grains.split.device
        nothing = unknown_indexes(grains) if base is None else base
        features: list[Tensor] = []
        with torch.autocast(device.type, enabled=False):
            for place, index in enumerate(nothing):
                above = features[-1] if features else None
                features.append(self._features(place, grains, book, above)(index))
                if not self._goes_on(place, grains):
                    break
        members = [
            torch.from_numpy(packet_map(grain.mask.shape[0], grain.mask.shape[1], place, packets)).to(device)
            for place, grain in enumerate(self._grains(grains, book))
        ]

        @torch.inference_mode()
        def code(channel: SymbolChannel, packet: int, indexes: GrainIndexes, send: bool) -> None:
            parts = zip(self._grains(grains, book), features, indexes, members, strict=False)
            for place, (grain, seen, index, member) in enumerate(parts):
                if place == 0 and base is not None:
                    continue
                now = grain.mask & (member == packet)
                self._code_positions(channel, grain, seen[0][now], now, index[0], send)

        return code

    @torch.inference_mode()
    def predict(self, grains: GrainMap, book: int, indexes: GrainIndexes) -> GrainBeliefs:
        """How probable every code is wherever an index is not known.

        Args:
            grains: The map, of one picture, on the prior's device.
            book: Number of the coarse indices' book.
            indexes: What is known; UNKNOWN elsewhere.
        """
        device = grains.split.device
        number = torch.tensor([book], device=device)
        coarse, medium, fine = self._grains(grains, book)
        with torch.autocast(device.type, enabled=False):
            summary = self.prior.summary(indexes.medium, indexes.fine, grains)
            x = self.prior.coarse_features(indexes.coarse, grains, number, summary)
            found = [_belief(coarse, x, indexes.coarse)]
            x = self.prior.medium_features(indexes.medium, grains, x)
            found.append(_belief(medium, x, indexes.medium))
            x = self.prior.fine_features(indexes.fine, grains, x)
            found.append(_belief(fine, x, indexes.fine))
        return GrainBeliefs(*found)

    def _features(self, place: int, grains: GrainMap, book: int, above: Tensor | None) -> _Features:
        """Features of a granularity, right where it has indices and where the next finer one looks."""
        needed = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())[place][0]
        prior = self.prior
        if place == 0:
            number = torch.tensor([book], device=needed.device)
            everywhere = torch.ones_like(needed)
            return _Features(
                lambda known: prior.embed_coarse(known, grains, number), None, prior.coarse_blocks, everywhere
            )
        assert above is not None
        if place == 1:
            below = grown(grains.fine_mask()[0], len(prior.fine_blocks))
            looked_at = F.max_pool2d(below[None, None].float(), 2)[0, 0] > 0
            return _Features(
                lambda known: prior.embed_medium(known, grains),
                prior.to_medium(above),
                prior.medium_blocks,
                needed | looked_at,
            )
        return _Features(
            lambda known: prior.embed_fine(known, grains), prior.to_fine(above), prior.fine_blocks, needed
        )

    @staticmethod
    def _goes_on(place: int, grains: GrainMap) -> bool:
        """Whether there are indices finer than those of a granularity."""
        return (place == 0 and bool(grains.split.any())) or (place == 1 and bool(grains.fine.any()))

    def _grains(self, grains: GrainMap, book: int) -> tuple[_Grain, _Grain, _Grain]:
        return (
            _Grain(self.prior.coarse_head, grains.coarse_mask()[0], self.prior.books[book]),
            _Grain(self.prior.medium_head, grains.medium_mask()[0], self._full),
            _Grain(self.prior.fine_head, grains.fine_mask()[0], self._full),
        )

    def _code_grain(
        self,
        channel: SymbolChannel,
        grain: _Grain,
        known: Tensor,
        indexes: Tensor | None,
        features: _Features,
    ) -> None:
        """Codes one granularity into ``known``."""
        steps = step_map(grain.mask.shape[0], grain.mask.shape[1], known.device)
        for step in range(STEPS):
            now = grain.mask & (steps == step)
            if not bool(now.any()):
                continue
            seen = features.at(known, now)
            if indexes is None:
                self._code_positions(channel, grain, seen, now, known[0], False)
            else:
                self._code_positions(channel, grain, seen, now, indexes[0], True)
                known[0] = torch.where(now, indexes[0], known[0])

    def _code_positions(
        self,
        channel: SymbolChannel,
        grain: _Grain,
        x: Tensor,
        now: Tensor,
        indexes: Tensor,
        send: bool,
    ) -> None:
        """Codes the indices at some positions, in raster order: all groups, then members by group.

        Args:
            channel: Sends or receives.
            grain: Their granularity.
            x: Features ``(n, C)`` there.
            now: ``(H, W)`` bool, the positions.
            indexes: ``(H, W)``, read or filled in there.
            send: Whether to send them.
        """
        if not len(x):
            return
        values = indexes[now].cpu().numpy().astype(np.int32) if send else None
        book = grain.book
        if book.groups > 1:
            logits = _rows(grain.head.groups, x, book.first_group, book.first_group + book.groups)
            groups = channel.exchange_rows(
                None if values is None else values // GROUP, frequencies_of(logits)
            )
        else:
            groups = np.zeros(len(x), np.int32)
        found = groups * GROUP
        for group, chosen in _by_group(groups):
            start = book.first_row + group * GROUP
            size = min(GROUP, book.size)
            logits = _rows(grain.head.members, x[torch.from_numpy(chosen).to(x.device)], start, start + size)
            sent = None if values is None else values[chosen] % GROUP
            found[chosen] += channel.exchange_rows(sent, frequencies_of(logits))
        if not send:
            indexes[now] = torch.from_numpy(found.astype(np.int64)).to(indexes.device)


def unknown_indexes(grains: GrainMap) -> GrainIndexes:
    """Indices of which none is known, for a map."""
    shapes = (grains.split.shape, grains.fine.shape, grains.fine_mask().shape)
    return GrainIndexes(
        *(torch.full(shape, UNKNOWN, dtype=torch.int64, device=grains.split.device) for shape in shapes)
    )


def _rows(layer: torch.nn.Module, x: Tensor, start: int, stop: int) -> NDArray[np.float64]:
    assert isinstance(layer, FixedPointLinear)
    logits: NDArray[np.float64] = layer.rows(x, start, stop).cpu().numpy()
    return logits


def _by_group(groups: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Every group that occurs, rising, and where."""
    order = np.argsort(groups, kind="stable")
    values, starts = np.unique(groups[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, starts[1:]), strict=True)


def _belief(grain: _Grain, features: Tensor, indexes: Tensor) -> Belief:
    """What the prior believes about the unknown indices of a granularity."""
    lost = grain.mask & (indexes[0] == UNKNOWN)
    x = features[0][lost]
    book = grain.book
    if not len(x):
        return Belief(lost, torch.zeros(0, book.size, device=lost.device))
    # In floating point: what is guessed need not be the same everywhere.
    groups, members = (
        torch.from_numpy(_rows(layer, x, start, start + count)) * (math.log(2) / 1024)
        for layer, start, count in (
            (grain.head.groups, book.first_group, book.groups),
            (grain.head.members, book.first_row, book.size),
        )
    )
    within = members.view(len(x), book.groups, -1).log_softmax(-1)
    joint = (groups[:, :, None] + within).flatten(1).softmax(-1)
    return Belief(lost, joint.float().to(lost.device))
