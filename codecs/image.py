"""The image codec: photographs to bytes and back, with one variable-rate model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Container,
    CutContainer,
    Limits,
    SectionType,
    read_container,
    read_cut_container,
    write_container,
)
from latentpress.codecs.coding_processes import default_processes, shared_coders
from latentpress.codecs.image_batch import (
    BatchDecoder,
    BatchEncoder,
    BatchTrial,
    Search,
    at_quality,
    reaching_psnr,
    within_bytes,
)
from latentpress.codecs.image_decoding import ImageDecoder, PictureBands, squared_error_of
from latentpress.codecs.image_model import ImageModel
from latentpress.codecs.image_options import ImageJob, ImageOptions, Metadata, image_job, metadata_of_each
from latentpress.codecs.image_payload import ImageHeader
from latentpress.codecs.image_stream import ImageStream, read_image_stream
from latentpress.codecs.image_tiles import checked_region
from latentpress.codecs.image_trials import Trial, Trials
from latentpress.codecs.picture_output import finished_picture
from latentpress.codecs.picture_sections import PictureSections
from latentpress.codecs.stream_origin import check_origin
from latentpress.codecs.symbol_coders import InProcessCoders, SymbolCoders
from latentpress.codecs.tiled_encoding import TiledEncoder
from latentpress.codecs.tiled_trials import TiledTrial, TiledTrials
from latentpress.codecs.weights import WeightFile
from latentpress.models.image.families import FAMILIES

CHECKSUM_BYTES = 4
"""Of the container's sections."""

MANY_TILES = 16
"""From so many on, decoding is worth starting processes for, where there is a GPU."""


class ImageCodec(ImageModel, Codec):
    """Compresses pictures of any size, RGB or grey, with or without alpha.

    ::

        picture -> pad to 16 -> analysis -> y, z -> integer networks + range coder -> payload -> container
        container -> payload -> range coder + integer networks -> y_hat -> synthesis -> crop -> picture

    Large pictures go this way tile by tile, see :mod:`latentpress.codecs.image_tiles`. But for the pixels
    themselves, memory does not grow with the picture then.

    Args:
        weights: A weight file of one of :data:`~latentpress.models.image.families.FAMILIES`.
        device: Where the networks run.

    Example:
        >>> import latentpress
        >>> codec = latentpress.load("image")
        >>> picture = torch.zeros(3, 20, 30, dtype=torch.uint8)
        >>> data = codec.compress(picture, quality=30)
        >>> codec.decompress(data).shape
        torch.Size([3, 20, 30])
    """

    name = "image"

    def __init__(self, weights: WeightFile, device: torch.device | str = "cpu") -> None:
        if weights.family not in FAMILIES:
            raise ValueError(f"weights of the family {weights.family!r} do not fit the codec {self.name!r}")
        super().__init__(weights, device)
        self.fingerprint = weights.fingerprint()

    def compress(  # type: ignore[override]
        self,
        x: Tensor,
        *,
        quality: float | None = None,
        target_bytes: int | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        metadata: Mapping[str, bytes] | None = None,
        alpha_max_error: float | None = None,
        effort: int = 0,
        tile_size: int | None = None,
        processes: int | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Compresses a picture to a complete stream.

        At most one of ``quality`` and the targets may be given; without any, the quality is 50.

        Args:
            x: ``(3, H, W)`` RGB, ``(4, H, W)`` RGBA, ``(1, H, W)`` grey or ``(2, H, W)`` grey and alpha;
                uint8, uint16 or floating point in [0, 1]; a tensor on any device, or an array. Colour is not
                multiplied by alpha. Of a picture in tiles only a few are looked at a time, so it may be a
                tensor over a file that is mapped into memory.
            quality: 0 (smallest) to 100 (best), in steps of 0.1.
            target_bytes: The best picture whose stream, metadata included, has at most this many bytes.
            target_bpp: The same in bits per pixel of the picture.
            target_psnr: The smallest stream whose decoded picture has at least this PSNR, in dB; what is
                fully transparent does not count.
            metadata: ``icc``, ``exif`` and ``xmp`` blocks to carry along.
            alpha_max_error: By how much a value of alpha may change, as a share of full opacity (default:
                2/255); 0 for not at all. What is transparent or opaque stays so in any case.
            effort: 0 to 10: how long to look for better latents of this very picture, see
                :mod:`latentpress.codecs.latent_refinement`. Decoding takes no longer. At a given quality it
                buys fewer bits, a smaller error, or both; with a target, which still holds, what the target
                leaves open. For a target the picture is refined up to three times.
            tile_size: Side of the tiles in pixels, a multiple of 64. Pictures that fit into one are coded as
                a whole, with 0 all are. None for tiles of 512 in pictures of more than 2^22. With many tiles
                a target is met by a few encodings near what a sample of them says: it holds, but may leave a
                little open.
            processes: Others that code symbols; they stay for the next call. 0 for none, None for as many as
                help: none on a CPU, with a GPU up to eight for pictures in tiles.
            progress: Called with the fraction done and the stage, also before every tile and every step of
                refinement. What it raises ends the compression and reaches the caller; the codec is as
                before.

        Raises:
            TypeError: x is not a tensor of a supported type, the effort is no whole number, or more than one
                target is given.
            ValueError: The shape, the range, the effort, the size of tiles or a target is out of bounds, or
                the target cannot be met.
        """
        job = image_job(
            x,
            quality=quality,
            target_bytes=target_bytes,
            target_bpp=target_bpp,
            target_psnr=target_psnr,
            metadata=metadata,
            alpha_max_error=alpha_max_error,
            effort=effort,
            tile_size=tile_size,
        )
        notify = progress or no_progress
        data = self._compressed(job, self._coders_for(processes, useful=job.tile_size > 0), notify)
        notify(1.0, "done")
        return data

    def compress_batch(  # type: ignore[override]
        self,
        xs: Iterable[Tensor],
        *,
        metadata: Metadata | Sequence[Metadata | None] | None = None,
        processes: int | None = None,
        progress: Progress | None = None,
        **options: Unpack[ImageOptions],
    ) -> list[bytes]:
        """Compresses pictures, those of one size together, see :mod:`latentpress.codecs.image_batch`.

        Args:
            xs: Pictures of any sizes, each as for :meth:`compress`.
            metadata: Of all, or one mapping for each.
            processes: As for :meth:`compress`.
            progress: Called with the fraction done and the stage.
            **options: Of all; those of :meth:`compress`, with its errors. With an effort, and in tiles,
                pictures are compressed one by one.

        Returns:
            A stream for each, in order.
        """
        items = list(xs)
        each = metadata_of_each(metadata, len(items))
        jobs = [image_job(x, metadata=some, **options) for x, some in zip(items, each, strict=True)]
        notify = progress or no_progress
        coders = self._coders_for(processes, useful=len(jobs) > 1)
        together = [k for k, job in enumerate(jobs) if not job.tile_size and not job.iterations]
        sources = [jobs[k].source for k in together]
        encoder = BatchEncoder(sources, self._transforms, self._coder, coders, notify)
        trials = encoder.run(
            [self._search(jobs[k]) for k in together], any(job.least_psnr is not None for job in jobs)
        )
        found = {k: self._pack(trial, jobs[k].sections) for k, trial in zip(together, trials, strict=True)}
        for k, job in enumerate(jobs):
            if k not in found:
                notify(len(found) / len(jobs), f"{len(found)} of {len(jobs)} pictures")
                found[k] = self._compressed(job, coders, no_progress)
        notify(1.0, "done")
        return [found[k] for k in range(len(jobs))]

    def decompress(
        self,
        data: bytes,
        *,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
        partial: bool = False,
        region: Sequence[int] | None = None,
        processes: int | None = None,
    ) -> Tensor:
        """Restores a picture, or a region of it.

        Args:
            data: A stream of this codec and these weights.
            limits: Caps, checked before anything is allocated. ``max_pixels`` is for what has to be decoded:
                the picture, or for a region the tiles that it depends on.
            progress: Called with the fraction done and the stage.
            partial: Also accept a stream that was cut off, as long as its first part is there, see
                :meth:`cut_points`. What is missing is predicted.
            region: Top row, left column, height and width in pixels of the only part to restore. It has the
                pixels of the whole picture, up to rounding. Tiles that it does not depend on are not decoded.
            processes: As for :meth:`compress`.

        Returns:
            On the codec's device, with the channels it was compressed with; uint16 if that was uint16,
            otherwise uint8.

        Raises:
            StreamError: Anything is wrong with the bytes.
            TypeError: The region is not four whole numbers.
            ValueError: The region is not within the picture.
        """
        bands = self.decompress_bands(
            data, limits=limits, progress=progress, partial=partial, region=region, processes=processes
        )
        picture = bands.joined()
        if progress is not None:
            progress(1.0, "done")
        return picture

    def decompress_bands(
        self,
        data: bytes,
        *,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
        partial: bool = False,
        region: Sequence[int] | None = None,
        processes: int | None = None,
    ) -> PictureBands:
        """Restores a picture from top to bottom, for pictures that shall not be in memory as a whole.

        Arguments and errors are those of :meth:`decompress`; what is wrong with a tile is found when it is
        decoded.

        Returns:
            The picture's shape and type, and its rows: of a row of tiles at a time, or of a few.
        """
        stream, sections = self._read(data, limits, partial)
        picture = stream.header.grid.picture
        area = picture if region is None else checked_region(region, picture)
        tiles = stream.header.grid.touched(area)
        useful = tiles.height * tiles.width >= (MANY_TILES if processes is None else 2)
        decoder = self._decoder(
            stream, self._coders_for(processes, useful), no_progress if progress is None else progress
        )
        decoder.check(area, limits)

        def finished() -> Iterator[Tensor]:
            for place, colour in decoder.bands(area):
                yield finished_picture(colour, sections, picture.height, picture.width, limits, place)

        channels = stream.header.channels + (sections.alpha is not None)
        dtype = torch.uint8 if sections.bits == 8 else torch.uint16
        return PictureBands((channels, area.height, area.width), dtype, finished())

    def decompress_batch(
        self,
        streams: Iterable[bytes],
        *,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
        processes: int | None = None,
    ) -> list[Tensor]:
        """Restores pictures, those of one size together, see :mod:`latentpress.codecs.image_batch`.

        Args:
            streams: Of this codec and these weights. Those in tiles are decoded one by one.
            limits: Caps on each, checked for all before anything is allocated.
            progress: Called with the fraction done and the stage.
            processes: As for :meth:`compress`.

        Returns:
            A picture for each, in order, as from :meth:`decompress`.

        Raises:
            StreamError: Anything is wrong with the bytes of one.
        """
        items = list(streams)
        read = [self._read(data, limits) for data in items]
        coders = self._coders_for(processes, useful=len(items) > 1)
        for stream, _ in read:
            self._decoder(stream, coders).check(stream.header.grid.picture, limits)
        notify = progress or no_progress

        def finish(number: int, colour: Tensor) -> Tensor:
            header = read[number][0].header
            return finished_picture(colour, read[number][1], header.height, header.width, limits)

        together = {number: stream for number, (stream, _) in enumerate(read) if not stream.header.tile_size}
        decoder = BatchDecoder(together, self._transforms, self._coder, coders, notify)
        found = decoder.run(finish)
        for number, data in enumerate(items):
            if number not in found:
                notify(len(found) / len(items), f"{len(found)} of {len(items)} pictures")
                found[number] = self.decompress(data, limits=limits, processes=processes)
        notify(1.0, "done")
        return [found[number] for number in range(len(items))]

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes all symbols and checks every checksum, without synthesising the picture.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        stream, sections = self._read(data, limits)
        decoder = self._decoder(stream, InProcessCoders())
        decoder.check(stream.header.grid.picture, limits)
        for _ in decoder.all_latents():
            pass
        sections.check(stream.header.height, stream.header.width, limits)

    def cut_points(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> tuple[int, ...]:
        """Lengths that a stream can be cut to and still be decoded with ``partial=True``.

        Args:
            data: A complete stream.
            limits: Caps on what is accepted.

        Returns:
            Where its parts end, in bytes from the beginning of the stream. One for models with one part.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        stream, _ = self._read(data, limits)
        limits.check_pixels(stream.header.height, stream.header.width)
        begin = len(data) - CHECKSUM_BYTES - len(stream.payload)
        return tuple(begin + end for end in stream.part_ends())

    def _compressed(self, job: ImageJob, coders: SymbolCoders, notify: Progress) -> bytes:
        trials: Trials | TiledTrials
        if job.tile_size:
            trials = self._tiled_trials(job, coders, notify)
        else:
            trials = Trials(self, job.source.to(self.device), job.iterations, notify)
        if job.tenths is not None:
            trial = trials.best_at(job.tenths)
        elif job.least_psnr is not None:
            trial = trials.reaching_psnr(job.least_psnr)
        else:
            assert job.most_bytes is not None
            trial = trials.within(job.most_bytes, lambda found: len(self._pack(found, job.sections)))
        return self._pack(trial, job.sections)

    def _search(self, job: ImageJob) -> Search:
        if job.tenths is not None:
            return at_quality(job.tenths)
        if job.least_psnr is not None:
            return reaching_psnr(job.least_psnr)
        assert job.most_bytes is not None
        return within_bytes(job.most_bytes, lambda found: len(self._pack(found, job.sections)))

    def _tiled_trials(self, job: ImageJob, coders: SymbolCoders, notify: Progress) -> TiledTrials:
        def squared_error(trial: TiledTrial) -> float:
            sections = dict(trial.sections)
            stream = read_image_stream(
                sections[SectionType.PAYLOAD], sections[SectionType.TILES], self._coder.parts
            )
            return squared_error_of(self._decoder(stream, coders), job.source)

        encoder = TiledEncoder(job.source, job.tile_size, self._transforms, self._coder, coders)
        return TiledTrials(encoder, squared_error, lambda: self._refiner, job.iterations, notify)

    def _pack(self, trial: Trial | TiledTrial | BatchTrial, sections: list[tuple[int, bytes]]) -> bytes:
        return write_container(CodecId.IMAGE, self.fingerprint, [*sections, *trial.sections])

    def _coders_for(self, processes: int | None, useful: bool) -> SymbolCoders:
        """Coders in as many processes as were asked for, or as help; here if that is no use."""
        count = default_processes(self.device.type) if processes is None else processes
        return shared_coders(count if useful or count < 0 else 0)

    def _decoder(
        self, stream: ImageStream, coders: SymbolCoders, notify: Progress = no_progress
    ) -> ImageDecoder:
        return ImageDecoder(stream, self._transforms, self._coder, coders, notify)

    def _decode_latent(self, data: bytes, limits: Limits) -> tuple[ImageHeader, Tensor]:
        """The latent of a picture that was coded as a whole."""
        stream, _ = self._read(data, limits)
        decoder = self._decoder(stream, InProcessCoders())
        decoder.check(stream.header.grid.picture, limits)
        (y_hat,) = decoder.all_latents()
        return stream.header, y_hat

    def _read(
        self, data: bytes, limits: Limits, partial: bool = False
    ) -> tuple[ImageStream, PictureSections]:
        container: Container | CutContainer
        container = read_cut_container(data, limits) if partial else read_container(data, limits)
        check_origin(container, CodecId.IMAGE, self.fingerprint)
        missing = container.missing if isinstance(container, CutContainer) else 0
        index = container.get(SectionType.TILES)
        stream = read_image_stream(container.payload, index, self._coder.parts, missing)
        return stream, PictureSections.of(container)
