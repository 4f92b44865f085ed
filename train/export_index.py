"""Turns a trained index model into a weight file: float16 transforms, integer prior and tables of the map."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.card import CodebookUse, ModelCard, card_path
from latentpress.codecs.grain_map_coder import TABLES_EACH, tables_from_counts
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.index.granularity import CELL, fractions_of_detail, route, routing_scores
from latentpress.models.index.model import IndexModel, build_index_model
from latentpress.train.card import write_card
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.export import WEIGHTS_LICENCE
from latentpress.train.fit_grain_tables import LARGEST_SIDE, fit_grain_tables, pictures_below
from latentpress.train.index_validation import perplexity

DETAILS = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Where the use of the codebook is counted."""


def export_index(
    config: Mapping[str, Any], state: Mapping[str, Tensor], tables: TableSet | None = None
) -> WeightFile:
    """Makes the weight file of an index codec.

    Args:
        config: Arguments of ``build_index_model``.
        state: The trained model's state, float32.
        tables: Of the granularity map; guessed ones if None.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    model = build_index_model(**config)
    model.load_state_dict(dict(state))
    model.prior = convert(model.prior)
    tensors: dict[str, NDArray[Any]] = {}
    for name, tensor in model.state_dict().items():
        array = tensor.detach().cpu().numpy()
        tensors[name] = array.astype(np.float16) if array.dtype == np.float32 else array
    tables = tables or tables_from_counts(np.zeros((2 * TABLES_EACH, 2)))
    tensors.update({f"tables.{name}": array for name, array in tables.to_arrays().items()})
    return WeightFile("index", dict(config), tensors)


@torch.inference_mode()
def codebook_use(model: IndexModel, pictures: Iterable[Tensor], data: str) -> CodebookUse:
    """Counts the codes that pictures have between all coarse and all fine.

    Args:
        model: The trained model.
        pictures: ``(H, W, 3)`` uint8.
        data: Name of the data set.
    """
    book = torch.tensor([model.books.full])
    counts = torch.zeros(model.books.books[-1].size, dtype=torch.int64)
    for picture in pictures:
        height, width = (min(side, LARGEST_SIDE) // CELL * CELL for side in picture.shape[:2])
        image = picture[None, :height, :width].float() / 255
        if not image.numel():
            continue
        indexes, scores = model.analyse(image, book), routing_scores(image)
        for detail in DETAILS:
            grains = route(scores, *fractions_of_detail(torch.tensor([detail])))
            masks = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())
            for index, mask in zip(indexes, masks, strict=True):
                counts += index[mask].bincount(minlength=len(counts))
    return CodebookUse(data, len(counts), int((counts > 0).sum()), round(perplexity(counts), 1))


def write_index_export(
    checkpoint: str, out: str | Path, photographs: str | Path, training_data: str, training: str, most: int
) -> ModelCard:
    """Exports a checkpoint of the fourth stage to a weight file and writes the model card beside it.

    Args:
        checkpoint: Of ``latentpress train``; it is unpickled, so it must be one's own.
        out: The weight file, ``.safetensors``.
        photographs: Folder of the training pictures: the map's tables are fitted and the codebook's use is
            counted on some of them.
        training_data: What the weights were trained on.
        training: How they were trained.
        most: How many photographs to take.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    trained = network_from_checkpoint(checkpoint)
    tables = fit_grain_tables(pictures_below(photographs, most))
    weights = export_index(trained.config, trained.state, tables)
    content = weights.to_bytes()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(content)
    model = build_index_model(**trained.config)
    model.load_state_dict(dict(trained.state))
    card = ModelCard(
        name=Path(out).stem,
        family=weights.family,
        config=weights.config,
        fingerprint=weights.fingerprint().hex(),
        parameters=sum(p.numel() for p in model.parameters()),
        bytes=len(content),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        license=WEIGHTS_LICENCE,
        training_data=training_data,
        training=training,
        lambda_range=None,
        codebook=codebook_use(model.eval(), pictures_below(photographs, most), Path(photographs).name),
    )
    write_card(card, out)
    return card


def main(args: Sequence[str] | None = None) -> None:
    """Exports a checkpoint to a weight file and its model card.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.export_index", description=main.__doc__
    )
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint; it is unpickled")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file, .safetensors")
    parser.add_argument("--photographs", required=True, metavar="FOLDER", help="training pictures")
    parser.add_argument("--training-data", required=True, metavar="TEXT", help="what it was trained on")
    parser.add_argument("--training", required=True, metavar="TEXT", help="how it was trained")
    parser.add_argument("--most", type=int, default=300, metavar="N", help="photographs (default: 300)")
    options = parser.parse_args(args)
    if Path(options.out).suffix != ".safetensors":
        parser.error(f"--out must end in .safetensors, got {options.out}")
    try:
        card = write_index_export(
            options.checkpoint,
            options.out,
            options.photographs,
            options.training_data,
            options.training,
            options.most,
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    assert card.codebook is not None
    use = card.codebook
    print(f"{card.parameters} parameters, {card.bytes} bytes, weights {card.fingerprint}")
    print(f"codes in use: {use.used} of {use.codes}, perplexity {use.perplexity}, on {use.data}")
    print(f"written: {options.out}, {card_path(options.out)}")


if __name__ == "__main__":
    main()
