"""Who codes the symbols of latents: this process, or others. No torch here, so that others start quickly.

::

    network -> groups of symbols and table indexes -> SymbolCoders.write  -> coded part
    network -> table indexes -> SymbolReading.get -> symbols -> network, once for each group

Every call answers with a future, so that one who asks others can ask several of them before waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CorruptStream, SymbolDecoder, SymbolEncoder, TableSet, crc32c

SYMBOL_LIMIT = 2**15 - 1
"""Symbols are limited to this magnitude: far beyond any latent, and just inside int16."""

T = TypeVar("T")


class SymbolGroup(NamedTuple):
    """Symbols that are coded together.

    Attributes:
        symbols: ``(n,)`` int16, within :data:`SYMBOL_LIMIT`.
        indexes: Their tables, ``(n,)`` uint8.
    """

    symbols: NDArray[np.int16]
    indexes: NDArray[np.uint8]


class CodedPart(NamedTuple):
    """Symbols that share a range coder.

    Attributes:
        data: Words of the range coder.
        checksum: CRC32C over the symbols, after what else it covers.
    """

    data: bytes
    checksum: int


class SymbolReading(Protocol):
    """A part that is being decoded, group by group."""

    def get(self, indexes: NDArray[np.uint8]) -> Future[NDArray[np.int16]]:
        """Decodes the next group.

        Args:
            indexes: Tables of its symbols, ``(n,)``.

        Returns:
            ``(n,)``; the future raises a StreamError if they cannot be decoded.
        """

    def finish(self) -> Future[None]:
        """Checks that nothing is left over and that the checksum is right; the future raises what is not."""


class SymbolCoders(Protocol):
    """Somebody who codes symbols."""

    def write(self, groups: Sequence[SymbolGroup], tables: TableSet, prefix: bytes) -> Future[CodedPart]:
        """Codes a part.

        Args:
            groups: In coding order.
            tables: The frequency tables.
            prefix: What the checksum covers besides, in front of the symbols.
        """

    def read(self, part: CodedPart, tables: TableSet, prefix: bytes) -> SymbolReading:
        """Begins to decode a part; arguments as for :meth:`write`."""


def write_part(groups: Sequence[SymbolGroup], tables: TableSet, prefix: bytes) -> CodedPart:
    """Codes a part here and now.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> group = SymbolGroup(np.array([0, 1, 7], np.int16), np.zeros(3, np.uint8))
        >>> write_part([group], tables, b"").data.hex()
        '0000305f'
    """
    encoder = SymbolEncoder()
    covered = [prefix]
    for group in groups:
        symbols = group.symbols.astype("<i4")
        encoder.put(symbols.astype(np.int32, copy=False), group.indexes, tables)
        covered.append(symbols.tobytes())
    return CodedPart(encoder.finish(), crc32c(*covered))


class PartReader:
    """Decodes a part here and now.

    Args:
        part: The part.
        tables: The frequency tables.
        prefix: What the checksum covers besides, in front of the symbols.

    Raises:
        CorruptStream: The data are no whole words.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> reader = PartReader(CodedPart(bytes.fromhex("0000305f"), 0x3e1f0dde), tables, b"")
        >>> reader.get(np.zeros(3, np.uint8))
        array([0, 1, 7], dtype=int16)
    """

    def __init__(self, part: CodedPart, tables: TableSet, prefix: bytes) -> None:
        self._decoder = SymbolDecoder(part.data)
        self._tables = tables
        self._expected = part.checksum
        self._covered = [prefix]

    def get(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Decodes the next group.

        Raises:
            StreamError: They cannot be decoded, or one is beyond :data:`SYMBOL_LIMIT`.
        """
        symbols = _within_limit(self._decoder.get(indexes, self._tables))
        self._covered.append(symbols.astype("<i4", copy=False).tobytes())
        return symbols.astype(np.int16)

    def get_grouped(self, sizes: NDArray[np.int64]) -> NDArray[np.int16]:
        """Decodes the next group table by table; :meth:`cover` has to be told of it before the end.

        Args:
            sizes: How many of its symbols each table has, ``(tables,)``.

        Returns:
            ``(n,)``: the symbols of the first table, then of the second, each in the order of the group.

        Raises:
            StreamError: They cannot be decoded, or one is beyond :data:`SYMBOL_LIMIT`.
        """
        return _within_limit(self._decoder.get_grouped(sizes, self._tables)).astype(np.int16)

    def cover(self, symbols: NDArray[np.int16]) -> None:
        """Takes symbols of :meth:`get_grouped` into the checksum, in the order of their groups."""
        self._covered.append(symbols.astype("<i4").tobytes())

    def finish(self) -> None:
        """Checks the end and the checksum.

        Raises:
            CorruptStream: Words are left over or missing, or the symbols are others.
        """
        self._decoder.finish()
        actual = crc32c(*self._covered)
        if actual != self._expected:
            raise CorruptStream(
                f"the symbols' checksum is {actual:08x}, the stream says {self._expected:08x}"
            )


def _within_limit(symbols: NDArray[np.int32]) -> NDArray[np.int32]:
    if symbols.size and max(int(symbols.max()), -int(symbols.min())) > SYMBOL_LIMIT:
        raise CorruptStream(f"a symbol is beyond {SYMBOL_LIMIT}")
    return symbols


class InProcessCoders:
    """Codes symbols in this process, at once."""

    def write(self, groups: Sequence[SymbolGroup], tables: TableSet, prefix: bytes) -> Future[CodedPart]:
        """Codes a part."""
        return done(lambda: write_part(groups, tables, prefix))

    def read(self, part: CodedPart, tables: TableSet, prefix: bytes) -> SymbolReading:
        """Begins to decode a part.

        Raises:
            CorruptStream: The data are no whole words.
        """
        return _InProcessReading(PartReader(part, tables, prefix))


class _InProcessReading:
    def __init__(self, reader: PartReader) -> None:
        self._reader = reader

    def get(self, indexes: NDArray[np.uint8]) -> Future[NDArray[np.int16]]:
        return done(lambda: self._reader.get(indexes))

    def finish(self) -> Future[None]:
        return done(self._reader.finish)


def done(action: Callable[[], T]) -> Future[T]:
    """Runs an action and returns its result, or what it raises, as a future.

    Example:
        >>> done(lambda: 3).result()
        3
    """
    future: Future[T] = Future()
    try:
        future.set_result(action())
    except Exception as error:
        future.set_exception(error)
    return future
