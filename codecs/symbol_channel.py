"""One program for both directions: code that walks over symbols in order, sending or receiving them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CorruptStream, SymbolDecoder, SymbolEncoder, TableSet, crc32c


class SymbolChannel(Protocol):
    """Where symbols go or come from; a receiver is given None for them."""

    def exchange(
        self,
        symbols: NDArray[np.int32] | None,
        indexes: NDArray[Any],
        tables: TableSet,
        escapes: bool = False,
    ) -> NDArray[np.int32]:
        """Symbols with a table index each, outside its support only if escapes are allowed; returns them."""
        ...

    def exchange_rows(
        self, symbols: NDArray[np.int32] | None, frequencies: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Symbols with a row of frequencies each; returns them."""
        ...


class Sender:
    """Encodes what it is given.

    Example:
        >>> sender = Sender()
        >>> sender.exchange_rows(np.array([1], np.int32), np.array([[2**23, 2**23]])).tolist()
        [1]
        >>> receiver = Receiver(sender.finish())
        >>> receiver.exchange_rows(None, np.array([[2**23, 2**23]])).tolist()
        [1]
        >>> receiver.finish(sender.checksum)
    """

    def __init__(self) -> None:
        self._encoder = SymbolEncoder()
        self._parts: list[bytes] = []

    def exchange(
        self,
        symbols: NDArray[np.int32] | None,
        indexes: NDArray[Any],
        tables: TableSet,
        escapes: bool = False,
    ) -> NDArray[np.int32]:
        """Encodes symbols with a table index each."""
        assert symbols is not None
        self._encoder.put(symbols, indexes, tables)
        return self._note(symbols)

    def exchange_rows(
        self, symbols: NDArray[np.int32] | None, frequencies: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Encodes symbols with a row of frequencies each."""
        assert symbols is not None
        self._encoder.put_rows(symbols, frequencies)
        return self._note(symbols)

    @property
    def checksum(self) -> int:
        """CRC32C of all symbols so far, each a little-endian int32."""
        return crc32c(*self._parts)

    def finish(self) -> bytes:
        """Seals the stream of words."""
        return self._encoder.finish()

    def _note(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        self._parts.append(symbols.astype("<i4", copy=False).tobytes())
        return symbols


class Receiver:
    """Decodes what a :class:`Sender` encoded.

    Args:
        words: Its stream.

    Raises:
        CorruptStream: The stream is not a whole number of words.
    """

    def __init__(self, words: bytes) -> None:
        self._decoder = SymbolDecoder(words)
        self._parts: list[bytes] = []

    def exchange(
        self,
        symbols: NDArray[np.int32] | None,
        indexes: NDArray[Any],
        tables: TableSet,
        escapes: bool = False,
    ) -> NDArray[np.int32]:
        """Decodes symbols with a table index each; without escapes, those outside its support are refused.

        Raises:
            StreamError: The words cannot be decoded, or a symbol has no slot.
        """
        found = self._decoder.get(indexes, tables)
        lowest = tables.minimums[indexes]
        if (
            found.size
            and not escapes
            and ((found < lowest) | (found > lowest + tables.lengths[indexes] - 2)).any()
        ):
            raise CorruptStream("a symbol is outside its alphabet")
        return self._note(found)

    def exchange_rows(
        self, symbols: NDArray[np.int32] | None, frequencies: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Decodes symbols with a row of frequencies each.

        Raises:
            StreamError: The words cannot be decoded.
        """
        return self._note(self._decoder.get_rows(frequencies))

    @property
    def checksum(self) -> int:
        """CRC32C of all symbols so far, see :attr:`Sender.checksum`."""
        return crc32c(*self._parts)

    def finish(self, checksum: int | None = None) -> None:
        """Checks that everything was read and that the symbols are those that were sent.

        Args:
            checksum: Of all symbols, see :attr:`Sender.checksum`; None where what is made of the symbols has
                a checksum of its own.

        Raises:
            CorruptStream: They are not.
        """
        self._decoder.finish()
        actual = crc32c(*self._parts)
        if checksum is not None and actual != checksum:
            raise CorruptStream(f"the symbols' checksum is {actual:08x}, the stream says {checksum:08x}")

    def _note(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        self._parts.append(symbols.astype("<i4", copy=False).tobytes())
        return symbols
