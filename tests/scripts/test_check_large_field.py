"""A small field through the check of large ones: streamed, and by a cluster that loses a worker."""

import subprocess
import sys

import pytest

from latentpress.scripts import check_large_field


def test_stream_keeps_the_bound_and_memory_is_looked_at(capsys) -> None:
    arguments = ["--only", "stream", "--gib", "0.0005", "--chunk", "24"]
    assert check_large_field.main(arguments) == 0
    assert "stream: ok: 51^3" in capsys.readouterr().out
    assert check_large_field.main([*arguments, "--memory-gib", "0.01"]) == 1
    assert "stream: FAILED" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_worker_loses_nothing() -> None:
    """In a process of its own, because a cluster starts threads and processes."""
    pytest.importorskip("distributed")
    pytest.importorskip("zarr", minversion="3")
    command = [sys.executable, "-P", "-m", "latentpress.scripts.check_large_field", "--only", "cluster"]
    # Most of the memory is that of the libraries, in every process, and differs between machines.
    command += ["--gib", "0.002", "--chunk", "16", "--memory-gib", "4"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "cluster: ok: 81^3" in found.stdout
    share = int(found.stdout.split("killed at ")[1].split(" %")[0])
    assert 25 <= share < 100
