"""The networks of fields: what is computed on their device has the bits of what numpy would compute."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from latentpress.codecs.field_networks import write_scaled


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offsets", [(3.3e5, -1e-7, 0.1), None])
def test_scaled_components_have_the_bits_of_numpy(dtype, offsets) -> None:
    """Product, sum and conversion round one by one, whatever the layout of the components."""
    unit = torch.randn(1, 9, 8, 7, 3, generator=torch.Generator().manual_seed(0))[0].permute(3, 0, 1, 2)
    scale = 1.7320508
    expected = unit.numpy().astype(np.float64) * scale
    if offsets is not None:
        expected += np.array(offsets)[:, None, None, None]
    found = np.empty((3, 9, 8, 7), dtype)
    write_scaled(found, unit, scale, offsets)
    assert found.tobytes() == np.ascontiguousarray(expected.astype(dtype)).tobytes()


def test_components_that_fill_up_a_group_are_left_out() -> None:
    found = np.zeros((3, 1, 1, 2), np.float32)
    write_scaled(found[:2], torch.ones(3, 1, 1, 2), 2.0, (0.0, 1.0))
    assert found[:, 0, 0, 0].tolist() == [2.0, 3.0, 0.0]


class Calls(TorchFunctionMode):
    """Counts what torch is asked for by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names[getattr(function, "__name__", "")] += 1
        return function(*args, **(kwargs or {}))


def test_decoding_brings_no_constants_and_reads_no_numbers(field_codec) -> None:
    """Each would make a GPU wait; once a codec has decoded, what it needs is there."""
    angle = np.arange(16) * np.pi / 8
    x = np.zeros((3, 16, 16, 16), np.float32)
    x[0] += np.sin(angle)[:, None]
    x[2] += np.cos(angle)
    data = field_codec.compress(x, ratio=8)
    field_codec.decompress(data)
    with Calls() as calls:
        field_codec.decompress(data)
    assert calls.names["cpu"] == 1 + 4, "indexes of z and of four steps"
    for name in ("__int__", "__bool__", "__float__", "item", "tolist", "tensor", "as_tensor"):
        assert name not in calls.names
