"""Books of all sizes: their places in the table, K-means, and the order of codes."""

import pytest
import torch

from latentpress.models.index.codebooks import (
    GROUP,
    CodeBooks,
    books_of,
    hierarchical_order,
    kmeans_directions,
)
from latentpress.models.index.quantiser import unit_vectors


def filled(codes: int = 64) -> CodeBooks:
    torch.manual_seed(1)
    books = CodeBooks(codes, 4, 8)
    books.fill(unit_vectors(torch.randn(codes, 4)), torch.rand(codes), torch.nn.Linear(8, 4))
    return books


def test_books_do_not_overlap() -> None:
    rows = set()
    for book in books_of(1024):
        span = set(range(book.first_row, book.first_row + book.groups * GROUP))
        assert not rows & span
        assert book.size <= len(span)
        rows |= span
    assert rows == set(range(2080))


@pytest.mark.parametrize("codes", [0, 4, 100])
def test_wrong_size(codes) -> None:
    with pytest.raises(ValueError, match="full codebook"):
        books_of(codes)


def test_every_book_uses_its_own_rows() -> None:
    books = filled()
    features = torch.randn(4, 5, 5, 8)
    chosen = books.choose(features, torch.arange(4))
    for number, book in enumerate(books.books):
        assert int(chosen.codes[number].min()) >= 0
        assert int(chosen.codes[number].max()) < book.size
    torch.testing.assert_close(books.look_up(chosen.codes, torch.arange(4)), chosen.vectors)


def test_the_nearest_code_is_chosen() -> None:
    books = filled()
    features = torch.randn(1, 3, 3, 8)
    number = torch.tensor([2])
    book = books.books[2]
    directions = unit_vectors(features @ books.heads[2].mT + books.head_biases[2])
    codes = books.directions[book.first_row : book.first_row + book.size]
    expected = torch.cdist(directions.reshape(-1, 4), codes).argmin(dim=1).view(1, 3, 3)
    assert torch.equal(books.choose(features, number).codes, expected)


def test_the_full_book_is_the_codebook_in_another_order() -> None:
    torch.manual_seed(1)
    codebook = unit_vectors(torch.randn(64, 4))
    books = CodeBooks(64, 4, 8)
    books.fill(codebook, torch.ones(64), torch.nn.Linear(8, 4))
    own = books.directions[books.books[-1].first_row :].detach()
    assert torch.equal(torch.cdist(own, codebook).argmin(dim=1).sort().values, torch.arange(64))
    assert torch.equal(books.nearest_in_full(own * 5), torch.arange(64))


def test_groups_hold_close_codes() -> None:
    torch.manual_seed(0)
    codes = unit_vectors(torch.randn(256, 4))
    order = hierarchical_order(codes)
    assert torch.equal(order.sort().values, torch.arange(256))

    def spread(groups: torch.Tensor) -> torch.Tensor:
        return (groups - groups.mean(dim=1, keepdim=True)).square().mean()

    assert spread(codes[order].view(8, 32, 4)) < 0.6 * spread(codes.view(8, 32, 4))


def test_kmeans_finds_weighted_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.eye(4)
    points = unit_vectors(centres.repeat_interleave(20, dim=0) + 0.05 * torch.randn(80, 4))
    found = kmeans_directions(points, torch.rand(80), 4)
    assert torch.equal((found @ centres.mT).argmax(dim=0).sort().values, torch.arange(4))
    assert (found @ centres.mT).max(dim=0).values.min() > 0.99
