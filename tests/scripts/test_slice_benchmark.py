"""The slice benchmark compares two networks that differ in their schedule only."""

import dataclasses

import pytest
import torch

from latentpress.models.mlic.schedule import SliceSchedule
from latentpress.scripts import slice_benchmark
from latentpress.scripts.slice_benchmark import main, random_codec, report, serial_config


@pytest.fixture(scope="module")
def config() -> dict:
    """Of a network of eight slices that is quick to decode."""
    from latentpress.models.image.families import build_image_max_network
    from latentpress.models.mlic.design import SliceContextDesign

    network = build_image_max_network(
        channels=16,
        depth=1,
        deep_channels=16,
        deep_depth=1,
        latent_channels=16,
        hyper_channels=8,
        hyper_width=8,
        context_channels=8,
        schedule=SliceSchedule.grouped(8, 2),
        context=SliceContextDesign(8, 8),
    )
    return dict(network.config)


def test_only_the_schedule_is_another_one(config) -> None:
    serial = serial_config(config)
    assert {name for name in config if config[name] != serial[name]} == {"schedule"}
    assert SliceSchedule.from_config(serial["schedule"]) == SliceSchedule.serial(8)


def test_weights_of_the_same_numbers(config) -> None:
    codecs = [random_codec("image-max", found, seed=3) for found in (config, config, serial_config(config))]
    assert codecs[0].fingerprint == codecs[1].fingerprint != codecs[2].fingerprint


def test_both_are_timed(config, monkeypatch) -> None:
    decoded = []
    for name in ("decompress", "_decode_latent"):
        original = getattr(slice_benchmark.ImageCodec, name)

        def counted(codec, *arguments, name=name, original=original):
            decoded.append((name, codec.fingerprint))
            return original(codec, *arguments)

        monkeypatch.setattr(slice_benchmark.ImageCodec, name, counted)
    table = report("image-max", config, torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), 1)
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["entropy", "whole"]
    both = {random_codec("image-max", found).fingerprint for found in (config, serial_config(config))}
    assert set(decoded) == {(name, codec) for name in ("decompress", "_decode_latent") for codec in both}


def test_weights_without_slices(capsys) -> None:
    assert main(["--weights", "image", "--repetitions", "1"]) == 1
    assert "these weights have no slices" in capsys.readouterr().err


def test_configs_are_not_changed() -> None:
    grouped = {"schedule": dataclasses.asdict(SliceSchedule.grouped(4, 2))}
    before = {"schedule": dict(grouped["schedule"])}
    serial_config(grouped)
    assert grouped == before
