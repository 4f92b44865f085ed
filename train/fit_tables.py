"""Fits the integer frequency tables to the symbols that pictures really have.

Latents are a little more peaked, and have heavier tails, than the Gaussians they were trained with. The
tables are part of a weight file, so replacing them changes neither the networks nor the coder. Each is the
average of what was counted and the Gaussian, which counts as much as ``prior_weight`` symbols would:

::

    frequency of k  ~  (count(k) + count(-k)) / 2 + prior_weight * Gaussian(k)
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet, gaussian_tables
from latentpress.codecs.bitstream.information import table_information
from latentpress.codecs.bitstream.tables import TOTAL
from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.latent_coder import Observation
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.codecs.symbol_coders import SYMBOL_LIMIT
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole
from latentpress.models.entropy.gaussian import SCALE_COUNT, scale_table
from latentpress.train.card import refreshed, write_card
from latentpress.train.data.images import find_images, read_rgb

DEFAULT_QUALITIES = tuple(float(quality) for quality in range(0, 101, 10))

PRIOR_WEIGHT = 300.0
"""Symbols that the Gaussian counts for, unless it is tuned."""

PRIOR_WEIGHTS = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""What tuning chooses from."""

HOLD_OUT_EVERY = 5
"""One picture in so many is held out."""

# A support grows up to symbols that were seen at least so often: one alone is as well an escape.
_SEEN_ENOUGH = 2

_WIDTH = 2 * SYMBOL_LIMIT + 1


class SymbolCounts:
    """How often each symbol was coded with each table.

    Attributes:
        counts: int64, ``(tables, 2 * SYMBOL_LIMIT + 1)``; symbol 0 is in the middle column.
    """

    def __init__(self, tables: int = SCALE_COUNT) -> None:
        self.counts = np.zeros((tables, _WIDTH), np.int64)

    def add(self, observation: Observation) -> None:
        """Counts a group of symbols."""
        cells = observation.indexes.astype(np.int64) * _WIDTH + observation.symbols + SYMBOL_LIMIT
        found, times = np.unique(cells, return_counts=True)
        self.counts.reshape(-1)[found] += times

    def __add__(self, other: SymbolCounts) -> SymbolCounts:
        result = SymbolCounts(len(self.counts))
        result.counts = self.counts + other.counts
        return result

    @property
    def total(self) -> int:
        """Number of symbols."""
        return int(self.counts.sum())

    def bits(self, tables: TableSet) -> float:
        """What coding these symbols with some tables costs, escapes included."""
        total = 0.0
        for number, row in enumerate(self.counts):
            seen = np.flatnonzero(row)
            times, symbols = row[seen], seen - SYMBOL_LIMIT
            total += float((times * table_information(symbols, tables, number)).sum())
        return total


class FitReport(NamedTuple):
    """What fitted tables are worth.

    Attributes:
        pictures: Pictures that were counted, those held out included.
        held_out: Pictures that were held out.
        symbols: Symbols that were counted, of all pictures.
        prior_weight: Symbols that the Gaussian counted for.
        saving: Percent of the bits saved on all these symbols by the tables fitted to them.
        held_out_saving: Percent saved on pictures held out, by tables fitted to the others; NaN without any.
    """

    pictures: int
    held_out: int
    symbols: int
    prior_weight: float
    saving: float
    held_out_saving: float

    def __str__(self) -> str:
        return (
            f"{self.symbols} symbols of {self.pictures} pictures, prior weight {self.prior_weight:g}: "
            f"saves {self.saving:.3f} % on them, {self.held_out_saving:.3f} % on {self.held_out} held out"
        )


def count_symbols(codec: ImageCodec, pictures: Iterable[Tensor], qualities: Sequence[float]) -> SymbolCounts:
    """Codes pictures and counts the symbols.

    Args:
        codec: An image codec.
        pictures: ``(3, H, W)`` uint8.
        qualities: Each picture is coded at all of them, 0 to 100.
    """
    counts = SymbolCounts()
    for picture in pictures:
        for quality in qualities:
            codec.encode_payload(picture.float() / 255, quality_to_tenths(quality), observe=counts.add)
    return counts


def blended_tables(counts: SymbolCounts, prior_weight: float) -> TableSet:
    """Tables between what was counted and the Gaussians.

    Every table is symmetric, and its support is at least the Gaussian's. Beyond that, frequencies never rise
    with the magnitude, so that single symbols leave no teeth.

    Args:
        counts: Of symbols.
        prior_weight: Symbols that the Gaussian counts for, positive.

    Raises:
        ValueError: The weight is not positive.
    """
    if not 0 < prior_weight < math.inf:
        raise ValueError(f"prior_weight must be positive, got {prior_weight}")
    prior = gaussian_tables(scale_table().numpy())
    probabilities, minimums = [], []
    for number, row in enumerate(counts.counts):
        # Both signs together, by magnitude.
        seen = row[SYMBOL_LIMIT:] + row[SYMBOL_LIMIT::-1]
        seen[0] = row[SYMBOL_LIMIT]
        largest = -prior.support(number).start
        often = np.flatnonzero(seen >= _SEEN_ENOUGH)
        size = max(largest, int(often[-1]) if len(often) else 0)
        # Every slot of a table has 1 before probabilities share the rest; here they are shared out again.
        gaussian = (prior.table(number) - 1.0) / (TOTAL - prior.lengths[number])
        # By magnitude: 0 and the positive side.
        weights = np.zeros(size + 1)
        weights[: largest + 1] = prior_weight * (gaussian[largest:-1] + gaussian[largest::-1]) / 2
        weights += np.concatenate((seen[:1], seen[1 : size + 1] / 2))
        weights[largest:] = _falling(weights[largest:])
        escape = prior_weight * gaussian[-1] + seen[size + 1 :].sum()
        probabilities.append(np.concatenate((weights[:0:-1], weights, [escape])))
        minimums.append(-size)
    return TableSet.from_probabilities(probabilities, minimums)


def fit_tables(
    codec: ImageCodec,
    pictures: Iterable[Tensor],
    qualities: Sequence[float] = DEFAULT_QUALITIES,
    prior_weight: float = PRIOR_WEIGHT,
) -> TableSet:
    """Fits the tables of a codec to pictures.

    Args:
        codec: An image codec.
        pictures: ``(3, H, W)`` uint8.
        qualities: Each picture is coded at all of them, 0 to 100.
        prior_weight: Symbols that the Gaussian counts for, positive.

    Returns:
        One table for every entry of the scale table.
    """
    return blended_tables(count_symbols(codec, pictures, qualities), prior_weight)


def fit_with_report(
    codec: ImageCodec,
    current: TableSet,
    pictures: Iterable[Tensor],
    qualities: Sequence[float] = DEFAULT_QUALITIES,
    prior_weights: Sequence[float] = PRIOR_WEIGHTS,
    progress: Callable[[int], None] | None = None,
) -> tuple[TableSet, FitReport]:
    """Fits tables, tunes the weight of the prior on pictures held out, and says what that saves.

    Args:
        codec: An image codec.
        current: Its tables, to compare with.
        pictures: ``(3, H, W)`` uint8.
        qualities: Each picture is coded at all of them, 0 to 100.
        prior_weights: To choose from, by the bits of the pictures held out; without such pictures, the first.
        progress: Called with the number of pictures done.

    Returns:
        Tables fitted to all pictures, and the report.
    """
    fitted, held_out = SymbolCounts(), SymbolCounts()
    done = kept = 0
    for picture in pictures:
        counts = count_symbols(codec, [picture], qualities)
        done += 1
        if done % HOLD_OUT_EVERY == 0:
            held_out += counts
            kept += 1
        else:
            fitted += counts
        if progress is not None:
            progress(done)
    if not done:
        raise ValueError("there are no pictures to fit tables to")
    weight, held_out_saving = prior_weights[0], math.nan
    if kept:
        bits = {w: held_out.bits(blended_tables(fitted, w)) for w in prior_weights}
        weight = min(bits, key=bits.__getitem__)
        held_out_saving = _percent(bits[weight], held_out.bits(current))
    everything = fitted + held_out
    tables = blended_tables(everything, weight)
    saving = _percent(everything.bits(tables), everything.bits(current))
    return tables, FitReport(done, kept, everything.total, weight, saving, held_out_saving)


def tables_of(weights: WeightFile) -> TableSet:
    """The tables of a weight file."""
    return TableSet.from_arrays(
        {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
    )


def with_tables(weights: WeightFile, tables: TableSet) -> WeightFile:
    """A weight file with other tables and the same networks."""
    tensors = {k: v for k, v in weights.tensors.items() if not k.startswith("tables.")}
    tensors.update({f"tables.{name}": array for name, array in tables.to_arrays().items()})
    return dataclasses.replace(weights, tensors=tensors)


def main(args: Sequence[str] | None = None) -> None:
    """Writes a weight file with tables that fit the pictures in a folder.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.fit_tables",
        description="Writes a weight file with tables that fit the pictures in a folder.",
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file to start from")
    parser.add_argument("--data", required=True, metavar="DIR", help="pictures, searched recursively")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file to write")
    parser.add_argument(
        "--qualities", type=float, nargs="+", default=DEFAULT_QUALITIES, metavar="Q", help="default: every 10"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N pictures, spread over the folder")
    parser.add_argument("--prior-weight", type=float, metavar="W", help="default: tuned on pictures held out")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    options = parser.parse_args(args)
    try:
        weights = read_weight_file(options.weights)
        paths = _spread(find_images(options.data), options.limit)
        tables, report = fit_with_report(
            ImageCodec(weights, options.device),
            tables_of(weights),
            _read(paths),
            options.qualities,
            (options.prior_weight,) if options.prior_weight is not None else PRIOR_WEIGHTS,
            lambda done: print(f"\r{done}/{len(paths)}", end="", flush=True),
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    # Read before it is overwritten, in case --out is --weights.
    card = read_card(options.weights) if card_path(options.weights).is_file() else None
    fitted = with_tables(weights, tables)
    write_whole(options.out, fitted.to_bytes())
    print(f"\n{report}\nwritten: {options.out}, weights {fitted.fingerprint().hex()}")
    if card is not None:
        print(f"written: {write_card(refreshed(card, options.out), options.out)}, without the old figures")


def _read(paths: Sequence[Path]) -> Iterator[Tensor]:
    for path in paths:
        yield torch.from_numpy(read_rgb(path).copy()).permute(2, 0, 1)


def _spread(paths: list[Path], limit: int | None) -> list[Path]:
    """At most so many paths, evenly from the whole list."""
    if limit is None or limit >= len(paths):
        return paths
    return [paths[k * len(paths) // limit] for k in range(limit)]


def _percent(bits: float, before: float) -> float:
    return 100 * (1 - bits / before)


def _falling(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The closest sequence that never rises: neighbours that do are replaced by their mean.

    Example:
        >>> _falling(np.array([5.0, 0.0, 2.0, 1.0])).tolist()
        [5.0, 1.0, 1.0, 1.0]
    """
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while pools and pools[-1][0] < mean:
            other, size = pools.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        pools.append((mean, count))
    return np.repeat([mean for mean, _ in pools], [count for _, count in pools])


if __name__ == "__main__":
    main()
