"""Rates that can be differentiated against what the tables really charge."""

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import gaussian_tables
from latentpress.codecs.bitstream.information import table_information
from latentpress.codecs.table_rate import LARGEST_MAGNITUDE, TableRate
from latentpress.models.entropy.gaussian import INDEX_OFFSET, INDEX_SLOPE, SCALE_COUNT, scale_table

TABLES = gaussian_tables(scale_table().numpy())
RATE = TableRate(TABLES)


def raw(index):
    """The raw scale that stands for a table."""
    return torch.tensor((index - INDEX_OFFSET) / INDEX_SLOPE)


@pytest.mark.parametrize("index", [0, 1, 20, 62, 63])
def test_integers_cost_what_the_table_charges(index):
    symbols = np.array([-3, -1, 0, 1, 2, 40, 254])
    found = RATE(torch.from_numpy(symbols).float(), raw(index).expand(len(symbols)))
    charged = (table_information(symbols, TABLES, index) + table_information(-symbols, TABLES, index)) / 2
    assert found.numpy() == pytest.approx(charged, rel=1e-5, abs=1e-5)


def test_between_tables_and_beyond_them():
    one = torch.ones(())
    assert float(RATE(one, raw(30.5))) == pytest.approx(
        (float(RATE(one, raw(30.0))) + float(RATE(one, raw(31.0)))) / 2, rel=1e-5
    )
    assert float(RATE(one, raw(-20.0))) == float(RATE(one, raw(0.0)))
    assert float(RATE(one, raw(90.0))) == float(RATE(one, raw(SCALE_COUNT - 1.0)))


def test_huge_values_cost_more_and_more():
    values = torch.tensor([LARGEST_MAGNITUDE - 1.0, LARGEST_MAGNITUDE, LARGEST_MAGNITUDE + 50.0, 1e4])
    cost = RATE(values, raw(63.0).expand(4))
    assert bool((cost.diff() > 0).all())


def test_gradients():
    residual = torch.tensor([0.01, -2.7, 0.4], requires_grad=True)
    raw_scale = torch.stack((raw(10.5), raw(40.2), raw(-5.0))).requires_grad_()
    RATE(residual, raw_scale).sum().backward()
    assert residual.grad[0] > 0 > residual.grad[1]
    # A wider table costs more near the middle; below the narrowest there is none to change to.
    assert raw_scale.grad[0] > 0
    assert raw_scale.grad[2] == 0
