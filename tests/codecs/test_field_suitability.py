"""Fields that the networks would lose are refused; velocities and bounds are not."""

import io

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
    assert codec.compress_blocks(waves(0, 1, 2), io.BytesIO(), block=16, ratio=8)


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


@pytest.mark.parametrize("block", [16, 48])
def test_blocks_are_refused_before_anything_is_written(codec, tmp_path, block) -> None:
    with pytest.raises(ValueError, match=r"do not suit this field.*relative_error"):
        codec.compress_blocks(waves(0, 1, 2), tmp_path / "new" / "flow.lpz", block=block, ratio=8)
    assert list(tmp_path.iterdir()) == []
    old = tmp_path / "old.lpz"
    old.write_bytes(b"old")
    with pytest.raises(ValueError, match="do not suit this field"):
        codec.compress_blocks(waves(0, 1, 2), old, block=block, ratio=8)
    assert old.read_bytes() == b"old"
    file = io.BytesIO()
    with pytest.raises(ValueError, match="do not suit this field"):
        codec.compress_blocks(waves(0, 1, 2), file, block=block, ratio=8)
    assert file.getvalue() == b""


def test_blocks_of_a_flow_and_with_a_bound_are_written(codec, tmp_path) -> None:
    assert codec.compress_blocks(waves(1, 2, 0), tmp_path / "flow.lpz", block=16, ratio=8)
    assert codec.compress_blocks(waves(0, 1, 2), tmp_path / "any.lpz", block=16, relative_error=0.05)


def test_blocks_are_tried_where_the_field_is_largest(codec) -> None:
    """Most of this field, and its first blocks, would come through; the piece that is tried would not."""
    field = np.concatenate([waves(1, 2, 0), 1.1 * waves(0, 1, 2)], axis=3)
    for x in (field, np.flip(field, 3)):
        with pytest.raises(ValueError, match="do not suit this field"):
            codec.compress_blocks(x, io.BytesIO(), block=16, ratio=8)
        with pytest.raises(ValueError, match="do not suit this field"):
            codec.compress(x.copy(), ratio=8)


def test_a_group_of_blocks_that_does_not_suit_is_found_among_others(codec) -> None:
    both = np.concatenate((waves(1, 2, 0), waves(0, 1, 2)))
    both[0, :4, :4, :4] = np.nan
    with pytest.raises(ValueError, match="do not suit this field"):
        codec.compress_blocks(both, io.BytesIO(), block=16, ratio=8)
