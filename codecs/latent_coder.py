"""Latents to bytes and back: the integer entropy networks drive the range coder, step by step.

::

    z, in one step or in several: quality, z_hat so far -> mean, table index
                     z - mean -> round -> symbols --------------------> range coder
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

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.encoder_rounding import EncoderRounding
from latentpress.codecs.latent_symbols import DeviceReceiving, Receiving, Sending, Symbols
from latentpress.codecs.symbol_coders import CodedPart, InProcessCoders, PartReader, SymbolCoders, SymbolGroup
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.entropy.hyperprior import HYPER_STRIDE, HyperPrior
from latentpress.models.entropy.latent_model import Exchange, LatentModel

_HERE = InProcessCoders()


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


class CodedBatch(NamedTuple):
    """Latents that are being coded.

    Attributes:
        pending: For each latent its parts, which may still be on their way.
        y_hat: ``(B, h, w, M)`` float32, as the decoder will have them.
    """

    pending: list[list[Future[CodedPart]]]
    y_hat: Tensor

    def parts(self) -> list[tuple[CodedPart, ...]]:
        """The parts of each latent, once all are there."""
        return [tuple(part.result() for part in latent) for latent in self.pending]


class LatentCoder:
    """Codes y and z with integer networks; the same for encoder and decoder.

    Latents of one size may be coded as a batch, each to a range coder of its own. Integers see to it that a
    latent has the same symbols in any batch.

    Args:
        hyper_prior: Integer network: distribution of z.
        hyper_synthesis: Integer network: z and quality to features.
        context: Integer network, a :class:`~latentpress.models.entropy.latent_model.LatentModel`.
        tables: One table for every entry of the scale table.
        latent_channels: M.
    """

    def __init__(
        self,
        hyper_prior: HyperPrior,
        hyper_synthesis: nn.Module,
        context: LatentModel,
        tables: TableSet,
        latent_channels: int,
    ) -> None:
        self.hyper_prior = hyper_prior
        self.hyper_synthesis = hyper_synthesis
        self.context = context
        self.tables = tables
        self.latent_channels = latent_channels
        self.rounding = EncoderRounding(tables)

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
        batch = self.encode_batch(y, z, quality, [prefix], observe=observe)
        (parts,) = batch.parts()
        return CodedLatent(parts, batch.y_hat)

    def encode_batch(
        self,
        y: Tensor,
        z: Tensor,
        quality: Tensor,
        prefixes: Sequence[bytes],
        coders: SymbolCoders = _HERE,
        observe: Callable[[Observation], None] | None = None,
    ) -> CodedBatch:
        """Codes latents of one size.

        Args:
            y: ``(B, h, w, M)`` in quantisation steps, on the networks' device.
            z: ``(B, ceil(h/4), ceil(w/4), Z)`` in quantisation steps.
            quality: ``(B,)``, multiples of 0.1.
            prefixes: For each latent what its checksums cover besides, in front of the symbols.
            coders: Who writes the symbols.
            observe: Called with every group of symbols, those of a batch in one.

        Raises:
            ValueError: The latents are larger than what the networks are exact for.
        """
        if not self.fits(y.shape[1], y.shape[2]):
            raise ValueError(
                f"a latent of {y.shape[1]}x{y.shape[2]} positions is too large: {self.max_positions}"
            )
        sent = Sending(y, z, self.rounding)
        y_hat = self._run(tuple(y.shape[1:-1]), quality, sent)
        groups = sent.groups()
        if observe is not None:
            for group, raw_scale in zip(groups, sent.raw_scales, strict=True):
                observe(Observation(group.symbols.astype(np.int32), group.indexes, raw_scale))
        split = [_of_each(group, counts) for group, counts in zip(groups, sent.counts, strict=True)]
        pending = []
        for number, prefix in enumerate(prefixes):
            parts: list[list[SymbolGroup]] = [[] for _ in range(self.parts)]
            for part, latents in zip(sent.parts, split, strict=True):
                parts[part].append(latents[number])
            pending.append([coders.write(part, self.tables, prefix) for part in parts])
        return CodedBatch(pending, y_hat)

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
        if quality.device.type == "cpu":
            return self.decode_batch([parts], shape, quality, [prefix])
        readers = [PartReader(part, self.tables, prefix) for part in parts]
        return self._received(DeviceReceiving(readers, len(self.tables)), shape, quality)

    def decode_batch(
        self,
        latents: Sequence[Sequence[CodedPart]],
        shape: tuple[int, ...],
        quality: Tensor,
        prefixes: Sequence[bytes],
        coders: SymbolCoders = _HERE,
    ) -> Tensor:
        """Restores latents of one size.

        Args:
            latents: For each its first parts, at least one. Elements of the others take their means.
            shape: Length of every axis of y but the channels, such as its rows and columns.
            quality: ``(B,)``, on the networks' device.
            prefixes: For each latent what its checksums cover besides, in front of the symbols.
            coders: Who reads the symbols.

        Returns:
            y_hat, ``(B, *shape, M)`` float32.

        Raises:
            CorruptStream: The data do not decode to symbols with these checksums.
        """
        received = Receiving(
            [
                [coders.read(part, self.tables, prefix) for part in parts]
                for parts, prefix in zip(latents, prefixes, strict=True)
            ]
        )
        return self._received(received, shape, quality)

    def _received(
        self, symbols: Receiving | DeviceReceiving, shape: tuple[int, ...], quality: Tensor
    ) -> Tensor:
        y_hat = self._run(shape, quality, symbols)
        symbols.finish()
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

    @torch.inference_mode()
    def _run(self, shape: tuple[int, ...], quality: Tensor, symbols: Symbols) -> Tensor:
        # Autocast would round the integers that the networks hold in floating point.
        with torch.autocast(quality.device.type, enabled=False):
            z_shape = tuple(-(-size // HYPER_STRIDE) for size in shape)
            z_units = self.hyper_prior.code(z_shape, quality, lambda step: symbols.of_z(step) * UNIT)
            features = self._features(z_units, quality)
            features = features[(slice(None), *map(slice, shape))]
            y_hat = self._code(features, lambda step: symbols.of_y(step) * UNIT)
            result: Tensor = (y_hat * (1 / UNIT)).float()
            return result

    def _features(self, z_units: Tensor, quality: Tensor) -> Tensor:
        features: Tensor = self.hyper_synthesis(z_units, quality)
        return features

    def _code(self, features: Tensor, exchange: Exchange) -> Tensor:
        return self.context.code(features, exchange)


def _of_each(group: SymbolGroup, counts: Sequence[int]) -> list[SymbolGroup]:
    """A group of a batch, latent by latent."""
    ends = np.cumsum(counts)[:-1]
    pairs = zip(np.split(group.symbols, ends), np.split(group.indexes, ends), strict=True)
    return [SymbolGroup(*pair) for pair in pairs]
