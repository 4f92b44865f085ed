"""A field of any size to a stream, block by block: memory holds a block and what its network makes of it.

::

    source -> statistics, one pass (range, and for joint blocks offsets and scales)
    source -> block, with a halo for joint ones -> bytes -> temporary file -> head and table, then all blocks
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Progress
from latentpress.codecs.bitstream import CodecId, crc32c
from latentpress.codecs.bitstream.container_file import write_container_file
from latentpress.codecs.block_grid import Block, BlockGrid
from latentpress.codecs.field_blocks import BlockKind, BlocksHeader, pack_head
from latentpress.codecs.field_effort import Effort, Subject, refined_bytes
from latentpress.codecs.field_encoding import FieldJob, unit_group
from latentpress.codecs.field_exact import filled, pack_mask
from latentpress.codecs.field_payload import ANY_MODEL, DTYPES, GROUP, join_parts
from latentpress.codecs.field_statistics import SourceStatistics
from latentpress.codecs.field_suitability import check_suits, piece_around
from latentpress.codecs.whole_files import open_whole
from latentpress.models.field.transforms import STRIDE

if TYPE_CHECKING:
    from latentpress.codecs.field import FieldCodec

MOST_COMPONENTS = 2**15
"""More are not coded in blocks, whose heads have to stay small."""

_VALUES_PER_BLOCK = 2**22
_SIDE_STEP = 32
_PIECE = 2**20


class ArraySource(Protocol):
    """Where a field is read from: arrays and memory maps of numpy, of zarr, HDF5, dask and xarray."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, D, H, W)`` or ``(C, H, W)``."""
        ...

    @property
    def dtype(self) -> Any:
        """float32 or float64."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """A part, for a tuple of slices."""
        ...


class Coding(NamedTuple):
    """How blocks are coded; one of both is set.

    Attributes:
        bound: On the error of every value: separate blocks.
        network: Ratio and quality in tenths: joint blocks.
    """

    bound: float | None
    network: tuple[int, int] | None


class BlockWriter:
    """Codes one source.

    Args:
        codec: Whose networks are used.
        source: The field.
        sides: Of a block along the axes of space; None for sides that suit the number of components.
        periodic: Axes that continue at their far ends.
        progress: Called with the fraction done and the stage.
        effort: 0 to 10, spent on the latents of networks.

    Raises:
        TypeError: The source is of another type than float32 and float64, or the effort is no whole number.
        ValueError: Its shape is not that of a field, or the sides do not fit it.
    """

    def __init__(
        self,
        codec: FieldCodec,
        source: ArraySource,
        sides: int | tuple[int, ...] | None,
        periodic: tuple[bool, bool, bool],
        progress: Progress,
        effort: int = 0,
    ) -> None:
        dtype = np.dtype(source.dtype).newbyteorder("=")
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"expected an array of float32 or float64, got {dtype}")
        shape = tuple(int(size) for size in source.shape)
        if len(shape) not in (3, 4) or 0 in shape:
            raise ValueError(f"expected a field of shape (C, D, H, W) or (C, H, W), got {shape}")
        if shape[0] > MOST_COMPONENTS:
            raise ValueError(f"blocks have at most {MOST_COMPONENTS} components, got {shape[0]}")
        self._codec = codec
        self._source = source
        self._dtype = dtype
        self._flat = len(shape) == 3
        self._components = shape[0]
        space = (1, *shape[1:]) if self._flat else shape[1:]
        self._space = (space[0], space[1], space[2])
        self._grid = BlockGrid(self._space, _checked_sides(sides, self._space, shape[0], self._flat))
        self._periodic = periodic
        self._progress = progress
        self._effort = Effort(effort, self._step)
        self._begun = 0

    def statistics(self) -> SourceStatistics:
        """One pass over the source."""
        found = SourceStatistics(self._components)
        for block in self._grid:
            self._progress(0.2 * block.number / len(self._grid), "looking at the range")
            found.add(self._read(block.slices), block.start)
        return found

    def write(
        self, target: str | Path | BinaryIO, coding: Coding, statistics: SourceStatistics | None
    ) -> int:
        """Codes all blocks and writes the stream.

        Args:
            target: Path, which holds the old content or the complete new one, or a file.
            coding: How.
            statistics: Of the source; only joint blocks need them.

        Returns:
            Bytes of the stream.

        Raises:
            ValueError: Values are too large for a network, or it does not suit the field.
        """
        header = self._header(coding, statistics)
        if header.has_network and statistics is not None and self._codec.refuses:
            self._check_suits(header, statistics)
        folder = Path(target).resolve().parent if isinstance(target, (str, Path)) else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as blocks:
            lengths: list[int] = []
            checksums: list[int] = []
            fingerprint = self._codec.fingerprint if header.has_network else ANY_MODEL
            for block in self._grid:
                self._begun = block.number
                self._progress(0.2 + 0.8 * block.number / len(self._grid), "coding blocks")
                if coding.network is not None:
                    content = self._joint(block, header)
                else:
                    content, model = self._separate(block, coding.bound or 0.0)
                    # Any block may need the model; those that do not name zeros.
                    fingerprint = max(fingerprint, model)
                blocks.write(content)
                lengths.append(len(content))
                checksums.append(crc32c(content))
            self._progress(1.0, "putting blocks together")
            head = pack_head(header, lengths, checksums)
            pieces = _pieces(head, blocks)
            length = len(head) + sum(lengths)
            if not isinstance(target, (str, Path)):
                return write_container_file(target, CodecId.FIELD, fingerprint, length, pieces)
            with open_whole(target) as file:
                return write_container_file(file, CodecId.FIELD, fingerprint, length, pieces)

    def _header(self, coding: Coding, statistics: SourceStatistics | None) -> BlocksHeader:
        shape = (self._components, *self._space)
        double = self._dtype == np.float64
        if coding.network is None or statistics is None:
            # What is coded by itself cannot be continued by the blocks at the other end.
            return BlocksHeader(
                BlockKind.SEPARATE, shape, self._grid.sides, self._flat, double, bound=coding.bound
            )
        scales = statistics.scales
        offsets = tuple(map(float, statistics.means))
        if not all(map(math.isfinite, scales + offsets)):
            raise ValueError(
                "values are too large for a network; with max_error any finite field can be coded"
            )
        d, h, w = (
            wraps and size % STRIDE == 0 for wraps, size in zip(self._periodic, self._space, strict=True)
        )
        return BlocksHeader(
            BlockKind.JOINT,
            shape,
            self._grid.sides,
            self._flat,
            double,
            periodic=(d, h, w),
            ratio=coding.network[0],
            quality_tenths=coding.network[1],
            offsets=offsets,
            scales=scales,
        )

    def _check_suits(self, header: BlocksHeader, statistics: SourceStatistics) -> None:
        """Refuses what is refused of a field at once, by the same piece, before anything is written."""
        model = self._codec.model(header.ratio)
        for number, scale in enumerate(header.scales):
            slices, axes = piece_around(statistics.largest_place(number), self._space, header.periodic)
            part = slice(number * GROUP, min((number + 1) * GROUP, self._components))
            exact = self._read(slices, part).astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                centred = filled(exact - np.array(header.offsets[part])[:, None, None, None])
            # The piece is a group of its own here.
            check_suits(model, unit_group(centred, 0, scale), header.quality_tenths, axes)

    def _separate(self, block: Block, bound: float) -> tuple[bytes, bytes]:
        """A block that keeps the bound by itself, and the model it needs."""
        values = self._read(block.slices)
        job = FieldJob(self._codec, values, self._flat, (False, False, False), self._effort)
        best = job.bounded(bound, None, None)
        return best.payload, best.fingerprint

    def _joint(self, block: Block, header: BlocksHeader) -> bytes:
        """The latents of a block, which depend on a halo of samples around it."""
        model = self._codec.model(header.ratio)
        refines = self._effort.iterations > 0
        # To synthesise a block takes latents around it, which take samples of their own.
        halo = STRIDE * (model.analysis_halo + (model.synthesis_halo if refines else 0))
        reached = _with_halo(block, halo, self._space, header.periodic)
        exact = self._gather(reached.indexes).astype(np.float64)
        inside = exact[(slice(None), *reached.inner)]
        masked = not bool(np.isfinite(inside).all())
        with np.errstate(invalid="ignore", over="ignore"):
            centred = filled(exact - np.array(header.offsets)[:, None, None, None])
        if not np.isfinite(centred).all():
            raise ValueError(
                "values are too large for a network; with max_error any finite field can be coded"
            )
        parts = [pack_mask(inside)] if masked else []
        axes = header.block_periodic()
        first = tuple(slice(part.start // STRIDE, -(-part.stop // STRIDE)) for part in reached.inner)
        self._effort.expect(len(header.scales))
        for number, scale in enumerate(header.scales):
            group = unit_group(centred, number, scale)
            if refines:
                counts = np.zeros(group.shape, np.bool_)
                known = np.isfinite(exact[number * GROUP : (number + 1) * GROUP])
                counts[: len(known)] = known
                region = tuple(
                    slice(max(0, part.start - STRIDE // 2), min(size, part.stop + STRIDE // 2))
                    for part, size in zip(reached.inner, group.shape[1:], strict=True)
                )
                subject = Subject(group, counts, (False, False, False), axes, first, region)
                refiner = self._codec.refiner(header.ratio)
                parts.append(refined_bytes(refiner, subject, header.quality_tenths, self._effort))
                continue
            latent = model.analyse(group, header.quality_tenths, (False, False, False))
            parts.append(model.code(latent[(slice(None), *first)].contiguous(), header.quality_tenths, axes))
        return bytes([masked]) + join_parts(parts)

    def _step(self, fraction: float, stage: str) -> None:
        """Progress within a block."""
        self._progress(0.2 + 0.8 * (self._begun + fraction) / len(self._grid), stage)

    def _read(self, slices: tuple[slice, ...], components: slice | None = None) -> NDArray[Any]:
        """Samples as ``(C, D, H, W)`` in a type that numpy's arithmetic likes; of all components, or some."""
        key = (components or slice(0, self._components), *(slices[1:] if self._flat else slices))
        values = np.asarray(self._source[key])
        # In blocks of a byte order of its own, such as of big-endian files.
        values = values.astype(DTYPES[self._dtype == np.float64][1:], copy=False)
        return values[:, None] if self._flat else values

    def _gather(self, indexes: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
        """Samples at indexes along each axis that are runs of following ones, maybe around the ends."""
        depth, height, width = map(_runs, indexes)
        planes = [
            [np.concatenate([self._read((d, h, w)) for w in width], axis=3) for h in height] for d in depth
        ]
        return np.concatenate([np.concatenate(rows, axis=2) for rows in planes], axis=1)


class _Reach(NamedTuple):
    """A block with the samples around it.

    Attributes:
        indexes: Of the samples along each axis.
        inner: Where the block is among them.
    """

    indexes: tuple[NDArray[np.int64], ...]
    inner: tuple[slice, ...]


def _with_halo(
    block: Block, halo: int, shape: tuple[int, int, int], periodic: tuple[bool, bool, bool]
) -> _Reach:
    """A block and ``halo`` samples around it; around the ends where the field is periodic."""
    indexes, inner = [], []
    for start, stop, size, wraps in zip(block.start, block.stop, shape, periodic, strict=True):
        first, last = start - halo, stop + halo
        if not wraps:
            first, last = max(0, first), min(size, last)
        indexes.append(np.arange(first, last) % size)
        inner.append(slice(start - first, stop - first))
    return _Reach(tuple(indexes), tuple(inner))


def _runs(index: NDArray[np.int64]) -> list[slice]:
    """Indexes as slices of following ones.

    Example:
        >>> _runs(np.array([6, 7, 0, 1]))
        [slice(6, 8, None), slice(0, 2, None)]
    """
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return [slice(int(part[0]), int(part[-1]) + 1) for part in np.split(index, breaks)]


def _checked_sides(
    sides: int | tuple[int, ...] | None, space: tuple[int, int, int], components: int, flat: bool
) -> tuple[int, int, int]:
    """Sides of a block along D, H and W: no longer than the field, and multiples of 8 otherwise."""
    if sides is None:
        side = math.floor((_VALUES_PER_BLOCK / components) ** (1 / (2 if flat else 3)))
        sides = max(_SIDE_STEP, side // _SIDE_STEP * _SIDE_STEP)
    if isinstance(sides, int):
        sides = (sides,) * (2 if flat else 3)
    if len(sides) != (2 if flat else 3):
        raise ValueError(f"a block has as many sides as the field has axes of space, got {len(sides)}")
    full = (1, *sides) if flat else sides
    for side, size in zip(full, space, strict=True):
        if side < 1 or (side < size and side % STRIDE):
            raise ValueError(f"sides of blocks are multiples of {STRIDE}, got {side}")
    d, h, w = (min(side, size) for side, size in zip(full, space, strict=True))
    return d, h, w


def _pieces(head: bytes, blocks: Any) -> Iterator[bytes]:
    """The payload: its head, then what is in a file."""
    yield head
    blocks.seek(0)
    while piece := blocks.read(_PIECE):
        yield piece
