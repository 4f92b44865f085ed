"""The critic of the field codec: what it accepts, and how it looks at fields of any size."""

import numpy as np
import pytest
import torch

from latentpress.codecs.byte_weights import from_bytes, in_bytes
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_quality import FlowCritic
from latentpress.models.field.transforms import Discriminator


@pytest.fixture(scope="module")
def critic() -> FlowCritic:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = Discriminator(4).state_dict()
    return FlowCritic(4, {name: tensor.numpy() for name, tensor in state.items()})


def test_units_do_not_matter(critic) -> None:
    x = torch.randn(3, 20, 16, 24, generator=torch.Generator().manual_seed(0))
    score = critic.score(x)
    assert critic.score(1e-9 * x.double() + 5) == pytest.approx(score, abs=1e-4)
    assert critic.score(torch.flip(x, (1,))) != pytest.approx(score, abs=1e-4)


def test_large_fields_are_seen_whole(critic) -> None:
    """A difference anywhere changes the score, also in the strip that no whole tile covers."""
    x = torch.randn(3, 16, 16, 100, generator=torch.Generator().manual_seed(1))
    score = critic.score(x)
    for start in (0, 50, 92):
        changed = x.clone()
        changed[..., start : start + 8] *= -1
        assert critic.score(changed) != score


@pytest.mark.parametrize("shape", [(3, 11, 16, 16), (2, 16, 16, 16), (3, 16, 16)])
def test_other_fields_are_refused(critic, shape) -> None:
    with pytest.raises(ValueError, match="velocities"):
        critic.score(torch.zeros(shape))


def test_values_must_be_finite(critic) -> None:
    x = torch.zeros(3, 16, 16, 16)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        critic.score(x)


def test_without_a_critic_nothing_is_scored() -> None:
    codec = FieldCodec()
    data = codec.compress(np.ones((3, 16, 16, 16), np.float32), max_error=0.1)
    with pytest.raises(ValueError, match="no critic"):
        codec.quality_score(data)


def test_bytes_are_close_to_the_matrix() -> None:
    matrix = (
        np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
        * 10.0 ** np.arange(-6, 4, 2)[:, None, None]
    )
    matrix[2] = 0
    stored = in_bytes("m", matrix)
    assert stored["m"].dtype == np.int8
    again = from_bytes(stored)["m"]
    largest = np.abs(matrix).max((1, 2), keepdims=True)
    assert (np.abs(again - matrix) <= largest / 253).all()
    vector = from_bytes(in_bytes("v", matrix[0, 0]))["v"]
    assert vector.dtype == np.float16
