"""Payloads of the index codec: what is coded in which order, in one piece or in packets.

::

    one piece           map, marks | coarse, medium, fine indices | residual indices
    packets: base       map, marks | coarse indices          one piece, of which each packet has a share
             packet p   its medium and fine indices, given the base alone | its residual indices

The base is shared out so that any half of the packets restore it (codecs/erasure_code.py): a lost coarse
index would be a lost cell. Of streams made before there was a base, the first few packets have the map, and
coarse indices are in packets like the others.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import NamedTuple

import numpy as np
import torch

from latentpress.codecs.bitstream import CorruptStream, StreamError, TableSet, TruncatedStream
from latentpress.codecs.erasure_code import make_shares, restore
from latentpress.codecs.grain_map_coder import Bits, code_map
from latentpress.codecs.index_coder import IndexCoder, unknown_indexes
from latentpress.codecs.index_payload import Body, IndexHeader, Packet, needed_packets, write_packet
from latentpress.codecs.index_residual import ResidualBook, Residuals, code_marks
from latentpress.codecs.symbol_channel import Receiver, Sender
from latentpress.models.index.codebooks import Book
from latentpress.models.index.granularity import CELL, GrainMap
from latentpress.models.index.prior import UNKNOWN, GrainIndexes

# Packets with a map, of streams without a base: so many that losing a fifth of all leaves one of them.
_TOLERATED_LOSS = 0.2

_CHECKSUM = struct.Struct("<I")


def map_copies(packets: int) -> int:
    """How many packets of a stream without a base carry the granularity map.

    Example:
        >>> [map_copies(n) for n in (2, 5, 10, 16)]
        [1, 2, 3, 4]
    """
    return math.floor(packets * _TOLERATED_LOSS) + 1


class ReceivedIndexes(NamedTuple):
    """What was decoded of a payload.

    Attributes:
        header: Of the picture.
        grains: The map.
        indexes: UNKNOWN where lost.
        residuals: None if there are none.
        lost_packets: Their numbers.
    """

    header: IndexHeader
    grains: GrainMap
    indexes: GrainIndexes
    residuals: Residuals | None
    lost_packets: tuple[int, ...]


class IndexStreams:
    """Codes pictures' symbols to payloads and back.

    Args:
        coder: Of indices.
        books: All of the model.
        tables: Of the map.
        residual_book: None if the model has none.
        device: Of the coder.
    """

    def __init__(
        self,
        coder: IndexCoder,
        books: tuple[Book, ...],
        tables: TableSet,
        residual_book: ResidualBook | None,
        device: torch.device,
    ) -> None:
        self._coder = coder
        self._books = books
        self._tables = tables
        self._residual_book = residual_book
        self._device = device

    def send(
        self,
        header: IndexHeader,
        grains: GrainMap,
        indexes: GrainIndexes,
        residuals: Residuals | None,
        fingerprint: bytes,
    ) -> bytes:
        """Codes a map, its indices and residual indices to a payload.

        Args:
            header: Of the picture; what it says of a base is filled in.
            grains: The map.
            indexes: Wherever it has any.
            residuals: None for none.
            fingerprint: That the stream is going to have.
        """
        sender = Sender()
        self.send_map(sender, header, grains, residuals)
        if header.packets == 1:
            self._coder.code(sender, grains, header.book, indexes)
            if residuals is not None:
                self.book_for(header).code(sender, *residuals)
            return Body(header, sender.checksum, sender.finish()).to_bytes()
        known = self._coder.code(sender, grains, header.book, indexes, only_coarse=True)
        base = _CHECKSUM.pack(sender.checksum) + sender.finish()
        header = dataclasses.replace(header, base_bytes=len(base))
        shares = make_shares(base, needed_packets(header.packets), header.packets)
        code_packet = self._coder.packet_coder(grains, header.book, header.packets, known)
        framed = []
        for number, share in enumerate(shares):
            sender = Sender()
            code_packet(sender, number, indexes, True)
            if residuals is not None:
                self.book_for(header).code(sender, *residuals, (number, header.packets))
            body = Body(header, sender.checksum, sender.finish(), share).to_bytes()
            framed.append(write_packet(Packet(number, body), fingerprint))
        return b"".join(framed)

    def send_map(
        self, sender: Sender, header: IndexHeader, grains: GrainMap, residuals: Residuals | None
    ) -> None:
        """Codes a map and marks."""
        bits = (grains.split[0].cpu().numpy(), grains.fine[0].cpu().numpy())
        levels = (header.split_level, header.fine_level)
        code_map(sender, self._tables, levels, _cells(header), bits)
        if residuals is not None:
            code_marks(sender, self._tables, header.residual_level, grains, residuals.marked)

    def residual_bytes(self, header: IndexHeader, grains: GrainMap, residuals: Residuals | None) -> int:
        """About how many bytes residual indices add to a payload, without coding the rest of it."""
        if residuals is None:
            return 0
        book, sender = self.book_for(header), Sender()
        code_marks(sender, self._tables, header.residual_level, grains, residuals.marked)
        if header.packets == 1:
            book.code(sender, *residuals)
            # The end of a stream takes a word anyway, and the level is a byte.
            return len(sender.finish()) - _CHECKSUM.size + 1
        total = len(sender.finish()) * header.packets // needed_packets(header.packets)
        for number in range(header.packets):
            sender = Sender()
            book.code(sender, *residuals, (number, header.packets))
            total += len(sender.finish()) - _CHECKSUM.size + 1
        return total

    def receive(self, body: Body) -> ReceivedIndexes:
        """Decodes a payload in one piece.

        Raises:
            StreamError: It cannot be decoded.
        """
        receiver = Receiver(body.words)
        grains, marked = self._receive_map(receiver, body.header)
        indexes = self._coder.code(receiver, grains, body.header.book, None)
        residuals = None
        if marked is not None:
            residuals = Residuals(marked, self.book_for(body.header).code(receiver, marked, None))
        receiver.finish(body.checksum)
        return ReceivedIndexes(body.header, grains, indexes, residuals, ())

    def receive_packets(self, bodies: dict[int, Body], strict: bool) -> ReceivedIndexes:
        """Decodes packets; those that cannot be decoded are lost, or an error if strict.

        Args:
            bodies: By number, all of one header.
            strict: Whether nothing may be lost.

        Raises:
            StreamError: There are too few packets to find the map, or strict, and one cannot be decoded.
        """
        if not bodies:
            raise CorruptStream("no intact packet is left")
        header = next(iter(bodies.values())).header
        maps: list[int] = []
        base: GrainIndexes | None = None
        if header.base_bytes:
            grains, marked, base = self._receive_base(bodies, header)
        else:
            maps = [n for n in bodies if n < map_copies(header.packets)]
            grains, marked = self._map_of_any(bodies, maps)
        indexes = unknown_indexes(grains) if base is None else base
        residuals = None
        if marked is not None:
            nothing = np.full(grains.fine_mask().shape[1:], UNKNOWN, np.int64)
            residuals = Residuals(marked, nothing)
        code_packet = self._coder.packet_coder(grains, header.book, header.packets, base)
        decoded = set()
        for number, body in bodies.items():
            attempt = GrainIndexes(*(x.clone() for x in indexes))
            try:
                receiver = Receiver(body.words)
                if number in maps:
                    self._receive_map(receiver, header)
                code_packet(receiver, number, attempt, False)
                patches = None
                if marked is not None:
                    place = (number, header.packets)
                    patches = self.book_for(header).code(receiver, marked, None, place)
                receiver.finish(body.checksum)
            except StreamError:
                if strict:
                    raise
                continue
            indexes = attempt
            if residuals is not None and patches is not None:
                residuals.indexes[patches != UNKNOWN] = patches[patches != UNKNOWN]
            decoded.add(number)
        lost = tuple(n for n in range(header.packets) if n not in decoded)
        return ReceivedIndexes(header, grains, indexes, residuals, lost)

    def book_for(self, header: IndexHeader) -> ResidualBook:
        """The book that residual indices need.

        Raises:
            CorruptStream: The model has none.
        """
        if self._residual_book is None:
            raise CorruptStream(f"residual level {header.residual_level}: this model has no residual indices")
        return self._residual_book

    def _receive_base(
        self, bodies: dict[int, Body], header: IndexHeader
    ) -> tuple[GrainMap, Bits | None, GrainIndexes]:
        """Map, marks and coarse indices out of the shares of packets."""
        needed = needed_packets(header.packets)
        if len(bodies) < needed:
            raise CorruptStream(
                f"the picture's map needs {needed} of {header.packets} packets, {len(bodies)} are left"
            )
        base = restore({n: body.share for n, body in bodies.items()}, needed, header.base_bytes)
        if len(base) < _CHECKSUM.size:
            raise TruncatedStream("the base of the packets has no checksum")
        receiver = Receiver(base[_CHECKSUM.size :])
        grains, marked = self._receive_map(receiver, header)
        known = self._coder.code(receiver, grains, header.book, None, only_coarse=True)
        (checksum,) = _CHECKSUM.unpack_from(base)
        receiver.finish(checksum)
        return grains, marked, known

    def _map_of_any(self, bodies: dict[int, Body], maps: list[int]) -> tuple[GrainMap, Bits | None]:
        """The map out of the first packet in which it can be read."""
        if not maps:
            raise CorruptStream("no intact packet with the picture's map is left")
        for number in maps[:-1]:
            try:
                return self._receive_map(Receiver(bodies[number].words), bodies[number].header)
            except StreamError:
                continue
        return self._receive_map(Receiver(bodies[maps[-1]].words), bodies[maps[-1]].header)

    def _receive_map(self, receiver: Receiver, header: IndexHeader) -> tuple[GrainMap, Bits | None]:
        """The map, and the cells with residual indices; None without those."""
        if header.book >= len(self._books):
            raise CorruptStream(f"there is no book number {header.book}")
        levels = (header.split_level, header.fine_level)
        split, fine = code_map(receiver, self._tables, levels, _cells(header), None)
        grains = GrainMap(*(torch.from_numpy(bits)[None].to(self._device) for bits in (split, fine)))
        if not header.residual_level:
            return grains, None
        self.book_for(header)
        return grains, code_marks(receiver, self._tables, header.residual_level, grains, None)


def _cells(header: IndexHeader) -> tuple[int, int]:
    """Rows and columns of cells."""
    return -(-header.height // CELL), -(-header.width // CELL)
