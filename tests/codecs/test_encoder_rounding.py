"""Rounding by what symbols cost: never further than one step, never for nothing, and cheaper in sum."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.bitstream import gaussian_tables
from latentpress.codecs.bitstream.information import table_information
from latentpress.codecs.encoder_rounding import EncoderRounding

SCALES = np.array([0.25, 0.4, 1.5, 20.0])
TABLES = gaussian_tables(SCALES)

residuals = st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20).map(torch.tensor)


def costs(symbols: torch.Tensor, table: int) -> np.ndarray:
    return table_information(symbols.numpy().astype(np.int64), TABLES, table)


@given(residuals, st.integers(0, len(SCALES) - 1))
def test_multiplier_zero_is_to_the_nearest(residual, table):
    index = torch.full(residual.shape, table)
    assert torch.equal(EncoderRounding(TABLES, 0.0)(residual, index), torch.round(residual))


@given(residuals, st.integers(0, len(SCALES) - 1), st.sampled_from([0.01, 0.1, 1.0]))
def test_at_most_one_step_towards_zero(residual, table, multiplier):
    found = EncoderRounding(TABLES, multiplier)(residual, torch.full(residual.shape, table))
    nearest = torch.round(residual)
    assert bool(((nearest - found) * nearest.sign() >= 0).all())
    assert bool(((nearest - found).abs() <= 1).all())


@given(residuals, st.integers(0, len(SCALES) - 1), st.sampled_from([0.01, 0.1, 1.0]))
def test_no_choice_is_worse_than_the_nearest(residual, table, multiplier):
    """The sum of squared error and bits of every element, by the tables themselves."""
    residual = residual.clamp(-30, 30)
    found = EncoderRounding(TABLES, multiplier)(residual, torch.full(residual.shape, table))

    def price(symbols: torch.Tensor) -> np.ndarray:
        return (residual - symbols).square().double().numpy() + multiplier * costs(symbols, table)

    assert (price(found) <= price(torch.round(residual)) + 1e-4).all()


@pytest.mark.parametrize("table", [0, 1, 2])
def test_a_larger_multiplier_takes_fewer_bits(table):
    residual = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * SCALES[table]
    index = torch.full(residual.shape, table)
    bits = [costs(EncoderRounding(TABLES, m)(residual, index), table).sum() for m in (0.0, 0.05, 0.3)]
    assert bits[0] > bits[1] > bits[2]
