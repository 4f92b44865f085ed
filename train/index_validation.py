"""Validation of the index codec's stages on whole pictures: quality, use of the codes, bits of the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentpress.models.index.granularity import GrainMap, fractions_of_detail, route, routing_scores
from latentpress.models.index.model import IndexModel
from latentpress.models.index.network import IndexNetwork
from latentpress.models.wasserstein import wasserstein_distortion
from latentpress.train.index_prior_loss import blind_bits, schedule_bits
from latentpress.train.metrics.structural_similarity import WINDOW, MultiScaleSimilarity


def perplexity(usage: Tensor) -> float:
    """Two to the entropy of how often each code occurs: as many equally frequent codes say as much.

    Example:
        >>> perplexity(torch.tensor([3.0, 3.0, 0.0]))
        2.0
    """
    p = usage.double() / usage.sum().clamp(min=1)
    return float(torch.exp2(-(p * torch.log2(p.clamp(min=1e-30))).sum()))


def picture_measures(decoded: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB, MS-SSIM and Wasserstein distortion in squared 8-bit steps of one picture, ``(3,)``.

    Args:
        decoded: ``(1, H, W, 3)`` around [0, 1]; it is rounded to 8 bits.
        target: ``(1, H, W, 3)`` in [0, 1].
    """
    decoded = (decoded.clamp(0, 1) * 255).round() / 255
    psnr = -10 * torch.log10((decoded - target).square().mean())
    x, y = decoded.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)
    large_enough = min(target.shape[1:3]) >= WINDOW
    similarity = MultiScaleSimilarity().to(x.device)(x, y).mean() if large_enough else psnr * math.nan
    return torch.stack((psnr, similarity, wasserstein_distortion(x, y).mean() * 255**2))


class Validation:
    """Means of a table of measures over pictures.

    Attributes:
        pictures: How many have been added.
    """

    columns: tuple[str, ...] = ("psnr", "ms_ssim", "wasserstein")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.pictures = 0
        self._sums: Tensor | None = None

    def add(self, network: torch.nn.Module, image: Tensor) -> None:
        """Measures a picture, ``(H, W, 3)`` uint8, sides multiples of 16, in full precision as coding is."""
        with torch.autocast(image.device.type, enabled=False):
            rows = torch.stack(self.rows(network, image[None].float() / 255)).double()
        self._sums = rows if self._sums is None else self._sums + rows
        self.pictures += 1

    def rows(self, network: Any, target: Tensor) -> list[Tensor]:
        """Measures of a picture ``(1, H, W, 3)``: one row a setting, one entry a column."""
        raise NotImplementedError

    def summary(self, strategy: Any) -> dict[str, Any]:
        """Means over all pictures of all devices, a list for every column.

        Args:
            strategy: Lightning's, which adds up over devices.
        """
        assert self._sums is not None
        count = torch.tensor(float(self.pictures), device=self._sums.device, dtype=torch.float64)
        total, count = (strategy.reduce(x, reduce_op="sum") for x in (self._sums, count))
        means = (total / count).T.tolist()
        return {name: [round(v, 5) for v in values] for name, values in zip(self.columns, means, strict=True)}


def _grains(target: Tensor, detail: float) -> GrainMap:
    fractions = fractions_of_detail(torch.tensor([detail], device=target.device))
    return route(routing_scores(target), *fractions)


class IndexValidation(Validation):
    """Quality of an :class:`IndexNetwork` along the path from all coarse to all fine.

    Args:
        details: Points of the path, 0 (all coarse) to 1 (all fine).
    """

    columns = ("raw_bpp", *Validation.columns)

    def __init__(self, details: Sequence[float]) -> None:
        self.details = tuple(float(d) for d in details)
        super().__init__()

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()
        self._usage: Tensor | None = None

    def rows(self, network: IndexNetwork, target: Tensor) -> list[Tensor]:
        """Rate (indices at log2(K) bits, no map) and quality at every detail."""
        rows = []
        for detail in self.details:
            output = network(target, _grains(target, detail))
            bits = output.usage.sum() * math.log2(len(output.usage))
            rate = bits / (target.shape[1] * target.shape[2])
            rows.append(torch.cat((rate[None], picture_measures(output.image, target))))
            self._usage = output.usage if self._usage is None else self._usage + output.usage
        return rows

    def summary(self, strategy: Any) -> dict[str, Any]:
        """Means, and the fraction of the codes in use and their perplexity over all details."""
        assert self._usage is not None
        usage = strategy.reduce(self._usage.double(), reduce_op="sum")
        return {
            "details": self.details,
            **super().summary(strategy),
            "codes_in_use": round(float((usage > 0).double().mean()), 4),
            "perplexity": round(perplexity(usage), 1),
        }


class BookValidation(Validation):
    """Quality of an :class:`IndexModel`, all coarse, with every book."""

    def rows(self, network: IndexModel, target: Tensor) -> list[Tensor]:
        """Quality with every book."""
        grains = _grains(target, 0.0)
        rows = []
        for number in range(len(network.books.books)):
            book = torch.tensor([number], device=target.device)
            rows.append(picture_measures(network.reconstruct(target, grains, book)[0], target))
        return rows


class PriorValidation(Validation):
    """Bits of an :class:`IndexModel`'s prior against log2(K) bits an index.

    Args:
        details: Points of the path from all coarse to all fine, with the full book.
        books: Numbers of books, all coarse.
    """

    columns = ("raw_bpp", "bpp", "blind_bpp")

    def __init__(self, details: Sequence[float], books: Sequence[int]) -> None:
        self.details = tuple(float(d) for d in details)
        self.books = tuple(books)
        super().__init__()

    def rows(self, network: IndexModel, target: Tensor) -> list[Tensor]:
        """Rates at every detail, then with every book."""
        full = network.books.full
        settings = [(d, full) for d in self.details] + [(0.0, min(b, full)) for b in self.books]
        pixels = target.shape[1] * target.shape[2]
        rows = []
        for detail, number in settings:
            book = torch.tensor([number], device=target.device)
            grains = _grains(target, detail)
            indexes = network.analyse(target, book)
            sizes = (network.books.books[number].size, *[network.books.books[full].size] * 2)
            masks = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())
            raw = sum(mask.sum() * math.log2(size) for mask, size in zip(masks, sizes, strict=True))
            rates = (
                raw,
                schedule_bits(network.prior, indexes, grains, book),
                blind_bits(network.prior, indexes, grains, book),
            )
            rows.append(torch.stack([r.double() / pixels for r in rates]))
        return rows

    def summary(self, strategy: Any) -> dict[str, Any]:
        """Means, and the fraction saved against log2(K) bits an index."""
        found = super().summary(strategy)
        saved = [round(1 - b / r, 4) for b, r in zip(found["bpp"], found["raw_bpp"], strict=True)]
        return {"details": self.details, "books": self.books, **found, "saved": saved}
