"""The stages of the shape codec's training run one after the other, each from its YAML."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentpress.models.shape.bridge import CodeQuality
from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.cli import main
from latentpress.train.shape_generator_module import GeneratorTraining

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "shape"

NETWORKS: dict[str, dict[str, Any]] = {
    "generator": {
        "geometry_channels": 4,
        "colour_channels": 2,
        "width": 32,
        "depth": 1,
        "coarse_channels": 8,
        "middle_channels": 4,
        "fine_channels": 4,
        "encoder_width": 32,
        "encoder_fine_width": 32,
        "encoder_depth": 1,
        "detail_channels": 4,
        "colour_detail_channels": 4,
    },
    "prior": {"geometry_channels": 4, "colour_channels": 2, "width": 32, "depth": 1},
    "encoder": {"channels": 32, "cell_channels": 4, "middle_channels": 4, "depth": 1, "grid_channels": 4},
    "bridge": {
        "encoder_channels": 32,
        "geometry_channels": 4,
        "colour_channels": 2,
        "code_channels": 4,
        "code_groups": 2,
        "colour_code_channels": 2,
        "colour_code_groups": 2,
        "width": 32,
        "forward_depth": 1,
        "reverse_depth": 1,
        "colour_width": 32,
        "colour_depth": 1,
        "prior_width": 4,
        "prior_depth": 1,
    },
}


def collection(path: Path) -> Path:
    """A file of two meshes: a tetrahedron and a cube."""
    corners = np.array([[x, y, z] for z in (0, 65535) for y in (0, 65535) for x in (0, 65535)], np.uint16)
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    cube = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    tetrahedron = [(0, 2, 1), (0, 1, 4), (0, 4, 2), (1, 2, 4)]
    np.savez(
        path,
        verts_u16=np.concatenate((corners, corners)),
        faces=np.array(tetrahedron + cube, np.uint16),
        vert_offset=np.array([0, 8, 16]),
        face_offset=np.array([0, 4, 16]),
    )
    return path


def arguments(stage: str, folder: Path, **model: Any) -> list[str]:
    found = ["fit", "--config", str(CONFIGS / f"{stage}.yaml")]
    found += [f"--model.init_args.network.init_args.{k}={v}" for k, v in NETWORKS[stage].items()]
    found += [f"--model.init_args.{k}={v}" for k, v in model.items()]
    data = {"meshes": folder / "meshes.npz", "analytic": 3, "variants": 2, "batch_size": 2, "points": 64}
    data |= {"surface": 32, "queries": 64, "surface_kept": 128, "queries_kept": 128, "dense": 256}
    data |= {"held_out": 2, "cache": folder / "samples"}
    found += [f"--data.init_args.{k}={v}" for k, v in data.items()]
    trainer = {"accelerator": "cpu", "default_root_dir": folder / stage, "max_steps": 2}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "val_check_interval": 2}
    return found + [f"--trainer.{k}={v}" for k, v in trainer.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a checkpoint of every stage."""
    folder = tmp_path_factory.mktemp("shape")
    collection(folder / "meshes.npz")
    checkpoints = {stage: folder / stage / "checkpoints" / "last.ckpt" for stage in NETWORKS}
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        main(arguments("generator", folder))
        main(arguments("prior", folder, autoencoder=checkpoints["generator"]))
        main(arguments("encoder", folder))
        bridge = {"autoencoder": "generator", "encoder": "encoder", "prior": "prior"}
        main(arguments("bridge", folder, generated=2, **{k: checkpoints[v] for k, v in bridge.items()}))
    torch.set_float32_matmul_precision(precision)
    return folder


@pytest.mark.parametrize("stage", NETWORKS)
def test_every_stage_trains_and_validates(trained, stage) -> None:
    config, state = network_from_checkpoint(trained / stage / "checkpoints" / "last.ckpt")
    assert all(config[name] == value for name, value in NETWORKS[stage].items())
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    record = json.loads((trained / stage / "shape_validation.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 2
    assert all(np.isfinite(value) for name, value in record.items() if name != "stage")


def test_a_stage_starts_from_an_earlier_run_as_far_as_shapes_agree(trained) -> None:
    checkpoint = trained / "generator" / "checkpoints" / "last.ckpt"
    network = build_shape_autoencoder(**NETWORKS["generator"] | {"detail_channels": 8})
    fresh = network.generator.distance.stem.weight.clone()
    GeneratorTraining(network, init_from=str(checkpoint))
    state = network_from_checkpoint(checkpoint).state
    torch.testing.assert_close(network.generator.stem.weight, state["generator.stem.weight"])
    torch.testing.assert_close(network.generator.distance.stem.weight, fresh)


def test_prior_knows_the_latents_scale(trained) -> None:
    """Mean and deviation are data, not weights: the average over steps must not touch them."""
    _, state = network_from_checkpoint(trained / "prior" / "checkpoints" / "last.ckpt")
    assert (state["deviation"] != 1).all()


def test_bridge_remembers_its_prices(trained) -> None:
    checkpoint = torch.load(trained / "bridge" / "checkpoints" / "last.ckpt", weights_only=False)
    assert checkpoint["prices"] == {"geometry": [6e-5, 2.5e-7], "colour": [1e-4, 2e-6]}


def test_checkpoints_become_a_codec(trained, tmp_path) -> None:
    from latentpress.codecs import load
    from latentpress.codecs.card import read_card
    from latentpress.train import export_shape

    found = ["--out", str(tmp_path / "shape.safetensors"), "--training-data", "none", "--training", "little"]
    for name, stage in {"autoencoder": "generator", "encoder": "encoder", "bridge": "bridge"}.items():
        found += [f"--{name}", str(trained / stage / "checkpoints" / "last.ckpt")]
    export_shape.main([*found, "--prior", str(trained / "prior" / "checkpoints" / "last.ckpt")])
    codec = load(tmp_path / "shape.safetensors")
    assert read_card(tmp_path / "shape.safetensors").fingerprint == codec.fingerprint.hex()
    finest = CodeQuality(torch.tensor([100.0]), torch.tensor([100.0]))
    assert codec.prices(finest) == pytest.approx((2.5e-7, 2e-6))
    assert len(codec.generate(1)) == 1
    export_shape.main(found)
    with pytest.raises(ValueError, match="no prior"):
        load(tmp_path / "shape.safetensors").generate(1)


def test_bridge_between_any_two_latents(tmp_path) -> None:
    """Pairs that follow a rule: after a few steps the loss is lower, and bits cost something."""
    from safetensors.torch import save_file

    source = torch.randn(64, 16, 6)
    pairs = {"source": source, "target": source.reshape(64, 3, 4, 8)[:, :, :2].contiguous()}
    save_file(pairs, tmp_path / "pairs.safetensors")
    network = {"source_shape": [16, 6], "target_shape": [3, 2, 8], "tokens": 16, "width": 32, "depth": 1}
    found = ["fit", "--config", str(CONFIGS / "latent-bridge.yaml")]
    found += [f"--model.init_args.network.init_args.{k}={v}" for k, v in network.items()]
    found += [f"--data.init_args.path={tmp_path / 'pairs.safetensors'}", "--data.init_args.batch_size=4"]
    trainer = {"accelerator": "cpu", "default_root_dir": tmp_path, "max_steps": 3}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False}
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        main(found + [f"--trainer.{k}={v}" for k, v in trainer.items()])
    torch.set_float32_matmul_precision(precision)
    config, state = network_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert config["target_shape"] == [3, 2, 8]
    assert state["reverse_mapping.head.weight"].shape == (3, 32)
