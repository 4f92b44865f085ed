"""Inputs that once made a decoder misbehave no longer do, and the fuzzer that finds such inputs runs."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from latentpress.codecs.bitstream import CodecId, SectionType, StreamError, TableSet, write_container
from latentpress.codecs.image_transforms import ImageTransforms
from latentpress.codecs.registry import load
from latentpress.scripts import fuzz, fuzz_campaign
from latentpress.scripts.fuzz_codecs import FAMILIES
from latentpress.scripts.fuzz_symbols import HostileSymbols, hostile_symbols
from latentpress.scripts.fuzz_targets import TARGETS, Target, make_target

ROOT = Path(__file__).resolve().parent.parent.parent
FOUND = ROOT / "tests" / "fuzz"
GOLDEN = ROOT / "tests" / "golden" / "v1"
FAMILY_OF = {
    "picture": "image",
    "field-blocks": "field",
    "field-energies": "field",
    **{f"{family}-symbols": family for family in FAMILIES},
}
CASES = sorted(path for path in FOUND.rglob("*") if path.is_file())


def helpers(name: str):
    path = ROOT / "tests" / "codecs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder with small weights of every family."""
    folder = tmp_path_factory.mktemp("weights")
    for family in ("image", "image-max", "index", "shape"):
        name = f"{family}_tiny.safetensors"
        (folder / name).write_bytes((GOLDEN / name).read_bytes())
    (folder / "field_tiny.safetensors").write_bytes(helpers("tiny_field").make_weights().to_bytes())
    return folder


@pytest.fixture(scope="module")
def targets(weights) -> dict[str, Target]:
    """All of them; one codec for both targets of a family."""
    return {
        name: make_target(name, str(weights / f"{FAMILY_OF.get(name, name)}_tiny.safetensors"))
        for name in TARGETS
    }


def test_every_target_is_offered_and_every_case_belongs_to_one():
    assert set(fuzz.TARGETS) == set(TARGETS)
    assert set(fuzz.FAMILIES) == set(FAMILIES)
    assert {path.parent.name for path in CASES} <= set(TARGETS)
    assert len(CASES) > 5


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_found_cases(targets, path):
    targets[path.parent.name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_ruins(targets, name):
    target = targets[name]
    assert target.seeds
    for seed in target.seeds:
        target.run(seed)
        target.run(seed[: len(seed) // 2])
        target.run(seed + b"\0")
        target.run(seed.replace(b"\0", b"\xff"))


def test_a_fault_is_not_hidden(targets, monkeypatch):
    """A target that swallowed everything would find nothing."""

    def broken(data: bytes, *_: object) -> None:
        raise IndexError

    monkeypatch.setattr("latentpress.scripts.fuzz_targets.read_container", broken)
    with pytest.raises(IndexError):
        targets["container"].run(b"")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fault_of_a_codec_is_not_hidden(targets, family, monkeypatch):
    """Neither behind the entropy coder nor before it."""

    def broken(*_: object, **__: object) -> None:
        raise IndexError

    module = {"image-max": "image", "field": "field_decoding", "shape": "shape_model"}.get(family, family)
    monkeypatch.setattr(f"latentpress.codecs.{module}.read_container", broken)
    monkeypatch.setattr("latentpress.codecs.image.read_cut_container", broken)
    monkeypatch.setattr("latentpress.codecs.index.find_packets", broken)
    for name in (family, f"{family}-symbols"):
        with pytest.raises(IndexError):
            targets[name].run(targets[name].seeds[0])


class TestHostileSymbols:
    TABLES = TableSet([2**23, 2**22, 2**22, 2**23, 2**23], [3, 2], [-1, 7])

    def found(self, wanted: int) -> np.ndarray:
        """Symbols of the first words that choose them in one of the four ways."""
        indexes = np.tile(np.array([0, 1], np.uint8), 500)
        for number in range(100):
            decoder = HostileSymbols(bytes([number]))
            if decoder._choose.__name__ == ("_usual", "_ends", "_some_escapes", "_all_escapes")[wanted]:
                return decoder.get(indexes, self.TABLES).reshape(-1, 2)
        raise AssertionError("no such words")

    def test_symbols_of_the_tables(self):
        for way in (0, 1):
            symbols = self.found(way)
            assert set(symbols[:, 0].tolist()) == {-1, 0}
            assert set(symbols[:, 1].tolist()) == {7}

    def test_escapes(self):
        some, everywhere = self.found(2), self.found(3)
        assert 0 < (np.abs(some) >= 1000).mean() < 0.1
        assert len(set(np.abs(everywhere).ravel().tolist())) == 1
        assert np.abs(everywhere).min() >= 1000

    def test_rows_choose_what_has_a_frequency(self):
        frequencies = np.array([[0, 5, 0, 7], [1, 0, 0, 0]])
        drawn = {tuple(HostileSymbols(bytes([k])).get_rows(frequencies).tolist()) for k in range(40)}
        assert drawn == {(1, 0), (3, 0)}

    def test_they_reach_the_synthesis(self, weights, monkeypatch):
        """What mutated bytes hardly ever do, because of the checksums."""
        seen = []
        synthesise = ImageTransforms.synthesise
        monkeypatch.setattr(
            ImageTransforms, "synthesise", lambda self, y, q: seen.append(y) or synthesise(self, y, q)
        )
        target = make_target("image-symbols", str(weights / "image_tiny.safetensors"))
        for seed in target.seeds:
            for number in range(8):
                target.run(seed + bytes([number]))
        # Some symbols are beyond what the codec takes.
        assert len(seen) > 4 * len(target.seeds)
        assert max(float(y.abs().max()) for y in seen) > 30_000

    def test_they_are_gone_afterwards(self, weights):
        codec = load(weights / "image_tiny.safetensors")
        stream = make_target("image", str(weights / "image_tiny.safetensors")).seeds[0]
        whole = write_container(CodecId.IMAGE, codec.fingerprint, [(SectionType.PAYLOAD, stream)])
        damaged = stream[:-1] + bytes([stream[-1] ^ 1])
        other = write_container(CodecId.IMAGE, codec.fingerprint, [(SectionType.PAYLOAD, damaged)])
        with hostile_symbols():
            codec.decompress(other)
        codec.decompress(whole)
        with pytest.raises(StreamError):
            codec.decompress(other)


class TestCampaign:
    def test_shares(self):
        assert set(fuzz_campaign.SHARES) == set(TARGETS)
        assert sum(fuzz_campaign.SHARES.values()) == 100
        codecs = sum(
            share for name, share in fuzz_campaign.SHARES.items() if name in FAMILY_OF or name in FAMILIES
        )
        assert codecs >= 50

    def test_outcomes(self, monkeypatch, capsys, tmp_path):
        """A stand-in for libFuzzer: one target fails, one has no weights."""
        asked = {}

        def run(command, **_: object):
            target = command[3]
            asked[target] = int(command[command.index("--runs") + 1])
            log = (
                f"#4\tINITED cov: 10 ft: 11\n#{asked[target]}\tDONE   cov: 30 ft: 40\n"
                f"slowest input so far: 1.25 s\nstat::number_of_executed_units: {asked[target]}\n"
                "stat::peak_rss_mb:              77\n"
            )
            # The card's first input fails, and the search goes on without it.
            fails = target == "card" and asked["card"] == 20
            if fails:
                log = log.replace(f"units: {asked[target]}", "units: 1").replace(f"#{asked[target]}", "#1")
            return subprocess.CompletedProcess(command, 77 if fails else 0, "", log)

        monkeypatch.setattr(fuzz_campaign.subprocess, "run", run)
        monkeypatch.setitem(sys.modules, "atheris", object())
        monkeypatch.setattr(fuzz_campaign, "shipped_weights", dict)
        folder = tmp_path / "weights"
        folder.mkdir()
        for family in ("image", "index", "shape", "field"):
            shutil.copy(GOLDEN / f"{family}_tiny.safetensors", folder)
        out_path = tmp_path / "campaign.json"
        code = fuzz_campaign.main(
            ["--inputs", "1000", "--out", str(out_path), "--weights", str(folder), "--corpus", str(tmp_path)]
        )
        assert code == 1
        found = {one["target"]: one for one in json.loads(out_path.read_text())["outcomes"]}
        assert set(found) == set(TARGETS)
        assert (found["card"]["failed"], found["card"]["inputs"]) == (1, 20)
        assert (found["card"]["slowest"], found["card"]["peak_mb"]) == (1.25, 77)
        assert (found["container"]["edges"], found["container"]["seed_edges"]) == (30, 10)
        assert found["image-max"]["skipped"] == "no weights"
        assert {"image", "index", "shape", "field", "shape-symbols"} <= set(asked)
        assert sum(one["inputs"] for one in found.values()) == 950  # all but the skipped 5 %
        out = capsys.readouterr().out
        assert out.splitlines()[-1].split()[:2] == ["all", "950"]
        # In parts: what was found about the other targets stays.
        assert fuzz_campaign.main(["--inputs", "10", "--out", str(out_path), "--targets", "symbols"]) == 1
        again = {one["target"]: one["inputs"] for one in json.loads(out_path.read_text())["outcomes"]}
        assert (again["symbols"], again["container"], len(again)) == (10, 150, len(TARGETS))

    def test_without_atheris(self, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "atheris", None)
        assert fuzz_campaign.main([]) == 1
        assert "pip install atheris" in capsys.readouterr().err


def test_slow_inputs_fail(capsys):
    """By the processor's time, whatever else the machine does."""

    def run(data: bytes) -> None:
        end = time.process_time() + float(data)
        while time.process_time() < end:
            pass

    measured = fuzz.timed(run)
    measured(b"0.15")
    assert "slowest input so far: 0.15 s" in capsys.readouterr().err
    with pytest.raises(AssertionError, match=r"took 2\.\d+ s"):
        measured(b"2.05")


def test_without_atheris(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert fuzz.main(["container"]) == 1
    assert "pip install atheris" in capsys.readouterr().err


def test_the_fuzzer_runs(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    command = [sys.executable, "-m", "latentpress.scripts.fuzz", "container"]
    command += ["--runs", "300", "--seconds", "20", "--corpus", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "number_of_executed_units: 300" in done.stderr
    assert (tmp_path / "seed-0").is_file()
