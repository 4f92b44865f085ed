"""Holds in an environment with nothing but the core dependencies, numpy 2 and the test runner.

`make core` makes it. The name keeps this file out of an ordinary run, where the extras are installed. The
tests of the bitstream layer and of the golden streams (``test_golden*.py``) run in the same environment, so
those too import nothing but core dependencies, pytest and Hypothesis.
"""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

import latentpress

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_CORE = (
    "compressai",
    "jsonargparse",
    "lightning",
    "matplotlib",
    "scipy",
    "skimage",
    "torchmetrics",
)


def picture(height: int, width: int) -> torch.Tensor:
    """A smooth colour picture with an edge in it, the same everywhere: (3, height, width), uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.where(x > y, 200, 40)]
    return torch.from_numpy(np.stack(planes).astype(np.uint8))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    error = float(((a.double() - b.double()) ** 2).mean())
    return 10.0 * float(np.log10(255.0**2 / max(error, 1e-10)))


def test_numpy_is_2() -> None:
    assert int(np.__version__.partition(".")[0]) >= 2


@pytest.mark.parametrize("name", NOT_CORE)
def test_extras_are_absent(name: str) -> None:
    assert importlib.util.find_spec(name) is None, f"{name} is installed, so this proves nothing"


def test_library_comes_from_the_wheel() -> None:
    home = Path(latentpress.__file__).resolve()
    assert home != ROOT / "latentpress" / "__init__.py"
    assert importlib.metadata.version("latentpress") == latentpress.__version__


def test_header_is_read_without_torch() -> None:
    program = (
        "import latentpress, sys; latentpress.inspect, latentpress.Limits; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-I", "-c", program], check=False).returncode == 0


def test_command_is_installed() -> None:
    command = Path(sys.executable).with_name("latentpress")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_ship() -> None:
    committed = {path.name: path for path in (ROOT / "assets" / "weights").glob("*.safetensors")}
    assert "image.safetensors" in committed
    for name, path in committed.items():
        shipped = resources.files("latentpress.assets").joinpath("weights", name).read_bytes()
        assert hashlib.sha256(shipped).digest() == hashlib.sha256(path.read_bytes()).digest(), name


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_image_codec_with_shipped_weights(quality: int) -> None:
    assert "image" in latentpress.available()
    codec = latentpress.load("image")
    original = picture(96, 130)
    data = codec.compress(original, quality=quality)
    assert isinstance(data, bytes)
    assert latentpress.inspect(data) is not None
    restored = codec.decompress(data)
    assert restored.dtype == torch.uint8
    assert restored.shape == original.shape
    assert psnr(original, restored) > 20.0
    with pytest.raises(latentpress.StreamError):
        codec.decompress(data[:-1])
