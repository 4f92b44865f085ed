"""Makes the residual book of an index codec: patches of what its decoder leaves, and tables of their numbers.

The weights get it as an addition, so that their fingerprint, and with it every stream made before, stays::

    python -m latentpress.train.index_residual --weights assets/weights/index.safetensors --photographs PHOTOS

Runs on a CPU in a few minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_residual import BIT_WORTH, CLASSES, PATCH, ResidualBook
from latentpress.codecs.weights import ADDITION, WeightFile, read_weight_file
from latentpress.models.index.granularity import CELL, FINE, GrainMap
from latentpress.models.index.model import IndexModel
from latentpress.models.layers import space_to_depth
from latentpress.train.card import write_with_card
from latentpress.train.counting_channel import CountingChannel
from latentpress.train.fit_grain_tables import pictures_below

CROP = 384
"""Side of what is taken of each picture, in pixels."""

ROUNDS = 12
_MOST_PATCHES = 300_000
_AT_ONCE = 2**16

# Counts that the frequencies of all classes together are worth in each of them.
_PRIOR_COUNTS = 2000.0


@torch.inference_mode()
def residual_errors(model: IndexModel, pictures: Iterable[Tensor], seed: int = 1) -> list[Tensor]:
    """What decoders of nothing but fine indices leave of crops of pictures.

    Args:
        model: Of the codec.
        pictures: ``(H, W, 3)`` uint8.
        seed: Of the crops.

    Returns:
        ``(1, 16h, 16w, 3)`` each, on the scale of [0, 1].
    """
    random, errors = np.random.default_rng(seed), []
    book = torch.tensor([model.books.full])
    for picture in pictures:
        height, width = (min(side, CROP) // CELL * CELL for side in picture.shape[:2])
        if not height or not width:
            continue
        top, left = (
            int(random.integers(side - part + 1))
            for side, part in zip(picture.shape[:2], (height, width), strict=True)
        )
        image = picture[None, top : top + height, left : left + width].float() / 255
        cells = (1, height // CELL, width // CELL)
        everything = GrainMap(
            torch.ones(cells, dtype=torch.bool),
            torch.ones((1, 2 * cells[1], 2 * cells[2]), dtype=torch.bool),
        )
        decoded = model.synthesise(model.analyse(image, book), everything, book)
        errors.append(image - decoded.clamp(0, 1))
    return errors


def fit_patches(patches: Tensor, codes: int, rounds: int = ROUNDS, seed: int = 1) -> Tensor:
    """K-means in which a patch costs error and bits (entropy-constrained vector quantisation).

    Args:
        patches: ``(N, 48)``.
        codes: K; one of them is kept at zero.
        rounds: Of Lloyd's algorithm.
        seed: Of the start and of what replaces patches that nothing is nearest to.

    Returns:
        ``(K, 48)`` in the order of rising energy, the first zero.
    """
    generator = torch.Generator().manual_seed(seed)
    book = patches[torch.randperm(len(patches), generator=generator)[:codes]].clone()
    book[0] = 0
    shares = torch.full((codes,), 1 / codes)
    for _ in range(rounds):
        handicap = book.square().sum(dim=1) - BIT_WORTH * torch.log2(shares)
        nearest = torch.cat(
            [(part @ (2 * book.mT) - handicap).argmax(dim=1) for part in patches.split(_AT_ONCE)]
        )
        counts = nearest.bincount(minlength=codes).float()
        sums = torch.zeros_like(book).index_add_(0, nearest, patches)
        fresh = patches[torch.randint(len(patches), (codes,), generator=generator)]
        book = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], fresh)
        book[0] = 0
        shares = (counts + 0.5) / (counts + 0.5).sum()
    # As they ship, so that nothing changes when they are read back.
    book = book.half().float()
    return book[book.square().sum(dim=1).argsort(stable=True)]


def tables_of_counts(counts: NDArray[np.float64]) -> TableSet:
    """Tables out of how often the numbers of patches occur in each class.

    Args:
        counts: ``(CLASSES, K)``.
    """
    common = counts.sum(axis=0) + 0.5
    smooth = counts + _PRIOR_COUNTS * common / common.sum()
    # Nothing is outside, but a table has a slot for it.
    rows = [[*row, 2.0**-24] for row in (smooth / smooth.sum(axis=1, keepdims=True)).tolist()]
    return TableSet.from_probabilities(rows, np.zeros(CLASSES, np.int32))


def fit_residual_book(errors: Sequence[Tensor], codes: int, seed: int = 1) -> ResidualBook:
    """A book of what decoders leave.

    Args:
        errors: See :func:`residual_errors`.
        codes: Patches.
        seed: Of K-means and of the shares of cells that are marked for counting.
    """
    patches = torch.cat([space_to_depth(error, FINE).view(-1, PATCH) for error in errors])
    if len(patches) > _MOST_PATCHES:
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))
        patches = patches[order[:_MOST_PATCHES]]
    fitted = fit_patches(patches, codes, seed=seed)
    tables = tables_of_counts(np.zeros((CLASSES, codes)))
    # Which numbers are chosen depends a little on their tables.
    for _ in range(2):
        book = ResidualBook(fitted, tables)
        channel, random = CountingChannel(CLASSES, codes), np.random.default_rng(seed)
        for error in errors:
            residuals = book.choose(error).best(random.uniform(0.1, 1.0))
            book.code(channel, *residuals)
        tables = tables_of_counts(channel.counts)
    return ResidualBook(fitted, tables)


def with_residual_book(weights: WeightFile, book: ResidualBook) -> WeightFile:
    """Weights with a book in the place of the one that they may have."""
    kept = {k: v for k, v in weights.tensors.items() if not k.startswith(f"{ADDITION}residual.")}
    added = {f"{ADDITION}{name}": array for name, array in book.arrays().items()}
    return dataclasses.replace(weights, tensors={**kept, **added})


def main(args: Sequence[str] | None = None) -> None:
    """Gives an index codec's weight file residual patches, and refreshes its card.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.index_residual", description=main.__doc__
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file, changed in place")
    parser.add_argument("--photographs", required=True, metavar="FOLDER", help="training pictures")
    parser.add_argument("--codes", type=int, default=256, metavar="K", help="patches (default: 256)")
    parser.add_argument("--most", type=int, default=300, metavar="N", help="photographs (default: 300)")
    options = parser.parse_args(args)
    try:
        weights = read_weight_file(options.weights)
        model = IndexCodec(weights).model
        errors = residual_errors(model, pictures_below(options.photographs, options.most))
        book = fit_residual_book(errors, options.codes)
        extended = with_residual_book(weights, book)
        write_with_card(extended, options.weights)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{len(book.patches)} patches of {len(errors)} photographs")
    print(f"weights {extended.fingerprint().hex()}, with patches {extended.extended_fingerprint().hex()}")


if __name__ == "__main__":
    main()
