"""A field in blocks, decoded block by block from a file: all of it, or a region alone.

::

    region -> blocks that touch it -> separate: decoded one by one ---------------------------> samples
                                   -> joint: latents, with those around -> synthesis -> crop -> samples
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    CorruptStream,
    Limits,
    TruncatedStream,
    UnknownModel,
)
from latentpress.codecs.bitstream.container_file import check_payload, find_payload
from latentpress.codecs.block_grid import Block, index_spans, latent_positions
from latentpress.codecs.field_blocks import (
    LONGEST_HEAD,
    block_header_fits,
    is_in_blocks,
    read_blocks_header,
    read_table,
    table_extent,
)
from latentpress.codecs.field_decoding import decode_payload
from latentpress.codecs.field_exact import restore_mask, unpack_mask
from latentpress.codecs.field_networks import Decoder, latent_shape, write_scaled
from latentpress.codecs.field_payload import ANY_MODEL, GROUP, Mode, read_field_header, split_parts
from latentpress.models.field.transforms import STRIDE

if TYPE_CHECKING:
    from latentpress.codecs.field import FieldCodec

LATENT_CACHE_BYTES = 2**28
"""Decoded latents that are kept, because the blocks around need them too."""

_CRC_BYTES = 4


class FieldFile:
    """Reads a field in blocks like an array: ``field[:, 10:20, :, 5]``.

    Use it in a ``with`` block, or :meth:`close` it. Threads may share one.

    Args:
        codec: With the networks that the stream needs, if any.
        source: Path of the stream, or a file that can be sought in.
        decoder: Of joint blocks, see :meth:`FieldCodec.decompress`.
        limits: Caps on a block, and on what one reading returns; the field itself may be of any size.

    Attributes:
        header: What the stream says of the field.
        shape: ``(C, D, H, W)`` or ``(C, H, W)``.
        dtype: float32 or float64.

    Raises:
        StreamError: The file is no stream of a field in blocks.
        ValueError: The weights have no such decoder.

    Example:
        >>> import io
        >>> from latentpress.codecs.field import FieldCodec
        >>> codec, file = FieldCodec(), io.BytesIO()
        >>> _ = codec.compress_blocks(np.eye(20, dtype="float32")[None], file, block=16, max_error=0.1)
        >>> with codec.open(file) as field:
        ...     print(field.shape, field[0, 17:, 17:].round().tolist())
        (1, 20, 20) [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    def __init__(
        self,
        codec: FieldCodec,
        source: str | Path | BinaryIO,
        decoder: Decoder = "faithful",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._codec = codec
        self._decoder = decoder
        self._limits = limits
        self._owned = isinstance(source, (str, Path))
        self._file: BinaryIO
        if isinstance(source, (str, Path)):
            self._file = open(source, "rb")  # noqa: SIM115 - it stays open until close()
        else:
            self._file = source
        self._lock = threading.RLock()
        self._latents: OrderedDict[int, list[Tensor]] = OrderedDict()
        self._cached_bytes = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._place = find_payload(self._file, self._limits)
        if self._place.preamble.codec_id != CodecId.FIELD:
            name = self._place.preamble.codec_id.name.lower()
            raise CorruptStream(f"this is a stream of the codec {name}, not field")
        length = self._place.length
        start = self._payload(0, min(LONGEST_HEAD, length))
        if not is_in_blocks(start):
            raise CorruptStream("this field is not in blocks: decompress decodes it")
        self.header, offset = read_blocks_header(start, self._limits)
        table, behind = table_extent(start, offset, self.header, length)
        self._limits.check_section_bytes(behind)
        head = start[: behind + _CRC_BYTES]
        if len(head) < behind + _CRC_BYTES:
            head = self._payload(0, behind + _CRC_BYTES)
        self._table = read_table(head, table, self.header, length)
        self._check_model(self.header.has_network)
        if self.header.has_network and self._decoder == "realistic":
            model = self._codec.model(self.header.ratio)
            if model.realistic is None:
                raise ValueError("these weights have no realistic decoder for the ratio of the stream")
        components, *space = self.header.shape
        self.shape = (components, *(space[1:] if self.header.flat else space))
        self.dtype = np.dtype(np.float64 if self.header.double else np.float32)

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Closes the file."""
        self.close()

    def close(self) -> None:
        """Closes the file, if it was opened here."""
        if self._owned:
            self._file.close()

    @property
    def ndim(self) -> int:
        """Axes, that of the components included."""
        return len(self.shape)

    def __len__(self) -> int:
        """Components."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Decodes a region: integers, slices with steps and an ellipsis, as numpy understands them.

        Raises:
            StreamError: The blocks of the region are damaged, or it exceeds the limits.
            IndexError: The region is outside the field.
        """
        spans, reduced = index_spans(key, self.shape)
        starts, stops, rest = [], [], []
        for span in spans:
            low = min(span) if span else 0
            high = max(span) + 1 if span else 0
            starts.append(low)
            stops.append(high)
            # Backwards, a slice cannot say that it goes on to the first.
            last = span.stop - low
            rest.append(slice(span.start - low, last if last >= 0 else None, span.step))
        values = self.read(tuple(starts), tuple(stops))
        picked = values[tuple(rest)]
        return picked.reshape([n for n, drop in zip(picked.shape, reduced, strict=True) if not drop])

    def read(self, start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[Any]:
        """Decodes a box.

        Args:
            start: First index along every axis, the components included.
            stop: Behind the last.

        Raises:
            StreamError: Its blocks are damaged, or it has more values than allowed.
            IndexError: It is outside the field.
        """
        sizes = [last - first for first, last in zip(start, stop, strict=True)]
        inside = all(
            0 <= first <= last <= size for first, last, size in zip(start, stop, self.shape, strict=True)
        )
        if len(start) != self.ndim or not inside:
            raise IndexError(f"{start} to {stop} is outside a field of shape {self.shape}")
        self._limits.check_voxels(sizes)
        found = np.empty(sizes, self.dtype)
        if not found.size:
            return found
        full_start = (start[0], 0, *start[1:]) if self.header.flat else start
        full_stop = (stop[0], 1, *stop[1:]) if self.header.flat else stop
        target = found[:, None] if self.header.flat else found
        for block in self.header.grid.touching(full_start[1:], full_stop[1:]):
            values = self.block(block.number)
            here, there = [slice(start[0], stop[0])], [slice(None)]
            for b0, b1, first, last in zip(
                block.start, block.stop, full_start[1:], full_stop[1:], strict=True
            ):
                low, high = max(b0, first), min(b1, last)
                here.append(slice(low - b0, high - b0))
                there.append(slice(low - first, high - first))
            target[tuple(there)] = values[tuple(here)]
        return found

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """All blocks in raster order, as slices of the field and values in its shape."""
        for block in self.header.grid:
            values = self.block(block.number)
            space = block.slices[1:] if self.header.flat else block.slices
            yield (slice(0, self.shape[0]), *space), values[:, 0] if self.header.flat else values

    def copy_to(self, target: Any, progress: Progress = no_progress) -> None:
        """Decodes everything into an array, such as a memory map or a zarr array, block by block.

        Args:
            target: Of the field's shape.
            progress: Called with the fraction done and the stage.
        """
        count = len(self.header.grid)
        for number, (place, values) in enumerate(self.blocks()):
            target[place] = values
            progress((number + 1) / count, "decoding blocks")

    def verify(self) -> None:
        """Checks all checksums and decodes all symbols.

        Raises:
            StreamError: Anything is wrong with the file.
        """
        with self._lock:
            check_payload(self._file, self._place)
        for block in self.header.grid:
            if self.header.has_network:
                self._decode_latents(block)
            else:
                self._separate(block)

    def block(self, number: int) -> NDArray[Any]:
        """Values ``(C, d, h, w)`` of a block.

        Args:
            number: In raster order.

        Raises:
            StreamError: It is damaged.
        """
        block = self.header.grid[number]
        return self._joint(block) if self.header.has_network else self._separate(block)

    def _separate(self, block: Block) -> NDArray[Any]:
        payload = self._content(block)
        if is_in_blocks(payload):
            raise CorruptStream("a block cannot be divided again")
        header, offset = read_field_header(payload, self._limits)
        if not block_header_fits(header, self.header, block.shape):
            raise CorruptStream(f"block {block.number} is not of this field")
        if header.mode == Mode.NETWORK:
            self._check_model(True)
        elif header.mode == Mode.INTERPOLATION and header.bound is None:
            raise CorruptStream("interpolation needs a bound")
        return decode_payload(header, payload, offset, self._codec)

    def _joint(self, block: Block) -> NDArray[Any]:
        header = self.header
        model = self._codec.model(header.ratio)
        positions, inner = latent_positions(block, model.synthesis_halo, header.shape[1:], header.periodic)
        found = np.empty((header.shape[0], *block.shape), self.dtype)
        for group in range(header.groups):
            latent = self._gather(positions, group)
            unit = model.synthesise(latent, header.quality_tenths, (False,) * 3, self._decoder)
            part = slice(group * GROUP, (group + 1) * GROUP)
            write_scaled(found[part], unit[(slice(None), *inner)], header.scales[group], header.offsets[part])
        classes = self._mask(block)
        if classes is not None:
            restore_mask(found, classes)
        return found

    def _gather(self, positions: tuple[NDArray[np.int64], ...], group: int) -> Tensor:
        """Latents at positions along each axis, from all blocks that have some of them."""
        sides = [-(-side // STRIDE) for side in self.header.sides]
        numbers = [index // side for index, side in zip(positions, sides, strict=True)]
        counts = self.header.grid.counts
        shape = [len(index) for index in positions]
        channels = self._codec.model(self.header.ratio).latent_channels
        gathered = torch.empty((1, *shape, channels), device=self._codec.device)
        for i in np.unique(numbers[0]):
            for j in np.unique(numbers[1]):
                for k in np.unique(numbers[2]):
                    number = (int(i) * counts[1] + int(j)) * counts[2] + int(k)
                    latent = self._block_latents(number)[group]
                    there, here = [], []
                    for n, index, of, side in zip((i, j, k), positions, numbers, sides, strict=True):
                        place = np.flatnonzero(of == n)
                        there.append(torch.from_numpy(place))
                        here.append(torch.from_numpy(index[place] - int(n) * side))
                    values = latent[0][here[0]][:, here[1]][:, :, here[2]]
                    gathered[0, there[0][:, None, None], there[1][:, None], there[2]] = values
        return gathered

    def _block_latents(self, number: int) -> list[Tensor]:
        """Latents of a block, one a group, from the cache if they are there."""
        with self._lock:
            if number in self._latents:
                self._latents.move_to_end(number)
                return self._latents[number]
        found = self._decode_latents(self.header.grid[number])
        with self._lock:
            if number not in self._latents:
                self._latents[number] = found
                self._cached_bytes += _bytes_of(found)
            while self._cached_bytes > LATENT_CACHE_BYTES and len(self._latents) > 1:
                _, oldest = self._latents.popitem(last=False)
                self._cached_bytes -= _bytes_of(oldest)
        return found

    def _decode_latents(self, block: Block) -> list[Tensor]:
        header = self.header
        model = self._codec.model(header.ratio)
        shape = latent_shape(block.shape)
        axes = header.block_periodic()
        parts = self._parts(block)[-header.groups :]
        return [model.latents(part, shape, header.quality_tenths, axes) for part in parts]

    def _mask(self, block: Block) -> NDArray[np.uint8] | None:
        parts = self._parts(block)
        if len(parts) == self.header.groups:
            return None
        return unpack_mask(parts[0], (self.header.shape[0], *block.shape))

    def _parts(self, block: Block) -> list[bytes]:
        content = self._content(block)
        if not content or content[0] > 1:
            raise CorruptStream(f"block {block.number} is damaged")
        return split_parts(content, 1, content[0] + self.header.groups)

    def _content(self, block: Block) -> bytes:
        start, stop = (int(place) for place in self._table.starts[block.number : block.number + 2])
        self._limits.check_section_bytes(stop - start)
        return self._table.checked(block.number, self._payload(start, stop))

    def _payload(self, start: int, stop: int) -> bytes:
        with self._lock:
            self._file.seek(self._place.start + start)
            found = self._file.read(stop - start)
        if len(found) < stop - start:
            raise TruncatedStream("the file has become shorter")
        return found

    def _check_model(self, needed: bool) -> None:
        named = self._place.preamble.fingerprint
        if needed and named != self._codec.fingerprint:
            raise UnknownModel(
                f"the stream needs the model {named.hex()}, this codec is {self._codec.fingerprint.hex()}"
            )
        if needed and named == ANY_MODEL:
            raise CorruptStream("a stream without a model has latents of a network")


def _bytes_of(latents: list[Tensor]) -> int:
    return sum(latent.numel() * latent.element_size() for latent in latents)
