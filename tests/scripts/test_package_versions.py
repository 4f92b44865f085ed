"""Tests of what reports say of packages."""

import importlib.metadata

import latentpress
from latentpress.scripts.package_versions import package_versions


def test_what_is_installed() -> None:
    found = package_versions(["numpy", "no-such-package"])
    assert found == {"numpy": importlib.metadata.version("numpy"), "no-such-package": "not installed"}


def test_a_checkout_that_is_not_installed(monkeypatch) -> None:
    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert package_versions(["latentpress", "numpy"]) == {
        "latentpress": latentpress.__version__,
        "numpy": "not installed",
    }
