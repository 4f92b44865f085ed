"""Integer attention against unbounded integers, and against the real numbers it stands for."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.models.entropy.fixed_point import ACTIVATION_LIMIT, UNIT, convert, to_fixed_point
from latentpress.models.mlic import attention
from latentpress.models.mlic.attention import (
    Bound,
    ChannelAttention,
    FixedPointChannelAttention,
    FixedPointLinearAttention,
    FixedPointWindowSoftmax,
    LinearAttention,
    WindowSoftmax,
    powers_of_two,
    rounded_quotient,
)

FEW = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)


def integers(x: torch.Tensor) -> np.ndarray:
    return np.vectorize(int, otypes=[object])(x.numpy())


def quotient(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b)


def random_units(shape, seed: int, largest: int = 2**22) -> torch.Tensor:
    random = np.random.default_rng(seed)
    values = random.integers(-largest, largest, shape) >> random.integers(0, 22, shape)
    return torch.from_numpy(values).double()


@given(st.integers(-(2**51) + 1, 2**51 - 1), st.integers(1, 2**40))
def test_quotient_is_exact(a, b):
    b = min(b, 2**51 - abs(a)) or 1  # within the bound that the docstring states
    found = rounded_quotient(torch.tensor([a]).double(), torch.tensor([b]).double())
    assert int(found) == quotient(a, b)


@given(st.integers(-(2**25), 2**25), st.integers(1, 2**24))
def test_quotient_at_halves(n, b):
    """Just at, below and above the border between two results."""
    for offset in (-1, 0, 1):
        a = n * b + b // 2 + offset
        found = rounded_quotient(torch.tensor([a]).double(), torch.tensor([b]).double())
        assert int(found) == quotient(a, b)


def test_powers_are_the_nearest_integers():
    for k, power in enumerate(powers_of_two()):
        # |power - 2^(16 - k/1024)| < 1/2, compared as 1024th powers of rational numbers.
        target = 2 ** (16 * 1024 - k)
        assert (Fraction(2 * power - 1, 2)) ** 1024 < target < (Fraction(2 * power + 1, 2)) ** 1024


class TestLinearAttention:
    @FEW
    @given(seeds, st.integers(1, 7), st.integers(1, 9))
    def test_integers(self, seed, queries, keys):
        query, key, value = (
            random_units((1, count, 2, 3), seed + k) for k, count in enumerate((queries, keys, keys))
        )
        found = integers(FixedPointLinearAttention()(query, key, value))
        q, k = (np.clip(integers(x), 0, 8 * UNIT) + 64 for x in (query, key))
        v = np.clip(integers(value), -32 * UNIT, 32 * UNIT)
        for head in range(2):
            for n in range(queries):
                for e in range(3):
                    total = 0
                    for d in range(3):
                        pairs = [(k[0, t, head, d], v[0, t, head, e]) for t in range(keys)]
                        mean = quotient(sum(a * b for a, b in pairs), sum(a for a, _ in pairs))
                        total += q[0, n, head, d] * mean
                    assert found[0, n, head, e] == quotient(total, sum(q[0, n, head]))

    @FEW
    @given(seeds)
    def test_close_to_real_numbers(self, seed):
        torch.manual_seed(seed % 2**31)
        query, key, value = (torch.randn(1, 40, 2, 8) * 2 for _ in range(3))
        expected = LinearAttention()(query, key, value)
        found = convert(LinearAttention())(*map(to_fixed_point, (query, key, value))) / UNIT
        assert float((found - expected).abs().max()) < 0.005

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_largest_sums_of_a_large_map(self, sign):
        """As many positions as fit into a test, with the largest features and values there are."""
        shape = (1, 2**14, 1, 2)
        huge = torch.full(shape, 2.0**30).double()
        found = FixedPointLinearAttention()(huge, huge, sign * huge)
        assert bool((found == sign * 32 * UNIT).all())

    def test_order_of_positions_and_threads_change_nothing(self):
        query, key, value = (random_units((1, 600, 2, 8), k) for k in range(3))
        layer = FixedPointLinearAttention()
        expected = layer(query, key, value)
        order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
        assert torch.equal(layer(query, key[:, order], value[:, order]), expected)
        assert torch.equal(layer(query[:, order], key, value), expected[:, order])
        before = torch.get_num_threads()
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                assert torch.equal(layer(query, key, value), expected)
        finally:
            torch.set_num_threads(before)


class TestWindowSoftmax:
    @FEW
    @given(seeds, st.integers(1, 12))
    def test_integers(self, seed, neighbours):
        scores = random_units((neighbours, 2), seed, 2**14)
        values = random_units((neighbours, 2, 3), seed + 1)
        inside = random_units((neighbours, 1), seed + 2) > 0
        found = integers(FixedPointWindowSoftmax()(scores, values, inside))
        table = powers_of_two()
        for head in range(2):
            chosen = [n for n in range(neighbours) if inside[n, 0]]
            largest = max([0, *(int(scores[n, head]) for n in chosen)])

            def weight(score: int, largest: int = largest) -> int:
                return table[(largest - score) % UNIT] >> ((largest - score) // UNIT)

            total = weight(0) + sum(weight(int(scores[n, head])) for n in chosen)
            for d in range(3):
                limited = [
                    max(-ACTIVATION_LIMIT, min(ACTIVATION_LIMIT, int(values[n, head, d]))) for n in chosen
                ]
                weighted = zip(chosen, limited, strict=True)
                expected = quotient(sum(weight(int(scores[n, head])) * v for n, v in weighted), total)
                assert found[head, d] == expected

    @FEW
    @given(seeds)
    def test_close_to_real_numbers(self, seed):
        torch.manual_seed(seed % 2**31)
        scores, values = torch.randn(5, 12, 2) * 4, torch.randn(5, 12, 2, 8)
        inside = torch.rand(5, 12, 1) < 0.7
        expected = WindowSoftmax()(scores, values, inside)
        found = convert(WindowSoftmax())(to_fixed_point(scores), to_fixed_point(values), inside) / UNIT
        assert float((found - expected).abs().max()) < 0.01

    def test_without_neighbours(self):
        nowhere = torch.zeros(1, 12, 1, dtype=torch.bool)
        scores, values = torch.randn(1, 12, 2), torch.randn(1, 12, 2, 4)
        for layer in (WindowSoftmax(), FixedPointWindowSoftmax()):
            assert not layer(scores.double(), values.double(), nowhere).any()

    def test_gradients_are_finite_without_neighbours(self):
        scores = torch.randn(1, 12, 2, requires_grad=True)
        nowhere = torch.zeros(1, 12, 1, dtype=torch.bool)
        WindowSoftmax()(scores, torch.ones(1, 12, 2, 4), nowhere).sum().backward()
        assert not scores.grad.any()


class TestChannelAttention:
    @FEW
    @given(seeds, st.integers(1, 9), st.integers(1, 5))
    def test_integers(self, seed, positions, channels):
        query, key, value = (random_units((1, positions, channels), seed + k, 2**16) for k in range(3))
        found = integers(FixedPointChannelAttention()(query, key, value))
        q, k = (np.clip(integers(x[0]), -16 * UNIT, 16 * UNIT) for x in (query, key))
        table = powers_of_two()
        for c in range(channels):
            scores = [
                quotient(int((q[:, c] * k[:, d]).sum()), positions * UNIT // 4) for d in range(channels)
            ]
            away = [max(scores) - score for score in scores]
            weights = [table[x % UNIT] >> (x // UNIT) for x in away]
            shares = [quotient(w << 14, sum(weights)) for w in weights]
            for n in range(positions):
                total = sum(share * int(v) for share, v in zip(shares, value[0, n], strict=True))
                assert found[0, n, c] == (total + 2**13) >> 14

    @FEW
    @given(seeds)
    def test_close_to_real_numbers(self, seed):
        torch.manual_seed(seed % 2**31)
        query, key, value = (torch.randn(2, 50, 8) for _ in range(3))
        expected = ChannelAttention()(query, key, value)
        found = convert(ChannelAttention())(*map(to_fixed_point, (query, key, value))) / UNIT
        assert float((found - expected).abs().max()) < 0.01

    def test_scores_do_not_depend_on_the_size(self):
        query, key, value = (torch.randn(1, 30, 6) for _ in range(3))
        twice = [torch.cat((x, x), dim=1) for x in (query, key, value)]
        torch.testing.assert_close(
            ChannelAttention()(*twice)[:, :30], ChannelAttention()(query, key, value), rtol=1e-4, atol=1e-5
        )


def test_bound():
    x = torch.tensor([-3.0, -0.25, 0.5, 3.0])
    assert torch.equal(Bound(0.5)(x), torch.tensor([-0.5, -0.25, 0.5, 0.5]))
    assert torch.equal(convert(Bound(0.5))(to_fixed_point(x)), to_fixed_point(Bound(0.5)(x)))
    with pytest.raises(ValueError, match="multiple"):
        Bound(1 / 3)


@pytest.mark.parametrize("layer", [FixedPointLinearAttention, FixedPointChannelAttention])
def test_proofs_know_the_largest_map(layer, monkeypatch):
    layer().prove_exact()
    monkeypatch.setattr(attention, "MAX_POSITIONS", 2**24)
    with pytest.raises(ValueError, match=r"quotients are exact below 2\^51"):
        layer().prove_exact()


def test_largest_map_is_the_largest_picture():
    assert math.log2(attention.MAX_POSITIONS) == 22
