"""The index network: encoder, shared codebook and conditional decoder put together for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.index.decoder import IndexDecoder
from latentpress.models.index.encoder import GrainVectors, IndexEncoder
from latentpress.models.index.granularity import GrainMap
from latentpress.models.index.quantiser import LinearCodebook, Quantised


class IndexNetworkOutput(NamedTuple):
    """What the network makes of a batch.

    Attributes:
        image: Reconstruction ``(B, H, W, 3)``, around [0, 1], not clamped.
        codebook_error: Scalar: squared error of the codes in use, averaged over each granularity, then over
            the three.
        evenness: Scalar in [0, 1]: how evenly the vectors are spread over the codes, averaged over the three.
        usage: How often each code occurs, ``(K,)``.
    """

    image: Tensor
    codebook_error: Tensor
    evenness: Tensor
    usage: Tensor


class QuantisedGrains(NamedTuple):
    """Quantised vectors at the three granularities, everywhere.

    Attributes:
        coarse: ``(B, h, w)`` and so on.
        medium: ``(B, 2h, 2w)`` and so on.
        fine: ``(B, 4h, 4w)`` and so on.
    """

    coarse: Quantised
    medium: Quantised
    fine: Quantised

    def vectors(self) -> GrainVectors:
        """The codes."""
        return GrainVectors(self.coarse.vectors, self.medium.vectors, self.fine.vectors)


class IndexNetwork(nn.Module):
    """One codec for all granularities.

    ::

        image -> encoder -> vectors at 1/16, 1/8, 1/4 -> nearest codes of one codebook
                                                              |
                                        map ------------> decoder -> image

    Args:
        encoder: Image to vectors.
        quantiser: Vectors to codes.
        decoder: Codes and granularity map to image.

    Attributes:
        config: Arguments of :func:`build_index_network` that make this network again; empty if put together
            otherwise.
    """

    config: Mapping[str, int]

    def __init__(self, encoder: IndexEncoder, quantiser: LinearCodebook, decoder: IndexDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantiser = quantiser
        self.decoder = decoder
        self.config = {}

    def quantise(self, image: Tensor) -> QuantisedGrains:
        """Codes of a picture ``(B, H, W, 3)`` in [0, 1] at every granularity, everywhere."""
        return QuantisedGrains(*(self.quantiser(x) for x in self.encoder(image)))

    def forward(self, image: Tensor, grains: GrainMap) -> IndexNetworkOutput:
        """Codes a batch.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            grains: The granularity of its parts.
        """
        vectors = self.encoder(image)
        quantised = QuantisedGrains(*(self.quantiser(x) for x in vectors))
        # One vector of each granularity a cell says enough of the spread.
        samples = (vectors.coarse, vectors.medium[:, ::2, ::2], vectors.fine[:, ::4, ::4])
        evenness = torch.stack([self.quantiser.evenness(x) for x in samples]).mean()
        masks = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())
        codebook_error = image.new_zeros(())
        usage = image.new_zeros(self.quantiser.basis.shape[0])
        for found, mask in zip(quantised, masks, strict=True):
            weight = mask.to(image.dtype)
            codebook_error = codebook_error + (found.error * weight).sum() / weight.sum().clamp(min=1) / 3
            usage = usage.scatter_add(0, found.indexes.flatten(), weight.flatten())
        decoded = self.decoder(quantised.vectors(), grains)
        return IndexNetworkOutput(decoded, codebook_error, evenness, usage)


def build_index_network(
    codes: int = 1024,
    code_channels: int = 16,
    encoder_fine_channels: int = 64,
    encoder_medium_channels: int = 160,
    encoder_coarse_channels: int = 256,
    encoder_fine_depth: int = 2,
    encoder_medium_depth: int = 2,
    encoder_coarse_depth: int = 2,
    decoder_fine_channels: int = 96,
    decoder_medium_channels: int = 176,
    decoder_coarse_channels: int = 272,
    decoder_fine_depth: int = 3,
    decoder_medium_depth: int = 4,
    decoder_coarse_depth: int = 4,
    condition_channels: int = 32,
) -> IndexNetwork:
    """Puts an :class:`IndexNetwork` together from its widths and depths.

    Args:
        codes: Entries of the codebook.
        code_channels: Length of a code.
        encoder_fine_channels: Width of the encoder at 1/4 of the resolution.
        encoder_medium_channels: Width of the encoder at 1/8.
        encoder_coarse_channels: Width of the encoder at 1/16.
        encoder_fine_depth: Blocks of the encoder at 1/4.
        encoder_medium_depth: Blocks of the encoder at 1/8.
        encoder_coarse_depth: Blocks of the encoder at 1/16.
        decoder_fine_channels: Width of the decoder at 1/4.
        decoder_medium_channels: Width of the decoder at 1/8.
        decoder_coarse_channels: Width of the decoder at 1/16.
        decoder_fine_depth: Blocks of the decoder at 1/4.
        decoder_medium_depth: Blocks of the decoder at 1/8.
        decoder_coarse_depth: Blocks of the decoder at 1/16.
        condition_channels: Width of the decoder's condition at 1/4.

    Example:
        >>> from latentpress.models.index.granularity import patch_entropy, route
        >>> network = build_index_network(16, 4, 8, 8, 8, 1, 1, 1, 8, 8, 8, 1, 1, 1, 4)
        >>> image = torch.rand(1, 32, 48, 3)
        >>> grains = route(patch_entropy(image), torch.tensor([0.5]), torch.tensor([0.25]))
        >>> network(image, grains).image.shape
        torch.Size([1, 32, 48, 3])
    """
    config = dict(locals())
    network = IndexNetwork(
        encoder=IndexEncoder(
            encoder_fine_channels,
            encoder_medium_channels,
            encoder_coarse_channels,
            encoder_fine_depth,
            encoder_medium_depth,
            encoder_coarse_depth,
            code_channels,
        ),
        quantiser=LinearCodebook(codes, code_channels),
        decoder=IndexDecoder(
            decoder_fine_channels,
            decoder_medium_channels,
            decoder_coarse_channels,
            decoder_fine_depth,
            decoder_medium_depth,
            decoder_coarse_depth,
            code_channels,
            condition_channels,
        ),
    )
    network.config = config
    return network
