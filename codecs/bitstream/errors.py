"""The exceptions that reading a stream can raise.

Everything wrong with *bytes* is a `StreamError`; wrong arguments are `TypeError` or `ValueError`. A caller
that handles `StreamError` therefore handles every damaged, foreign, too new or hostile file.

Example:
    >>> from latentpress.codecs.bitstream import StreamError, read_container
    >>> try:
    ...     read_container(b"GIF89a")
    ... except StreamError as error:
    ...     print(type(error).__name__)
    CorruptStream
"""

from __future__ import annotations


class StreamError(Exception):
    """Something is wrong with the bytes of a stream; base of all errors here."""


class CorruptStream(StreamError):
    """The bytes are damaged, or were never a stream of this format."""


class TruncatedStream(StreamError):
    """The bytes end before the stream does."""


class UnsupportedVersion(StreamError):
    """The stream is well formed, but needs a newer (or another) version of the library."""


class UnknownModel(StreamError):
    """The stream names a model fingerprint for which no weights are available."""


class LimitExceeded(StreamError):
    """Decoding would need more than the limits allow; nothing has been allocated."""
