"""The coder of `range_coder` once more, in plain Python integers and slow.

It is the readable description of the format, and the second implementation that tests compare the fast one
with. It shares nothing with it but the tables and the constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream.errors import CorruptStream
from latentpress.codecs.bitstream.range_coder import ESCAPE_CHUNK_BITS, ESCAPE_LENGTH_FREQUENCIES
from latentpress.codecs.bitstream.tables import PRECISION, TableSet

WORD = 1 << 32
STATE = 1 << 64


class ReferenceEncoder:
    """Same interface and same bytes as `SymbolEncoder`.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> encoder = ReferenceEncoder()
        >>> encoder.put(np.array([0, 1, 7], np.int32), np.zeros(3, np.uint8), tables)
        >>> encoder.finish().hex()
        '0000305f'
    """

    def __init__(self) -> None:
        self._words: list[int] = []
        self._lower = 0
        self._range = STATE - 1

    def put(self, symbols: NDArray[np.int32], indexes: NDArray[Any], tables: TableSet) -> None:
        """Append symbols, int32 of shape (n,), with table `indexes` of the same shape."""
        escaped: list[int] = []
        for position in _grouped(indexes.tolist()):
            symbol, index = int(symbols[position]), int(indexes[position])
            support = tables.support(index)
            if symbol in support:
                slot = symbol - support.start
            else:
                slot = len(support)
                above = symbol - support.stop
                escaped.append(2 * above if above >= 0 else 2 * (support.start - 1 - symbol) + 1)
            self._encode_slot(tables.table(index).tolist(), slot)
        lengths = [(number + 1).bit_length() - 1 for number in escaped]
        for length in lengths:
            self._encode_slot(ESCAPE_LENGTH_FREQUENCIES.tolist(), length)
        for group in sorted(set(lengths)):
            rest = [
                number + 1 - (1 << group)
                for number, length in zip(escaped, lengths, strict=True)
                if length == group
            ]
            low_bits = min(group, ESCAPE_CHUNK_BITS)
            if group > low_bits:
                for value in rest:
                    self._encode_bits(value >> low_bits, group - low_bits)
            if low_bits:
                for value in rest:
                    self._encode_bits(value % (1 << low_bits), low_bits)

    def put_rows(self, symbols: NDArray[np.int32], frequencies: NDArray[np.int64]) -> None:
        """Append symbols, int32 of shape (n,), with a row of frequencies each, shape (n, k)."""
        for symbol, row in zip(symbols.tolist(), frequencies.tolist(), strict=True):
            self._encode_slot(row, symbol)

    def finish(self) -> bytes:
        """Seal the stream and return it: whole little-endian 32-bit words."""
        if self._range != STATE - 1:
            self._words.extend(_seal(self._lower, self._range, self._words))
        return b"".join(word.to_bytes(4, "little") for word in self._words)

    def _encode_slot(self, frequencies: list[int], slot: int) -> None:
        self._encode(sum(frequencies[:slot]), frequencies[slot])

    def _encode_bits(self, value: int, bits: int) -> None:
        frequency = 1 << (PRECISION - bits)
        self._encode(value * frequency, frequency)

    def _encode(self, cumulative: int, frequency: int) -> None:
        scale = self._range >> PRECISION
        self._lower += scale * cumulative
        self._range = scale * frequency
        if self._lower >= STATE:
            self._lower -= STATE
            _carry(self._words)
        if self._range < WORD:
            self._words.append(self._lower >> 32)
            self._lower = self._lower % WORD << 32
            self._range <<= 32


class ReferenceDecoder:
    """Same interface, values and rejections as `SymbolDecoder`.

    Args:
        data: what an encoder returned.

    Raises:
        CorruptStream: if `data` is not a whole number of 32-bit words.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> decoder = ReferenceDecoder(bytes.fromhex("0000305f"))
        >>> decoder.get(np.zeros(3, np.uint8), tables).tolist()
        [0, 1, 7]
        >>> decoder.finish()
    """

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise CorruptStream("not a whole number of words")
        self._words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        self._shifts = 0
        self._lower = 0
        self._range = STATE - 1
        self._point = self._word(0) << 32 | self._word(1)

    def get_rows(self, frequencies: NDArray[np.int64]) -> NDArray[np.int32]:
        """Decode int32 symbols of shape (n,) for rows of frequencies, shape (n, k)."""
        return np.array([self._decode_slot(row) for row in frequencies.tolist()], np.int32)

    def get(self, indexes: NDArray[Any], tables: TableSet) -> NDArray[np.int32]:
        """Decode int32 symbols of shape (n,) for table `indexes` of the same shape."""
        symbols = np.zeros(len(indexes), np.int32)
        escaped: list[int] = []
        for position in _grouped(indexes.tolist()):
            support = tables.support(int(indexes[position]))
            slot = self._decode_slot(tables.table(int(indexes[position])).tolist())
            if slot < len(support):
                symbols[position] = support[slot]
            else:
                escaped.append(position)
        lengths = [self._decode_slot(ESCAPE_LENGTH_FREQUENCIES.tolist()) for _ in escaped]
        for group in sorted(set(lengths)):
            chosen = [position for position, length in zip(escaped, lengths, strict=True) if length == group]
            low_bits = min(group, ESCAPE_CHUNK_BITS)
            high = [self._decode_bits(group - low_bits) if group > low_bits else 0 for _ in chosen]
            low = [self._decode_bits(low_bits) if low_bits else 0 for _ in chosen]
            for position, upper, lower in zip(chosen, high, low, strict=True):
                number = (1 << group) + (upper << low_bits) + lower - 1
                support = tables.support(int(indexes[position]))
                symbol = support.start - 1 - number // 2 if number % 2 else support.stop + number // 2
                if not -(2**31) <= symbol < 2**31:
                    raise CorruptStream("an escaped symbol leaves the range of int32")
                symbols[position] = symbol
        return symbols

    def finish(self) -> None:
        """Check that the words end as `ReferenceEncoder.finish` would end them."""
        end: list[int] = []
        if self._range != STATE - 1:
            # The carry, if there is one, is in words that the decoder has compared already.
            end = _seal(self._lower, self._range, None)
        if self._words[self._shifts :] != end:
            raise CorruptStream("the coded symbols do not end where their stream ends")

    def _word(self, index: int) -> int:
        return self._words[index] if index < len(self._words) else 0

    def _decode_slot(self, frequencies: list[int]) -> int:
        target = self._target()
        slot = cumulative = 0
        while cumulative + frequencies[slot] <= target:
            cumulative += frequencies[slot]
            slot += 1
        self._advance(cumulative, frequencies[slot])
        return slot

    def _decode_bits(self, bits: int) -> int:
        frequency = 1 << (PRECISION - bits)
        value = self._target() // frequency
        self._advance(value * frequency, frequency)
        return value

    def _target(self) -> int:
        target = (self._point - self._lower) % STATE // (self._range >> PRECISION)
        if target >= 1 << PRECISION:
            raise CorruptStream("the words lie outside every symbol's interval")
        return target

    def _advance(self, cumulative: int, frequency: int) -> None:
        scale = self._range >> PRECISION
        self._lower = (self._lower + scale * cumulative) % STATE
        self._range = scale * frequency
        if self._range < WORD:
            self._lower = self._lower % WORD << 32
            self._range <<= 32
            self._shifts += 1
            self._point = self._point % WORD << 32 | self._word(self._shifts + 1)


def _grouped(indexes: list[int]) -> list[int]:
    """Positions in coding order: by table, within a table as they came."""
    return sorted(range(len(indexes)), key=lambda position: indexes[position])


def _seal(lower: int, width: int, words: list[int] | None) -> list[int]:
    """The one or two words that end a stream; a carry out of them goes into `words`."""
    point = lower + WORD - 1
    if point >= STATE and words is not None:
        _carry(words)
    last = point // WORD % WORD
    return [last, 0] if (lower + width) // WORD % WORD == last else [last]


def _carry(words: list[int]) -> None:
    """Add 1 to the number whose digits in base 2**32 are `words`."""
    at = len(words) - 1
    while words[at] == WORD - 1:
        words[at] = 0
        at -= 1
    words[at] += 1
