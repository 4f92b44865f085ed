"""The names that `latentpress` itself offers."""

import importlib.metadata

import pytest

import latentpress


def test_every_public_name_is_there() -> None:
    for name in latentpress.__all__:
        assert getattr(latentpress, name) is not None
    assert set(latentpress.__all__) <= set(dir(latentpress))


def test_names_are_looked_up_where_they_are_declared() -> None:
    assert set(latentpress._HOME) == set(latentpress.__all__) - {"__version__"}


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        latentpress.compres  # noqa: B018


def test_every_stream_error_is_one() -> None:
    names = ["CorruptStream", "LimitExceeded", "TruncatedStream", "UnknownModel", "UnsupportedVersion"]
    for name in names:
        assert issubclass(getattr(latentpress, name), latentpress.StreamError)


def test_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("latentpress") == latentpress.__version__
