"""Where the networks of a latent get symbols from: latents that are encoded, or coded parts.

::

    Sending          latents -> rounded -> symbols, kept until all are there
    Receiving        table indexes -> readers of coded parts, here or elsewhere -> symbols
    DeviceReceiving  the same for one latent on a GPU, which sorts the symbols itself
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.symbol_coders import SYMBOL_LIMIT, PartReader, SymbolGroup, SymbolReading
from latentpress.models.entropy.fixed_point import UNIT, table_index
from latentpress.models.entropy.latent_model import CodingStep


class Symbols(Protocol):
    """Where the networks get symbols from, ``(n,)`` float64 on their device."""

    def of_z(self, step: CodingStep) -> Tensor:
        """The symbols of a step of z."""

    def of_y(self, step: CodingStep) -> Tensor:
        """The symbols of a step."""


class Sending:
    """Symbols from latents, which are kept until all are there: no GPU waits for a coder.

    Args:
        y: ``(B, ..., M)`` in quantisation steps.
        z: ``(B, ..., Z)`` in quantisation steps.
        rounding: From residuals and table indexes to symbols.
    """

    def __init__(self, y: Tensor, z: Tensor, rounding: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._y_units = (y.double() * UNIT).reshape(-1)
        self._z_units = (z.double() * UNIT).reshape(-1)
        self._batch = len(z)
        self._rounding = rounding
        self._symbols: list[Tensor] = []
        self._indexes: list[Tensor] = []
        self.raw_scales: list[Tensor] = []
        self.parts: list[int] = []
        self.counts: list[tuple[int, ...]] = []

    def of_z(self, step: CodingStep) -> Tensor:
        """The symbols of a step of z, see :class:`Symbols`; rounded to the nearest."""
        symbols = torch.round((self._z_units[step.positions] - step.mean) * (1 / UNIT))
        counts = _equal_counts(step.raw_scale, self._batch)
        return self._keep(symbols, table_index(step.raw_scale), step.raw_scale, 0, counts)

    def of_y(self, step: CodingStep) -> Tensor:
        """The symbols of a step, see :class:`Symbols`."""
        index = table_index(step.raw_scale)
        symbols = self._rounding((self._y_units[step.positions] - step.mean) * (1 / UNIT), index)
        counts = step.counts or _equal_counts(step.raw_scale, self._batch)
        return self._keep(symbols, index, step.raw_scale, step.part, counts)

    def groups(self) -> list[SymbolGroup]:
        """All symbols in coding order, brought from the networks' device at once."""
        sizes = [len(index) for index in self._indexes]
        symbols = torch.cat(self._symbols).cpu().numpy()
        indexes = torch.cat(self._indexes).cpu().numpy()
        ends = np.cumsum(sizes)[:-1]
        return [
            SymbolGroup(*pair) for pair in zip(np.split(symbols, ends), np.split(indexes, ends), strict=True)
        ]

    def _keep(
        self, symbols: Tensor, index: Tensor, raw_scale: Tensor, part: int, counts: tuple[int, ...]
    ) -> Tensor:
        symbols = symbols.clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        self._symbols.append(symbols.to(torch.int16))
        self._indexes.append(index)
        self.raw_scales.append(raw_scale)
        self.parts.append(part)
        self.counts.append(counts)
        return symbols


class Receiving:
    """Symbols from coded parts.

    Args:
        readings: Of the parts that each latent has; what is in the others is zero.
    """

    def __init__(self, readings: Sequence[Sequence[SymbolReading]]) -> None:
        self._readings = readings

    def of_z(self, step: CodingStep) -> Tensor:
        """The symbols of a step of z, see :class:`Symbols`."""
        return self.of_y(step)

    def of_y(self, step: CodingStep) -> Tensor:
        """The symbols of a step, see :class:`Symbols`."""
        counts = step.counts or _equal_counts(step.raw_scale, len(self._readings))
        return self._get(step.raw_scale, step.part, counts)

    def finish(self) -> None:
        """Checks ends and checksums.

        Raises:
            CorruptStream: One is not right.
        """
        for pending in [part.finish() for parts in self._readings for part in parts]:
            pending.result()

    def _get(self, raw_scale: Tensor, part: int, counts: tuple[int, ...]) -> Tensor:
        if all(part >= len(parts) for parts in self._readings):
            return torch.zeros_like(raw_scale)
        indexes = table_index(raw_scale).cpu().numpy()
        symbols = np.zeros(len(indexes), np.int16)
        pending: list[tuple[slice, Future[NDArray[np.int16]]]] = []
        start = 0
        for parts, count in zip(self._readings, counts, strict=True):
            span = slice(start, start + count)
            if part < len(parts):
                pending.append((span, parts[part].get(indexes[span])))
            start = span.stop
        for span, found in pending:
            symbols[span] = found.result()
        return torch.from_numpy(symbols).to(raw_scale.device).double()


class DeviceReceiving:
    """Symbols of one latent, sorted where the networks run rather than where the range coder does.

    The coder goes through a group table by table. Only how many symbols each table has goes to it, symbols
    come back in its order, and a GPU brings them where they belong in far less time than a processor::

        table indexes -> sorted -> counts --> range coder --> symbols, table by table -> in their places

    Args:
        readers: Of the parts that the latent has; what is in the others is zero.
        tables: How many there are.

    Example:
        >>> from latentpress.codecs.bitstream import TableSet
        >>> from latentpress.codecs.symbol_coders import CodedPart
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> reader = PartReader(CodedPart(bytes.fromhex("0000305f"), 0x7B5C70B0), tables, b"")
        >>> received = DeviceReceiving([reader], len(tables))
        >>> raw_scale = torch.full((3,), -9.0 * UNIT, dtype=torch.float64)
        >>> received.of_z(CodingStep(torch.arange(3), torch.zeros(3), raw_scale))
        tensor([0., 1., 7.], dtype=torch.float64)
        >>> received.finish()
    """

    def __init__(self, readers: Sequence[PartReader], tables: int) -> None:
        self._readers = readers
        self._tables = tables
        self._symbols: list[list[Tensor]] = [[] for _ in readers]

    def of_z(self, step: CodingStep) -> Tensor:
        """The symbols of a step of z, see :class:`Symbols`."""
        return self.of_y(step)

    def of_y(self, step: CodingStep) -> Tensor:
        """The symbols of a step, see :class:`Symbols`."""
        return self._get(step.raw_scale, step.part)

    def finish(self) -> None:
        """Checks ends and checksums.

        Raises:
            CorruptStream: One is not right.
        """
        for reader, symbols in zip(self._readers, self._symbols, strict=True):
            if symbols:
                reader.cover(torch.cat(symbols).cpu().numpy())
            reader.finish()

    def _get(self, raw_scale: Tensor, part: int) -> Tensor:
        if part >= len(self._readers):
            return torch.zeros_like(raw_scale)
        indexes, order = torch.sort(table_index(raw_scale), stable=True)
        every_table = torch.arange(self._tables, dtype=indexes.dtype, device=indexes.device)
        ends = torch.searchsorted(indexes, every_table, right=True).cpu().numpy()
        grouped = torch.from_numpy(self._readers[part].get_grouped(np.diff(ends, prepend=0)))
        symbols = torch.empty(len(order), dtype=torch.int16, device=order.device)
        # What is not in pinned memory has been read when the call returns, so nothing has to wait for it.
        symbols.scatter_(0, order, grouped.to(order.device, non_blocking=True))
        self._symbols[part].append(symbols)
        return symbols.double()


def _equal_counts(elements: Tensor, batch: int) -> tuple[int, ...]:
    return (len(elements) // batch,) * batch
