"""A slim checkpoint holds the same network in less space."""

import pytest
import torch

from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.slim_checkpoint import main, slim_checkpoint


def whole_checkpoint(weight: torch.Tensor) -> dict:
    return {
        "state_dict": {"network.weight": torch.zeros_like(weight), "network.count": torch.tensor(3)},
        "network_config": {"channels": 4},
        "network_family": "image-twin",
        "lambda_range": (0.0006, 0.14),
        "prices": {"geometry": [1.0, 2.0]},
        "callbacks": {"AveragedWeights": {"average": {"weight": weight, "count": torch.tensor(3)}}},
        "optimizer_states": [torch.zeros(1000)],
    }


def test_the_average_is_kept(tmp_path, capsys) -> None:
    weight = torch.randn(5, 4)
    torch.save(whole_checkpoint(weight), tmp_path / "last.ckpt")
    main([str(tmp_path / "last.ckpt"), str(tmp_path / "slim" / "last.ckpt")])
    config, state = network_from_checkpoint(tmp_path / "slim" / "last.ckpt")
    assert config == {"channels": 4}
    torch.testing.assert_close(state["weight"].float(), weight, rtol=1e-3, atol=1e-3)
    kept = torch.load(tmp_path / "slim" / "last.ckpt")
    assert kept["prices"] == {"geometry": [1.0, 2.0]}
    assert kept["network_family"] == "image-twin"
    assert kept["lambda_range"] == (0.0006, 0.14)
    assert state["count"].tolist() == 3  # an integer still
    sizes = [(tmp_path / name / "last.ckpt").stat().st_size for name in ("", "slim")]
    assert sizes[1] < sizes[0] - 3000
    assert capsys.readouterr().out == f"{sizes[0]} -> {sizes[1]} bytes\n"


def test_what_float16_cannot_hold_is_refused(tmp_path) -> None:
    torch.save(whole_checkpoint(torch.full((5, 4), 1e6)), tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="weight has values"):
        slim_checkpoint(tmp_path / "last.ckpt", tmp_path / "slim.ckpt")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "last.ckpt"), str(tmp_path / "slim.ckpt")])
