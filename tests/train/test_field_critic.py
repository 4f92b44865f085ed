"""The critic's stage: what it is taught, and that it can learn it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from latentpress.codecs.field import FieldCodec
from latentpress.codecs.weights import read_weight_file
from latentpress.models.field.critic import HIGHEST_SCORE
from latentpress.train.data.decoded_flows import (
    DecodedBatch,
    DecodedFlow,
    DecodedStream,
    FlowPairs,
    decoded_flows,
)
from latentpress.train.field_corruption import LEARNED, UNSEEN
from latentpress.train.field_critic import FieldCritic, scored

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1"


def pairs(size: int = 32) -> FlowPairs:
    """Two boxes and twice the decoded ones, which are off by a hundredth and by a tenth."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(2, size, size, size, 3, generator=generator)
    noise = torch.randn(true.shape, generator=generator)
    decoded = [
        DecodedFlow(f"off by {error}", number, true[number] + error * noise[number])
        for number in range(2)
        for error in (0.01, 0.1)
    ]
    return FlowPairs(true, decoded)


def test_scores_are_digits_of_the_error() -> None:
    true = torch.randn(3, 32, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    field = true.clone()
    field[1] += 0.01
    field[2, :16, :16, :8] += 1.0
    found = scored(true, field, 16)
    assert found.score.tolist() == pytest.approx([HIGHEST_SCORE, 2, 0.1505], abs=1e-3)
    assert found.field.shape == (3, 16, 16, 16, 3)
    whole = scored(true, field, 32)
    assert float(whole.score[2]) == pytest.approx(0.6021, abs=1e-3)
    assert torch.allclose(whole.field.square().mean((1, 2, 3, 4)), true.square().mean((1, 2, 3, 4)))


def test_batches_hold_true_and_decoded_boxes() -> None:
    stream = iter(DecodedStream(pairs(16), batch_size=8, true_share=0.5, seed=1))
    shares = []
    for _ in range(8):
        batch = next(stream)
        assert batch.field.shape == batch.decoded.shape == (8, 16, 16, 16, 3)
        error = (batch.decoded - batch.field).square().mean((1, 2, 3, 4)).sqrt()
        assert all(min(abs(e - x) for x in (0, 0.01, 0.1)) < 0.01 for e in error.tolist())
        shares.append(float((error == 0).float().mean()))
    assert 0.2 < sum(shares) / 8 < 0.8


def test_turned_flows_stay_free_of_divergence() -> None:
    axis = torch.arange(16) * (2 * torch.pi / 16)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    flow = torch.stack((x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos(), torch.zeros_like(x)), -1)
    boxes = FlowPairs(flow[None], [DecodedFlow("itself", 0, flow)])
    stream = iter(DecodedStream(boxes, batch_size=1, true_share=0.0, seed=0))
    for _ in range(8):
        field = next(stream).field[0]
        divergence = sum(field[..., i].roll(-1, i) - field[..., i].roll(1, i) for i in range(3))
        assert float(divergence.abs().max()) < 1e-5


def test_decoded_as_streams_are() -> None:
    codec = FieldCodec(read_weight_file(GOLDEN / "field_tiny.safetensors"))
    codec.refuses = False
    velocity = torch.randn(1, 3, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    found = decoded_flows(codec, velocity, torch.Generator().manual_seed(1))
    assert len(found.decoded) == 4
    name, _, field = found.decoded[1]
    decoder, ratio, quality = (part.split()[-1] for part in name.split(", "))
    data = codec.compress(velocity[0], ratio=int(ratio), quality=float(quality), periodic=True)
    again = codec.decompress(data, decoder=decoder).permute(1, 2, 3, 0)
    size = (velocity[0] - velocity[0].mean((1, 2, 3), keepdim=True)).square().mean().sqrt()
    again = (again - velocity[0].mean((1, 2, 3))) / size
    assert torch.allclose(field, again, atol=1e-3)


@pytest.mark.parametrize("name", [*LEARNED, *UNSEEN])
def test_damage_grows_with_strength(name) -> None:
    corrupt = {**LEARNED, **UNSEEN}[name]
    along = torch.arange(16) * 0.3
    wave = torch.sin(along[:, None, None] + 0.7 * along[:, None] - along)
    field = 1.4 * torch.stack((wave, wave.flip(0), wave.flip(1)), -1).expand(4, -1, -1, -1, -1)
    before = field.clone()
    strength = torch.tensor([0.1, 0.4, 0.7, 1.0])
    damaged = corrupt(field, strength, torch.Generator().manual_seed(1))
    assert torch.equal(field, before)
    errors = (damaged - field).square().mean((1, 2, 3, 4)).tolist()
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_a_part_of_a_batch_is_damaged() -> None:
    batch = next(iter(DecodedStream(pairs(16), batch_size=64, true_share=0.2, seed=1)))
    found = FieldCritic(2, 4).scored(batch)
    same = torch.isclose(found.field, batch.decoded, rtol=1e-2, atol=1e-2).flatten(1).all(1)
    assert found.field.shape == batch.decoded.shape
    assert 20 < int(same.sum()) < 60
    assert bool(found.score.isfinite().all())
    assert float(found.score.max()) == HIGHEST_SCORE


def test_it_learns(tmp_path) -> None:
    """What noise does to a smooth flow, within a few steps."""
    axis = torch.arange(16) * (2 * torch.pi / 16)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    flow = 2 * torch.stack((x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos(), 0 * x), -1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = FieldCritic(4, 16, lr=5e-3)
    optimizer = critic.configure_optimizers()
    critic.optimizers = lambda: optimizer
    critic.manual_backward = lambda loss: loss.backward()
    critic._trainer = SimpleNamespace(log_every_n_steps=1000, global_step=0)
    noise = torch.Generator().manual_seed(0)
    for number in range(16):
        sizes = 10 ** (-1 - 2 * torch.rand(8, generator=noise))[:, None, None, None, None]
        decoded = flow + sizes * torch.randn((8, *flow.shape), generator=noise)
        critic.training_step(DecodedBatch(flow.expand_as(decoded), decoded), number)
    noisy = torch.stack([flow + size * torch.randn(flow.shape, generator=noise) for size in (0.003, 0.03)])
    assert critic.network(noisy).tolist() == pytest.approx([2.52, 1.52], abs=0.5)


def test_validation_says_how_ranks_agree(tmp_path) -> None:
    critic = FieldCritic(2, 4)
    critic._trainer = SimpleNamespace(
        log_dir=None, default_root_dir=str(tmp_path), is_global_zero=True, global_step=3
    )
    critic.on_validation_epoch_start()
    boxes = pairs(16)
    with torch.no_grad():
        critic.validation_step(FlowPairs(boxes.true[:1], boxes.decoded[:2]), 0)
    critic.on_validation_epoch_end()
    (line,) = Path(tmp_path / "critic.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert len(record["scored"]) == 3 + 3 * len(LEARNED)
    assert -1 <= record["spearman"] <= 1
