"""What every test shares."""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# A busy machine is no failure, and what is searched is the same in every run.
settings.register_profile("latentpress", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("latentpress")

THREADS = 2

# Set before torch is loaded: the first parallel region reads it.
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_sessionstart() -> None:
    """Hold torch to as many threads as the smallest machine that runs the tests has cores."""
    import torch

    torch.set_num_threads(THREADS)


@pytest.fixture
def compressai_models() -> Iterator[ModuleType]:
    """``compressai.models``; a test that asks for it is skipped where CompressAI is not installed."""
    from latentpress.scripts.compressai_peer import import_compressai

    try:
        import_compressai()
    except ModuleNotFoundError:
        pytest.skip("CompressAI is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield importlib.import_module("compressai.models")


@pytest.fixture(scope="session")
def field_helper() -> ModuleType:
    """The module that makes a tiny field codec and the waves that it is for, ``codecs/field_weights.py``."""
    return _module_of_codecs("field_weights")


@pytest.fixture(scope="session")
def shape_helper() -> ModuleType:
    """The module that makes the weights of a tiny shape codec, ``codecs/shape_weights.py``."""
    return _module_of_codecs("shape_weights")


def _module_of_codecs(name: str) -> ModuleType:
    """A module beside the tests of codecs; tests are no packages, so it cannot be imported."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "codecs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
