"""Streams of one picture at several rates: settings, and the search for a number of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.base import Progress
from latentpress.codecs.bitstream import SectionType
from latentpress.codecs.grain_map_coder import levels_of
from latentpress.codecs.index_colours import ColourChoice
from latentpress.codecs.index_payload import IndexHeader
from latentpress.codecs.index_refinement import IndexRefinement, steps_of
from latentpress.codecs.index_residual import PatchChoice, Residuals, residual_level
from latentpress.codecs.index_streams import ReceivedIndexes
from latentpress.codecs.rate_control import QualitySearch
from latentpress.models.index.granularity import (
    CELL,
    GrainMap,
    GrainScores,
    fractions_of_detail,
    route,
    routing_scores,
    uniform_maps,
)
from latentpress.models.index.measured_routing import GrainDistortions, critical_prices, route_by_price
from latentpress.models.index.prior import GrainIndexes
from latentpress.models.wasserstein import local_distortion

if TYPE_CHECKING:
    from latentpress.codecs.index import IndexCodec

DEFAULT_QUALITY = 50.0

REDUCED_QUALITIES = 14.0
"""Qualities below this have reduced books and no splits."""

RESIDUAL_QUALITIES = 90.0
"""Qualities above this have residual indices, if the weights have any."""

# Up to here qualities are what they were before there were residual indices.
_KEPT_QUALITIES = 80.0

_DETAIL_POWER = 1.5
_DETAIL_STEPS = 4096
_RESIDUAL_STEPS = 4096

# Of what is left to do when a trial begins; and as how many trials a refinement counts.
_LEFT_BY_A_TRIAL = 0.9
_TRIALS_OF_REFINING = 5

_SHARES = (0.6, 0.4)
"""Parts of the refinement, after each of which the rate is searched again."""


class Setting(NamedTuple):
    """What decides the rate of a picture.

    Attributes:
        book: Number of the coarse indices' book; the last is the full one.
        split: Share of the cells that are split.
        fine: Share of the quarters of split cells that are fine.
        residual: Share of the cells with residual indices; above 0 only where all indices are fine.
        exact: The shares are what is wanted, and not only a measure of the rate.
    """

    book: int
    split: float
    fine: float
    residual: float = 0.0
    exact: bool = False


def setting_of_quality(quality: float, full_book: int, residuals: bool = False) -> Setting:
    """The setting for a quality in [0, 100].

    Args:
        quality: 0 (smallest) to 100 (best).
        full_book: Number of the full book.
        residuals: Whether there are residual indices; without them, the best is all fine.

    Raises:
        ValueError: It is outside.

    Example:
        >>> setting_of_quality(0, 7)
        Setting(book=0, split=0.0, fine=0.0, residual=0.0, exact=False)
        >>> setting_of_quality(90, 7, True)[1:4], setting_of_quality(95, 7, True)[1:4]
        ((1.0, 1.0, 0.0), (1.0, 1.0, 0.5))
    """
    if not 0 <= quality <= 100:
        raise ValueError(f"quality must be within 0 and 100, got {quality}")
    if quality < REDUCED_QUALITIES:
        return Setting(int(quality / REDUCED_QUALITIES * full_book), 0.0, 0.0)
    if not residuals or quality <= _KEPT_QUALITIES:
        return setting_of_detail(full_book, _detail_of_quality(quality))
    if quality <= RESIDUAL_QUALITIES:
        start = _detail_of_quality(_KEPT_QUALITIES)
        along = (quality - _KEPT_QUALITIES) / (RESIDUAL_QUALITIES - _KEPT_QUALITIES)
        return setting_of_detail(full_book, start + (1 - start) * along)
    return setting_of_residuals(full_book, (quality - RESIDUAL_QUALITIES) / (100 - RESIDUAL_QUALITIES))


def _detail_of_quality(quality: float) -> float:
    return float(((quality - REDUCED_QUALITIES) / (100 - REDUCED_QUALITIES)) ** _DETAIL_POWER)


def setting_of_detail(book: int, detail: float) -> Setting:
    """The setting with a share of all detail, 0 (nothing is split) to 1 (all indices are fine)."""
    split, fine = (float(x) for x in fractions_of_detail(torch.tensor(detail, dtype=torch.float64)))
    return Setting(book, split, fine)


def setting_of_residuals(book: int, share: float) -> Setting:
    """All indices fine, and residual indices in a share of the cells."""
    return Setting(book, 1.0, 1.0, share)


def setting_of_shares(shares: tuple[float, float, float], full_book: int) -> Setting:
    """The setting with given shares of the area that are coarse, medium and fine.

    Raises:
        ValueError: They are not three shares of sum 1.

    Example:
        >>> setting_of_shares((0.5, 0.25, 0.25), 7)
        Setting(book=7, split=0.5, fine=0.5, residual=0.0, exact=True)
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"granularity must be three shares of sum 1, none negative, got {shares}")
    split = 1.0 - shares[0]
    return Setting(full_book, split, shares[2] / split if split > 0 else 0.0, exact=True)


class Trials:
    """Streams of one picture at several settings; the picture is analysed once."""

    @torch.inference_mode()
    def __init__(
        self,
        codec: IndexCodec,
        picture: Tensor,
        packets: int,
        sections: list[tuple[int, bytes]],
        notify: Progress,
        effort: int = 0,
    ) -> None:
        self._codec = codec
        self._packets = packets
        self._sections = sections
        self._notify = notify
        self._count = 0
        self._channels, self._height, self._width = picture.shape
        rgb = picture.to(codec.device).expand(3, -1, -1)
        padded = F.pad(rgb[None], (0, -self._width % CELL, 0, -self._height % CELL), mode="replicate")
        image = padded.permute(0, 2, 3, 1).contiguous()
        self._image = image
        # Grey pictures have no colours to be wrong.
        choice = ColourChoice(rgb) if self._channels == 3 else None
        self._colours = choice if choice is not None and choice.possible else None
        self._patches: PatchChoice | None = None
        features = codec.model.encoder.features(image)
        self._features = features
        self._medium, self._fine = codec.model.finer_indexes(features)
        self._measured = effort > 0
        self._steps = steps_of(effort)
        self._refinement: IndexRefinement | None = None
        self._maps: dict[bytes, tuple[GrainMap, int]] = {}
        self._coarse_map, _, self._fine_map = self._uniform_maps()

    @torch.inference_mode()
    def at(self, setting: Setting) -> bytes:
        """The stream at a setting."""
        self._notify(self._fraction(), "encoding")
        self._count += 1
        grains, indexes = self._indexes(setting)
        residuals = self._residuals(grains, indexes, setting.book, setting.residual)
        header = self._header(grains, setting.book, residuals)
        payload = self._codec.send(header, grains, indexes, residuals)
        sections = [*self._sections, *self._colour_sections(header, grains, indexes, residuals)]
        data = self._codec.pack(payload, sections, header)
        self._maps[data] = grains, setting.book
        return data

    def _colour_sections(
        self,
        header: IndexHeader,
        grains: GrainMap,
        indexes: GrainIndexes,
        residuals: Residuals | None,
    ) -> list[tuple[int, bytes]]:
        """What brings colours that the decoder gets wrong back; nothing in nearly all photographs."""
        if self._colours is None:
            return []
        marked = None if residuals is None else residuals.only_marked()
        decoded = self._codec.synthesise(ReceivedIndexes(header, grains, indexes, marked, ()))
        content = self._colours.section(decoded)
        return [] if content is None else [(SectionType.COLOUR, content)]

    def refined(self, search: Callable[[], bytes]) -> bytes:
        """A stream with indices that suit the picture, as far as the effort goes.

        Refined indices take other bits, so the search is done again, and they are refined for the map that it
        ends with.

        Args:
            search: What makes a stream of the indices as they are.
        """
        data = search()
        for share in _SHARES:
            steps = round(share * self._steps)
            if not steps:
                break
            grains, book = self._maps[data]
            if self._refinement is None or self._refinement.book != book:
                self._refinement = self._new_refinement(book)
            self._refinement.run(grains, steps, self._notify_refining)
            self._count += _TRIALS_OF_REFINING
            self._patches = None
            data = search()
        return data

    def _notify_refining(self, done: float) -> None:
        start = self._fraction()
        left = 1 - _LEFT_BY_A_TRIAL**_TRIALS_OF_REFINING
        self._notify(start + left * (1 - start) * done, "refining")

    def _new_refinement(self, book: int) -> IndexRefinement:
        return IndexRefinement(self._codec.model, self._codec.finished, self._image, book, self._features)

    def _fraction(self) -> float:
        """What is done; how many trials a search takes is not known beforehand, so it only ever rises."""
        return 1 - 0.9 * _LEFT_BY_A_TRIAL**self._count

    def _indexes(self, setting: Setting) -> tuple[GrainMap, GrainIndexes]:
        return self._grains(setting), self._indexes_of_book(setting.book)

    def _grains(self, setting: Setting) -> GrainMap:
        if setting.split == 0:
            return self._coarse_map
        if setting.split == 1 and setting.fine == 1:
            return self._fine_map
        if self._measured and not setting.exact:
            return route_by_price(self._scores, setting.split, setting.fine)
        shares = (setting.split, setting.fine)
        return route(self._scores, *(torch.tensor([share], device=self._codec.device) for share in shares))

    def _uniform_maps(self) -> tuple[GrainMap, GrainMap, GrainMap]:
        rows, columns = self._medium.shape[1:]
        return uniform_maps(rows // 2, columns // 2, self._codec.device)

    @cached_property
    def _scores(self) -> GrainScores:
        """What decides between coarse and fine; not needed where one of them is everywhere."""
        return self._prices() if self._measured else routing_scores(self._image)

    def _indexes_of_book(self, book: int) -> GrainIndexes:
        if self._refinement is not None and book == self._refinement.book:
            return self._refinement.indexes
        numbers = torch.tensor([book], device=self._codec.device)
        coarse = self._codec.model.books.choose(self._features.coarse, numbers).codes
        return GrainIndexes(coarse, self._medium, self._fine)

    def _prices(self) -> GrainScores:
        """Decodes the picture with each granularity everywhere, and says what finer indices are worth."""
        model = self._codec.model
        book = torch.tensor([model.books.full], device=self._codec.device)
        indexes = self._indexes_of_book(model.books.full)
        size = self._medium.shape[1], self._medium.shape[2]
        target = self._image.permute(0, 3, 1, 2)
        found = []
        for grains in self._uniform_maps():
            self._notify(self._fraction(), "routing")
            decoded = self._codec.finished(model.synthesise(indexes, grains, book), grains).clamp(0, 1)
            found.append(local_distortion(target, decoded.permute(0, 3, 1, 2), size))
        return critical_prices(GrainDistortions(*found))

    def _residuals(
        self, grains: GrainMap, indexes: GrainIndexes, book: int, share: float
    ) -> Residuals | None:
        """Residual indices in a share of the cells of a picture whose indices are all fine."""
        if self._codec.residual_book is None or share == 0:
            return None
        if self._patches is None:
            decoded = self._codec.model.synthesise(
                indexes, grains, torch.tensor([book], device=self._codec.device)
            )
            self._patches = self._codec.residual_book.choose(self._image - decoded.clamp(0, 1))
        residuals = self._patches.best(share)
        return residuals if residuals.marked.any() else None

    def _header(self, grains: GrainMap, book: int, residuals: Residuals | None) -> IndexHeader:
        levels = levels_of(grains.split[0].cpu().numpy(), grains.fine[0].cpu().numpy())
        marks = 0 if residuals is None else residual_level(residuals.marked, grains)
        return IndexHeader(self._height, self._width, self._channels, book, *levels, self._packets, marks)

    def within_bytes(self, limit: float) -> bytes:
        """The largest stream of at most ``limit`` bytes: the largest book that fits, splits, residuals.

        Raises:
            ValueError: Even the smallest stream is larger.
        """
        if not 0 < limit < math.inf:
            raise ValueError(f"a target must be positive and finite, got {limit}")
        book = self._codec.model.books.full
        unsplit = self.at(Setting(book, 0.0, 0.0))
        while len(unsplit) > limit and book > 0:
            book -= 1
            unsplit = self.at(Setting(book, 0.0, 0.0))
        if len(unsplit) > limit and self._colours is not None:
            # Wrong colours are better than no picture.
            self._colours = None
            return self.within_bytes(limit)
        if len(unsplit) > limit:
            raise ValueError(
                f"{limit:.10g} bytes cannot be met: the smallest stream of this picture has {len(unsplit)}"
            )

        finest = self.at(setting_of_detail(book, 1.0))

        def detailed(step: int) -> bytes:
            ends = {0: unsplit, _DETAIL_STEPS: finest}
            return ends.get(step) or self.at(setting_of_detail(book, step / _DETAIL_STEPS))

        if self._codec.residual_book is not None and len(finest) <= limit:
            return self._beyond(finest, book, limit)
        found = QualitySearch(detailed, len, _DETAIL_STEPS).at_most(limit)
        assert found is not None
        return found

    @torch.inference_mode()
    def _beyond(self, finest: bytes, book: int, limit: float) -> bytes:
        """The stream of at most ``limit`` bytes with the most residual indices.

        These need no network, and what is before them is the same in all trials: so they alone are coded in
        the search, and whole streams only at its end.

        Args:
            finest: The stream with all indices fine and no residual ones, within the limit.
            book: Number of the coarse indices' book.
            limit: In bytes.
        """

        def estimate(step: int) -> int:
            if step == 0:
                return len(finest)
            grains, indexes = self._indexes(setting_of_residuals(book, 1.0))
            residuals = self._residuals(grains, indexes, book, step / _RESIDUAL_STEPS)
            header = self._header(grains, book, residuals)
            return len(finest) + self._codec.streams.residual_bytes(header, grains, residuals)

        def numbered(step: int) -> tuple[int, int]:
            return step, estimate(step)

        step, reached = QualitySearch(numbered, lambda result: result[1], _RESIDUAL_STEPS).closest(limit)
        bytes_a_step = (reached - len(finest)) / step if step else 1.0
        while step > 0:
            data = self.at(setting_of_residuals(book, step / _RESIDUAL_STEPS))
            if len(data) <= limit:
                return data
            # What is estimated is without colours, so it may be off by more than a step.
            excess = (len(data) - limit) / bytes_a_step
            step -= 1 if self._colours is None else max(1, math.ceil(excess))
        return finest
