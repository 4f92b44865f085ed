"""The index prior: its schedule, what it may see, and its bits."""

import math

import pytest
import torch

from latentpress.models.index.granularity import GrainScores, route
from latentpress.models.index.prior import STEPS, UNKNOWN, GrainIndexes, IndexPrior, step_map
from latentpress.train.index_prior_loss import blind_bits, index_bits, schedule_bits

CODES = 64


@pytest.fixture
def prior() -> IndexPrior:
    torch.manual_seed(0)
    prior = IndexPrior(CODES, 8, 8, 8, 1, 1, 1)
    for p in prior.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return prior.eval()


@pytest.fixture
def scene():
    torch.manual_seed(1)
    scores = GrainScores(torch.rand(2, 5, 6), torch.rand(2, 10, 12))
    grains = route(scores, torch.tensor([0.5, 0.3]), torch.tensor([0.5, 0.3]))
    book = torch.tensor([3, 1])
    indexes = GrainIndexes(
        torch.randint(0, 16, (2, 5, 6)),
        torch.randint(0, CODES, (2, 10, 12)),
        torch.randint(0, CODES, (2, 20, 24)),
    )
    return indexes, grains, book


def test_steps_partition_every_grid() -> None:
    for shape in ((1, 1), (3, 5), (8, 8)):
        steps = step_map(*shape)
        assert steps.shape == shape
        assert int(steps.min()) >= 0
        assert int(steps.max()) < STEPS
    # The last step has all its neighbours in the row and in the column.
    steps = step_map(8, 8)
    last = steps == STEPS - 1
    assert not (last[1:] & last[:-1]).any()
    assert not (last[:, 1:] & last[:, :-1]).any()


def test_an_index_is_not_seen_by_its_own_prediction(prior, scene) -> None:
    indexes, grains, book = scene
    steps = step_map(5, 6).expand(2, -1, -1)
    for step in range(STEPS):
        known = torch.where(steps < step, indexes.coarse, UNKNOWN)
        other = torch.where(steps < step, indexes.coarse, UNKNOWN)
        a = prior.coarse_features(known, grains, book)
        b = prior.coarse_features(other, grains, book)
        assert torch.equal(a, b)
    changed = torch.where(steps == 0, (indexes.coarse + 1) % 8, indexes.coarse)
    after = prior.coarse_features(torch.where(steps < 1, changed, UNKNOWN), grains, book)
    before = prior.coarse_features(torch.where(steps < 1, indexes.coarse, UNKNOWN), grains, book)
    assert not torch.equal(after, before)


def test_values_outside_the_map_do_not_matter(prior, scene) -> None:
    indexes, grains, book = scene
    other = GrainIndexes(
        torch.where(grains.coarse_mask(), indexes.coarse, 5),
        torch.where(grains.medium_mask(), indexes.medium, 5),
        torch.where(grains.fine_mask(), indexes.fine, 5),
    )
    assert schedule_bits(prior, indexes, grains, book) == schedule_bits(prior, other, grains, book)


def test_bits_are_those_of_a_distribution(prior, scene) -> None:
    """Two to the minus bits, summed over all codes of the book, is one."""
    indexes, grains, book = scene
    logits = prior.coarse_head(prior.coarse_features(indexes.coarse, grains, book))
    for picture, number in enumerate(book.tolist()):
        entry = prior.books[number]
        total = torch.zeros(5, 6)
        one = type(logits)(*(x[picture : picture + 1] for x in logits))
        for code in range(entry.size):
            rows = torch.full((1, 5, 6), entry.first_row + code)
            bits = index_bits(one, rows, torch.tensor([entry.first_row]), torch.tensor([entry.size]))
            total += torch.exp2(-bits)[0]
        torch.testing.assert_close(total, torch.ones(5, 6), rtol=1e-4, atol=1e-4)


def test_a_flat_prior_costs_the_logarithm_of_the_codes(scene) -> None:
    indexes, grains, book = scene
    prior = IndexPrior(CODES, 8, 8, 8, 1, 1, 1)
    for head in (prior.coarse_head, prior.medium_head, prior.fine_head):
        for p in head.parameters():
            p.data.zero_()
    sizes = torch.tensor([prior.books[n].size for n in book.tolist()])
    finer = int(grains.medium_mask().sum() + grains.fine_mask().sum())
    coarse = (grains.coarse_mask().sum(dim=(1, 2)) * sizes.log2()).sum()
    expected = float(coarse) + finer * math.log2(CODES)
    assert float(schedule_bits(prior, indexes, grains, book)) == pytest.approx(expected, rel=1e-5)
    assert float(blind_bits(prior, indexes, grains, book)) == pytest.approx(expected, rel=1e-5)
