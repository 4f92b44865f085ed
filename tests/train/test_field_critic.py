"""The critic's stage: what it is taught, and that it can learn it."""

import json
from pathlib import Path

import pytest
import torch

from latentpress.models.field.network import build_field_network
from latentpress.train.data.flows import FlowBatch
from latentpress.train.field_corruption import LEARNED, UNSEEN
from latentpress.train.field_critic import HIGHEST_SCORE, FieldCritic


@pytest.fixture
def checkpoints(tmp_path) -> list[str]:
    """Two networks as training leaves them."""
    paths = []
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_field_network(8, 8, 1, 1, 4, 8, 8, 1)
        state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        paths.append(str(tmp_path / f"{seed}.ckpt"))
        torch.save({"network_config": dict(network.config), "state_dict": state}, paths[-1])
    return paths


def batch(count: int = 10) -> FlowBatch:
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(count, 16, 16, 16, 3, generator=generator)
    return FlowBatch(field, torch.full((count,), 50.0), torch.zeros(count, 3, dtype=torch.bool))


def test_scores_are_digits_of_the_error(checkpoints) -> None:
    critic = FieldCritic(checkpoints, channels=2)
    flows = batch(64)
    found = critic.scored(flows, 1, realistic=False)
    assert found.field.shape == flows.field.shape
    size = found.field.square().mean((1, 2, 3, 4))
    assert torch.allclose(size, flows.field.square().mean((1, 2, 3, 4)), rtol=1e-4)
    true = found.score == HIGHEST_SCORE
    assert 0 < int(true.sum()) < 64
    assert torch.equal(found.field[true], flows.field[true])
    # Untrained codecs leave nothing of a field, whose error is then as large as itself.
    assert float(found.score[~true].min()) < 0.1


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


def test_as_many_realistic_as_faithful(checkpoints) -> None:
    with pytest.raises(ValueError, match="as many"):
        FieldCritic(checkpoints, realistic=checkpoints[:1])


def test_validation_says_how_ranks_agree(checkpoints, tmp_path) -> None:
    from types import SimpleNamespace

    from latentpress.train.data.flows import ValidationFlow

    critic = FieldCritic(checkpoints, channels=2, val_qualities=(0, 100))
    critic._trainer = SimpleNamespace(
        log_dir=None, default_root_dir=str(tmp_path), is_global_zero=True, global_step=3
    )
    critic.on_validation_epoch_start()
    with torch.no_grad():
        critic.validation_step(ValidationFlow("box", batch(1).field, torch.ones(1, 3, dtype=torch.bool)), 0)
    critic.on_validation_epoch_end()
    (line,) = Path(tmp_path / "critic.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert len(record["scored"]) == 4
    assert -1 <= record["spearman"] <= 1
