"""Symbols to bytes and back: constriction's range coder behind a fixed order of symbols.

One call of `put` or `get` handles many symbols, each with the index of its frequency table. Symbols are coded
table by table (a stable sort by index), because that is one coder call a table instead of one model a symbol.
Symbols outside their table's support are coded as its escape slot; their distances from the support follow at
the end of the call.

The decoder encodes what it decodes once more and compares the bytes at the end. That costs a fraction of the
decoding and leaves exactly one valid stream for a sequence of symbols: cut, extended and altered streams are
all rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import constriction
import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream.container import as_bytes
from latentpress.codecs.bitstream.errors import CorruptStream, TruncatedStream
from latentpress.codecs.bitstream.tables import TOTAL, TableSet, exact_categorical

WORD_BYTES = 4
ESCAPE_CHUNK_BITS = 16
# Exp-Golomb lengths 0 to 32: halving frequencies as in the plain code, the last sixteen sharing what is left
# of 2**24.
ESCAPE_LENGTH_FREQUENCIES = np.array([1 << (23 - k) for k in range(17)] + [8] * 16, np.uint32)
# Symbols are sorted in blocks that fit a core's cache, but hold enough symbols a table for slices to pay.
MIN_BLOCK = 1 << 15
MIN_BLOCK_PER_TABLE = 1 << 8
_INT32 = np.iinfo(np.int32)


class SymbolEncoder:
    """Writes integer symbols as one range-coded stream.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> encoder = SymbolEncoder()
        >>> encoder.put(np.array([0, 1, 7], np.int32), np.zeros(3, np.uint8), tables)
        >>> encoder.finish().hex()
        '0000305f'
    """

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()
        self._finished = False

    @property
    def num_bytes(self) -> int:
        """Length in bytes of what `finish` would return now."""
        return WORD_BYTES * int(self._coder.num_words())

    def put(self, symbols: NDArray[np.int32], indexes: NDArray[Any], tables: TableSet) -> None:
        """Append symbols.

        Args:
            symbols: int32, shape (n,); any value, though one outside its table's support costs more.
            indexes: integers in [0, len(tables)), shape (n,): each symbol's table.
            tables: the frequency tables.

        Raises:
            TypeError: if `symbols` is not an int32 array, or `indexes` not an integer array.
            ValueError: if shapes differ or are not 1-D, an index is out of range, or the encoder is finished.
        """
        if self._finished:
            raise ValueError("this encoder is finished")
        if not isinstance(symbols, np.ndarray) or symbols.dtype != np.int32:
            came = symbols.dtype if isinstance(symbols, np.ndarray) else type(symbols).__name__
            raise TypeError(f"symbols must be an int32 array, got {came}")
        keys = _checked_indexes(indexes, tables)
        if symbols.shape != keys.shape:
            raise ValueError(f"got {symbols.shape} symbols but {keys.shape} indexes")
        if not keys.size:
            return
        grouped, sizes = _grouped(symbols, keys, len(tables))
        runs = _runs(sizes, tables)
        # Modulo 2**32 everything outside the support, on either side, lands at or above its count.
        slots = np.repeat(runs.minimums, runs.sizes)
        np.subtract(grouped, slots, out=slots)
        distances = _escape(slots, grouped, runs)
        for model, start, stop in runs.spans(tables):
            self._coder.encode(slots[start:stop], model)
        if distances.size:
            _encode_distances(self._coder, distances)

    def put_rows(self, symbols: NDArray[np.int32], frequencies: NDArray[np.int64]) -> None:
        """Append symbols that have a frequency table each.

        Args:
            symbols: int32, shape (n,), in [0, k).
            frequencies: int64, shape (n, k), k >= 2; positive, each row summing to 2**24. No row has an
                escape.

        Raises:
            TypeError: if `symbols` is not an int32 array, or `frequencies` not an int64 array.
            ValueError: if shapes do not fit, a symbol is out of range, a row is no table, or the encoder is
                finished.

        Example:
            >>> encoder = SymbolEncoder()
            >>> encoder.put_rows(np.array([1], np.int32), np.array([[2**23, 2**23]]))
            >>> encoder.finish().hex()
            '00000080'
        """
        if self._finished:
            raise ValueError("this encoder is finished")
        if not isinstance(symbols, np.ndarray) or symbols.dtype != np.int32:
            came = symbols.dtype if isinstance(symbols, np.ndarray) else type(symbols).__name__
            raise TypeError(f"symbols must be an int32 array, got {came}")
        weights = _checked_rows(frequencies)
        if symbols.shape != weights.shape[:1]:
            raise ValueError(f"got {symbols.shape} symbols but {weights.shape} frequencies")
        if not symbols.size:
            return
        if not 0 <= int(symbols.min()) <= int(symbols.max()) < weights.shape[1]:
            raise ValueError(f"symbols must be in [0, {weights.shape[1]})")
        self._coder.encode(symbols, _row_family(), weights)

    def finish(self) -> bytes:
        """Seal the stream.

        Returns:
            Whole 32-bit little-endian words; no bytes at all if no symbol was put.

        Raises:
            ValueError: if called twice.
        """
        if self._finished:
            raise ValueError("this encoder is finished")
        self._finished = True
        return _sealed(self._coder)


class SymbolDecoder:
    """Reads back what a `SymbolEncoder` wrote, with the same tables and indexes in the same calls.

    Args:
        data: the encoder's whole output.

    Raises:
        TypeError: if `data` is not bytes-like.
        CorruptStream: if `data` is not a whole number of 32-bit words.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> decoder = SymbolDecoder(bytes.fromhex("0000305f"))
        >>> decoder.get(np.zeros(3, np.uint8), tables)
        array([0, 1, 7], dtype=int32)
        >>> decoder.finish()
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = as_bytes(data, "data")
        if len(self._data) % WORD_BYTES:
            raise CorruptStream(
                f"coded symbols come in whole {WORD_BYTES}-byte words, got {len(self._data)} bytes"
            )
        self._num_words = len(self._data) // WORD_BYTES
        with _as_corrupt():
            self._decoder = constriction.stream.queue.RangeDecoder(
                np.frombuffer(self._data, "<u4").astype(np.uint32)
            )
        self._mirror = constriction.stream.queue.RangeEncoder()
        self._usable = True

    def get(self, indexes: NDArray[Any], tables: TableSet) -> NDArray[np.int32]:
        """Decode the symbols of one `put`.

        Memory is a small multiple of `indexes`, whatever the stream holds.

        Args:
            indexes: integers in [0, len(tables)), shape (n,), as given to `put`.
            tables: the frequency tables given to `put`.

        Returns:
            int32, shape (n,), in the order in which they were put.

        Raises:
            TypeError: if `indexes` is not an integer array.
            ValueError: if `indexes` is not 1-D or out of range, or the decoder is finished or has failed.
            TruncatedStream: if the symbols reach beyond the end of the data.
            CorruptStream: if the data cannot be what an encoder wrote.
        """
        if not self._usable:
            raise ValueError("this decoder is finished or has failed")
        keys = _checked_indexes(indexes, tables)
        blocks = list(_sorted_blocks(keys, len(tables)))
        if not blocks:
            return np.zeros(0, np.int32)
        sizes = np.array([block.sizes for block in blocks])
        return _ungrouped(self.get_grouped(np.add.reduce(sizes), tables), blocks, sizes)

    def get_grouped(self, sizes: NDArray[np.int64], tables: TableSet) -> NDArray[np.int32]:
        """Decode the symbols of one `put` table by table, for a caller who sorts them.

        Args:
            sizes: int64, shape (len(tables),): how many of the symbols each table has.
            tables: the frequency tables given to `put`.

        Returns:
            int32, shape (sum of sizes,): the symbols of the first table, then those of the second and so on,
            each in the order in which they were put.

        Raises:
            ValueError: if `sizes` has another shape or a negative number, or the decoder is finished or has
                failed.
            TruncatedStream: if the symbols reach beyond the end of the data.
            CorruptStream: if the data cannot be what an encoder wrote.

        Example:
            >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
            >>> SymbolDecoder(bytes.fromhex("0000305f")).get_grouped(np.array([3]), tables)
            array([0, 1, 7], dtype=int32)
        """
        if not self._usable:
            raise ValueError("this decoder is finished or has failed")
        if sizes.shape != (len(tables),) or int(sizes.min()) < 0:
            raise ValueError(f"expected {len(tables)} sizes of at least 0, got an array of {sizes.shape}")
        if not sizes.any():
            return np.zeros(0, np.int32)
        self._usable = False
        if not self._data:
            raise TruncatedStream("there are no coded symbols at all, but some are needed")
        symbols = self._get_runs(_runs(sizes, tables), tables)
        self._usable = True
        return symbols

    def get_rows(self, frequencies: NDArray[np.int64]) -> NDArray[np.int32]:
        """Decode the symbols of one `put_rows`.

        Args:
            frequencies: as given to `put_rows`.

        Returns:
            int32, shape (n,).

        Raises:
            TypeError: if `frequencies` is not an int64 array.
            ValueError: if a row is no table, or the decoder is finished or has failed.
            TruncatedStream: if the symbols reach beyond the end of the data.
            CorruptStream: if the data cannot be what an encoder wrote.
        """
        if not self._usable:
            raise ValueError("this decoder is finished or has failed")
        weights = _checked_rows(frequencies)
        if not weights.shape[0]:
            return np.zeros(0, np.int32)
        self._usable = False
        if not self._data:
            raise TruncatedStream("there are no coded symbols at all, but some are needed")
        with _as_corrupt():
            symbols: NDArray[np.int32] = self._decoder.decode(_row_family(), weights)
            self._mirror.encode(symbols, _row_family(), weights)
        if int(self._mirror.num_words()) > self._num_words + 1:
            raise TruncatedStream("the coded symbols end before all of them are read")
        self._usable = True
        return symbols

    def finish(self) -> None:
        """Check that the data held exactly the symbols that were read.

        Raises:
            ValueError: if called twice, or after an error.
            CorruptStream: if words are left over, missing or not those an encoder writes.
        """
        if not self._usable:
            raise ValueError("this decoder is finished or has failed")
        self._usable = False
        if not self._decoder.maybe_exhausted() or _sealed(self._mirror) != self._data:
            raise CorruptStream("the coded symbols do not end where their stream ends")

    def _get_runs(self, runs: _Runs, tables: TableSet) -> NDArray[np.int32]:
        slots = np.empty(int(runs.sizes.sum()), np.int32)
        for model, start, stop in runs.spans(tables):
            slots[start:stop] = self._decode(model, stop - start)
        symbols = np.repeat(runs.minimums, runs.sizes)
        np.add(slots, symbols, out=symbols)
        escaped = _escaped(slots, runs)
        if escaped.size:
            symbols[escaped] = self._decode_escaped(*runs.supports(escaped))
        return symbols

    def _decode(self, model: Any, count: int) -> NDArray[np.int32]:
        with _as_corrupt():
            slots: NDArray[np.int32] = self._decoder.decode(model, count)
            self._mirror.encode(slots, model)
        # Sealing adds one or two words, hence the one to spare. Past the end the coder would go on for ever.
        if int(self._mirror.num_words()) > self._num_words + 1:
            raise TruncatedStream("the coded symbols end before all of them are read")
        return slots

    def _decode_escaped(self, minimums: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = self._decode_distances(len(minimums))
        values = np.where(numbers & 1, minimums - 1 - (numbers >> 1), minimums + counts + (numbers >> 1))
        if int(values.min()) < _INT32.min or int(values.max()) > _INT32.max:
            raise CorruptStream("an escaped symbol leaves the range of int32")
        return values

    def _decode_distances(self, count: int) -> NDArray[np.int64]:
        lengths = self._decode(_escape_lengths(), count).astype(np.int64)
        values = np.left_shift(np.int64(1), lengths)
        for length in np.unique(lengths).tolist():
            chosen = np.flatnonzero(lengths == length)
            for bits, shift in _chunks(length):
                values[chosen] += self._decode(_uniform(bits), len(chosen)).astype(np.int64) << shift
        return values - 1


def _checked_indexes(indexes: NDArray[Any], tables: TableSet) -> NDArray[Any]:
    if not isinstance(indexes, np.ndarray) or indexes.dtype.kind not in "iu":
        came = indexes.dtype if isinstance(indexes, np.ndarray) else type(indexes).__name__
        raise TypeError(f"indexes must be an integer array, got {came}")
    if indexes.ndim != 1:
        raise ValueError(f"indexes must be 1-D, got shape {indexes.shape}")
    if indexes.size and not 0 <= int(indexes.min()) <= int(indexes.max()) < len(tables):
        raise ValueError(
            f"indexes must be in [0, {len(tables)}), got {int(indexes.min())} to {int(indexes.max())}"
        )
    # Keys of 8 and 16 bits are what numpy's stable sort handles by radix.
    return indexes.astype(np.uint8 if len(tables) <= 256 else np.uint16, copy=False)


class _Block(NamedTuple):
    """Neighbouring keys: where they stand, how to sort them (None if they are), how often each key occurs."""

    span: slice
    order: NDArray[np.int64] | None
    sizes: NDArray[np.int64]


def _sorted_blocks(keys: NDArray[Any], num_tables: int) -> Iterator[_Block]:
    """Sort keys stably, block by block: in the cache that takes half the time of sorting them all at once."""
    every_key = np.arange(num_tables, dtype=keys.dtype)
    in_order = bool(np.logical_and.reduce(keys[:-1] <= keys[1:]))
    length = len(keys) if in_order else max(MIN_BLOCK, MIN_BLOCK_PER_TABLE * num_tables)
    for start in range(0, len(keys), max(1, length)):
        part = keys[start : start + length]
        order = None if in_order else np.argsort(part, kind="stable")
        sizes = np.searchsorted(part, every_key, side="right", sorter=order)
        sizes[1:] -= sizes[:-1].copy()
        yield _Block(slice(start, start + len(part)), order, sizes)


def _grouped(
    symbols: NDArray[np.int32], keys: NDArray[Any], num_tables: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Symbols in the stable order of their keys, and how often each key occurs."""
    blocked = np.empty_like(symbols)
    rows: list[NDArray[np.int64]] = []
    for block in _sorted_blocks(keys, num_tables):
        if block.order is None:
            return symbols, block.sizes
        # Orders are within bounds; any mode but "raise" writes to `out` directly.
        symbols[block.span].take(block.order, out=blocked[block.span], mode="clip")
        rows.append(block.sizes)
    sizes = np.array(rows)
    return _transposed(blocked, sizes), np.add.reduce(sizes)


def _ungrouped(
    grouped: NDArray[np.int32], blocks: list[_Block], sizes: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Symbols in the stable order of their keys, back where the keys stood; sizes has a row a block."""
    blocked = _transposed(grouped, sizes.T)
    symbols = np.empty_like(blocked)
    for block in blocks:
        if block.order is None:
            return blocked
        symbols[block.span][block.order] = blocked[block.span]
    return symbols


def _transposed(array: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Reorder an array made of pieces of the given sizes, from row after row to column after column."""
    if 1 in sizes.shape:
        return array
    stops = np.cumsum(sizes).reshape(sizes.shape)
    starts = stops - sizes
    spans = zip(starts.T.ravel().tolist(), stops.T.ravel().tolist(), strict=True)
    return np.concatenate([array[start:stop] for start, stop in spans])


class _Runs(NamedTuple):
    """Grouped symbols, one run for each table in use: what the tables are and where the runs stand.

    The support of a table is its first symbol, the minimum, and the number of its symbols, the count.
    """

    tables: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    minimums: NDArray[np.int32]
    counts: NDArray[np.uint32]

    def spans(self, tables: TableSet) -> Iterator[tuple[Any, int, int]]:
        """The coder's model, start and stop of every run."""
        stops = (self.starts + self.sizes).tolist()
        for index, start, stop in zip(self.tables.tolist(), self.starts.tolist(), stops, strict=True):
            yield tables.model(index), start, stop

    def supports(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Minimum and count of the tables of the symbols at some positions."""
        runs = np.searchsorted(self.starts, positions, side="right") - 1
        return self.minimums[runs].astype(np.int64), self.counts[runs].astype(np.int64)


def _runs(sizes: NDArray[np.int64], tables: TableSet) -> _Runs:
    used = np.flatnonzero(sizes)
    sizes = sizes[used]
    return _Runs(
        tables=used,
        starts=np.cumsum(sizes) - sizes,
        sizes=sizes,
        minimums=tables.minimums[used],
        counts=tables.lengths[used].view(np.uint32) - np.uint32(1),
    )


def _escaped(slots: NDArray[np.int32], runs: _Runs) -> NDArray[np.int64]:
    """Positions of the slots that are their table's escape or, modulo 2**32, beyond it."""
    unsigned = slots.view(np.uint32)
    # Most often there are none, which the largest slot of every run tells sooner than all slots.
    if not np.logical_or.reduce(np.maximum.reduceat(unsigned, runs.starts) >= runs.counts):
        return np.zeros(0, np.int64)
    return np.flatnonzero(unsigned >= np.repeat(runs.counts, runs.sizes))


def _escape(slots: NDArray[np.int32], symbols: NDArray[np.int32], runs: _Runs) -> NDArray[np.int64]:
    """Turn the slots of symbols outside their support into escapes; the numbers that tell these symbols."""
    escaped = _escaped(slots, runs)
    if not escaped.size:
        return escaped
    minimums, counts = runs.supports(escaped)
    slots[escaped] = counts
    return _distances(symbols[escaped], minimums, counts)


def _distances(
    symbols: NDArray[np.int32], minimums: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Non-negative number of each symbol outside its support: twice the distance, plus 1 below it."""
    above = symbols - (minimums + counts)
    return np.where(above >= 0, 2 * above, 2 * (minimums - 1 - symbols) + 1)


def _encode_distances(coder: Any, numbers: NDArray[np.int64]) -> None:
    values = numbers + 1
    lengths = np.frexp(values.astype(np.float64))[1].astype(np.int32) - 1
    coder.encode(lengths, _escape_lengths())
    for length in np.unique(lengths).tolist():
        rest = values[lengths == length] - (1 << length)
        for bits, shift in _chunks(length):
            coder.encode((rest >> shift & ((1 << bits) - 1)).astype(np.int32), _uniform(bits))


def _chunks(length: int) -> list[tuple[int, int]]:
    """(bits, shift) of the pieces in which a number of `length` bits is coded, upper piece first."""
    if length > ESCAPE_CHUNK_BITS:
        return [(length - ESCAPE_CHUNK_BITS, ESCAPE_CHUNK_BITS), (ESCAPE_CHUNK_BITS, 0)]
    return [(length, 0)] if length else []


@cache
def _escape_lengths() -> Any:
    return exact_categorical(ESCAPE_LENGTH_FREQUENCIES)


@cache
def _row_family() -> Any:
    # With perfect=False constriction gives each slot 1 plus its share of the rest, see `exact_categorical`.
    return constriction.stream.model.Categorical(perfect=False)


def _checked_rows(frequencies: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weights that make the coder use exactly these frequencies."""
    if not isinstance(frequencies, np.ndarray) or frequencies.dtype != np.int64:
        came = frequencies.dtype if isinstance(frequencies, np.ndarray) else type(frequencies).__name__
        raise TypeError(f"frequencies must be an int64 array, got {came}")
    if frequencies.ndim != 2 or frequencies.shape[1] < 2:
        raise ValueError(f"frequencies must have two or more columns, got shape {frequencies.shape}")
    if frequencies.size and (int(frequencies.min()) < 1 or (frequencies.sum(axis=1) != TOTAL).any()):
        raise ValueError(f"every row of frequencies must be positive and sum to {TOTAL}")
    return frequencies.astype(np.float64) - 1.0


@cache
def _uniform(bits: int) -> Any:
    return constriction.stream.model.Uniform(1 << bits)


def _sealed(coder: Any) -> bytes:
    words: NDArray[np.uint32] = coder.get_compressed()
    return words.astype("<u4").tobytes()


@contextmanager
def _as_corrupt() -> Iterator[None]:
    """Turn whatever the coder raises on bad data into `CorruptStream`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptStream(f"the coded symbols are damaged: {error}") from error
    except BaseException as error:
        # A panic inside the coder is a BaseException of a class that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptStream("the coded symbols are damaged: the range coder gave up") from error
