"""The critic of the field codec: what it accepts, and how it looks at fields of any size."""

import math

import numpy as np
import pytest
import torch

from latentpress.codecs import load
from latentpress.codecs.byte_weights import from_bytes, in_bytes
from latentpress.codecs.card import read_card
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_quality import FAMILY, FlowCritic, shipped_critic
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.models.field.critic import ErrorCritic

CONFIG = {"network": {"filters": 4, "width": 8}, "codec": "00" * 8}


def weights(**changes) -> WeightFile:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = ErrorCritic(4, 8).state_dict()
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    return WeightFile(**({"family": FAMILY, "config": CONFIG, "tensors": arrays} | changes))


@pytest.fixture(scope="module")
def critic() -> FlowCritic:
    return FlowCritic(weights())


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


def test_tiles_make_one_field() -> None:
    """Squared errors of tiles are averaged."""
    critic = FlowCritic(weights())
    x = torch.randn(3, 16, 16, 128, generator=torch.Generator().manual_seed(2))
    x = (x - x.mean((1, 2, 3), keepdim=True)).double()
    x = (x / x.square().mean().sqrt()).float()
    halves = [float(critic._network(half.permute(1, 2, 3, 0)[None])) for half in x.split(64, 3)]
    errors = [10**-score for score in halves]
    assert 10 ** -critic.score(x) == pytest.approx(math.hypot(*errors) / math.sqrt(2), rel=1e-4)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "field"}, "no critic"),
        ({"config": {}}, "which critic"),
        ({"config": CONFIG | {"network": {"depth": 3}}}, "which critic"),
        ({"config": CONFIG | {"network": {"filters": 10**9}}}, "sizes of 1000000000"),
        ({"tensors": {}}, "do not fit"),
    ],
)
def test_other_weights_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        FlowCritic(weights(**changes))


def test_shipped_critic_belongs_to_the_shipped_weights() -> None:
    path = shipped_critic()
    card = read_card(path)
    assert card.fingerprint == read_weight_file(path).fingerprint().hex()
    assert card.bytes == path.stat().st_size
    codec = load("field")
    assert codec.critic.codec == codec.fingerprint.hex()
    assert card.ranks is not None
    # What must hold of all weights of the family: the size that was agreed on.
    total = path.stat().st_size + read_card(path.parent.parent / "weights" / "field.json").bytes
    assert total < 16_000_000


def test_damage_lowers_the_score() -> None:
    """Waves are no turbulence; that noise has divergence is seen all the same."""
    codec = load("field")
    axis = torch.arange(32) * (2 * torch.pi / 16)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    flow = torch.stack((x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos(), torch.zeros_like(x)))
    noise = torch.randn(flow.shape, generator=torch.Generator().manual_seed(0))
    scores = [codec.critic.score(flow + level * noise) for level in (0.003, 0.03, 0.3)]
    assert scores == sorted(scores, reverse=True)
    data = codec.compress(flow, ratio=64, periodic=True)
    assert codec.quality_score(data) == codec.critic.score(codec.decompress(data))


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
