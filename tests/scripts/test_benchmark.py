"""The benchmark times both sides in turn; nothing here depends on how fast the machine is."""

import importlib.util
import subprocess
import sys

import pytest

from latentpress.scripts import benchmark
from latentpress.scripts.benchmark import Task, interleaved, main


def test_sides_take_turns() -> None:
    order: list[str] = []
    tasks = [
        Task(name, lambda n=name: order.append(n), lambda n=name: order.append(n + "'")) for name in "ab"
    ]
    timings = interleaved(tasks, 3)
    assert order == ["a", "a'", "b", "b'"] * 4
    assert [timing.name for timing in timings] == ["a", "b"]
    assert all(timing.ours >= 0 and timing.peer >= 0 for timing in timings)


def test_without_the_peer(monkeypatch, capsys) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["--part", "coding"]) == 1
    assert "this needs compressai" in capsys.readouterr().err


def test_a_quality_replaces_the_one_of_equal_bytes(monkeypatch) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(benchmark, "benchmark_codec", lambda *arguments: given.append(arguments))
    assert main(["--part", "codec", "--codec", "index", "--quality", "85"]) == 0
    assert main(["--part", "codec", "--repetitions", "3"]) == 0
    assert given == [("index", 7, 2, 85.0), ("image", 3, 2, None)]


def test_serial_decoding_is_timed_once_and_only_if_asked_for(monkeypatch, capsys) -> None:
    decoded: list[str] = []

    class Codec:
        def compress(self, pixels, quality):
            return b"ours"

        def decompress(self, data):
            decoded.append(data.decode())

    class Serial:
        def compress(self, pixels):
            return {"strings": ["theirs"], "shape": (8, 12)}

        def decompress(self, strings, shape):
            decoded.append(strings[0])

    monkeypatch.setattr(benchmark.latentpress, "load", lambda name, device: Codec())
    monkeypatch.setattr(benchmark.compressai_peer, "serial_model", Serial)
    assert main(["--part", "serial", "--codec", "image-max"]) == 0
    assert decoded == ["ours", "ours", "theirs"]  # one to warm up
    assert "'image-max' at quality 50" in capsys.readouterr().out
    for part in ("benchmark_coding", "benchmark_codec"):
        monkeypatch.setattr(benchmark, part, lambda *arguments: None)
    assert main([]) == 0
    assert len(decoded) == 3


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("compressai") is None, reason="the peer is not installed")
def test_coding_runs() -> None:
    command = [
        sys.executable,
        "-m",
        "latentpress.scripts.benchmark",
        "--part",
        "coding",
        "--repetitions",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "million symbols/s" in done.stdout
