"""Inputs that once made a decoder misbehave no longer do, and the fuzzer that finds such inputs runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentpress.scripts import fuzz
from latentpress.scripts.fuzz_targets import TARGETS, Target, make_target

ROOT = Path(__file__).resolve().parent.parent.parent
FOUND = ROOT / "tests" / "fuzz"
WEIGHTS = ROOT / "tests" / "golden" / "v1" / "image_tiny.safetensors"
CASES = sorted(path for path in FOUND.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    return {name: make_target(name, str(WEIGHTS)) for name in TARGETS}


def test_every_target_is_offered_and_every_case_belongs_to_one():
    assert set(fuzz.TARGETS) == set(TARGETS)
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
