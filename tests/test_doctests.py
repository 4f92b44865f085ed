"""Runs the examples in the docstrings of the whole library.

Pytest's own collection of doctests goes by file name and would import codecs/ under the wrong name, so the
modules are looked up by the names they are installed under.
"""

import doctest
import importlib
import pkgutil

import pytest

# Modules that import what the tests do not install, and what that is.
OPTIONAL = {
    "latentpress.codecs.zarr_codec": "zarr",
    "latentpress.train.depthwise_kernels": "triton",
}


def all_modules() -> list[str]:
    names = ["latentpress"]
    for folder in ("assets", "codecs", "configs", "models", "scripts", "train"):
        package = importlib.import_module(f"latentpress.{folder}")
        names.append(package.__name__)
        names += [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return names


@pytest.mark.parametrize("name", all_modules())
def test_examples(name: str) -> None:
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples in {name} failed"
