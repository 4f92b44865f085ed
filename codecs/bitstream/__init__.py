"""The one bitstream layer under all codecs: container, checksums, limits, frequency tables and range coder.

Needs numpy, constriction and a CRC library, never torch. `docs/bitstream.md` specifies every byte.

Whoever only reads headers does not wait for numpy and constriction: names that need them are looked up on
first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from latentpress.codecs.bitstream.container import (
    FINGERPRINT_BYTES,
    FORMAT_VERSION,
    MAGIC,
    CodecId,
    Container,
    CutContainer,
    Preamble,
    Section,
    SectionType,
    read_container,
    read_cut_container,
    read_preamble,
    write_container,
)
from latentpress.codecs.bitstream.crc import crc32c
from latentpress.codecs.bitstream.errors import (
    CorruptStream,
    LimitExceeded,
    StreamError,
    TruncatedStream,
    UnknownModel,
    UnsupportedVersion,
)
from latentpress.codecs.bitstream.limits import DEFAULT_LIMITS, Limits
from latentpress.codecs.bitstream.varint import decode_varint, encode_varint

if TYPE_CHECKING:
    from latentpress.codecs.bitstream.information import information_bits
    from latentpress.codecs.bitstream.range_coder import SymbolDecoder, SymbolEncoder
    from latentpress.codecs.bitstream.tables import TableSet, gaussian_tables

__all__ = [
    "DEFAULT_LIMITS",
    "FINGERPRINT_BYTES",
    "FORMAT_VERSION",
    "MAGIC",
    "CodecId",
    "Container",
    "CorruptStream",
    "CutContainer",
    "LimitExceeded",
    "Limits",
    "Preamble",
    "Section",
    "SectionType",
    "StreamError",
    "SymbolDecoder",
    "SymbolEncoder",
    "TableSet",
    "TruncatedStream",
    "UnknownModel",
    "UnsupportedVersion",
    "crc32c",
    "decode_varint",
    "encode_varint",
    "gaussian_tables",
    "information_bits",
    "read_container",
    "read_cut_container",
    "read_preamble",
    "write_container",
]

_HOME = {
    "SymbolDecoder": "range_coder",
    "SymbolEncoder": "range_coder",
    "TableSet": "tables",
    "gaussian_tables": "tables",
    "information_bits": "information",
}


def __getattr__(name: str) -> Any:
    """Look up a name that needs numpy on first use and keep it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
