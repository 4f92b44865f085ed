"""Fits the tables of the granularity map to the maps that the router makes of photographs.

The router depends on pictures and ratios only, so this needs no trained network.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.grain_map_coder import TABLES_EACH, code_map, levels_of, tables_from_counts
from latentpress.models.index.granularity import CELL, fractions_of_detail, route, routing_scores
from latentpress.train.counting_channel import CountingChannel
from latentpress.train.data.images import find_images, read_rgb

MAPS_EACH = 16
"""Maps a picture."""

LARGEST_SIDE = 1024
"""Larger pictures are cropped to this."""


def fit_grain_tables(pictures: Iterable[Tensor], seed: int = 1) -> TableSet:
    """Tables out of the router's maps.

    Args:
        pictures: ``(H, W, 3)`` uint8.
        seed: Of the ratios.
    """
    channel, empty = CountingChannel(2 * TABLES_EACH, 2), tables_from_counts(np.zeros((2 * TABLES_EACH, 2)))
    random = np.random.default_rng(seed)
    for picture in pictures:
        height, width = (min(side, LARGEST_SIDE) // CELL * CELL for side in picture.shape[:2])
        if not height or not width:
            continue
        scores = routing_scores(picture[None, :height, :width].float() / 255)
        for detail in random.random(MAPS_EACH) ** 1.5:
            split, fine = fractions_of_detail(torch.tensor([detail]))
            # Half of the maps leave the path, for those who choose their own ratios.
            fine = fine ** (4.0 ** (random.random() - 0.5)) if random.random() < 0.5 else fine
            grains = route(scores, split, fine)
            bits = grains.split[0].numpy(), grains.fine[0].numpy()
            code_map(channel, empty, levels_of(*bits), (height // CELL, width // CELL), bits)
    return tables_from_counts(channel.counts)


def pictures_below(folder: str | Path, most: int) -> Iterable[Tensor]:
    """At most so many pictures below a folder, evenly spread over it."""
    paths = find_images(folder)
    for path in paths[:: max(1, len(paths) // most)][:most]:
        yield torch.from_numpy(read_rgb(path).copy())
