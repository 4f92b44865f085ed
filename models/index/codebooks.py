"""Codebooks of every size, the full one and those reduced by K-means, in one table.

*Extreme Image Compression using Fine-tuned VQGANs* (arXiv 2307.08265) lowers the rate of an all-coarse
picture by fewer codes: the full codebook's codes are clustered by K-means, and codebook, last encoder layer
and first decoder layer are trained a little with everything else frozen. Here a *book* is just that: a head,
which makes directions of the encoder's coarse features, the codes that these are compared with, and the
vectors that the decoder gets for them.

All books share one table, in groups of 32 rows. Close codes share a group, because the range coder codes a
group first and a member second; see :mod:`latentpress.models.index.prior`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.index.quantiser import nearest_codes, unit_vectors

GROUP = 32
"""Rows of a group."""

SMALLEST_BOOK = 8

_KMEANS_ROUNDS = 30


class Book(NamedTuple):
    """Where a codebook stands in the table.

    Attributes:
        size: Number of its codes, K.
        first_group: Its first group.
        groups: Its groups; the last one is not full if K is below 32.
    """

    size: int
    first_group: int
    groups: int

    @property
    def first_row(self) -> int:
        """Row of its code 0; the others follow."""
        return self.first_group * GROUP


def books_of(codes: int) -> tuple[Book, ...]:
    """All books for a full codebook: 8, 16, ... codes.

    Args:
        codes: Size of the full codebook, a power of two of at least 8.

    Raises:
        ValueError: It is not.

    Example:
        >>> [tuple(book) for book in books_of(64)]
        [(8, 0, 1), (16, 1, 1), (32, 2, 1), (64, 3, 2)]
    """
    if codes < SMALLEST_BOOK or codes & (codes - 1):
        raise ValueError(f"a full codebook has 8, 16, 32, ... codes, got {codes}")
    books: list[Book] = []
    size, group = SMALLEST_BOOK, 0
    while size <= codes:
        books.append(Book(size, group, max(1, size // GROUP)))
        group += books[-1].groups
        size *= 2
    return tuple(books)


class ChosenCodes(NamedTuple):
    """Codes that a book has for some features.

    Attributes:
        codes: ``(B, h, w)`` int64, numbers within the book.
        vectors: ``(B, h, w, d)`` for the decoder; gradients reach both the book and the features' head.
        error: ``(B, h, w)`` squared error of direction.
    """

    codes: Tensor
    vectors: Tensor
    error: Tensor


class CodeBooks(nn.Module):
    """The table of all books.

    Args:
        codes: Size of the full codebook.
        code_channels: d.
        coarse_channels: Width of the encoder's coarse features.

    Example:
        >>> books = CodeBooks(64, 4, 8)
        >>> books.choose(torch.randn(2, 3, 3, 8), torch.tensor([0, 3])).vectors.shape
        torch.Size([2, 3, 3, 4])
    """

    book_of_row: Tensor

    def __init__(self, codes: int, code_channels: int, coarse_channels: int) -> None:
        super().__init__()
        self.books = books_of(codes)
        rows = (self.books[-1].first_group + self.books[-1].groups) * GROUP
        self.heads = nn.Parameter(torch.randn(len(self.books), code_channels, coarse_channels) * 0.1)
        self.head_biases = nn.Parameter(torch.zeros(len(self.books), code_channels))
        self.directions = nn.Parameter(unit_vectors(torch.randn(rows, code_channels)))
        self.vectors = nn.Parameter(self.directions.detach() * code_channels**0.5)
        book_of_row = torch.full((rows,), -1)
        for number, book in enumerate(self.books):
            book_of_row[book.first_row : book.first_row + book.size] = number
        self.register_buffer("book_of_row", book_of_row, persistent=False)

    @property
    def full(self) -> int:
        """Number of the full codebook."""
        return len(self.books) - 1

    def first_rows(self, book: Tensor) -> Tensor:
        """Rows of the first codes of books ``(B,)``."""
        # A sum over comparisons rather than a table, which would have to be copied to the device.
        first = torch.zeros_like(book)
        for number, entry in enumerate(self.books):
            first = first + (book == number) * entry.first_row
        return first

    def choose(self, features: Tensor, book: Tensor) -> ChosenCodes:
        """Codes for coarse features.

        Args:
            features: ``(B, h, w, C)`` of the encoder at 1/16.
            book: ``(B,)`` int64, the number of each picture's book.
        """
        with torch.autocast(features.device.type, enabled=False):
            # A product rather than an index, whose gradient would have to be scattered.
            choice = (book[:, None] == torch.arange(len(self.books), device=book.device)).float()
            heads = (choice @ self.heads.flatten(1)).view(-1, *self.heads.shape[1:])
            biases = choice @ self.head_biases
            found = torch.einsum("bhwc,bdc->bhwd", features.float(), heads) + biases[:, None, None]
            directions = unit_vectors(found)
            codes = unit_vectors(self.directions)
            likeness = directions.detach() @ codes.detach().mT
            other = self.book_of_row != book[:, None, None, None]
            rows = likeness.masked_fill(other, -2.0).argmax(dim=-1)
            chosen = F.embedding(rows, codes)
            error = (directions - chosen).square().sum(dim=-1)
            passed = (directions - directions.detach()) * found.shape[-1] ** 0.5
            vectors = F.embedding(rows, self.vectors) + passed
        return ChosenCodes(rows - self.first_rows(book)[:, None, None], vectors, error)

    def nearest_in_full(self, x: Tensor) -> Tensor:
        """Numbers of the full codebook's codes for vectors ``(..., d)`` before quantisation, int64."""
        return nearest_codes(unit_vectors(x), unit_vectors(self._rows(self.directions, self.full)))

    def look_up(self, codes: Tensor, book: Tensor) -> Tensor:
        """Vectors for the decoder, ``(B, h, w, d)``, of codes ``(B, h, w)`` within books ``(B,)``."""
        return F.embedding(codes + self.first_rows(book)[:, None, None], self.vectors)

    def look_up_full(self, codes: Tensor) -> Tensor:
        """Vectors for the decoder, ``(..., d)``, of codes ``(...)`` of the full codebook."""
        return F.embedding(codes + self.books[-1].first_row, self.vectors)

    def _rows(self, table: Tensor, number: int) -> Tensor:
        book = self.books[number]
        return table[book.first_row : book.first_row + book.size]

    @torch.no_grad()
    def fill(self, codebook: Tensor, usage: Tensor, head: nn.Linear) -> None:
        """Makes all books of a trained codebook, smaller ones by K-means.

        Args:
            codebook: ``(K, d)`` of length one.
            usage: ``(K,)`` how often each code is coarse; its weight in K-means.
            head: The encoder's coarse head, with which every book starts.
        """
        codebook = unit_vectors(codebook.detach().cpu())
        for number, book in enumerate(self.books):
            codes = codebook
            if number != self.full:
                codes = kmeans_directions(codebook, usage.detach().cpu().float(), book.size)
            codes = codes[hierarchical_order(codes)]
            rows = slice(book.first_row, book.first_row + book.size)
            self.directions[rows] = codes.to(self.directions.device)
            self.vectors[rows] = codes.to(self.vectors.device) * codes.shape[1] ** 0.5
        self.heads.copy_(head.weight.expand_as(self.heads))
        self.head_biases.copy_(head.bias.expand_as(self.head_biases))


def kmeans_directions(points: Tensor, weights: Tensor, count: int) -> Tensor:
    """K-means of weighted directions.

    Args:
        points: ``(N, d)`` of length one.
        weights: ``(N,)``, non-negative.
        count: Clusters, at most N.

    Returns:
        ``(count, d)`` of length one, no two of them equal unless points are.

    Example:
        >>> kmeans_directions(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2), 2).sum(0)
        tensor([1., 1.])
    """
    # Farthest points first: centres that K-means can share out.
    weights = weights + 1e-3 * weights.mean().clamp(min=1e-6)
    centres = [points[weights.argmax()]]
    nearest = points @ centres[0]
    while len(centres) < count:
        centres.append(points[((1 - nearest).clamp(min=0) * weights.sqrt()).argmax()])
        nearest = torch.maximum(nearest, points @ centres[-1])
    found = torch.stack(centres)
    for _ in range(_KMEANS_ROUNDS):
        cluster = (points @ found.mT).argmax(dim=1)
        sums = torch.zeros_like(found).index_add_(0, cluster, points * weights[:, None])
        empty = sums.square().sum(dim=1, keepdim=True) == 0
        found = torch.where(empty, found, unit_vectors(sums))
    return found


def hierarchical_order(codes: Tensor) -> Tensor:
    """An order in which close codes are near each other at every power of two.

    The codes are halved at the median of their first principal component, and so are the halves, down to
    single codes.

    Args:
        codes: ``(K, d)``, K a power of two.

    Returns:
        A permutation of K, int64.

    Example:
        >>> hierarchical_order(torch.tensor([[3.0], [0.0], [2.0], [1.0]])).sort().values
        tensor([0, 1, 2, 3])
    """
    if len(codes) == 1:
        return torch.zeros(1, dtype=torch.int64)
    centred = (codes - codes.mean(dim=0)).double()
    _, vectors = torch.linalg.eigh(centred.mT @ centred)
    order = (centred @ vectors[:, -1]).argsort(stable=True)
    halves = order.view(2, -1)
    return torch.cat([half[hierarchical_order(codes[half])] for half in halves])
