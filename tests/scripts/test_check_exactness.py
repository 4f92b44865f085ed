"""Streams made with one instruction set and number of threads decode with another, symbol for symbol."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs.weights import shipped_weights
from latentpress.scripts.check_exactness import main


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory):
    """One picture with edges, texture and flat areas, of odd size."""
    folder = tmp_path_factory.mktemp("pictures")
    rows, columns = np.mgrid[:203, :149]
    waves = 127 + 80 * np.sin(rows / 7) * np.cos(columns / 11)
    noise = np.random.default_rng(5).normal(0, 25, (203, 149)) * (columns > 70)
    steps = 60 * ((rows // 40 + columns // 30) % 2)
    pixels = np.stack([waves + noise, waves + steps, 255 - waves + noise], axis=-1)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "scene.png")
    return folder


@pytest.fixture(params=["golden", "shipped"])
def weights(request, repository):
    """The tiny model of the golden streams, and the weights that ship."""
    if request.param == "golden":
        return str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")
    return str(shipped_weights()["image"])


def elsewhere(*arguments):
    """Runs the script in a process with the plainest instruction set and one thread."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "latentpress.scripts.check_exactness", *arguments, "--threads", "1"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_plain_to_native(picture_folder, weights, tmp_path, capsys):
    made = elsewhere("encode", "--data", str(picture_folder), "--out", str(tmp_path), "--weights", weights)
    assert made.returncode == 0, made.stderr
    assert "DEFAULT" in made.stdout
    assert main(["verify", str(tmp_path), "--weights", weights, "--threads", "2"]) == 0
    assert "verified 5 streams" in capsys.readouterr().out


def test_native_to_plain(picture_folder, weights, tmp_path):
    encode = ["encode", "--data", str(picture_folder), "--out", str(tmp_path), "--weights", weights]
    assert main([*encode, "--threads", "2"]) == 0
    verified = elsewhere("verify", str(tmp_path), "--weights", weights)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "verified 5 streams on cpu (DEFAULT" in verified.stdout


def test_a_mismatch_is_found(picture_folder, tmp_path, repository, capsys):
    weights = str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")
    encode = ["encode", "--data", str(picture_folder), "--out", str(tmp_path), "--weights", weights]
    assert main([*encode, "--qualities", "50"]) == 0
    (stream,) = tmp_path.glob("*.lpz")
    stream.write_bytes(stream.read_bytes()[:-1] + b"\0")
    assert main(["verify", str(tmp_path), "--weights", weights]) == 1
    assert "1 mismatches" in capsys.readouterr().out


def test_no_streams_is_a_failure(tmp_path, repository):
    weights = str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")
    assert main(["verify", str(tmp_path), "--weights", weights]) == 1
