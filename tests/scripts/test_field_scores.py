"""Whether the critic's score follows the error: groups, the card, and the script as a whole."""

import json
from pathlib import Path

import pytest
import torch

from latentpress.codecs.card import ModelCard, read_card
from latentpress.codecs.field_quality import FAMILY
from latentpress.codecs.weights import WeightFile
from latentpress.models.field.critic import ErrorCritic
from latentpress.scripts.field_scores import ALIKE, Scored, correlations, main, write_ranks
from latentpress.scripts.turbulence_store import write_store
from latentpress.train.data.turbulence import Snapshots

TINY = Path(__file__).resolve().parents[1] / "golden" / "v1" / "field_tiny.safetensors"


@pytest.fixture
def critic(tmp_path) -> Path:
    """An untrained critic with a card."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = ErrorCritic(2, 4).state_dict()
    config = {"network": {"filters": 2, "width": 4}, "codec": "00" * 8}
    weights = WeightFile(FAMILY, config, {name: tensor.numpy() for name, tensor in state.items()})
    path = tmp_path / "critic.safetensors"
    path.write_bytes(weights.to_bytes())
    fingerprint = weights.fingerprint().hex()
    card = ModelCard("critic", FAMILY, config, fingerprint, 1, 1, "2025-01-01", "MIT", "", "", None)
    path.with_suffix(".json").write_text(card.to_json())
    return path


def test_groups() -> None:
    """Ratios are told apart, and flows that were coded alike are told wrongly."""
    scored = [
        Scored(f"flow {flow}", "faithful", f"ratio {ratio}", error * (1 + 0.1 * flow), score + 0.01 * flow)
        for flow in range(3)
        for ratio, error, score in ((8, 0.01, 2.0), (64, 0.1, 1.0))
    ]
    scored.append(Scored("flow 0", "noise", "strength 0.5", 0.5, 0.3))
    found = correlations(scored)
    assert found["all"][0] == 7
    assert found["faithful"] == (6, pytest.approx(0.543, abs=1e-3))
    assert found[ALIKE] == (6, pytest.approx(-1))
    assert "damage it has never seen" not in found


def test_card(critic) -> None:
    write_ranks(critic, ["a", "b"], {"all": (9, 0.81234), "faithful": (4, 0.9), "a": (3, 1.0)})
    ranks = read_card(critic).ranks
    assert ranks is not None
    assert (ranks.data, ranks.fields, ranks.spearman, ranks.groups) == ("a, b", 9, 0.812, {"faithful": 0.9})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_store_is_scored(critic, tmp_path, capsys) -> None:
    generator = torch.Generator().manual_seed(0)
    velocity = torch.randn(1, 1, 3, 16, 16, 16, generator=generator)
    write_store(str(tmp_path / "flow.zarr"), Snapshots(velocity, torch.tensor([0.1])), 1.0, {})
    arguments = ["--data", str(tmp_path / "flow.zarr"), "--weights", str(TINY), "--critic", str(critic)]
    code = main([*arguments, "--card", "--out", str(tmp_path / "scores.json"), "--threads", "1"])
    content = json.loads((tmp_path / "scores.json").read_text())
    # The truth, two ratios at five qualities by two decoders, seven kinds of damage at four strengths.
    assert len(content["scored"]) == 1 + 2 * 5 * 2 + 7 * 4
    assert code == int(content["correlations"]["all"] < 0.7)
    assert read_card(critic).ranks.fields == len(content["scored"])
    assert "Spearman" in capsys.readouterr().out
