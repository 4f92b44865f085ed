"""Measures the pattern that a decoder puts into every coarse cell.

:mod:`latentpress.models.index.cell_texture` says what becomes of it. The weights get it as an addition, so
that their fingerprint stays::

    python -m latentpress.train.index_texture --weights assets/weights/index.safetensors --photographs PHOTOS

Photographs are decoded all coarse. The pattern is the direction, of all that are not smooth, in which decoded
cells have most energy that the photographs have not. Less than a minute on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.index import TEXTURE_PATTERN, IndexCodec
from latentpress.codecs.weights import ADDITION, WeightFile, read_weight_file
from latentpress.models.index.cell_texture import CELL_VALUES
from latentpress.models.index.granularity import CELL, uniform_maps
from latentpress.models.index.model import IndexModel
from latentpress.train.card import write_with_card
from latentpress.train.fit_grain_tables import pictures_below

_LARGEST_SIDE = 512
_SMOOTH_ORDER = 2


class CellPattern(NamedTuple):
    """What decoded cells have in common.

    Attributes:
        pattern: ``(768,)``, of length 1.
        decoded: Energy of decoded cells in its direction, squared 8-bit steps.
        true: That of photographs.
    """

    pattern: Tensor
    decoded: float
    true: float


@torch.inference_mode()
def common_pattern(model: IndexModel, pictures: Iterable[Tensor]) -> CellPattern:
    """Finds the pattern of a model's coarse cells.

    Args:
        model: The model.
        pictures: ``(H, W, 3)`` uint8.

    Raises:
        ValueError: No picture is as large as a cell.
    """
    smooth = smooth_cells(CELL)
    decoded, true = torch.zeros(2, CELL_VALUES, CELL_VALUES, dtype=torch.float64).unbind()
    count = 0
    book = torch.tensor([model.books.full])
    for picture in pictures:
        height, width = (min(side, _LARGEST_SIDE) // CELL * CELL for side in picture.shape[:2])
        image = picture[None, :height, :width].float() / 255
        if not image.numel():
            continue
        coarse = uniform_maps(height // CELL, width // CELL, "cpu")[0]
        for total, of in (
            (decoded, model.synthesise(model.analyse(image, book), coarse, book)),
            (true, image),
        ):
            cells = cells_of(of, CELL)[0].flatten(0, 1)
            rough = (cells - (cells @ smooth.T) @ smooth).double()
            total += rough.T @ rough
        count += height * width // CELL**2
    if not count:
        raise ValueError("no photograph is as large as a cell")
    _, directions = torch.linalg.eigh((decoded - true) / count)
    pattern = directions[:, -1]
    energies = [float(pattern @ total @ pattern) / count * 255**2 for total in (decoded, true)]
    return CellPattern(pattern.float(), *energies)


def with_pattern(weights: WeightFile, pattern: Tensor) -> WeightFile:
    """Weights with a pattern in the place of the one that they may have."""
    added = {ADDITION + TEXTURE_PATTERN: pattern.numpy().astype(np.float16)}
    return dataclasses.replace(weights, tensors={**weights.tensors, **added})


def cells_of(image: Tensor, side: int) -> Tensor:
    """Cells ``(B, H / side, W / side, side * side * 3)`` of pictures ``(B, H, W, 3)``.

    Example:
        >>> cells_of(torch.rand(1, 32, 48, 3), 16).shape
        torch.Size([1, 2, 3, 768])
    """
    b, height, width, _ = image.shape
    cells = image.reshape(b, height // side, side, width // side, side, 3)
    return cells.permute(0, 1, 3, 2, 4, 5).flatten(3)


def smooth_cells(side: int) -> Tensor:
    """Orthonormal cells ``(18, side * side * 3)`` that vary slowly: low cosines' products, in each colour.

    Example:
        >>> smooth_cells(8).shape
        torch.Size([18, 192])
    """
    place = (torch.arange(side) + 0.5) / side * torch.pi
    waves = torch.stack([torch.cos(order * place) for order in range(_SMOOTH_ORDER + 1)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    found = []
    for down, first in enumerate(waves):
        for right, second in enumerate(waves):
            if down + right <= _SMOOTH_ORDER:
                plane = first[:, None] * second
                found += [(plane[..., None] * torch.eye(3)[colour]).flatten() for colour in range(3)]
    return torch.stack(found)


def main(args: Sequence[str] | None = None) -> None:
    """Gives an index codec's weight file the pattern of its coarse cells, and refreshes its card.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.index_texture", description=main.__doc__
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file, changed in place")
    parser.add_argument("--photographs", required=True, metavar="FOLDER", help="training pictures")
    parser.add_argument("--most", type=int, default=60, metavar="N", help="photographs (default: 60)")
    options = parser.parse_args(args)
    try:
        weights = read_weight_file(options.weights)
        found = common_pattern(IndexCodec(weights).model, pictures_below(options.photographs, options.most))
        extended = with_pattern(weights, found.pattern)
        write_with_card(extended, options.weights)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"energy of the pattern: {found.decoded:.0f} decoded, {found.true:.0f} in photographs")


if __name__ == "__main__":
    main()
