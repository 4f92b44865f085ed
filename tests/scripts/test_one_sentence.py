"""What goes wrong in users' hands: one sentence on stderr and exit code 1 or 2, whatever it is."""

import errno
import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.codecs import whole_files
from latentpress.scripts.cli import main
from latentpress.scripts.failures import EXTRAS

# Extras that no command needs: they are for scripts, tests and the making of the docs.
UNUSED_BY_COMMANDS = {"compare", "dev", "docs", "all"}
# Where the name that is imported is not that of the package.
IMPORT_NAMES = {"libigl": "igl", "scikit-image": "skimage"}


# Runs a command where a package is as if it were not installed.
WITHOUT = """
import importlib.abc
import sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


sys.meta_path.insert(0, Missing())
from latentpress.scripts.cli import main

sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, repository) -> Path:
    """A working folder with files of every kind, right and wrong."""
    monkeypatch.chdir(tmp_path)
    golden = repository / "tests" / "golden" / "v1"
    stream = (golden / "image_rgb_64x96_q50.lpz").read_bytes()
    (tmp_path / "photo.lpz").write_bytes(stream)
    (tmp_path / "cut.lpz").write_bytes(stream[:100])
    (tmp_path / "damaged.lpz").write_bytes(stream[:200] + b"!" + stream[201:])
    (tmp_path / "tiny.safetensors").write_bytes((golden / "image_tiny.safetensors").read_bytes())
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "text.safetensors").write_text("text")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "photo.png")
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "pictures" / "photo.png")
    np.save(tmp_path / "flow.npy", np.zeros((3, 16, 16), np.float32))
    for name in ("model.glb", "model.ply", "flow.h5", "flow.nc"):
        (tmp_path / name).write_bytes(b"binary")
    (tmp_path / "flow.zarr").mkdir()
    return tmp_path


def sentence_of(command: str, capsys) -> tuple[int, str]:
    """Runs a command that must fail; its exit code and what it said."""
    code = main(command.split())
    found = capsys.readouterr().err
    assert found.startswith("latentpress: error: ")
    assert found.count("\n") == 1
    assert found.endswith("\n")
    return code, found.removeprefix("latentpress: error: ").strip()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("encode text.png", 1, "text.png: not a picture"),
        ("encode absent.png", 1, "absent.png: No such file"),
        ("encode model.glb --codec image", 1, "model.glb is a shape, and image is no shape codec"),
        ("decode photo.png -o out.png", 1, "photo.png: not a latentpress stream"),
        ("decode cut.lpz -o out.png", 1, "cut.lpz: section"),
        ("decode damaged.lpz -o out.png", 1, "damaged.lpz: "),
        ("info photo.png", 1, "photo.png: not a latentpress stream"),
        ("info pictures", 1, "pictures: Is a directory"),
        ("verify photo.png", 1, "photo.png: not a latentpress stream"),
        ("eval --data . --codec tiny.safetensors", 1, "text.png: not a picture"),
        ("decode photo.lpz", 1, "photo.png exists: use --force"),
        ("encode photo.png --quality 101", 2, "0 to 100"),
        ("encode", 2, "PICTURE"),
    ],
)
def test_wrong_files_and_options(folder, capsys, command, code, words):
    found, sentence = sentence_of(command, capsys)
    assert found == code
    assert words in sentence


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("encode photo.png -o out.lpz --codec nonsense", "unknown codec 'nonsense': available are"),
        ("encode photo.png -o out.lpz --codec absent.safetensors", "no weight file at absent.safetensors"),
        ("encode photo.png -o out.lpz --codec text.safetensors", "text.safetensors"),
        ("decode photo.lpz -o out.png", "the stream needs the model"),
        ("decode photo.lpz -o out.png --codec index", "this is a stream of the codec image, not index"),
        ("encode photo.png -o out.lpz --codec shape", "photo.png: "),
        ("encode photo.png -o out.lpz --codec field", "photo.png: "),
        ("encode flow.npy --codec image", "flow.npy: "),
    ],
)
def test_wrong_codecs(folder, capsys, command, words):
    code, sentence = sentence_of(command, capsys)
    assert code in (1, 2)
    assert words in sentence
    assert not list(folder.glob("out.*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["encode photo.png", "decode photo.lpz -o out.png"])
def test_no_gpu(folder, capsys, command):
    code, sentence = sentence_of(f"{command} --codec tiny.safetensors --device cuda --force", capsys)
    assert (code, sentence.partition(": ")[2]) == (
        1,
        "there is no CUDA device that torch can use: try --device cpu",
    )


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("h5py", "field", "encode flow.h5"),
        ("zarr", "field", "encode flow.zarr"),
        ("xarray", "field", "encode flow.nc"),
        ("trimesh", "shape", "encode model.glb"),
        ("distributed", "dask", "encode pictures --codec tiny.safetensors --scheduler tcp://127.0.0.1:1"),
        ("starlette", "view", "view"),
        ("lightning", "train", "train"),
        ("matplotlib", "demo", "eval --data pictures --codec tiny.safetensors"),
        ("skimage", "demo", "demo"),
    ],
)
def test_missing_extras(folder, package, extra, command):
    """In a process of its own: here other tests may have imported the package."""
    words = [sys.executable, "-c", WITHOUT, package, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    sentence = f"this needs {package}: pip install 'latentpress[{extra}]'"
    assert (done.returncode, done.stderr) == (1, f"latentpress: error: {sentence}\n")


def test_every_package_of_an_extra_is_known(repository):
    content = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))
    for extra, packages in content["project"]["optional-dependencies"].items():
        if extra in UNUSED_BY_COMMANDS:
            continue
        for package in packages:
            name = package.partition(">=")[0].partition("[")[0].strip()
            if name != "latentpress":
                assert IMPORT_NAMES.get(name, name.replace("-", "_")) in EXTRAS, package


class TestFullDisk:
    """The disk is a stand-in: nothing that is written arrives."""

    @pytest.fixture
    def full(self, monkeypatch) -> None:
        real = whole_files._open_part

        class Full(io.FileIO):
            def write(self, data) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def open_full(folder):
            part, name = real(folder)
            part.close()
            return Full(name, "r+b"), name

        monkeypatch.setattr(whole_files, "_open_part", open_full)

    @pytest.mark.parametrize(
        "command",
        [
            "encode photo.png -o out.lpz --codec tiny.safetensors",
            "decode photo.lpz -o out.png --codec tiny.safetensors",
            "encode flow.npy -o out.lpz --max-error 0.1",
        ],
    )
    def test_one_sentence_and_nothing_left(self, folder, full, capsys, command):
        before = sorted(folder.rglob("*"))
        code, sentence = sentence_of(command, capsys)
        assert code == 1
        assert sentence.endswith(": No space left on device")
        assert sorted(folder.rglob("*")) == before

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
    def test_standard_output(self, folder):
        command = [sys.executable, "-m", "latentpress.scripts.cli", "encode", "photo.png", "-o", "-"]
        with open("/dev/full", "wb") as device:
            done = subprocess.run(
                [*command, "--codec", "tiny.safetensors"], stdout=device, stderr=subprocess.PIPE, check=False
            )
        assert done.returncode == 1
        assert done.stderr == b"latentpress: error: photo.png: No space left on device\n"
