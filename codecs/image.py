"""The image codec: photographs to bytes and back, with one variable-rate model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Container,
    CorruptStream,
    CutContainer,
    Limits,
    SectionType,
    TableSet,
    UnknownModel,
    information_bits,
    read_container,
    read_cut_container,
    write_container,
)
from latentpress.codecs.image_decoding import ImageDecoder, squared_error_of
from latentpress.codecs.image_payload import ImageHeader, join_parts
from latentpress.codecs.image_refinement import ImageRefiner
from latentpress.codecs.image_stream import ImageStream, covered, read_image_stream
from latentpress.codecs.image_tiles import TILE_STEP, checked_region
from latentpress.codecs.image_transforms import ImageTransforms, load_image_network
from latentpress.codecs.image_trials import Trial, Trials
from latentpress.codecs.latent_coder import LatentCoder, Observation
from latentpress.codecs.latent_refinement import Latents, iterations_of
from latentpress.codecs.picture_input import PictureInput, checked_picture, picture_input
from latentpress.codecs.picture_output import finished_picture
from latentpress.codecs.picture_sections import PictureSections
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.codecs.symbol_coders import InProcessCoders
from latentpress.codecs.tiled_encoding import TiledEncoder
from latentpress.codecs.tiled_trials import TiledTrial, TiledTrials
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import UNIT
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.image.families import FAMILIES

DEFAULT_QUALITY = 50.0

TILE_SIZE = 512
"""Side of the tiles of large pictures, in pixels."""

LARGE_PIXELS = 2**22
"""Pictures with more pixels are coded in tiles, unless it is said how."""

CHECKSUM_BYTES = 4
"""Of the container's sections."""


class ImageCodec(Codec):
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
        self.fingerprint = weights.fingerprint()
        self.device = torch.device(device)
        self.network = network = load_image_network(weights, self.device)
        tables = TableSet.from_arrays(
            {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
        )
        self._transforms = ImageTransforms(network)
        self._coders = InProcessCoders()
        self._coder = LatentCoder(
            self.network.hyper_prior,
            self.network.hyper_synthesis,
            self.network.context,
            tables,
            latent_channels=network.latent_channels,
            hyper_channels=network.hyper_analysis.head.linear.out_features,
        )

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
                a whole, with 0 all are. None for tiles of :data:`TILE_SIZE` in pictures of more than
                :data:`LARGE_PIXELS`. With many tiles a target is met by a few encodings near what a sample
                of them says: it holds, but may leave a little open.
            progress: Called with the fraction done and the stage, also before every tile and every step of
                refinement. What it raises ends the compression and reaches the caller; the codec is as
                before.

        Raises:
            TypeError: x is not a tensor of a supported type, the effort is no whole number, or more than one
                target is given.
            ValueError: The shape, the range, the effort, the size of tiles or a target is out of bounds, or
                the target cannot be met.
        """
        source = picture_input(x)
        tile_size = _tile_size_for(source, tile_size)
        notify = progress or no_progress
        targets = {
            "quality": quality,
            "target_bytes": target_bytes,
            "target_bpp": target_bpp,
            "target_psnr": target_psnr,
        }
        given = {name: value for name, value in targets.items() if value is not None}
        if len(given) > 1:
            raise TypeError(f"give one of {', '.join(targets)}, not {' and '.join(given)}")
        name, value = next(iter(given.items()), ("quality", DEFAULT_QUALITY))
        if name != "quality" and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
        sections = source.sections(metadata or {}, alpha_max_error)
        iterations = iterations_of(effort)
        trials: Trials | TiledTrials
        if tile_size:
            trials = self._tiled_trials(source, tile_size, iterations, notify)
        else:
            trials = Trials(self, source.to(self.device), iterations, notify)
        if name == "quality":
            trial = trials.best_at(quality_to_tenths(value))
        elif name == "target_psnr":
            trial = trials.reaching_psnr(float(value))
        else:
            limit = value if name == "target_bytes" else float(value) * source.colour[0].numel() / 8
            trial = trials.within(limit, lambda found: len(self._pack(found, sections)))
        data = self._pack(trial, sections)
        notify(1.0, "done")
        return data

    def decompress(
        self,
        data: bytes,
        *,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
        partial: bool = False,
        region: Sequence[int] | None = None,
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

        Returns:
            On the codec's device, with the channels it was compressed with; uint16 if that was uint16,
            otherwise uint8.

        Raises:
            StreamError: Anything is wrong with the bytes.
            TypeError: The region is not four whole numbers.
            ValueError: The region is not within the picture.
        """
        stream, bands = self._bands(data, limits, progress or no_progress, partial, region)
        picture = _joined(bands, stream.header.height if region is None else region[2])
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
    ) -> Iterator[Tensor]:
        """Restores a picture from top to bottom, for pictures that shall not be in memory as a whole.

        Arguments and errors are those of :meth:`decompress`; what is wrong with a tile is found when it is
        decoded.

        Returns:
            Its rows in bands, ``(C, rows, W)`` each: those of a row of tiles, or of a few.
        """
        _, bands = self._bands(data, limits, progress or no_progress, partial, region)
        return bands

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes all symbols and checks every checksum, without synthesising the picture.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        stream, sections = self._read(data, limits)
        decoder = self._decoder(stream)
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

    def information_bits(self, x: Tensor, quality: float) -> float:
        """What a picture's symbols cost by the probabilities they are coded with.

        Args:
            x: A picture as for :meth:`compress`, coded as a whole.
            quality: 0 to 100.

        Returns:
            Bits of all symbols; what a stream has beyond them is the coder's and the container's.
        """
        total = 0.0

        def add(observation: Observation) -> None:
            nonlocal total
            total += information_bits(observation.symbols, observation.indexes, self._coder.tables)

        self.encode_payload(checked_picture(x), quality_to_tenths(quality), observe=add)
        return total

    def likelihood_bits(self, x: Tensor, quality: float) -> float:
        """What the likelihoods of training say a picture should cost.

        Differs from :meth:`information_bits` by what rounding scales to tables loses and fitted tables gain.

        Args:
            x: A picture as for :meth:`compress`, coded as a whole.
            quality: 0 to 100.

        Returns:
            Bits of all symbols under Gaussians with the predicted, unrounded scales.
        """
        total = 0.0

        def add(observation: Observation) -> None:
            nonlocal total
            symbols = torch.from_numpy(observation.symbols).to(observation.raw_scale.device)
            scale = scale_from_raw(observation.raw_scale / UNIT)
            total += float(gaussian_bits(symbols.float(), scale).double().sum())

        self.encode_payload(checked_picture(x), quality_to_tenths(quality), observe=add)
        return total

    def analyse(self, picture: Tensor, quality: Tensor) -> Latents:
        """Transforms a picture to latents.

        Args:
            picture: ``(3, H, W)`` in [0, 1], on the codec's device.
            quality: ``(1,)``.

        Returns:
            y ``(1, h, w, M)`` and z, both in quantisation steps.
        """
        y = self._transforms.analyse(picture[None], quality)
        return self._transforms.with_side_information(y, quality)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Transforms a decoded latent ``(1, h, w, M)`` to a picture ``(3, 16h, 16w)``, not clamped."""
        return self._transforms.synthesise(y_hat, quality)[0]

    def encode_payload(
        self, picture: Tensor, tenths: int, observe: Callable[[Observation], None] | None = None
    ) -> Trial:
        """Encodes a checked picture as a whole at one quality, without the container."""
        return self.encode_latents(picture, tenths, self._latents(picture, tenths), observe)

    def encode_latents(
        self,
        picture: Tensor,
        tenths: int,
        latents: Latents,
        observe: Callable[[Observation], None] | None = None,
    ) -> Trial:
        """Encodes latents of a checked picture as a whole, without the container."""
        quality = self._transforms.quality([tenths])
        channels, height, width = picture.shape
        header = ImageHeader(height, width, channels, tenths, checksum=0)
        coded = self._coder.encode(*latents, quality, observe, covered(header, 0, self._coder.parts))
        return Trial(join_parts(header.fields, coded.parts), coded.y_hat, quality)

    def refined_latents(
        self,
        picture: Tensor,
        plain: Trial,
        multiplier: float,
        iterations: int,
        notify: Callable[[int], None] | None = None,
    ) -> Latents:
        """Latents of a checked picture that are better than those of a trial, see :class:`ImageRefiner`."""
        latents = self._latents(picture, plain.tenths)
        return self._refiner.refine(
            latents, plain.y_hat, picture.to(self.device), plain.quality, multiplier, iterations, notify
        )

    @functools.cached_property
    def _refiner(self) -> ImageRefiner:
        return ImageRefiner(self.network, self._coder.tables)

    def _latents(self, picture: Tensor, tenths: int) -> Latents:
        return self.analyse(picture.to(self.device), self._transforms.quality([tenths]))

    def _tiled_trials(
        self, source: PictureInput, tile_size: int, iterations: int, notify: Progress
    ) -> TiledTrials:
        def squared_error(trial: TiledTrial) -> float:
            sections = dict(trial.sections)
            stream = read_image_stream(
                sections[SectionType.PAYLOAD], sections[SectionType.TILES], self._coder.parts
            )
            return squared_error_of(self._decoder(stream), source)

        encoder = TiledEncoder(source, tile_size, self._transforms, self._coder, self._coders)
        return TiledTrials(encoder, squared_error, lambda: self._refiner, iterations, notify)

    def _pack(self, trial: Trial | TiledTrial, sections: list[tuple[int, bytes]]) -> bytes:
        return write_container(CodecId.IMAGE, self.fingerprint, [*sections, *trial.sections])

    def _bands(
        self,
        data: bytes,
        limits: Limits,
        notify: Progress,
        partial: bool,
        region: Sequence[int] | None,
    ) -> tuple[ImageStream, Iterator[Tensor]]:
        stream, sections = self._read(data, limits, partial)
        picture = stream.header.grid.picture
        area = picture if region is None else checked_region(region, picture)
        decoder = self._decoder(stream, notify)
        decoder.check(area, limits)

        def finished() -> Iterator[Tensor]:
            for place, colour in decoder.bands(area):
                yield finished_picture(colour, sections, picture.height, picture.width, limits, place)

        return stream, finished()

    def _decoder(self, stream: ImageStream, notify: Progress = no_progress) -> ImageDecoder:
        return ImageDecoder(stream, self._transforms, self._coder, self._coders, notify)

    def _decode_latent(self, data: bytes, limits: Limits) -> tuple[ImageHeader, Tensor]:
        """The latent of a picture that was coded as a whole."""
        stream, _ = self._read(data, limits)
        decoder = self._decoder(stream)
        decoder.check(stream.header.grid.picture, limits)
        (y_hat,) = decoder.all_latents()
        return stream.header, y_hat

    def _read(
        self, data: bytes, limits: Limits, partial: bool = False
    ) -> tuple[ImageStream, PictureSections]:
        container: Container | CutContainer
        container = read_cut_container(data, limits) if partial else read_container(data, limits)
        if container.codec_id != CodecId.IMAGE:
            raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not image")
        if container.fingerprint != self.fingerprint:
            raise UnknownModel(
                f"the stream needs the model {container.fingerprint.hex()}, "
                f"this codec is {self.fingerprint.hex()}"
            )
        missing = container.missing if isinstance(container, CutContainer) else 0
        index = container.get(SectionType.TILES)
        stream = read_image_stream(container.payload, index, self._coder.parts, missing)
        return stream, PictureSections.of(container)


def _tile_size_for(source: PictureInput, asked: int | None) -> int:
    """The size of the tiles that a picture is coded in; 0 for none."""
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int)):
        raise TypeError(f"tile_size must be a whole number, got {asked!r}")
    if asked is not None and (asked < 0 or asked % TILE_STEP):
        raise ValueError(f"tile_size must be a multiple of {TILE_STEP}, got {asked}")
    height, width = source.colour.shape[1:]
    if asked is None:
        asked = TILE_SIZE if height * width > LARGE_PIXELS else 0
    return asked if max(height, width) > asked else 0


def _joined(bands: Iterator[Tensor], height: int) -> Tensor:
    """One picture of its bands, of which there is at least one."""
    first = next(bands)
    if first.shape[1] == height:
        return first
    picture = torch.empty((len(first), height, first.shape[2]), dtype=first.dtype, device=first.device)
    picture[:, : first.shape[1]] = first
    top = first.shape[1]
    for band in bands:
        picture[:, top : top + band.shape[1]] = band
        top += band.shape[1]
    return picture
