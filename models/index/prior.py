"""The index prior: predicts every index's distribution from those that are known already.

One masked predictor in two roles, as in UIGC and M2T (arXiv 2304.07313): along a fixed schedule of steps it
gives the range coder its tables, and with indices lost it says what they probably were. It is convolutional,
so that memory grows with the picture and not with its square, and made only of layers that
:mod:`latentpress.models.entropy.fixed_point` carries out in integers.

An index is coded as two symbols, its group of 32 codes and its member in the group.

::

    coarse indices known so far, map -> embed -> [block] x n ------> group, member of unknown coarse indices
                                          ^          | upsample
      (repair only: what is known below) -'          v
    medium indices known so far, map -> embed --(+)--> [block] x n -> the same for medium
                                                     | upsample
                                                     v
    fine indices known so far, map ---> embed --(+)--> [block] x n -> the same for fine
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.index.codebooks import GROUP, books_of
from latentpress.models.index.granularity import GrainMap, repeat_positions
from latentpress.models.layers import Downsample, Upsample, space_to_depth

UNKNOWN = -1
"""Stands for an index that is not known."""

STEPS = 6
"""Coding steps of each granularity."""

# Order of the positions of every 4x4 square, and its division into steps: few positions start without
# neighbours, and those that come last have neighbours on all sides.
_ORDER = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))
_STEP_STARTS = (0, 1, 2, 4, 8, 12)

_MEDIUM_STATES = 3  # unknown, in a coarse cell, refined
_FINE_STATES = 3  # unknown, in a coarse cell, in a medium quarter
_COARSE_STATES = 17  # unknown, and split with any of its quarters fine


def step_map(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """The step in which every position is coded.

    Args:
        height: Rows.
        width: Columns.
        device: Where the map is made.

    Returns:
        ``(height, width)`` int64 in [0, STEPS).

    Example:
        >>> step_map(4, 4).flatten().bincount().tolist()
        [1, 1, 2, 4, 4, 4]
    """
    rows = torch.arange(height, device=device)[:, None] % 4
    columns = torch.arange(width, device=device)[None, :] % 4
    step = torch.zeros((height, width), dtype=torch.int64, device=device)
    for i, line in enumerate(_ORDER):
        for j, rank in enumerate(line):
            number = sum(rank >= start for start in _STEP_STARTS) - 1
            step = torch.where((rows == i) & (columns == j), number, step)
    return step


class GroupedLogits(NamedTuple):
    """What is predicted for the indices of one granularity, in powers of two.

    Attributes:
        groups: ``(B, H, W, groups)``.
        members: ``(B, H, W, 32 * groups)``.
    """

    groups: Tensor
    members: Tensor


class Belief(NamedTuple):
    """What a prior believes about indices that are not known.

    Attributes:
        lost: ``(H, W)`` bool, where they are.
        probabilities: ``(N, K)``, of every code of the book, in raster order of the places.
    """

    lost: Tensor
    probabilities: Tensor


class GrainBeliefs(NamedTuple):
    """Beliefs about the unknown indices of every granularity."""

    coarse: Belief
    medium: Belief
    fine: Belief


class GroupedHead(nn.Module):
    """Logits of groups and of members, base 2.

    Args:
        channels: Of the features.
        groups: Number of groups.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = nn.Linear(channels, groups)
        self.members = nn.Linear(channels, GROUP * groups)

    def forward(self, x: Tensor) -> GroupedLogits:
        """Maps features ``(B, H, W, C)``."""
        return GroupedLogits(self.groups(x), self.members(x))


class GrainIndexes(NamedTuple):
    """Indices at the three granularities; :data:`UNKNOWN` where not known, anything where there is none.

    Attributes:
        coarse: ``(B, h, w)`` int64, numbers within the picture's book.
        medium: ``(B, 2h, 2w)`` int64, numbers within the full book.
        fine: ``(B, 4h, 4w)`` int64, the same.
    """

    coarse: Tensor
    medium: Tensor
    fine: Tensor


class IndexPrior(nn.Module):
    """Predicts indices.

    Args:
        codes: Size of the full codebook.
        coarse_channels: Width at 1/16 of the resolution.
        medium_channels: Width at 1/8.
        fine_channels: Width at 1/4.
        coarse_depth: Blocks at 1/16.
        medium_depth: Blocks at 1/8.
        fine_depth: Blocks at 1/4.

    Example:
        >>> prior = IndexPrior(64, 8, 8, 8, 1, 1, 1)
        >>> grains = GrainMap(torch.zeros(1, 2, 3).bool(), torch.zeros(1, 4, 6).bool())
        >>> x = prior.coarse_features(torch.full((1, 2, 3), UNKNOWN), grains, torch.tensor([3]))
        >>> prior.coarse_head(x).members.shape
        torch.Size([1, 2, 3, 160])
    """

    def __init__(
        self,
        codes: int,
        coarse_channels: int,
        medium_channels: int,
        fine_channels: int,
        coarse_depth: int,
        medium_depth: int,
        fine_depth: int,
    ) -> None:
        super().__init__()
        self.books = books_of(codes)
        self.codes = codes
        groups = self.books[-1].first_group + self.books[-1].groups
        self.coarse_embedding = nn.Embedding(groups * GROUP + _COARSE_STATES, coarse_channels)
        self.medium_embedding = nn.Embedding(codes + _MEDIUM_STATES, medium_channels)
        self.fine_embedding = nn.Embedding(codes + _FINE_STATES, fine_channels)
        self.book_embedding = nn.Embedding(len(self.books), coarse_channels)
        self.coarse_blocks = nn.Sequential(*(ContextBlock(coarse_channels) for _ in range(coarse_depth)))
        self.medium_blocks = nn.Sequential(*(ContextBlock(medium_channels) for _ in range(medium_depth)))
        self.fine_blocks = nn.Sequential(*(ContextBlock(fine_channels) for _ in range(fine_depth)))
        self.to_medium = Upsample(coarse_channels, medium_channels)
        self.to_fine = Upsample(medium_channels, fine_channels)
        self.from_fine = Downsample(fine_channels, medium_channels)
        self.from_medium = Downsample(medium_channels, coarse_channels)
        full_groups = max(1, codes // GROUP)
        self.coarse_head = GroupedHead(coarse_channels, groups)
        self.medium_head = GroupedHead(medium_channels, full_groups)
        self.fine_head = GroupedHead(fine_channels, full_groups)

    def embed_coarse(self, coarse: Tensor, grains: GrainMap, book: Tensor) -> Tensor:
        """What is known at 1/16: index, or granularity of the parts; and the book."""
        first_row = torch.zeros_like(book)
        for number, entry in enumerate(self.books):
            first_row = first_row + (book == number) * entry.first_row
        states = self.coarse_embedding.num_embeddings - _COARSE_STATES
        parts = space_to_depth(grains.fine[..., None].long(), 2)
        pattern = parts[..., 0] + 2 * parts[..., 1] + 4 * parts[..., 2] + 8 * parts[..., 3]
        token = torch.where(coarse == UNKNOWN, states, coarse + first_row[:, None, None])
        token = torch.where(grains.split, states + 1 + pattern, token)
        return self.coarse_embedding(token) + self.book_embedding(book)[:, None, None]

    def embed_medium(self, medium: Tensor, grains: GrainMap) -> Tensor:
        """What is known at 1/8."""
        token = torch.where(medium == UNKNOWN, self.codes, medium)
        token = torch.where(repeat_positions(grains.split, 2), token, self.codes + 1)
        return self.medium_embedding(torch.where(grains.fine, self.codes + 2, token))

    def embed_fine(self, fine: Tensor, grains: GrainMap) -> Tensor:
        """What is known at 1/4."""
        token = torch.where(fine == UNKNOWN, self.codes, fine)
        token = torch.where(grains.fine_mask(), token, self.codes + 2)
        return self.fine_embedding(torch.where(repeat_positions(grains.split, 4), token, self.codes + 1))

    def summary(self, medium: Tensor, fine: Tensor, grains: GrainMap) -> Tensor:
        """What medium and fine indices tell of the coarse ones among them, for repair; ``(B, h, w, C)``."""
        below = self.embed_medium(medium, grains) + self.from_fine(self.embed_fine(fine, grains))
        return self.from_medium(below)

    def coarse_features(
        self, coarse: Tensor, grains: GrainMap, book: Tensor, summary: Tensor | None = None
    ) -> Tensor:
        """Features at 1/16 for :attr:`coarse_head`, given coarse indices ``(B, h, w)``."""
        x = self.embed_coarse(coarse, grains, book)
        return self.coarse_blocks(x if summary is None else x + summary)

    def medium_features(self, medium: Tensor, grains: GrainMap, coarse_features: Tensor) -> Tensor:
        """Features at 1/8 for :attr:`medium_head`, given medium indices and the features above."""
        return self.medium_blocks(self.embed_medium(medium, grains) + self.to_medium(coarse_features))

    def fine_features(self, fine: Tensor, grains: GrainMap, medium_features: Tensor) -> Tensor:
        """Features at 1/4 for :attr:`fine_head`, given fine indices and the features above."""
        return self.fine_blocks(self.embed_fine(fine, grains) + self.to_fine(medium_features))
