"""Model folders, written, read, and taken from a hub."""

import dataclasses
import json
import sys
import types

import pytest

from latentpress.codecs.card import ModelCard, read_card
from latentpress.codecs.hub import from_pretrained, save_pretrained
from latentpress.codecs.weights import WeightFile


@pytest.fixture
def card(tiny_weights) -> ModelCard:
    fingerprint = tiny_weights.fingerprint().hex()
    return ModelCard("tiny", "image", {}, fingerprint, 1, 1, "2025-01-01", "MIT", "", "", (0.1, 1.0))


@pytest.fixture
def folder(tiny_weights, card, tmp_path):
    return save_pretrained(tiny_weights, tmp_path / "models" / "tiny", card)


def test_round_trip(folder, tiny_codec, picture, card):
    codec = from_pretrained(folder)
    assert codec.fingerprint == tiny_codec.fingerprint
    assert codec.compress(picture(20, 20)) == tiny_codec.compress(picture(20, 20))
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert read_card(folder / "card.json") == card
    config = json.loads((folder / "config.json").read_text())
    assert (config["library_name"], config["family"]) == ("latentpress", "image")


def test_without_a_card(tiny_weights, tmp_path):
    save_pretrained(tiny_weights, tmp_path)
    assert from_pretrained(str(tmp_path)).name == "image"
    assert not (tmp_path / "card.json").exists()


def test_by_name_and_by_path(tiny_weights, card, tmp_path, monkeypatch):
    path = tmp_path / "weights" / "tiny.safetensors"
    path.parent.mkdir()
    path.write_bytes(tiny_weights.to_bytes())
    path.with_suffix(".json").write_text(card.to_json())
    monkeypatch.setattr("latentpress.codecs.registry.shipped_weights", lambda: {"tiny": path})
    for number, weights in enumerate(["tiny", path, str(path)]):
        folder = save_pretrained(weights, tmp_path / f"folder{number}")
        assert from_pretrained(folder).fingerprint == tiny_weights.fingerprint()
        assert read_card(folder / "card.json") == card
    with pytest.raises(ValueError, match="unknown codec 'absent'"):
        save_pretrained("absent", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        save_pretrained("absent.safetensors", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_card_of_other_weights(tiny_weights, card, tmp_path):
    with pytest.raises(ValueError, match="not of"):
        save_pretrained(tiny_weights, tmp_path, dataclasses.replace(card, fingerprint="00" * 8))
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_fit_together(folder, tiny_weights):
    other = WeightFile("image", tiny_weights.config | {"depth": 2}, tiny_weights.tensors)
    (folder / "model.safetensors").write_bytes(other.to_bytes())
    with pytest.raises(ValueError, match=r"config\.json says"):
        from_pretrained(folder)


@pytest.mark.parametrize("config", ["", "[]", '{"library_name": "other"}', "[" * 5000])
def test_configuration_of_something_else(folder, config):
    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json is not"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["absent", "./absent/folder", "/absent/folder", "a/b/c"])
def test_no_folder(name):
    with pytest.raises(FileNotFoundError, match="no folder"):
        from_pretrained(name)


class TestHub:
    def test_needs_a_revision(self):
        with pytest.raises(ValueError, match="needs a revision"):
            from_pretrained("owner/tiny")

    def test_fetches_no_more_than_it_reads(self, folder, monkeypatch):
        asked = []
        hub = types.ModuleType("huggingface_hub")

        def snapshot_download(repo_id, *, revision, allow_patterns):
            asked.append((repo_id, revision, sorted(allow_patterns)))
            return str(folder)

        hub.snapshot_download = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        assert from_pretrained("owner/tiny", revision="v1").name == "image"
        assert asked == [("owner/tiny", "v1", ["card.json", "config.json", "model.safetensors"])]
