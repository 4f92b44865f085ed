"""Many pictures at a time: those of one size go through the networks together, each to a stream of its own.

::

    pictures of one size -> analysis -> integer networks -> symbols -> coders, while the next are analysed
    streams of one size -> lanes: coders <-> integer networks -> synthesis; one lane codes, another computes

A stream does not say that it was made or read with others. On a CPU its bytes are those it has alone, because
the transforms take one picture at a time there. On a GPU they take all of a batch, and sums may be rounded
another way than alone: then a few latents come out one step up or down. What decides probability tables is
integer in any case, so every stream decodes, alone or in any batch, to the same symbols.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.codecs.base import Progress
from latentpress.codecs.bitstream import SectionType
from latentpress.codecs.image_payload import QUALITY_TENTHS_MAX, ImageHeader, join_parts
from latentpress.codecs.image_stream import ImageStream, covered
from latentpress.codecs.image_targets import squared_error_of_psnr, unmet_bytes, unmet_psnr
from latentpress.codecs.image_tiles import Region, batches
from latentpress.codecs.image_transforms import ImageTransforms, with_channels
from latentpress.codecs.latent_coder import CodedBatch, LatentCoder
from latentpress.codecs.picture_input import PictureInput
from latentpress.codecs.rate_control import LEAST_ERROR, bracketing
from latentpress.codecs.symbol_coders import InProcessCoders, SymbolCoders

_BATCHES_IN_FLIGHT = 4
"""Batches that may wait for coders: enough to keep them busy, few enough not to fill the memory."""

_LANES = 2
"""Batches that are decoded at a time: while one waits for coders, the networks work on the other."""


class BatchTrial(NamedTuple):
    """An encoding of one of the pictures.

    Attributes:
        payload: The payload section.
        squared_error: Of the decoded picture, in squared 8-bit steps, if it was asked for.
    """

    payload: bytes
    squared_error: float | None = None

    @property
    def sections(self) -> list[tuple[int, bytes]]:
        """The stream's sections that hold the picture."""
        return [(SectionType.PAYLOAD, self.payload)]


Search = Generator[int, BatchTrial, BatchTrial]
"""Asks for encodings at qualities in tenths, is sent them, and returns the one that it chooses."""


def at_quality(tenths: int) -> Search:
    """No search: the encoding at a quality."""
    return (yield tenths)


def within_bytes(limit: float, total: Callable[[BatchTrial], int]) -> Search:
    """The best encoding whose stream, as ``total`` counts it, has at most ``limit`` bytes.

    Raises:
        ValueError: No stream is that small.
    """
    found, least = yield from bracketing(limit, total, range(QUALITY_TENTHS_MAX + 1))
    if found is None:
        raise unmet_bytes(limit, total(least))
    return found


def reaching_psnr(psnr: float) -> Search:
    """The smallest encoding whose picture has at least a PSNR in dB.

    Raises:
        ValueError: No encoding has.
    """
    target = squared_error_of_psnr(psnr)
    found, least = yield from bracketing(target, _error, range(QUALITY_TENTHS_MAX, -1, -1))
    if found is None:
        raise unmet_psnr(psnr, _error(least))
    return found


def _error(trial: BatchTrial) -> float:
    assert trial.squared_error is not None
    return trial.squared_error


class BatchEncoder:
    """Encodes pictures, many at a time.

    Args:
        sources: The pictures, of any sizes.
        transforms: Of the model.
        coder: Of the model.
        coders: Who writes symbols.
        notify: Called with the fraction done and the stage.
    """

    def __init__(
        self,
        sources: Sequence[PictureInput],
        transforms: ImageTransforms,
        coder: LatentCoder,
        coders: SymbolCoders,
        notify: Progress,
    ) -> None:
        self._sources = sources
        self._transforms = transforms
        self._coder = coder
        self._coders = coders
        self._notify = notify

    def run(self, searches: Sequence[Search], measure: bool) -> list[BatchTrial]:
        """Runs a search for each picture, all of them at a time.

        Args:
            searches: As many as there are pictures.
            measure: Whether they need squared errors.

        Returns:
            What each has chosen.

        Raises:
            ValueError: A search has found nothing; it says for which picture.
        """
        chosen: dict[int, BatchTrial] = {}
        wanted = {number: next(search) for number, search in enumerate(searches)}
        while wanted:
            self._notify(len(chosen) / len(searches), f"{len(chosen)} of {len(searches)} pictures")
            found, asked = self._encode(wanted, measure), {}
            for number, trial in found.items():
                try:
                    asked[number] = searches[number].send(trial)
                except StopIteration as end:
                    chosen[number] = end.value
                except ValueError as error:
                    raise ValueError(f"picture {number}: {error}") from error
            wanted = asked
        return [chosen[number] for number in range(len(searches))]

    def _encode(self, wanted: Mapping[int, int], measure: bool) -> dict[int, BatchTrial]:
        """Encodes pictures, given their numbers and qualities in tenths."""
        found: dict[int, BatchTrial] = {}
        waiting: deque[_Waiting] = deque()

        def collect() -> None:
            some = waiting.popleft()
            parts = some.coded.parts()
            for number, header, of_one, error in zip(
                some.numbers, some.headers, parts, some.errors, strict=True
            ):
                found[number] = BatchTrial(join_parts(header.fields, of_one), error)

        shapes = {number: tuple(self._sources[number].colour.shape) for number in wanted}
        largest = max(shapes.values(), key=lambda shape: shape[1] * shape[2])
        most = self._transforms.windows_at_once(Region(0, 0, *largest[1:]))
        for batch in batches(wanted, shapes.__getitem__, most):
            waiting.append(self._encode_batch(batch, [wanted[number] for number in batch], measure))
            if len(waiting) > _BATCHES_IN_FLIGHT:
                collect()
        while waiting:
            collect()
        return found

    def _encode_batch(self, numbers: list[int], tenths: list[int], measure: bool) -> _Waiting:
        sources = [self._sources[number].to(self._transforms.device) for number in numbers]
        channels, height, width = sources[0].colour.shape
        headers = [ImageHeader(height, width, channels, quality, 0) for quality in tenths]
        quality = self._transforms.quality(tenths)
        y = self._transforms.analyse(torch.stack([source.pixels() for source in sources]), quality)
        latents = self._transforms.with_side_information(y, quality)
        prefixes = [covered(header, 0, self._coder.parts) for header in headers]
        coded = self._coder.encode_batch(*latents, quality, prefixes, self._coders)
        errors: list[float | None] = [None] * len(numbers)
        if measure:
            decoded = self._transforms.synthesise(coded.y_hat, quality)[:, :, :height, :width]
            pairs = zip(sources, with_channels(decoded, channels), strict=True)
            errors = [max(LEAST_ERROR, source.squared_error(picture)) for source, picture in pairs]
        return _Waiting(numbers, headers, coded, errors)


class _Waiting(NamedTuple):
    """Pictures that are being coded."""

    numbers: list[int]
    headers: list[ImageHeader]
    coded: CodedBatch
    errors: list[float | None]


class BatchDecoder:
    """Decodes pictures that were coded as a whole, many at a time.

    Args:
        streams: The pictures, of any sizes.
        transforms: Of the model.
        coder: Of the model.
        coders: Who reads symbols.
        notify: Called with the fraction done and the stage.
    """

    def __init__(
        self,
        streams: Mapping[int, ImageStream],
        transforms: ImageTransforms,
        coder: LatentCoder,
        coders: SymbolCoders,
        notify: Progress,
    ) -> None:
        self._streams = streams
        self._transforms = transforms
        self._coder = coder
        self._coders = coders
        self._notify = notify

    def run(self, finish: Callable[[int, Tensor], Tensor]) -> dict[int, Tensor]:
        """Decodes all.

        Args:
            finish: From the number of a picture and its colour, ``(C, H, W)`` around [0, 1], to what is
                returned of it.

        Raises:
            StreamError: Anything is wrong with the bytes of one.
        """
        found: dict[int, Tensor] = {}
        precision = _autocast_here(self._transforms.device)

        def decode(batch: list[int]) -> None:
            with precision():
                decoded = self._decode_batch(batch)
            for number, colour in zip(batch, decoded, strict=True):
                header = self._streams[number].header
                cropped = with_channels(colour[:, : header.height, : header.width], header.channels)
                found[number] = finish(number, cropped)
            self._notify(len(found) / len(self._streams), f"{len(found)} of {len(self._streams)} pictures")

        # Coders in this process would keep a second lane from computing.
        if isinstance(self._coders, InProcessCoders):
            for batch in self._batches(lanes=1):
                decode(batch)
        else:
            with ThreadPoolExecutor(_LANES) as pool:
                for done in [pool.submit(decode, batch) for batch in self._batches(_LANES)]:
                    done.result()
        return found

    def _batches(self, lanes: int) -> list[list[int]]:
        """Streams of one size of latents, in batches for which every lane has as many to do."""
        sizes = {number: self._positions(number) for number in self._streams}
        found: list[list[int]] = []
        for size in dict.fromkeys(sizes.values()):
            same = [number for number, other in sizes.items() if other == size]
            most = self._transforms.windows_at_once(size.pixels())
            count = lanes * -(-len(same) // (lanes * most))
            found += batches(same, lambda _: None, -(-len(same) // count))
        return found

    def _positions(self, number: int) -> Region:
        return self._streams[number].header.grid.picture.positions()

    def _decode_batch(self, numbers: list[int]) -> Tensor:
        """Pictures ``(B, 3, 16h, 16w)`` around [0, 1]."""
        streams = [self._streams[number] for number in numbers]
        quality = self._transforms.quality([stream.header.quality_tenths for stream in streams])
        size = self._positions(numbers[0])
        y_hat = self._coder.decode_batch(
            [stream.parts(0) for stream in streams],
            (size.height, size.width),
            quality,
            [stream.prefix(0) for stream in streams],
            self._coders,
        )
        return self._transforms.synthesise(y_hat, quality)


def _autocast_here(device: torch.device) -> Callable[[], torch.autocast]:
    """The caller's autocast for other threads, which do not take it over by themselves."""
    enabled, dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
    return lambda: torch.autocast(device.type, dtype, enabled=enabled)
