"""Learned and generative codecs for images, 3D shapes and simulation fields.

Importing this package is cheap: the public names below are looked up on first use, so reading the header of a
stream never loads torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentpress.codecs import Codec, Header, available, inspect, load
    from latentpress.codecs.bitstream import (
        CorruptStream,
        LimitExceeded,
        Limits,
        StreamError,
        TruncatedStream,
        UnknownModel,
        UnsupportedVersion,
    )

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "CorruptStream",
    "Header",
    "LimitExceeded",
    "Limits",
    "StreamError",
    "TruncatedStream",
    "UnknownModel",
    "UnsupportedVersion",
    "__version__",
    "available",
    "inspect",
    "load",
]

_HOME = {
    "Codec": "latentpress.codecs",
    "Header": "latentpress.codecs",
    "available": "latentpress.codecs",
    "inspect": "latentpress.codecs",
    "load": "latentpress.codecs",
    "CorruptStream": "latentpress.codecs.bitstream",
    "LimitExceeded": "latentpress.codecs.bitstream",
    "Limits": "latentpress.codecs.bitstream",
    "StreamError": "latentpress.codecs.bitstream",
    "TruncatedStream": "latentpress.codecs.bitstream",
    "UnknownModel": "latentpress.codecs.bitstream",
    "UnsupportedVersion": "latentpress.codecs.bitstream",
}


def __getattr__(name: str) -> Any:
    """Look up a public name on first use and keep it (PEP 562)."""
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, whether they were looked up yet or not."""
    return sorted({*globals(), *__all__})
