"""Encoding that is killed leaves the old file, the new one or none; and the script notices if not."""

import signal
import sys

import pytest

from latentpress.scripts import check_kills
from latentpress.scripts.check_kills import kill_again_and_again

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")

CARELESS = """
import sys, time
with open(sys.argv[1], "wb") as file:
    for _ in range(100):
        file.write(b"part")
        file.flush()
        time.sleep(0.005)
"""


def test_encode(repository, capsys):
    weights = repository / "tests" / "golden" / "v1" / "image_tiny.safetensors"
    assert (
        check_kills.main(["--kills", "4", "--width", "64", "--height", "48", "--weights", str(weights)]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("4 kills after ")
    assert lines[-1].endswith("half a file: 0")


def test_half_files_are_found(tmp_path):
    out = tmp_path / "out" / "file"
    kills = kill_again_and_again([sys.executable, "-c", CARELESS, str(out)], out, 6, seed=1)
    assert len(kills) == 6
    assert "half a file" in {kill.left for kill in kills}
