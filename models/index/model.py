"""The complete index model, as it ships: encoder, books, decoder and index prior."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentpress.models.index.codebooks import ChosenCodes, CodeBooks
from latentpress.models.index.decoder import IndexDecoder
from latentpress.models.index.encoder import GrainVectors, IndexEncoder
from latentpress.models.index.granularity import GrainMap
from latentpress.models.index.network import IndexNetwork, build_index_network
from latentpress.models.index.prior import UNKNOWN, GrainBeliefs, GrainIndexes, IndexPrior


class IndexModel(nn.Module):
    """Pictures to indices and back, with books of all sizes.

    ::

        image -> encoder -> features -> book's head, codes -> indices --(vectors, map)--> decoder -> image
                                                                |
                                                              prior -> distributions of indices

    Args:
        encoder: Image to features.
        books: Features to indices to vectors.
        decoder: Vectors and map to image.
        prior: Known indices to distributions of the others.

    Attributes:
        config: Arguments of :func:`build_index_model` that make this model again.
    """

    config: Mapping[str, int]

    def __init__(
        self, encoder: IndexEncoder, books: CodeBooks, decoder: IndexDecoder, prior: IndexPrior
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.books = books
        self.decoder = decoder
        self.prior = prior
        self.config = {}

    def finer_indexes(self, features: GrainVectors) -> tuple[Tensor, Tensor]:
        """Medium and fine indices, everywhere, of the encoder's features."""
        with torch.autocast(features.fine.device.type, enabled=False):
            medium = self.encoder.heads[1](features.medium.float())
            fine = self.encoder.heads[2](features.fine.float())
            return self.books.nearest_in_full(medium), self.books.nearest_in_full(fine)

    def analyse(self, image: Tensor, book: Tensor) -> GrainIndexes:
        """Indices of a picture at all granularities, everywhere.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            book: ``(B,)`` int64, the book of the coarse indices.
        """
        features = self.encoder.features(image)
        return GrainIndexes(self.books.choose(features.coarse, book).codes, *self.finer_indexes(features))

    def synthesise(self, indexes: GrainIndexes, grains: GrainMap, book: Tensor) -> Tensor:
        """A picture ``(B, 16h, 16w, 3)``, not clamped, of indices known wherever the map has one."""
        return self.decoder(self.vectors(indexes, grains, book), grains)

    def vectors(self, indexes: GrainIndexes, grains: GrainMap, book: Tensor) -> GrainVectors:
        """The decoder's vectors of indices."""
        coarse, medium, fine = (
            torch.where(mask, index, 0)
            for index, mask in zip(
                indexes, (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask()), strict=True
            )
        )
        return GrainVectors(
            self.books.look_up(coarse, book), self.books.look_up_full(medium), self.books.look_up_full(fine)
        )

    def expected_vectors(
        self, indexes: GrainIndexes, beliefs: GrainBeliefs, grains: GrainMap, book: Tensor
    ) -> GrainVectors:
        """The decoder's vectors of one picture's indices; the mean of all codes' where one is not known.

        A mean is further from every code than codes are from each other, but no likely code is guessed
        wrong: pictures are closer to the originals than those of the most probable codes.

        Args:
            indexes: UNKNOWN where lost.
            beliefs: About those.
            grains: The map.
            book: ``(1,)``, of the coarse indices.
        """
        known = GrainIndexes(*(torch.where(index == UNKNOWN, 0, index) for index in indexes))
        found = self.vectors(known, grains, book)
        for vectors, belief in zip(found, beliefs, strict=True):
            codes = torch.arange(belief.probabilities.shape[1], device=vectors.device)[None, None]
            full = len(codes[0, 0]) == self.books.books[-1].size
            table = self.books.look_up_full(codes) if full else self.books.look_up(codes, book)
            vectors[0][belief.lost] = (belief.probabilities @ table[0, 0].float()).to(vectors.dtype)
        return found

    def reconstruct(self, image: Tensor, grains: GrainMap, book: Tensor) -> tuple[Tensor, ChosenCodes]:
        """Codes a batch for training the books: gradients reach the coarse indices' heads and vectors."""
        with torch.no_grad():
            features = self.encoder.features(image)
            medium, fine = (self.books.look_up_full(x) for x in self.finer_indexes(features))
        chosen = self.books.choose(features.coarse, book)
        return self.decoder(GrainVectors(chosen.vectors, medium, fine), grains), chosen


def build_index_model(
    prior_coarse_channels: int = 128,
    prior_medium_channels: int = 96,
    prior_fine_channels: int = 64,
    prior_coarse_depth: int = 4,
    prior_medium_depth: int = 3,
    prior_fine_depth: int = 2,
    **network: int,
) -> IndexModel:
    """Puts an :class:`IndexModel` together from its widths and depths.

    Args:
        prior_coarse_channels: Width of the prior at 1/16 of the resolution.
        prior_medium_channels: Width of the prior at 1/8.
        prior_fine_channels: Width of the prior at 1/4.
        prior_coarse_depth: Blocks of the prior at 1/16.
        prior_medium_depth: Blocks of the prior at 1/8.
        prior_fine_depth: Blocks of the prior at 1/4.
        **network: Arguments of :func:`~latentpress.models.index.network.build_index_network`.

    Example:
        >>> model = build_index_model(codes=64)
        >>> model.analyse(torch.rand(1, 32, 48, 3), torch.tensor([0])).coarse.shape
        torch.Size([1, 2, 3])
    """
    parts = build_index_network(**network)
    prior = {name: value for name, value in locals().items() if name.startswith("prior_")}
    widths = {name.removeprefix("prior_"): value for name, value in prior.items()}
    codes, code_channels = parts.config["codes"], parts.config["code_channels"]
    model = IndexModel(
        parts.encoder,
        CodeBooks(codes, code_channels, parts.encoder.coarse_channels),
        parts.decoder,
        IndexPrior(codes, **widths),
    )
    model.config = {**prior, **parts.config}
    return model


@torch.no_grad()
def adopt_network(model: IndexModel, network: IndexNetwork) -> None:
    """Gives a model the encoder and decoder of a trained network of the same widths and depths.

    The books come of the network's codebook by :meth:`CodeBooks.fill`; the prior is left alone.
    """
    model.encoder.load_state_dict(network.encoder.state_dict())
    model.decoder.load_state_dict(network.decoder.state_dict())
