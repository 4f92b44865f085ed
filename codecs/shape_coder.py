"""Shape codes to bytes and back: integer priors drive the range coder, channel group by channel group.

::

    group 0..n: groups so far -> prior (integers) -> mean, table index
                code - mean -> round -> symbols ----------------------> range coder
    groups that are not sent: the prior's mean
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import CorruptStream, SymbolDecoder, SymbolEncoder, TableSet, crc32c
from latentpress.codecs.bitstream.information import table_information
from latentpress.codecs.packed_words import packed_words, unpacked_words
from latentpress.models.entropy.fixed_point import UNIT, table_index
from latentpress.models.shape.code_prior import CodePrior
from latentpress.models.shape.generator import NUM_TOKENS

SYMBOL_LIMIT = 2**12 - 1
"""Symbols are limited to this magnitude: far beyond any code, and far inside int32."""

MULTIPLIER = 0.05
"""Squared quantisation steps that one bit is worth when the encoder rounds, as for images."""

_LARGEST_CHOICE = 32

Exchange = Callable[[Tensor, Tensor | None], NDArray[np.int32]]
"""Codes or decodes a group of symbols: raw scales and, in the encoder, values to symbols."""


class CodePlan(NamedTuple):
    """What of a code is sent, and how finely; the same in encoder and decoder.

    Attributes:
        geometry_quality: ``(1,)``, a multiple of 0.1, on the priors' device.
        colour_quality: ``(1,)``; None for no colour.
        geometry_groups: Groups of the geometry code that are sent.
        colour_groups: Groups of the colour code that are sent.
    """

    geometry_quality: Tensor
    colour_quality: Tensor | None
    geometry_groups: int
    colour_groups: int


class DecodedCode(NamedTuple):
    """Codes as the decoder has them, in quantisation steps, float32.

    Attributes:
        geometry: ``(1, 64, Kg)``.
        colour: ``(1, 64, Kc)``, or None.
    """

    geometry: Tensor
    colour: Tensor | None


class CodedShape(NamedTuple):
    """A coded shape.

    Attributes:
        data: Coded symbols, without the zero bytes at their end.
        checksum: Low 16 bits of the CRC32C of all symbols.
        code: As the decoder will have it.
    """

    data: bytes
    checksum: int
    code: DecodedCode


class CodeCoder:
    """Codes shape codes with integer priors; the same for encoder and decoder.

    Args:
        geometry_prior: Integer network.
        colour_prior: Integer network.
        tables: One table for every entry of the scale table.
    """

    def __init__(self, geometry_prior: CodePrior, colour_prior: CodePrior, tables: TableSet) -> None:
        self.geometry_prior = geometry_prior
        self.colour_prior = colour_prior
        self.tables = tables
        magnitudes = np.arange(_LARGEST_CHOICE + 1)
        costs = [table_information(magnitudes, tables, k) for k in range(len(tables))]
        opposite = [table_information(-magnitudes, tables, k) for k in range(len(tables))]
        saved = np.diff((np.stack(costs) + np.stack(opposite)) / 2, axis=1, prepend=0)
        saved[:, 0] = 0
        self._saved = torch.from_numpy(saved)

    def encode(self, geometry: Tensor, colour: Tensor | None, plan: CodePlan) -> CodedShape:
        """Codes one shape.

        Args:
            geometry: ``(1, 64, Kg)`` in quantisation steps, on the priors' device.
            colour: ``(1, 64, Kc)``, or None where the plan has no colour.
            plan: What to send.
        """
        encoder = SymbolEncoder()
        sent: list[bytes] = []

        def send(raw_scale: Tensor, residual: Tensor | None) -> NDArray[np.int32]:
            assert residual is not None
            index = table_index(raw_scale)
            rounded = self._round(residual, index).clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            symbols = rounded.to(torch.int32).cpu().numpy()
            encoder.put(symbols, index.cpu().numpy(), self.tables)
            sent.append(symbols.astype("<i4", copy=False).tobytes())
            return symbols

        units = None if colour is None else colour.double() * UNIT
        code = self._run(plan, send, geometry.double() * UNIT, units)
        return CodedShape(packed_words(encoder.finish()), crc32c(*sent) & 0xFFFF, code)

    def decode(self, data: bytes, checksum: int, plan: CodePlan) -> DecodedCode:
        """Restores a code.

        Args:
            data: Coded symbols.
            checksum: Low 16 bits of the CRC32C that the symbols must have.
            plan: As it was encoded.

        Raises:
            CorruptStream: The data do not decode to symbols with this checksum.
            TruncatedStream: The data end too early.
        """
        decoder = SymbolDecoder(unpacked_words(data))
        received: list[bytes] = []

        def receive(raw_scale: Tensor, residual: Tensor | None) -> NDArray[np.int32]:
            symbols = decoder.get(table_index(raw_scale).cpu().numpy(), self.tables)
            if symbols.size and max(int(symbols.max()), -int(symbols.min())) > SYMBOL_LIMIT:
                raise CorruptStream(f"a symbol is beyond {SYMBOL_LIMIT}")
            received.append(symbols.astype("<i4", copy=False).tobytes())
            return symbols

        code = self._run(plan, receive, None, None)
        decoder.finish()
        actual = crc32c(*received) & 0xFFFF
        if actual != checksum:
            raise CorruptStream(f"the symbols' checksum is {actual:04x}, the stream says {checksum:04x}")
        return code

    def _round(self, residual: Tensor, index: Tensor) -> Tensor:
        """Rounds to the nearest integer, or to the next smaller magnitude where that saves bits enough."""
        self._saved = self._saved.to(residual.device)
        nearest = torch.round(residual)
        magnitude = nearest.abs()
        saved = self._saved[index.long(), magnitude.clamp(max=_LARGEST_CHOICE).long()]
        # (|r| - m + 1)^2 - (|r| - m)^2, the squared error that one step less adds.
        added = 2 * (residual.abs() - magnitude) + 1
        return torch.where(added < MULTIPLIER * saved, nearest - torch.sign(nearest), nearest)

    @torch.inference_mode()
    def _run(
        self, plan: CodePlan, exchange: Exchange, geometry: Tensor | None, colour: Tensor | None
    ) -> DecodedCode:
        quality = plan.geometry_quality
        # Autocast would round the integers that the networks hold in floating point.
        with torch.autocast(quality.device.type, enabled=False):
            shape = self._part(
                self.geometry_prior, None, quality, quality, plan.geometry_groups, exchange, geometry
            )
            if plan.colour_quality is None:
                return DecodedCode(_steps(shape), None)
            paint = self._part(
                self.colour_prior, shape, plan.colour_quality, quality, plan.colour_groups, exchange, colour
            )
        return DecodedCode(_steps(shape), _steps(paint))

    def _part(
        self,
        prior: CodePrior,
        context: Tensor | None,
        quality: Tensor,
        context_quality: Tensor,
        sent: int,
        exchange: Exchange,
        code: Tensor | None,
    ) -> Tensor:
        """One code in units, ``(1, 64, K)`` float64."""
        size = (1, NUM_TOKENS, prior.channels)
        value = torch.zeros(size, dtype=torch.float64, device=quality.device)
        known = torch.zeros_like(value)
        for group in range(sent):
            channels = slice(group * prior.group_channels, (group + 1) * prior.group_channels)
            prediction = prior(value, known, context, quality, context_quality)
            mean = prediction.mean[..., channels]
            residual = None if code is None else ((code[..., channels] - mean) * (1 / UNIT)).flatten()
            symbols = exchange(prediction.raw_scale[..., channels].flatten(), residual)
            values = torch.from_numpy(symbols).to(value.device).double().view(mean.shape) * UNIT
            value[..., channels] = values + mean
            known[..., channels] = UNIT
        if sent < prior.groups:
            rest = slice(sent * prior.group_channels, None)
            value[..., rest] = prior(value, known, context, quality, context_quality).mean[..., rest]
        return value


def _steps(units: Tensor) -> Tensor:
    steps: Tensor = (units * (1 / UNIT)).float()
    return steps
