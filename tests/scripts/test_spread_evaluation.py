"""An evaluation over several processes measures every picture once, and goes on where it was stopped."""

import json
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs.registry import weights_path
from latentpress.codecs.weights import read_weight_file
from latentpress.scripts import spread_evaluation
from latentpress.scripts.rate_distortion import Row
from latentpress.scripts.spread_evaluation import main

NAMES = ("a.png", "b.png", "c.png")
CONDITIONS = {"date": "2026-01-01T00:00:00+00:00", "device": "cuda", "python": "3", "machine": "m"}


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


class Processes:
    """Stands in for processes: each writes the report that ``latentpress eval`` would write."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, str | None]] = []
        self.options: list[dict[str, str]] = []
        self.broken: set[str] = set()
        self.at_once = 0
        self._running: list[str | None] = []
        self._lock = threading.Lock()

    def run(self, command, env, **how):
        options = dict(zip(command[4::2], command[5::2], strict=True))
        (picture,) = Path(options["--data"]).iterdir()
        with Image.open(picture) as image:
            assert image.size == (64, 48)
        gpu = env.get("CUDA_VISIBLE_DEVICES")
        with self._lock:
            assert gpu is None or gpu not in self._running
            self._running.append(gpu)
            self.at_once = max(self.at_once, len(self._running))
            self.measured.append((picture.name, gpu))
            self.options.append(options)
        threading.Event().wait(0.05)
        with self._lock:
            self._running.remove(gpu)
        if picture.name in self.broken:
            return subprocess.CompletedProcess(command, 1, "", "warning\nout of memory\n")
        self._write(options, picture.name)
        return subprocess.CompletedProcess(command, 0, "", "")

    def _write(self, options: dict[str, str], name: str) -> None:
        rows = []
        for quality in map(float, options["--qualities"].split(",")):
            size = round(100 + quality)
            rows.append(
                Row(name, 64, 48, quality, size, size * 8 / 3072, None, 30 + quality / 10, None, 1, 1)
            )
        weights = read_weight_file(weights_path(options["--codec"]))
        report = {
            **CONDITIONS,
            "codec": options["--codec"],
            "effort": int(options["--effort"]),
            "fingerprint": weights.fingerprint().hex(),
            "threads": 1,
            "versions": {},
            "rows": [row._asdict() for row in rows],
        }
        (Path(options["--out"]) / "image.json").write_text(json.dumps(report))


@pytest.fixture
def processes(monkeypatch) -> Processes:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Processes()
    monkeypatch.setattr(spread_evaluation.subprocess, "run", found.run)
    return found


def test_a_process_on_each_gpu(pictures, processes, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    asked = ["--data", str(pictures), "--out", str(out), "--qualities", "20,60", "--effort", "3"]
    assert main([*asked, "--gpus", "0", "5", "--threads", "4"]) == 0
    assert sorted(name for name, _ in processes.measured) == list(NAMES)
    assert {gpu for _, gpu in processes.measured} == {"0", "5"}
    assert processes.at_once == 2
    for options in processes.options:
        assert (options["--device"], options["--effort"], options["--threads"]) == ("cuda", "3", "4")
    report = json.loads((out / "image.json").read_text())
    assert [(row["picture"], row["quality"]) for row in report["rows"]] == [
        (name, quality) for name in NAMES for quality in (20, 60)
    ]
    assert report["effort"] == 3
    assert report["command"].startswith("python -m latentpress.scripts.spread_evaluation --data ")
    printed = capsys.readouterr().out
    assert "3 pictures, 0 of them measured before" in printed
    assert "effort 3" in printed
    assert sorted(path.name for path in out.rglob("*")) == sorted(
        ["parts", "image.json", *(f"{name}.json" for name in NAMES)]
    )


def test_what_failed_is_tried_again_and_nothing_else(pictures, processes, tmp_path, capsys) -> None:
    asked = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--qualities", "20,60"]
    processes.broken = {"b.png"}
    assert main(asked) == 1
    out, err = capsys.readouterr()
    assert "1 of 3 pictures failed: no report" in out
    assert "b.png" in err
    assert "out of memory" in err
    assert not (tmp_path / "out" / "image.json").exists()

    processes.broken.clear()
    processes.measured.clear()
    assert main([*asked, "--jobs", "2"]) == 0
    assert processes.measured == [("b.png", None)]
    assert "3 pictures, 2 of them measured before" in capsys.readouterr().out
    assert processes.options[-1]["--device"] == "cpu"


@pytest.mark.parametrize("change", [["--effort", "1"], ["--qualities", "20,70"]])
def test_another_question_is_measured_anew(pictures, processes, tmp_path, change) -> None:
    asked = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--qualities", "20,60"]
    assert main(asked) == 0
    processes.measured.clear()
    assert main([*asked, *change]) == 0
    assert sorted(name for name, _ in processes.measured) == list(NAMES)


def test_parts_that_are_no_reports_are_measured_anew(pictures, processes, tmp_path) -> None:
    asked = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--qualities", "20,60"]
    assert main(asked) == 0
    processes.measured.clear()
    (tmp_path / "out" / "parts" / "c.png.json").write_text("{")
    other = tmp_path / "out" / "parts" / "a.png.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "fingerprint": "00"}))
    assert main(asked) == 0
    assert sorted(name for name, _ in processes.measured) == ["a.png", "c.png"]


def test_unknown_weights(pictures, processes, tmp_path, capsys) -> None:
    assert main(["--data", str(pictures), "--out", str(tmp_path / "out"), "--codec", "nothing"]) == 1
    assert "unknown codec 'nothing'" in capsys.readouterr().err
    assert not processes.measured


def test_real_processes(pictures, tmp_path) -> None:
    (pictures / "c.png").unlink()
    asked = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--qualities", "10,90"]
    assert main([*asked, "--jobs", "2", "--threads", "1"]) == 0
    report = json.loads((tmp_path / "out" / "image.json").read_text())
    assert report["pictures"] == 2
    assert report["monotone"]
    assert report["threads"] == 1
    assert report["fingerprint"] == read_weight_file(weights_path("image")).fingerprint().hex()
    assert os.listdir(tmp_path / "out" / "parts")
