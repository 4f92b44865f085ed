"""Routing by measured distortions: the best map for a price, and as many bits as another map has."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from latentpress.models.index.granularity import GrainMap, repeat_positions, route
from latentpress.models.index.measured_routing import (
    COARSE_BITS,
    FINE_BITS,
    GrainDistortions,
    critical_prices,
    index_bits,
    route_by_price,
)


def distortions(seed: int, h: int, w: int) -> GrainDistortions:
    generator = torch.Generator().manual_seed(seed)
    return GrainDistortions(*torch.rand(3, 1, 2 * h, 2 * w, generator=generator, dtype=torch.float64))


def cost(found: GrainDistortions, grains: GrainMap, price: float) -> float:
    """Distortion of a map plus the price of its bits."""
    split, fine = repeat_positions(grains.split, 2), grains.fine
    distortion = torch.where(fine, found.fine, torch.where(split, found.medium, found.coarse)).sum()
    cells = torch.tensor(grains.split.sum().item()), torch.tensor(grains.fine.sum().item())
    return float(distortion + price * index_bits(*cells, grains.split.numel()))


@given(st.integers(0, 999), st.floats(1e-4, 0.05))
def test_the_map_of_a_price_is_the_best_of_all(seed, price) -> None:
    found = distortions(seed, 1, 1)
    prices = critical_prices(found)
    split = prices.cells > price
    chosen = GrainMap(split, (prices.quarters > price) & repeat_positions(split, 2))
    choices = [GrainMap(torch.zeros(1, 1, 1).bool(), torch.zeros(1, 2, 2).bool())]
    for number in range(16):
        fine = torch.tensor([[(number >> k) & 1 for k in range(2)], [(number >> k) & 1 for k in (2, 3)]])
        choices.append(GrainMap(torch.ones(1, 1, 1).bool(), fine[None].bool()))
    best = min(cost(found, grains, price) for grains in choices)
    assert cost(found, chosen, price) <= best + 1e-9


@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_a_map_costs_what_its_fractions_say(seed, h, w, split, fine) -> None:
    prices = critical_prices(distortions(seed, h, w))
    grains = route_by_price(prices, split, fine)
    other = route(prices, torch.tensor([split]), torch.tensor([fine]))
    spent, wanted = (float(index_bits(m.split.sum(), m.fine.sum(), h * w)) for m in (grains, other))
    assert spent <= wanted + 1e-6
    assert wanted - spent < 4 * FINE_BITS - COARSE_BITS + 1e-6
    assert not bool((grains.fine & ~repeat_positions(grains.split, 2)).any())


def test_the_ends_are_all_coarse_and_all_fine() -> None:
    prices = critical_prices(distortions(1, 3, 2))
    assert not route_by_price(prices, 0.0, 0.0).split.any()
    finest = route_by_price(prices, 1.0, 1.0)
    assert finest.split.all()
    assert finest.fine.all()


def test_detail_goes_where_it_helps() -> None:
    coarse = torch.ones(1, 4, 4)
    coarse[:, :2, :2] = 9.0
    prices = critical_prices(GrainDistortions(coarse, torch.ones(1, 4, 4), torch.ones(1, 4, 4)))
    assert route_by_price(prices, 0.25, 0.0).split[0].tolist() == [[True, False], [False, False]]
