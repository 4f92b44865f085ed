"""Latents to bytes and back: the integer entropy networks drive the range coder, step by step.

::

    z  -- table per channel and quality ------------------------------> range coder
    z  -> hyper synthesis (integers) -> features
    y, step by step: features, y_hat so far -> context (integers) -> mean, table index
                     y - mean -> round -> symbols --------------------> range coder
                     symbols + mean -> y_hat

Which elements a step has, and how many steps there are, is the context model's matter, see
:class:`~latentpress.models.entropy.latent_model.LatentModel`. A model may have its steps in several parts,
each with a range coder and a checksum of its own: what is decoded of the first is a latent even if the rest
is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.codecs.bitstream import CorruptStream, SymbolDecoder, SymbolEncoder, TableSet, crc32c
from latentpress.models.entropy.fixed_point import UNIT, table_index
from latentpress.models.entropy.hyperprior import HYPER_STRIDE
from latentpress.models.entropy.latent_model import CodingStep, Exchange, LatentModel

SYMBOL_LIMIT = 2**15 - 1
"""Symbols are limited to this magnitude: far beyond any latent, and far inside int32."""

MULTIPLIER = 0.015
"""Squared quantisation steps that one bit is worth when the encoder rounds.

Uniform quantisation at high rate makes it ln(2)/6 = 0.116: there, a smaller step would buy its distortion at
that price. Less was better where several values were tried, see docs/training.md.
"""

_LARGEST_CHOICE = 32

_Exchange = Callable[[Tensor, Tensor | None, int], NDArray[np.int32] | None]
"""Codes symbols, given raw scales, in the encoder what to code, and the part. None if the part is lost."""


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


class CodedPart(NamedTuple):
    """Symbols that share a range coder.

    Attributes:
        data: Words of the range coder.
        checksum: CRC32C over the symbols.
    """

    data: bytes
    checksum: int


class CodedLatent(NamedTuple):
    """A coded latent.

    Attributes:
        parts: As many as the context model has.
        y_hat: ``(1, h, w, M)`` float32, as the decoder will have it.
    """

    parts: tuple[CodedPart, ...]
    y_hat: Tensor

    @property
    def data(self) -> bytes:
        """Words of the range coder of a latent with one part."""
        (part,) = self.parts
        return part.data

    @property
    def checksum(self) -> int:
        """CRC32C over all symbols of a latent with one part."""
        (part,) = self.parts
        return part.checksum


class LatentCoder:
    """Codes y and z with integer networks; the same for encoder and decoder.

    Args:
        hyper_prior: Integer network: quality to raw scales of z.
        hyper_synthesis: Integer network: z and quality to features.
        context: Integer network, a :class:`~latentpress.models.entropy.latent_model.LatentModel`.
        tables: One table for every entry of the scale table.
        latent_channels: M.
        hyper_channels: Z.
    """

    def __init__(
        self,
        hyper_prior: nn.Module,
        hyper_synthesis: nn.Module,
        context: LatentModel,
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
        prefix: bytes = b"",
    ) -> CodedLatent:
        """Codes one picture's latents.

        Args:
            y: ``(1, h, w, M)`` in quantisation steps, on the networks' device.
            z: ``(1, ceil(h/4), ceil(w/4), Z)`` in quantisation steps.
            quality: ``(1,)``, a multiple of 0.1.
            observe: Called with every group of symbols.
            prefix: What the checksums cover besides, in front of the symbols.

        Raises:
            ValueError: The latent is larger than what the networks are exact for.
        """
        if not self.fits(y.shape[1], y.shape[2]):
            raise ValueError(
                f"a latent of {y.shape[1]}x{y.shape[2]} positions is too large: {self.max_positions}"
            )
        encoders = [SymbolEncoder() for _ in range(self.parts)]
        checksums = [_Checksum(prefix) for _ in range(self.parts)]
        y_units = y.double() * UNIT

        def send(raw_scale: Tensor, residual: Tensor | None, part: int) -> NDArray[np.int32]:
            index = table_index(raw_scale)
            rounded = torch.round(z.flatten().double()) if residual is None else self._round(residual, index)
            symbols = rounded.clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT).to(torch.int32).cpu().numpy()
            indexes = index.cpu().numpy()
            encoders[part].put(symbols, indexes, self.tables)
            checksums[part].add(symbols)
            if observe is not None:
                observe(Observation(symbols, indexes, raw_scale))
            return symbols

        y_hat = self._run(tuple(y.shape[1:-1]), quality, send, y_units)
        coded = zip(encoders, checksums, strict=True)
        return CodedLatent(tuple(CodedPart(e.finish(), c.value) for e, c in coded), y_hat)

    def decode(self, data: bytes, checksum: int, height: int, width: int, quality: Tensor) -> Tensor:
        """Restores a latent that has one part, see :meth:`decode_parts`."""
        return self.decode_parts([CodedPart(data, checksum)], (height, width), quality)

    def decode_parts(
        self, parts: Sequence[CodedPart], shape: tuple[int, ...], quality: Tensor, prefix: bytes = b""
    ) -> Tensor:
        """Restores a latent.

        Args:
            parts: The first parts of the latent, at least one. Elements of the others take their means.
            shape: Length of every axis of y but the channels, such as its rows and columns.
            quality: ``(1,)``, on the networks' device.
            prefix: What the checksums cover besides, in front of the symbols.

        Returns:
            y_hat, ``(1, *shape, M)`` float32.

        Raises:
            CorruptStream: The data do not decode to symbols with these checksums.
        """
        decoders = [SymbolDecoder(part.data) for part in parts]
        checksums = [_Checksum(prefix) for _ in parts]

        def receive(raw_scale: Tensor, residual: Tensor | None, part: int) -> NDArray[np.int32] | None:
            if part >= len(decoders):
                return None
            symbols = decoders[part].get(table_index(raw_scale).cpu().numpy(), self.tables)
            if symbols.size and max(int(symbols.max()), -int(symbols.min())) > SYMBOL_LIMIT:
                raise CorruptStream(f"a symbol is beyond {SYMBOL_LIMIT}")
            checksums[part].add(symbols)
            return symbols

        y_hat = self._run(shape, quality, receive, None)
        for decoder, actual, part in zip(decoders, checksums, parts, strict=True):
            decoder.finish()
            if actual.value != part.checksum:
                raise CorruptStream(
                    f"the symbols' checksum is {actual.value:08x}, the stream says {part.checksum:08x}"
                )
        return y_hat

    @property
    def parts(self) -> int:
        """Parts of a coded latent."""
        return self.context.parts

    @property
    def max_positions(self) -> int | None:
        """The largest latent that the networks are exact for, in positions; None for any."""
        return self.context.max_positions

    def fits(self, height: int, width: int) -> bool:
        """Whether the networks are exact for a latent of this size."""
        return self.max_positions is None or height * width <= self.max_positions

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
        self, shape: tuple[int, ...], quality: Tensor, exchange: _Exchange, y_units: Tensor | None
    ) -> Tensor:
        # Autocast would round the integers that the networks hold in floating point.
        with torch.autocast(quality.device.type, enabled=False):
            return self._run_exactly(shape, quality, exchange, y_units)

    def _run_exactly(
        self, shape: tuple[int, ...], quality: Tensor, exchange: _Exchange, y_units: Tensor | None
    ) -> Tensor:
        device = quality.device
        z_shape = (*(-(-size // HYPER_STRIDE) for size in shape), self.hyper_channels)
        z_raw_scale = self.hyper_prior(quality).expand(math.prod(z_shape[:-1]), -1)
        z_symbols = exchange(z_raw_scale.flatten(), None, 0)
        assert z_symbols is not None, "z is in the first part"
        z_units = torch.from_numpy(z_symbols).to(device).double().view(1, *z_shape) * UNIT
        features = self._features(z_units, quality)
        features = features[(slice(None), *map(slice, shape))]
        flat = None if y_units is None else y_units.reshape(-1)

        def exchange_step(step: CodingStep) -> Tensor:
            residual = None if flat is None else (flat[step.positions] - step.mean) * (1 / UNIT)
            symbols = exchange(step.raw_scale, residual, step.part)
            if symbols is None:
                return torch.zeros_like(step.mean)
            decoded: Tensor = torch.from_numpy(symbols).to(device).double() * UNIT
            return decoded

        y_hat = self._code(features, exchange_step)
        result: Tensor = (y_hat * (1 / UNIT)).float()
        return result

    def _features(self, z_units: Tensor, quality: Tensor) -> Tensor:
        features: Tensor = self.hyper_synthesis(z_units, quality)
        return features

    def _code(self, features: Tensor, exchange: Exchange) -> Tensor:
        return self.context.code(features, exchange)


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
    """CRC32C over arrays of symbols as they come, after a prefix."""

    def __init__(self, prefix: bytes) -> None:
        self._parts: list[bytes] = [prefix]

    def add(self, symbols: NDArray[np.int32]) -> None:
        self._parts.append(symbols.astype("<i4", copy=False).tobytes())

    @property
    def value(self) -> int:
        return crc32c(*self._parts)
