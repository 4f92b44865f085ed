"""Streams of one picture at several rates: settings, and the search for a number of bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.base import Progress
from latentpress.codecs.grain_map_coder import levels_of
from latentpress.codecs.index_payload import IndexHeader
from latentpress.codecs.rate_control import QualitySearch
from latentpress.models.index.granularity import CELL, fractions_of_detail, route, routing_scores
from latentpress.models.index.prior import GrainIndexes

if TYPE_CHECKING:
    from latentpress.codecs.index import IndexCodec

DEFAULT_QUALITY = 50.0

REDUCED_QUALITIES = 14.0
"""Qualities below this have reduced books and no splits."""

_DETAIL_POWER = 1.5
_DETAIL_STEPS = 4096


class Setting(NamedTuple):
    """What decides the rate of a picture.

    Attributes:
        book: Number of the coarse indices' book; the last is the full one.
        split: Share of the cells that are split.
        fine: Share of the quarters of split cells that are fine.
    """

    book: int
    split: float
    fine: float


def setting_of_quality(quality: float, full_book: int) -> Setting:
    """The setting for a quality in [0, 100].

    Raises:
        ValueError: It is outside.

    Example:
        >>> setting_of_quality(0, 7), setting_of_quality(100, 7)
        (Setting(book=0, split=0.0, fine=0.0), Setting(book=7, split=1.0, fine=1.0))
    """
    if not 0 <= quality <= 100:
        raise ValueError(f"quality must be within 0 and 100, got {quality}")
    if quality < REDUCED_QUALITIES:
        return Setting(int(quality / REDUCED_QUALITIES * full_book), 0.0, 0.0)
    fraction = (quality - REDUCED_QUALITIES) / (100 - REDUCED_QUALITIES)
    return setting_of_detail(full_book, fraction**_DETAIL_POWER)


def setting_of_detail(book: int, detail: float) -> Setting:
    """The setting with a share of all detail, 0 (nothing is split) to 1 (all indices are fine)."""
    split, fine = (float(x) for x in fractions_of_detail(torch.tensor(detail, dtype=torch.float64)))
    return Setting(book, split, fine)


def setting_of_shares(shares: tuple[float, float, float], full_book: int) -> Setting:
    """The setting with given shares of the area that are coarse, medium and fine.

    Raises:
        ValueError: They are not three shares of sum 1.

    Example:
        >>> setting_of_shares((0.5, 0.25, 0.25), 7)
        Setting(book=7, split=0.5, fine=0.5)
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"granularity must be three shares of sum 1, none negative, got {shares}")
    split = 1.0 - shares[0]
    return Setting(full_book, split, shares[2] / split if split > 0 else 0.0)


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
        self._scores = routing_scores(image)
        features = codec.model.encoder.features(image)
        self._coarse_features = features.coarse
        self._medium, self._fine = codec.model.finer_indexes(features)

    @torch.inference_mode()
    def at(self, setting: Setting) -> bytes:
        """The stream at a setting."""
        # How many trials a search takes is not known beforehand; the fraction only ever rises.
        self._notify(1 - 0.9 * 0.9**self._count, "encoding")
        self._count += 1
        codec, device = self._codec, self._codec.device
        fractions = (torch.tensor([share], device=device) for share in (setting.split, setting.fine))
        grains = route(self._scores, *fractions)
        book = torch.tensor([setting.book], device=device)
        coarse = codec.model.books.choose(self._coarse_features, book).codes
        levels = levels_of(grains.split[0].cpu().numpy(), grains.fine[0].cpu().numpy())
        header = IndexHeader(
            self._height, self._width, self._channels, setting.book, *levels, packets=self._packets
        )
        payload = codec.send(header, grains, GrainIndexes(coarse, self._medium, self._fine))
        return codec.pack(payload, self._sections)

    def within_bytes(self, limit: float) -> bytes:
        """The largest stream of at most ``limit`` bytes: the largest book that fits, then splits.

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
        if len(unsplit) > limit:
            raise ValueError(
                f"{limit:.10g} bytes cannot be met: the smallest stream of this picture has {len(unsplit)}"
            )

        def trial(step: int) -> bytes:
            return unsplit if step == 0 else self.at(setting_of_detail(book, step / _DETAIL_STEPS))

        found = QualitySearch(trial, len, _DETAIL_STEPS).at_most(limit)
        assert found is not None
        return found
