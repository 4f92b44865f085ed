"""The one bitstream layer under all codecs: container, checksums, limits, frequency tables and range coder.

Needs numpy, constriction and a CRC library, never torch. `docs/bitstream.md` specifies every byte.
"""

from latentpress.codecs.bitstream.container import (
    FINGERPRINT_BYTES,
    FORMAT_VERSION,
    MAGIC,
    CodecId,
    Container,
    Preamble,
    Section,
    SectionType,
    read_container,
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
from latentpress.codecs.bitstream.information import information_bits
from latentpress.codecs.bitstream.limits import DEFAULT_LIMITS, Limits
from latentpress.codecs.bitstream.range_coder import SymbolDecoder, SymbolEncoder
from latentpress.codecs.bitstream.tables import TableSet, gaussian_tables
from latentpress.codecs.bitstream.varint import decode_varint, encode_varint

__all__ = [
    "DEFAULT_LIMITS",
    "FINGERPRINT_BYTES",
    "FORMAT_VERSION",
    "MAGIC",
    "CodecId",
    "Container",
    "CorruptStream",
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
    "read_preamble",
    "write_container",
]
