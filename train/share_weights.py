"""Rewrites a weight file without what another one has: ``image-max`` without the transforms of ``image``.

The other file then has to be beside it, or among the weights that ship. What both were exported from is the
same, but one may have been rounded otherwise; then the other's arrays are taken, and the fingerprint changes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentpress.codecs.byte_weights import from_bytes
from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.shared_weights import in_order, order_between, without_shared
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole
from latentpress.train.card import refreshed, write_card

_OWN = ("context.", "tables.")

# Rows of int8 are off by half a step of 127, of the row's largest.
_ROUNDING = 0.005


def adopted(weights: WeightFile, base: WeightFile) -> WeightFile:
    """A weight file of an image codec with transforms and hyperprior of another one.

    Args:
        weights: Whose entropy model was trained on them.
        base: The other one.

    Raises:
        ValueError: They are not the same up to rounding.
    """
    order = order_between(weights.tensors, base.tensors)
    own = {k: v for k, v in weights.tensors.items() if k.startswith(_OWN)}
    taken = {k: v for k, v in in_order(base.tensors, order).items() if not k.startswith(_OWN)}
    before, after = from_bytes(weights.tensors), from_bytes(taken)
    for name, array in after.items():
        old = before.get(name)
        near = old is not None and old.shape == array.shape
        if not near or np.abs(old - array.astype(np.float64)).max() > _ROUNDING * np.abs(array).max():
            raise ValueError(f"{name} is not that of the other weights")
    return dataclasses.replace(weights, tensors=own | taken)


def share_weights(weights: str | Path, base: str | Path, out: str | Path) -> int:
    """Writes a weight file without what another one has, and its card.

    Args:
        weights: The weight file.
        base: The other one.
        out: To be written, in the folder of the other one unless that ships.

    Returns:
        Its size in bytes.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: One is no weight file, or they have nothing in common.
    """
    rest = read_weight_file(base, shared=False)
    content = without_shared(adopted(read_weight_file(weights), rest), rest, Path(base).stem)
    write_whole(Path(out), content)
    if card_path(weights).is_file():
        write_card(refreshed(read_card(weights), out), out)
    return len(content)


def main(args: Sequence[str] | None = None) -> None:
    """Writes a weight file without what another one has.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.share_weights", description=main.__doc__
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file")
    parser.add_argument("--base", required=True, metavar="FILE", help="weight file that has most of it")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file to write")
    options = parser.parse_args(args)
    try:
        size = share_weights(options.weights, options.base, options.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"written: {options.out}, {size} bytes")


if __name__ == "__main__":
    main()
