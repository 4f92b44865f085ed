"""Fields that the networks would lose are refused; velocities and bounds are not."""

import numpy as np
import pytest

from latentpress.codecs import load
from latentpress.codecs.field_suitability import LARGEST_LOSS, PIECE, lost_share


@pytest.fixture(scope="module")
def codec():
    return load("field")


def waves(*axes: int, side: int = 48) -> np.ndarray:
    """Three waves of 16 samples, each along one axis."""
    angle = np.arange(side) * 2 * np.pi / 16
    grids = np.meshgrid(angle, angle, angle, indexing="ij")
    return np.stack([np.sin(grids[axis]) for axis in axes]).astype(np.float32)


def test_waves_across_their_axes_are_a_flow(codec) -> None:
    flow = waves(1, 2, 0)
    decoded = codec.decompress(codec.compress(flow, ratio=8, periodic=True)).numpy()
    assert float(np.square(decoded - flow).mean()) < 1e-3


@pytest.mark.parametrize("options", [{"ratio": 8}, {"ratio": 64, "quality": 90}, {"target_bytes": 20_000}])
def test_waves_along_their_axes_are_refused(codec, options) -> None:
    with pytest.raises(ValueError, match="do not suit this field"):
        codec.compress(waves(0, 1, 2), periodic=True, **options)


def test_refusing_can_be_switched_off() -> None:
    codec = load("field")
    codec.refuses = False
    assert codec.compress(waves(0, 1, 2), ratio=8)


def test_a_bound_is_for_any_field(codec) -> None:
    field = waves(0, 1, 2)
    decoded = codec.decompress(codec.compress(field, max_error=0.05)).numpy()
    assert float(np.abs(decoded - field).max()) <= 0.05


def test_a_group_that_does_not_suit_is_found_among_others(codec) -> None:
    with pytest.raises(ValueError, match="do not suit this field"):
        codec.compress(np.concatenate((waves(1, 2, 0), waves(0, 1, 2))), ratio=8)


def test_the_piece_is_where_the_field_is_largest(codec) -> None:
    group = np.zeros((3, 2 * PIECE, PIECE, PIECE))
    part = waves(0, 1, 2, side=PIECE)
    group[:, PIECE:] = part / part.std()
    axes = (False, False, False)
    assert lost_share(codec.model(8), group, 500, axes) > LARGEST_LOSS
    assert lost_share(codec.model(8), np.flip(group, 1).copy(), 500, axes) > LARGEST_LOSS
