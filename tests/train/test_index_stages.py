"""The four stages of the index codec's training, one after another from each other's checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.card import read_card
from latentpress.codecs.grain_map_coder import TABLES_EACH, code_map, levels_of, tables_from_counts
from latentpress.codecs.registry import inspect, load, weights_for
from latentpress.codecs.symbol_channel import Sender
from latentpress.models.index.granularity import route, routing_scores
from latentpress.models.index.model import build_index_model
from latentpress.models.index.network import build_index_network
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.cli import main
from latentpress.train.data.images import CropBatch, read_rgb
from latentpress.train.export_index import main as export
from latentpress.train.fit_grain_tables import fit_grain_tables, pictures_below
from latentpress.train.index_adversarial import IndexAdversarialTraining
from latentpress.train.index_books import random_books
from latentpress.train.index_checkpoint import load_network
from latentpress.train.index_residual import main as add_residuals

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "index"
STAGES = ("index-1-autoencoder", "index-2-adversarial", "index-3-books", "index-4-prior")
WIDTHS = ("fine", "medium", "coarse")


def small_network() -> dict[str, int]:
    network = {f"{part}_{width}_channels": 8 for part in ("encoder", "decoder") for width in WIDTHS}
    network |= {f"{part}_{width}_depth": 1 for part in ("encoder", "decoder") for width in WIDTHS}
    return network | {"codes": 64, "code_channels": 4, "condition_channels": 4}


def arguments(stage: str, photographs: Path, out: Path, before: Path | None) -> list[str]:
    network = small_network()
    if stage in STAGES[2:]:
        network |= {f"prior_{width}_channels": 8 for width in WIDTHS}
        network |= {f"prior_{width}_depth": 1 for width in WIDTHS}
    found = ["fit", "--config", str(CONFIGS / f"{stage}.yaml")]
    found += [f"--model.init_args.network.init_args.{k}={v}" for k, v in network.items()]
    data = {"train_folder": photographs, "val_folder": photographs, "crop_size": 64, "batch_size": 2}
    found += [f"--data.init_args.{k}={v}" for k, v in data.items()]
    trainer = {"accelerator": "cpu", "devices": 1, "default_root_dir": out, "logger": False, "max_steps": 2}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "val_check_interval": 2}
    trainer |= {"precision": 32}
    found += ["--average.every=1", "--budget.warmup_steps=1"]
    found += [f"--trainer.{k}={v}" for k, v in trainer.items()]
    if stage == STAGES[1]:
        # The discriminator counts from the first step on.
        found += ["--model.init_args.start_step=-1", "--model.init_args.ramp_steps=1"]
    return found + ([f"--model.init_args.init_from={before}"] if before else [])


@pytest.fixture(scope="module", autouse=True)
def settings_of_the_process():
    """What the command line sets for a whole process is set back."""
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        yield
    torch.set_float32_matmul_precision(precision)


@pytest.fixture(scope="module")
def checkpoints(photographs, tmp_path_factory) -> dict[str, Path]:
    """The last checkpoint of every stage."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, Path] = {}
    for stage in STAGES:
        out = tmp_path_factory.mktemp(stage)
        before = next(reversed(found.values()), None)
        main(arguments(stage, photographs, out, before))
        found[stage] = out / "checkpoints" / "last.ckpt"
    torch.set_num_threads(threads)
    return found


def state(checkpoints: dict[str, Path], stage: str) -> dict[str, torch.Tensor]:
    return dict(network_from_checkpoint(checkpoints[stage]).state)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """First words of the names of what differs by more than rounding."""
    return {
        name.partition(".")[0]
        for name in before.keys() & after.keys()
        if not torch.allclose(before[name].float(), after[name].float(), rtol=1e-5, atol=1e-7)
    }


def test_the_adversary_moves_the_decoder_only(checkpoints) -> None:
    first, second = (state(checkpoints, stage) for stage in STAGES[:2])
    assert changed(first, second) == {"decoder"}


def test_the_books_stage_keeps_encoder_and_decoder(checkpoints) -> None:
    second, third = (state(checkpoints, stage) for stage in STAGES[1:3])
    assert changed(second, third) == set()
    fresh = build_index_model(**network_from_checkpoint(checkpoints["index-3-books"]).config).state_dict()
    assert changed(fresh, third) >= {"books"}


def test_the_prior_stage_moves_the_prior_only(checkpoints) -> None:
    third, fourth = (state(checkpoints, stage) for stage in STAGES[2:])
    assert changed(third, fourth) == {"prior"}


def test_the_last_checkpoint_is_the_whole_model(checkpoints) -> None:
    trained = network_from_checkpoint(checkpoints["index-4-prior"])
    model = build_index_model(**trained.config)
    load_network(model, checkpoints["index-4-prior"])
    assert model.books.books[-1].size == 64


def test_validation_says_what_the_prior_saves(checkpoints) -> None:
    folder = checkpoints["index-4-prior"].parent.parent
    record = json.loads((folder / "rd_points.jsonl").read_text().splitlines()[-1])
    assert len(record["saved"]) == len(record["details"]) + len(record["books"])
    assert all(rate > 0 for rate in record["bpp"])


def test_other_settings_are_refused(checkpoints) -> None:
    config = {**network_from_checkpoint(checkpoints["index-4-prior"]).config, "code_channels": 8}
    with pytest.raises(ValueError, match="code_channels"):
        load_network(build_index_model(**config), checkpoints["index-4-prior"])


def test_books_are_drawn_evenly() -> None:
    found = random_books(torch.linspace(0, 99.9, 700), 7).bincount()
    assert found.tolist() == pytest.approx([100] * 7, abs=1)


def test_export_writes_weights_and_card(checkpoints, photographs, tmp_path, capsys) -> None:
    out = tmp_path / "index.safetensors"
    arguments = ["--checkpoint", str(checkpoints["index-4-prior"]), "--out", str(out), "--most", "2"]
    arguments += ["--photographs", str(photographs), "--training-data", "noise", "--training", "two steps"]
    export(arguments)
    card = read_card(out)
    assert card.family == "index"
    assert card.lambda_range is None
    assert card.bytes == out.stat().st_size
    assert card.codebook.codes == 64
    assert 1 <= card.codebook.perplexity <= card.codebook.used <= 64
    assert "codes in use" in capsys.readouterr().out
    codec = load(out)
    assert codec.fingerprint.hex() == card.fingerprint
    picture = torch.from_numpy(read_rgb(photographs / "p0.png").copy()).permute(2, 0, 1)
    data = codec.compress(picture)
    assert codec.decompress(data).shape == picture.shape
    assert weights_for(inspect(data)) == "index"
    # An addition later on: the fingerprint stays, and what was made decodes.
    add_residuals(["--weights", str(out), "--photographs", str(photographs), "--codes", "8", "--most", "2"])
    extended = load(out)
    assert read_card(out).fingerprint == card.fingerprint == extended.fingerprint.hex()
    assert read_card(out).extended_fingerprint == extended.extended_fingerprint.hex() != card.fingerprint
    assert torch.equal(extended.decompress(data), codec.decompress(data))
    finest = [extended.decompress(extended.compress(picture, quality=q)).float() for q in (90, 100)]
    errors = [float((picture - found).square().mean()) for found in finest]
    assert errors[1] < errors[0]


def test_fitted_tables_are_cheaper_than_guessed_ones(photographs) -> None:
    pictures = list(pictures_below(photographs, 9))
    fitted, guessed = fit_grain_tables(pictures), tables_from_counts(np.zeros((2 * TABLES_EACH, 2)))
    grains = route(
        routing_scores(pictures[0][None, :80, :96].float() / 255), torch.tensor([0.4]), torch.tensor([0.4])
    )
    bits = grains.split[0].numpy(), grains.fine[0].numpy()
    sizes = []
    for tables in (fitted, guessed):
        sender = Sender()
        code_map(sender, tables, levels_of(*bits), (5, 6), bits)
        sizes.append(len(sender.finish()))
    assert sizes[0] <= sizes[1]


def test_the_weight_follows_the_gradients() -> None:
    """A discriminator that is three times as steep gets a smaller weight."""
    torch.manual_seed(0)
    network = build_index_network(**small_network())
    module = IndexAdversarialTraining(network, discriminator_channels=4, adversarial_share=1.0)
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    batch = CropBatch(image, torch.tensor([20.0, 80.0]))
    first = module.balance(batch)
    for parameter in module.discriminator.parameters():
        parameter.data *= 3
    assert 0 < float(module.balance(batch)) < float(first)
    assert all(p.grad is None for p in module.parameters())


def test_a_decoder_goes_on_alone(checkpoints, photographs, tmp_path) -> None:
    """Without a share there is no opponent: only the decoder changes."""
    first = checkpoints[STAGES[0]]
    flags = arguments(STAGES[1], photographs, tmp_path, first)
    main([*flags, "--model.init_args.adversarial_share=0", "--model.init_args.pattern=0.5"])
    before = network_from_checkpoint(first).state
    after = network_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt").state
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_the_first_stage_goes_on_from_an_earlier_run(checkpoints, photographs, tmp_path) -> None:
    """A rate of zero leaves the averages as they were."""
    first = checkpoints[STAGES[0]]
    main([*arguments(STAGES[0], photographs, tmp_path, first), "--model.init_args.lr=0"])
    before = network_from_checkpoint(first).state
    after = network_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt").state
    for name, value in before.items():
        assert torch.allclose(after[name], value, atol=1e-6), name
