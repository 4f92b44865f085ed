"""From a checkpoint to the weight file and card that ship."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from latentpress.codecs.card import read_card
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_transforms import INTEGER_PARTS
from latentpress.codecs.registry import load
from latentpress.codecs.weights import read_weight_file
from latentpress.models.entropy.fixed_point import InexactLayer
from latentpress.models.image.network import build_image_network
from latentpress.train import card as card_module
from latentpress.train import export
from latentpress.train.data.images import ImageDataModule
from latentpress.train.export import export_image, network_from_checkpoint, rebuild
from latentpress.train.image_module import ImageTraining
from latentpress.train.schedule import AveragedWeights


@pytest.fixture
def weights(tiny_config, tiny_state):
    return export_image(tiny_config, tiny_state)


def noise_picture(seed: int, height: int = 96, width: int = 80) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def test_types_and_names(weights, tiny_config, tiny_state) -> None:
    assert weights.family == "image"
    assert weights.config == tiny_config
    for name, array in weights.tensors.items():
        if name.startswith("tables."):
            assert array.dtype == np.int32
        elif name.startswith(INTEGER_PARTS):
            assert array.dtype in (np.int16, np.int32), name
        else:
            assert array.dtype == (np.float32 if name.endswith("knots") else np.float16), name
            assert array.shape == tuple(tiny_state[name].shape)
    transforms = {name for name in tiny_state if not name.startswith(INTEGER_PARTS)}
    assert transforms <= set(weights.tensors)


def test_matrices_in_bytes(tiny_config, tiny_state) -> None:
    whole = export_image(tiny_config, tiny_state)
    patterns = ["analysis.blocks.*", "synthesis.deep_blocks.0.value*"]
    small = export_image(tiny_config, tiny_state, matrices_in_bytes=patterns)
    kept = {name for name, array in small.tensors.items() if array.dtype == np.int8}
    assert kept
    assert all(name.startswith(("analysis.blocks.", "synthesis.deep_blocks.0.value")) for name in kept)
    assert all(whole.tensors[name].ndim == 2 for name in kept)
    assert len(small.to_bytes()) < len(whole.to_bytes())
    picture = noise_picture(2)
    data = ImageCodec(small).compress(picture, quality=50)
    decoded = ImageCodec(small).decompress(data).float()
    other = ImageCodec(whole)
    expected = other.decompress(other.compress(picture, quality=50)).float()
    assert float((decoded - expected).square().mean().sqrt()) < 0.1 * float(expected.std())


def test_file_and_load(weights, tmp_path) -> None:
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(weights.to_bytes())
    again = read_weight_file(path)
    assert again.fingerprint() == weights.fingerprint()
    assert len(again.to_bytes()) == len(weights.to_bytes())
    codec, picture = load(path), noise_picture(0)
    data = codec.compress(picture, quality=70)
    assert data == ImageCodec(weights).compress(picture, quality=70)
    assert codec.decompress(data).shape == picture.shape


def test_fingerprint_tells_weights_apart(weights, tiny_config, tiny_state) -> None:
    assert export_image(tiny_config, tiny_state).fingerprint() == weights.fingerprint()
    changed = dict(tiny_state)
    changed["synthesis.head.bias"] = changed["synthesis.head.bias"] + 0.01
    assert export_image(tiny_config, changed).fingerprint() != weights.fingerprint()


@pytest.mark.parametrize("quality", [0.0, 45.0, 100.0])
@torch.no_grad()
def test_integer_rate_is_the_float_rate(weights, tiny_config, tiny_state, quality) -> None:
    network, codec = rebuild(tiny_config, tiny_state), ImageCodec(weights)
    codec._coder.rounding.multiplier = 0.0  # plain rounding, as the network does
    expected = found = written = 0.0
    for seed in range(3):
        picture = noise_picture(seed)
        output = network(picture.permute(1, 2, 0)[None].float() / 255, torch.tensor([quality]))
        expected += float(output.y_bits + output.z_bits)
        found += codec.likelihood_bits(picture, quality)
        written += 8 * len(codec.encode_payload(picture.float() / 255, round(quality * 10)).payload)
    assert found == pytest.approx(expected, rel=0.01)
    # The stream itself: tables stand for rounded scales, and a header and whole words come on top.
    assert written == pytest.approx(expected, rel=0.02, abs=3 * 8 * 24)


@torch.no_grad()
def test_pictures_are_those_of_the_float_network(weights, tiny_config, tiny_state) -> None:
    network, codec = rebuild(tiny_config, tiny_state), ImageCodec(weights)
    codec._coder.rounding.multiplier = 0.0
    picture = noise_picture(5)
    image = network(picture.permute(1, 2, 0)[None].float() / 255, torch.tensor([60.0])).image[0]
    decoded = codec.decompress(codec.compress(picture, quality=60)).permute(1, 2, 0).float() / 255
    assert float((decoded - image.clamp(0, 1)).abs().mean()) < 0.01


def test_sums_that_could_round_are_refused(tiny_config, tiny_state) -> None:
    tiny_state["context.blocks.0.depthwise.weight"][:] = 1e6
    with pytest.raises(InexactLayer):
        export_image(tiny_config, tiny_state)


@pytest.fixture
def checkpoint(tiny_config, photographs, make_trainer, tmp_path):
    """A checkpoint of a short real training, and the callback that averaged its weights."""
    torch.manual_seed(0)
    module = ImageTraining(build_image_network(**tiny_config), lambda_min=0.002, lambda_max=0.05)
    average = AveragedWeights(decay=0.9, every=1)
    trainer = make_trainer(callbacks=[average], max_steps=3)
    trainer.fit(module, ImageDataModule(str(photographs), crop_size=64, batch_size=2, workers=1))
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    return path, module, average


def test_checkpoint_gives_the_averaged_weights(checkpoint, tiny_config) -> None:
    path, module, average = checkpoint
    config, state = network_from_checkpoint(str(path))
    assert config == {**tiny_config, "normalisation": "none"}
    assert state.keys() == module.network.state_dict().keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, average.average[name])
    differs = [not torch.equal(state[k], v) for k, v in module.network.state_dict().items()]
    assert any(differs)
    network = rebuild(config, state)
    assert not network.training
    assert torch.equal(network.gain.knots, average.average["gain.knots"])


def test_checkpoint_without_average(checkpoint, tmp_path) -> None:
    path, module, _ = checkpoint
    content = torch.load(path, weights_only=False)
    del content["callbacks"]["AveragedWeights"]
    torch.save(content, tmp_path / "plain.ckpt")
    _, state = network_from_checkpoint(str(tmp_path / "plain.ckpt"))
    for name, tensor in module.network.state_dict().items():
        assert torch.equal(tensor, state[name])


def report(fingerprint: str, folder: str = "some/where/kodak") -> dict:
    """Of the form that ``latentpress eval`` writes."""
    mean = {"estimated_bpp": None, "encode_seconds": 1.0, "decode_seconds": 1.0}
    return {
        "command": f"latentpress eval --codec x --data '{folder}' --qualities 0,100",
        "date": "2025-01-01T00:00:00+00:00",
        "fingerprint": fingerprint,
        "pictures": 2,
        "means": [
            {"quality": 0.0, "bpp": 0.1, "psnr": 25.0, "ms_ssim": 0.9, **mean},
            {"quality": 100.0, "bpp": 2.0, "psnr": None, "ms_ssim": None, **mean},
        ],
        "bd_rate": [
            {"anchor": "vtm", "percent": 3.5, "low_psnr": 25.0, "high_psnr": 30.0, "reason": ""},
            {"anchor": "jpeg", "percent": None, "low_psnr": 1.0, "high_psnr": 0.0, "reason": "none"},
        ],
    }


def export_arguments(path, out, *more: str) -> list[str]:
    return ["--checkpoint", str(path), "--out", str(out), "--training-data", "noise", *more]


def test_command_line_writes_weights_and_card(checkpoint, tmp_path, capsys) -> None:
    path, module, _ = checkpoint
    out, text = tmp_path / "weights" / "image.safetensors", tmp_path / "training.txt"
    text.write_text("three steps\n")
    export.main(export_arguments(path, out, "--training", str(text)))
    codec, card = load(out), read_card(out)
    assert str(out) in capsys.readouterr().out
    assert card.name == "image"
    assert card.family == "image"
    assert card.config == module.network.config
    assert card.fingerprint == codec.fingerprint.hex()
    assert card.parameters == sum(p.numel() for p in module.network.parameters())
    assert card.bytes == out.stat().st_size
    assert card.license == "Apache-2.0"
    assert card.training_data == "noise"
    assert card.training == "three steps"
    assert card.lambda_range == (0.002, 0.05)
    assert card.measurements == ()

    figures = tmp_path / "report.json"
    figures.write_text(json.dumps(report(card.fingerprint)))
    card_module.main(["--weights", str(out), "--rd", str(figures)])
    refreshed = read_card(out)
    (measured,) = refreshed.measurements
    assert dataclasses.replace(refreshed, measurements=()) == card
    assert (measured.data, measured.pictures, measured.date) == ("kodak", 2, "2025-01-01T00:00:00+00:00")
    assert [dataclasses.astuple(point) for point in measured.points] == [
        (0.0, 0.1, 25.0, 0.9),
        (100.0, 2.0, None, None),
    ]
    assert [dataclasses.astuple(found) for found in measured.bd_rate] == [("vtm", 3.5, 25.0, 30.0)]

    card_module.main(["--weights", str(out)])
    assert read_card(out) == refreshed


def test_figures_of_other_weights_are_refused(checkpoint, tmp_path, capsys) -> None:
    path, *_ = checkpoint
    out, figures = tmp_path / "image.safetensors", tmp_path / "report.json"
    export.main(export_arguments(path, out, "--training", "x"))
    before = read_card(out)
    for content, message in (
        (json.dumps(report("00" * 8)), "measured the weights 0000000000000000"),
        (json.dumps(report(before.fingerprint) | {"effort": 3}), "measured effort 3"),
        ("{}", "not a report of latentpress eval"),
        ("no JSON", "report.json: "),
        (json.dumps(report(before.fingerprint) | {"command": "latentpress eval"}), "no --data"),
    ):
        figures.write_text(content)
        with pytest.raises(SystemExit) as stop:
            card_module.main(["--weights", str(out), "--rd", str(figures)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert read_card(out) == before


def test_lambdas_of_older_checkpoints_have_to_be_given(checkpoint, tmp_path, capsys) -> None:
    path, *_ = checkpoint
    content = torch.load(path, weights_only=False)
    del content["lambda_range"]
    torch.save(content, path)
    out = tmp_path / "image.safetensors"
    with pytest.raises(SystemExit):
        export.main(export_arguments(path, out, "--training", "x"))
    assert "does not record its lambdas" in capsys.readouterr().err
    assert not out.exists()
    export.main(export_arguments(path, out, "--training", "x", "--lambda-range", "0.001", "0.1"))
    assert read_card(out).lambda_range == (0.001, 0.1)


def test_wrong_arguments(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        export.main(export_arguments(tmp_path / "absent.ckpt", tmp_path / "a.safetensors", "--training", "x"))
    with pytest.raises(SystemExit):
        export.main(export_arguments(tmp_path / "absent.ckpt", tmp_path / "a.bin", "--training", "x"))
    assert "must end in .safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        card_module.main(["--weights", str(tmp_path / "absent.safetensors")])
