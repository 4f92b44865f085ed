"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

from latentpress.codecs import bitstream

MODULES = [module.name for module in pkgutil.iter_modules(bitstream.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(f"{bitstream.__name__}.{name}"))
    assert result.failed == 0
    assert result.attempted > 0
