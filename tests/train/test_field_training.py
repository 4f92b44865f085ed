"""Experiments of the field family run end to end, in small; start, transfer and losses do their work."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_quality import FlowCritic
from latentpress.codecs.weights import read_weight_file
from latentpress.models.field.network import FieldNetworkOutput, build_field_network
from latentpress.train.cli import main
from latentpress.train.data.flows import FlowDataModule, FlowPool, unit_variance
from latentpress.train.export import network_from_checkpoint
from latentpress.train.field_adversarial import band_energy_loss, moment_loss
from latentpress.train.field_critic_export import main as export_critic
from latentpress.train.field_export import main as export
from latentpress.train.field_initialise import gain_line, initialise, lapped_matrix
from latentpress.train.field_module import error_at_ratios, rate_distortion_loss
from latentpress.train.field_transfer import transfer
from latentpress.train.metrics.derivatives import central_differences, derivative_statistics

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "field"
FAITHFUL = ("field-8", "field-64", "field-512")

# A setting of a network by the end of its name, and the most of it that is quick.
SMALL = {"latent_channels": 16, "channels": 8, "width": 8, "depth": 1}
FLOWS = {
    "size": 32,
    "boxes": 1,
    "small_boxes": 1,
    "snapshots": 1,
    "crop_size": 32,
    "batch_size": 2,
    "val_double": False,
    "spin_up": "[0.05]",
}
DECODED_FLOWS = {
    "size": 32,
    "viscosities": "[0.02]",
    "snapshots": 1,
    "draws": 1,
    "batch_size": 2,
    "spin_up": "[0.05]",
}

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode:UserWarning")


@pytest.fixture(autouse=True)
def settings_of_the_process():
    """What the command line sets for a whole process is set back."""
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        yield
    torch.set_float32_matmul_precision(precision)


def flags(name: str, out: Path, **model: Any) -> list[str]:
    experiment = CONFIGS / f"{name}.yaml"
    content = yaml.safe_load(experiment.read_text())
    found = ["fit", "--config", str(experiment)]
    for setting, value in content["model"]["init_args"].get("network", {}).get("init_args", {}).items():
        limit = next(most for end, most in SMALL.items() if setting.endswith(end))
        found.append(f"--model.init_args.network.init_args.{setting}={min(value, limit)}")
    found += [f"--model.init_args.{setting}={value}" for setting, value in model.items()]
    flows = DECODED_FLOWS if name == "field-critic" else FLOWS
    found += [f"--data.init_args.{setting}={value}" for setting, value in flows.items()]
    trainer = {"accelerator": "cpu", "devices": 1, "default_root_dir": out, "logger": False, "max_steps": 2}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False}
    return found + [f"--trainer.{setting}={value}" for setting, value in trainer.items()]


def test_every_experiment_is_tested() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names == {*FAITHFUL, *(f"{name}-realistic" for name in FAITHFUL), "field-critic"}


def test_from_training_to_a_codec(tmp_path) -> None:
    """All experiments, each from its predecessor's checkpoint, weight files, then bytes and scores."""
    found: dict[str, str] = {}
    previous: dict[str, str] = {}
    for name in FAITHFUL:
        cache = {"--data.init_args.cache": tmp_path / "flows.pt"}
        extra = [f"{flag}={value}" for flag, value in cache.items()]
        main([*flags(name, tmp_path / name, **previous), *extra])
        found[name] = str(tmp_path / name / "checkpoints" / "last.ckpt")
        previous = {"transfer_from": found[name]}
        real = f"{name}-realistic"
        options = {"checkpoint": found[name], "discriminator_channels": 2, "crop_size": 32}
        main([*flags(real, tmp_path / real, **options), *extra, "--trainer.max_steps=4"])
        found[real] = str(tmp_path / real / "checkpoints" / "last.ckpt")
    again = {
        "checkpoint": found["field-512"],
        "discriminator_channels": 2,
        "crop_size": 32,
        "init_from": found[real],
    }
    main([*flags(real, tmp_path / "again", **again), *extra])
    assert (tmp_path / "flows.pt").is_file()
    out = tmp_path / "field.safetensors"
    faithful = [found[name] for name in FAITHFUL]
    realistic = [found[f"{name}-realistic"] for name in FAITHFUL]
    export(["--faithful", *faithful, "--realistic", *realistic, "--out", str(out)])
    small = {"filters": 2, "width": 4}
    teacher = [f"--data.init_args.weights={out}", f"--data.init_args.cache={tmp_path / 'decoded.pt'}"]
    main([*flags("field-critic", tmp_path / "critic", **small), *teacher, "--trainer.max_steps=3"])
    critic = tmp_path / "critic.safetensors"
    checkpoint = tmp_path / "critic" / "checkpoints" / "last.ckpt"
    export_critic(["--checkpoint", str(checkpoint), "--codec", str(out), "--out", str(critic)])
    codec = FieldCodec(read_weight_file(out))
    codec.refuses = False
    assert codec.ratios == (8, 64, 512)
    with pytest.raises(ValueError, match="no critic"):
        _ = codec.critic
    codec.critic = FlowCritic(read_weight_file(critic))
    assert codec.critic.codec == codec.fingerprint.hex()
    x = torch.randn(3, 16, 16, 16)
    for ratio in codec.ratios:
        data = codec.compress(x, ratio=ratio, quality=20)
        assert codec.decompress(data, decoder="realistic").shape == x.shape
        assert math.isfinite(codec.quality_score(data))


def test_validation_writes_points(tmp_path) -> None:
    main([*flags("field-8", tmp_path), "--trainer.fast_dev_run=1"])
    (line,) = (tmp_path / "rate_points.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["flow"] == "box"
    assert len(record["ratios"]) == len(record["nrmse"]) == len(record["nrmse_solenoidal"]) == 5


def test_loss_by_hand() -> None:
    target = torch.zeros(2, 8, 8, 8, 3)
    output = FieldNetworkOutput(target + 0.1, torch.full((2,), 500.0), torch.full((2,), 12.0))
    terms = rate_distortion_loss(output, target, torch.tensor([0.0, 100.0]), 10.0, 1000.0)
    expected = [(1 + weight * 0.01) * (100 / weight) ** 0.4 for weight in (10.0, 1000.0)]
    assert float(terms.loss) == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert float(terms.rate) == pytest.approx(1)
    assert float(terms.squared_error) == pytest.approx(0.01, rel=1e-4)


def smooth(seed: int, count: int = 2, size: int = 32) -> torch.Tensor:
    """Random solenoidal velocity-like fields ``(B, S, S, S, 3)`` with a steep spectrum."""
    from latentpress.train.data.turbulence import SpectralGrid, random_flow

    grid = SpectralGrid(size)
    flow = random_flow(grid, count, torch.Generator().manual_seed(seed), peak=4.0)
    return unit_variance(grid.to_physical(flow.velocity)).permute(0, 2, 3, 4, 1).contiguous()


def small_network(channels: int = 64):
    torch.manual_seed(0)
    return build_field_network(8, channels, 1, 1, 4, 8, 8, 1)


@torch.no_grad()
def test_start_is_a_working_codec() -> None:
    network = small_network().eval()
    closed = torch.ones(2, 3, dtype=torch.bool)
    with torch.enable_grad():
        initialise(network, [(smooth(seed), closed) for seed in range(3)], 1e2, 1e4)
    target = smooth(9)
    found = [network(target, torch.full((2,), quality), closed) for quality in (0.0, 50.0, 100.0)]
    errors = [float((output.field - target).square().mean().sqrt()) for output in found]
    bits = [float(output.y_bits.sum()) for output in found]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.3
    assert bits[0] < bits[1] < bits[2]


@torch.no_grad()
def test_lapped_transform_beats_blocks() -> None:
    lags = torch.arange(24.0)
    covariance = torch.exp(-((lags / 6) ** 2)).double()
    matrix = lapped_matrix(covariance, 8, 1e-4)
    assert float((matrix - torch.eye(8)).abs().max()) > 0.1
    assert torch.linalg.cond(matrix) < 10


def test_transfer_keeps_what_fits(tmp_path) -> None:
    main(flags("field-8", tmp_path))
    checkpoint = str(tmp_path / "checkpoints" / "last.ckpt")
    config, state = network_from_checkpoint(checkpoint)
    network = build_field_network(**(config | {"latent_channels": 8}))
    transfer(network, checkpoint, 40.0, 4000.0)
    new = network.state_dict()
    assert torch.equal(new["analysis.enhancer.stem.weight"], state["analysis.enhancer.stem.weight"])
    assert torch.equal(new["analysis.head.weight"], state["analysis.head.weight"][:8])
    assert torch.equal(new["context.heads.1.bias"][8:], state["context.heads.1.bias"][16:24])
    shift = gain_line(21, 40.0, 4000.0) - gain_line(21, 2.5e3, 2.5e5)[0]
    assert torch.allclose(new["gain.knots"], state["gain.knots"][:1, :8] + shift[:, None])
    with pytest.raises(ValueError, match="latent channels"):
        transfer(build_field_network(**(config | {"latent_channels": 20})), checkpoint, 1.0, 2.0)
    with pytest.raises(ValueError, match="is not that of"):
        transfer(
            build_field_network(**(config | {"latent_channels": 8, "channels": 4})), checkpoint, 1.0, 2.0
        )


def test_crops_are_symmetries_of_the_box() -> None:
    """Divergence and energy do not change when a flow is turned, mirrored or shifted with its components."""
    velocity = smooth(1, count=1, size=16).permute(0, 4, 1, 2, 3)
    pool = FlowPool(velocity)
    crops = pool.crops(12, 16, torch.Generator().manual_seed(0))
    assert len({tuple(crop.flatten()[:50].tolist()) for crop in crops}) == 12
    for crop in crops:
        differences = central_differences(crop.roll((1, 1, 1), (0, 1, 2)))
        divergence = differences.diagonal(dim1=-2, dim2=-1).sum(-1)
        assert float(divergence.square().mean()) < 0.02 * float(differences.square().sum((-1, -2)).mean())
        assert float(crop.square().sum()) == pytest.approx(float(velocity.square().sum()), rel=1e-3)


def test_batches_say_what_is_periodic(tmp_path) -> None:
    from types import SimpleNamespace

    data = FlowDataModule(
        size=32,
        boxes=1,
        small_boxes=1,
        snapshots=1,
        crop_size=32,
        batch_size=4,
        periodic_share=0.5,
        spin_up=(0.02,),
        val_double=True,
    )
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(strategy=strategy, global_step=0, global_rank=0, is_global_zero=True)
    batch = next(iter(data.train_dataloader()))
    assert batch.field.shape == (4, 32, 32, 32, 3)
    assert batch.periodic.all(1).tolist() == [False, False, True, True]
    assert sorted(int(q // 25) for q in batch.quality) == [0, 1, 2, 3]
    names = {flow.name: flow for flow in data.val_dataloader()}
    assert names["box"].periodic.all()
    assert not names["corner"].periodic.any()
    assert float(names["corner"].field.square().mean()) == pytest.approx(1, rel=1e-3)


def test_statistics_losses_vanish_on_the_truth_only() -> None:
    field = smooth(2)
    blurred = 0.5 * field + 0.25 * (field.roll(1, 1) + field.roll(-1, 1))
    assert float(band_energy_loss(field, field)) == 0
    assert float(band_energy_loss(blurred, field)) > 1e-4
    true = central_differences(field)
    assert float(moment_loss(true, true)) == 0
    assert float(moment_loss(true.pow(3), true)) > 0.01


def test_derivative_statistics_of_a_wave() -> None:
    x = torch.arange(32) * (2 * math.pi / 32)
    wave = torch.zeros(32, 32, 32, 3)
    wave[..., 0] = torch.sin(2 * x)[:, None, None]
    found = derivative_statistics(wave)
    slope = math.sin(2 * 2 * math.pi / 32)
    assert found.gradient == pytest.approx(0.5 * slope**2, rel=0.1)
    assert found.divergence == pytest.approx(math.sqrt(found.gradient), rel=1e-3)


def test_interpolated_errors_stay_in_range() -> None:
    assert error_at_ratios([1.0, 100.0], [0.01, 1.0], [10, 1000]) == {"10": 0.1}
