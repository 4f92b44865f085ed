"""Versions of packages, for reports that say with what they were measured."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

import latentpress

NOT_INSTALLED = "not installed"


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Looks up what is installed.

    Never raises: a report is written when everything has been measured, too late to fail.

    Args:
        names: Distributions, as pip calls them.

    Returns:
        Versions by name. Our own is known without an installation too, as from a checkout on the path.

    Example:
        >>> package_versions(["no-such-package"])
        {'no-such-package': 'not installed'}
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return latentpress.__version__ if name == latentpress.__name__ else NOT_INSTALLED
