"""Latents to bytes and back: the integer entropy networks drive the range coder, step by step.

::

    z  -- table per channel and quality ------------------------------> range coder
    z  -> hyper synthesis (integers) -> features
    y, step 0..3: features, y_hat so far -> context (integers) -> mean, table index
                  y - mean -> round -> symbols -----------------------> range coder
                  symbols + mean -> y_hat
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.codecs.bitstream import CorruptStream, SymbolDecoder, SymbolEncoder, TableSet, crc32c
from latentpress.models.entropy.context import STEPS, step_mask
from latentpress.models.entropy.fixed_point import UNIT, table_index
from latentpress.models.entropy.hyperprior import HYPER_STRIDE

SYMBOL_LIMIT = 2**15 - 1
"""Symbols are limited to this magnitude: far beyond any latent, and far inside int32."""

MULTIPLIER = 0.015
"""Squared quantisation steps that one bit is worth when the encoder rounds.

Uniform quantisation at high rate makes it ln(2)/6 = 0.116: there, a smaller step would buy its distortion at
that price. Less was better where several values were tried, see docs/training.md.
"""

_LARGEST_CHOICE = 32

Exchange = Callable[[Tensor, Tensor | None], NDArray[np.int32]]
"""Codes or decodes a group of symbols: raw scales and, in the encoder, values to symbols."""


class Observation(NamedTuple):
    """Symbols as they are coded, for statistics.

    Attributes:
        symbols: ``(n,)`` int32.
        indexes: Their tables, ``(n,)`` uint8.
        raw_scale: The scales they were coded with before rounding to tables, ``(n,)``, in fixed-point units.
    """

    symbols: NDArray[np.int32]
    indexes: NDArray[np.uint8]
    raw_scale: Tensor


class CodedLatent(NamedTuple):
    """A coded latent.

    Attributes:
        data: Words of the range coder.
        checksum: CRC32C over all symbols.
        y_hat: ``(1, h, w, M)`` float32, as the decoder will have it.
    """

    data: bytes
    checksum: int
    y_hat: Tensor


class LatentCoder:
    """Codes y and z with integer networks; the same for encoder and decoder.

    Args:
        hyper_prior: Integer network: quality to raw scales of z.
        hyper_synthesis: Integer network: z and quality to features.
        context: Integer network: step, features and decoded latents to mean and raw scale.
        tables: One table for every entry of the scale table.
        latent_channels: M.
        hyper_channels: Z.
    """

    def __init__(
        self,
        hyper_prior: nn.Module,
        hyper_synthesis: nn.Module,
        context: nn.Module,
        tables: TableSet,
        latent_channels: int,
        hyper_channels: int,
    ) -> None:
        self.hyper_prior = hyper_prior
        self.hyper_synthesis = hyper_synthesis
        self.context = context
        self.tables = tables
        self.latent_channels = latent_channels
        self.hyper_channels = hyper_channels
        self.multiplier = MULTIPLIER
        self._savings = torch.from_numpy(_bits_saved(tables))

    def encode(
        self,
        y: Tensor,
        z: Tensor,
        quality: Tensor,
        observe: Callable[[Observation], None] | None = None,
    ) -> CodedLatent:
        """Codes one picture's latents.

        Args:
            y: ``(1, h, w, M)`` in quantisation steps, on the networks' device.
            z: ``(1, ceil(h/4), ceil(w/4), Z)`` in quantisation steps.
            quality: ``(1,)``, a multiple of 0.1.
            observe: Called with every group of symbols.
        """
        encoder = SymbolEncoder()
        checksum = _Checksum()
        y_units = y.double() * UNIT

        def send(raw_scale: Tensor, residual: Tensor | None) -> NDArray[np.int32]:
            index = table_index(raw_scale)
            rounded = torch.round(z.flatten().double()) if residual is None else self._round(residual, index)
            symbols = rounded.clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT).to(torch.int32).cpu().numpy()
            indexes = index.cpu().numpy()
            encoder.put(symbols, indexes, self.tables)
            checksum.add(symbols)
            if observe is not None:
                observe(Observation(symbols, indexes, raw_scale))
            return symbols

        y_hat = self._run(y.shape[1], y.shape[2], quality, send, y_units)
        return CodedLatent(encoder.finish(), checksum.value, y_hat)

    def decode(self, data: bytes, checksum: int, height: int, width: int, quality: Tensor) -> Tensor:
        """Restores a latent.

        Args:
            data: Words of the range coder.
            checksum: CRC32C that the symbols must have.
            height: Rows of y.
            width: Columns of y.
            quality: ``(1,)``, on the networks' device.

        Returns:
            y_hat, ``(1, height, width, M)`` float32.

        Raises:
            CorruptStream: The data do not decode to symbols with this checksum.
        """
        decoder = SymbolDecoder(data)
        actual = _Checksum()

        def receive(raw_scale: Tensor, residual: Tensor | None) -> NDArray[np.int32]:
            symbols = decoder.get(table_index(raw_scale).cpu().numpy(), self.tables)
            if symbols.size and max(int(symbols.max()), -int(symbols.min())) > SYMBOL_LIMIT:
                raise CorruptStream(f"a symbol is beyond {SYMBOL_LIMIT}")
            actual.add(symbols)
            return symbols

        y_hat = self._run(height, width, quality, receive, None)
        decoder.finish()
        if actual.value != checksum:
            raise CorruptStream(
                f"the symbols' checksum is {actual.value:08x}, the stream says {checksum:08x}"
            )
        return y_hat

    def _round(self, residual: Tensor, index: Tensor) -> Tensor:
        """Rounds to the nearest integer, or to the next smaller magnitude where that saves bits enough."""
        self._savings = self._savings.to(residual.device)
        nearest = torch.round(residual)
        magnitude = nearest.abs()
        savings = self._savings[index.long(), magnitude.clamp(max=_LARGEST_CHOICE).long()]
        # (|r| - m + 1)^2 - (|r| - m)^2, the squared error that one step less adds.
        added_error = 2 * (residual.abs() - magnitude) + 1
        smaller = nearest - torch.sign(nearest)
        return torch.where(added_error < self.multiplier * savings, smaller, nearest)

    @torch.inference_mode()
    def _run(
        self, height: int, width: int, quality: Tensor, exchange: Exchange, y_units: Tensor | None
    ) -> Tensor:
        # Autocast would round the integers that the networks hold in floating point.
        with torch.autocast(quality.device.type, enabled=False):
            return self._run_exactly(height, width, quality, exchange, y_units)

    def _run_exactly(
        self, height: int, width: int, quality: Tensor, exchange: Exchange, y_units: Tensor | None
    ) -> Tensor:
        device = quality.device
        z_shape = (-(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE), self.hyper_channels)
        z_raw_scale = self.hyper_prior(quality).expand(z_shape[0] * z_shape[1], -1)
        z_symbols = exchange(z_raw_scale.flatten(), None)
        z_units = torch.from_numpy(z_symbols).to(device).double().view(1, *z_shape) * UNIT
        features = self.hyper_synthesis(z_units, quality)[:, :height, :width]

        y_hat = torch.zeros((1, height, width, self.latent_channels), dtype=torch.float64, device=device)
        flat = y_hat.view(-1)
        for step, coded in self._steps(height, width, device):
            prediction = self.context(step, features, y_hat)
            mean = prediction.mean.flatten()[coded]
            raw_scale = prediction.raw_scale.flatten()[coded]
            residual = None if y_units is None else (y_units.reshape(-1)[coded] - mean) * (1 / UNIT)
            symbols = torch.from_numpy(exchange(raw_scale, residual)).to(device)
            flat[coded] = symbols.double() * UNIT + mean
        result: Tensor = (y_hat * (1 / UNIT)).float()
        return result

    def _steps(self, height: int, width: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
        """Numbers of the steps, and the flat positions of their elements in raster order."""
        for step in range(STEPS):
            mask = step_mask(step, height, width, self.latent_channels, device)
            yield step, mask.flatten().nonzero().flatten()


def _bits_saved(tables: TableSet) -> NDArray[np.float64]:
    """Bits that one step less in magnitude saves, ``(tables, _LARGEST_CHOICE + 1)``; none from zero."""
    saved = np.zeros((len(tables), _LARGEST_CHOICE + 1))
    for number in range(len(tables)):
        support, frequencies = tables.support(number), tables.table(number)
        largest = min(_LARGEST_CHOICE, -support.start, support.stop - 1)
        magnitudes = np.arange(largest + 1)
        both_signs = (
            frequencies[magnitudes - support.start] * 0.5 + frequencies[-magnitudes - support.start] * 0.5
        )
        saved[number, 1 : largest + 1] = np.diff(-np.log2(both_signs))
    return saved


class _Checksum:
    """CRC32C over arrays of symbols as they come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, symbols: NDArray[np.int32]) -> None:
        self._parts.append(symbols.astype("<i4", copy=False).tobytes())

    @property
    def value(self) -> int:
        return crc32c(*self._parts)
