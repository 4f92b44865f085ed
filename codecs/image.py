"""The image codec: photographs to bytes and back, with one variable-rate model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Container,
    CorruptStream,
    CutContainer,
    LimitExceeded,
    Limits,
    SectionType,
    TableSet,
    UnknownModel,
    encode_varint,
    information_bits,
    read_container,
    read_cut_container,
    write_container,
)
from latentpress.codecs.image_payload import ImageHeader, join_parts, read_image_header, read_parts
from latentpress.codecs.image_refinement import ImageRefiner
from latentpress.codecs.image_trials import Trial, Trials
from latentpress.codecs.latent_coder import CodedPart, LatentCoder, Observation
from latentpress.codecs.latent_refinement import Latents, iterations_of
from latentpress.codecs.network_loading import fill_network
from latentpress.codecs.picture_input import checked_picture, picture_input
from latentpress.codecs.picture_output import finished_picture, read_picture_sections
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import UNIT, convert
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.image.families import FAMILIES, build_from_config
from latentpress.models.image.network import ImageNetwork
from latentpress.models.image.transforms import STRIDE

INTEGER_PARTS = ("hyper_prior", "hyper_synthesis", "context")
"""Parts of the network that decide probability tables, and so run in integers."""

DEFAULT_QUALITY = 50.0

CHECKSUM_BYTES = 4
"""Of the container's sections, and of the payload's parts."""


class ImageCodec(Codec):
    """Compresses pictures of any size, RGB or grey, with or without alpha.

    ::

        picture -> pad to 16 -> analysis -> y, z -> integer networks + range coder -> payload -> container
        container -> payload -> range coder + integer networks -> y_hat -> synthesis -> crop -> picture

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
        self.network = network = _loaded_network(weights, self.device)
        tables = TableSet.from_arrays(
            {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
        )
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
        progress: Progress | None = None,
    ) -> bytes:
        """Compresses a picture to a complete stream.

        At most one of ``quality`` and the targets may be given; without any, the quality is 50.

        Args:
            x: ``(3, H, W)`` RGB, ``(4, H, W)`` RGBA, ``(1, H, W)`` grey or ``(2, H, W)`` grey and alpha;
                uint8, uint16 or floating point in [0, 1]; a tensor on any device, or an array. Colour is not
                multiplied by alpha.
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
            progress: Called with the fraction done and the stage, also before every step of refinement. What
                it raises ends the compression and reaches the caller; the codec is as before.

        Raises:
            TypeError: x is not a tensor of a supported type, the effort is no whole number, or more than one
                target is given.
            ValueError: The shape, the range, the effort or a target is out of bounds, or the target cannot
                be met.
        """
        source = picture_input(x)
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
        trials = Trials(self, source, iterations, notify)
        if name == "quality":
            trial = trials.best_at(quality_to_tenths(value))
        elif name == "target_psnr":
            trial = trials.reaching_psnr(float(value))
        else:
            pixels = source.colour[0].numel()
            limit = value if name == "target_bytes" else float(value) * pixels / 8
            trial = trials.within(limit, _total_bytes(len(self._pack(b"", sections))))
        data = self._pack(trial.payload, sections)
        notify(1.0, "done")
        return data

    def decompress(
        self,
        data: bytes,
        *,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
        partial: bool = False,
    ) -> Tensor:
        """Restores a picture.

        Args:
            data: A stream of this codec and these weights.
            limits: Caps, checked before anything is allocated.
            progress: Called with the fraction done and the stage.
            partial: Also accept a stream that was cut off, as long as its first part is there, see
                :meth:`cut_points`. What is missing is predicted.

        Returns:
            On the codec's device, with the channels it was compressed with; uint16 if that was uint16,
            otherwise uint8.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        notify = progress or no_progress
        notify(0.0, "entropy decoding")
        sections = read_picture_sections(data, limits, partial)
        header, y_hat = self._decode_latent(data, limits, partial)
        notify(0.4, "synthesis")
        picture = self.synthesise(y_hat, _quality_tensor(header.quality_tenths, self.device))
        picture = picture[:, : header.height, : header.width]
        if header.channels == 1:
            picture = picture.mean(dim=0, keepdim=True)
        restored = finished_picture(picture, sections, header.height, header.width, limits)
        notify(1.0, "done")
        return restored

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes all symbols and checks every checksum, without synthesising the picture.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        header, _ = self._decode_latent(data, limits)
        read_picture_sections(data, limits).check(header.height, header.width, limits)

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
        container = read_container(data, limits)
        self._check_model(container)
        _, offset = read_image_header(container.payload, limits)
        found = read_parts(container.payload, offset - CHECKSUM_BYTES, self._coder.parts)
        begin = len(data) - CHECKSUM_BYTES - len(container.payload)
        return tuple(begin + part.end for part in found)

    def information_bits(self, x: Tensor, quality: float) -> float:
        """What a picture's symbols cost by the probabilities they are coded with.

        Args:
            x: A picture as for :meth:`compress`.
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
            x: A picture as for :meth:`compress`.
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

    @torch.inference_mode()
    def analyse(self, picture: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms a picture to latents.

        Args:
            picture: ``(3, H, W)`` in [0, 1], on the codec's device.
            quality: ``(1,)``.

        Returns:
            y ``(1, h, w, M)`` and z, both in quantisation steps.
        """
        height, width = picture.shape[1:]
        padded = F.pad(picture[None], (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        y = self.network.analysis(padded.permute(0, 2, 3, 1).contiguous(), quality)
        y = y * self.network.gain(quality)[:, None, None, :]
        return y, self.network.hyper_analysis(y, quality)

    @torch.inference_mode()
    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Transforms a decoded latent ``(1, h, w, M)`` to a picture ``(3, 16h, 16w)``, not clamped."""
        scaled = y_hat * self.network.inverse_gain(quality)[:, None, None, :]
        image: Tensor = self.network.synthesis(scaled, quality)
        return image[0].permute(2, 0, 1)

    def encode_payload(
        self, picture: Tensor, tenths: int, observe: Callable[[Observation], None] | None = None
    ) -> Trial:
        """Encodes a checked picture at one quality, without the container."""
        return self.encode_latents(picture, tenths, self._latents(picture, tenths), observe)

    def encode_latents(
        self,
        picture: Tensor,
        tenths: int,
        latents: Latents,
        observe: Callable[[Observation], None] | None = None,
    ) -> Trial:
        """Encodes latents of a checked picture, without the container."""
        quality = _quality_tensor(tenths, self.device)
        channels, height, width = picture.shape
        header = ImageHeader(height, width, channels, tenths, checksum=0)
        coded = self._coder.encode(*latents, quality, observe, self._covered(header))
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
        rgb = picture.to(self.device).expand(3, -1, -1)
        return Latents(*self.analyse(rgb, _quality_tensor(tenths, self.device)))

    def _pack(self, payload: bytes, sections: list[tuple[int, bytes]]) -> bytes:
        return write_container(CodecId.IMAGE, self.fingerprint, [*sections, (SectionType.PAYLOAD, payload)])

    def _decode_latent(
        self, data: bytes, limits: Limits, partial: bool = False
    ) -> tuple[ImageHeader, Tensor]:
        if partial:
            container: Container | CutContainer = read_cut_container(data, limits)
        else:
            container = read_container(data, limits)
        self._check_model(container)
        payload = container.payload
        missing = container.missing if isinstance(container, CutContainer) else 0
        header, offset = read_image_header(payload, limits)
        parts = read_parts(payload, offset - CHECKSUM_BYTES, self._coder.parts, missing)
        height, width = -(-header.height // STRIDE), -(-header.width // STRIDE)
        if not self._coder.fits(height, width):
            raise LimitExceeded(f"{header.width}x{header.height} pixels are too many for this model")
        quality = _quality_tensor(header.quality_tenths, self.device)
        coded = [CodedPart(part.data, part.checksum) for part in parts]
        return header, self._coder.decode_parts(coded, (height, width), quality, self._covered(header))

    def _covered(self, header: ImageHeader) -> bytes:
        """What the parts' checksums cover besides symbols: a cut stream has no other checksum."""
        return header.fields if self._coder.parts > 1 else b""

    def _check_model(self, container: Container | CutContainer) -> None:
        if container.codec_id != CodecId.IMAGE:
            raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not image")
        if container.fingerprint != self.fingerprint:
            raise UnknownModel(
                f"the stream needs the model {container.fingerprint.hex()}, "
                f"this codec is {self.fingerprint.hex()}"
            )


def _total_bytes(empty: int) -> Callable[[Trial], int]:
    """Length of the stream that a trial makes, given that without a payload it has ``empty`` bytes."""

    def total(trial: Trial) -> int:
        # The payload's length is a varint, which takes one byte in an empty stream.
        return empty - 1 + len(encode_varint(len(trial.payload))) + len(trial.payload)

    return total


def _quality_tensor(tenths: int, device: torch.device) -> Tensor:
    return torch.tensor([tenths / 10], dtype=torch.float32, device=device)


# Weights that were made in inference mode would let no gradients pass, and refinement needs some.
@torch.inference_mode(False)
def _loaded_network(weights: WeightFile, device: torch.device) -> ImageNetwork:
    network = build_from_config(weights.family, weights.config)
    _load(network, weights.tensors)
    return network.eval().requires_grad_(False).to(device)


def _load(network: ImageNetwork, tensors: Mapping[str, Any]) -> None:
    """Fills a network from a weight file; its entropy parts become integer networks."""
    for part in INTEGER_PARTS:
        setattr(network, part, convert(getattr(network, part)))
    fill_network(network, {k: v for k, v in tensors.items() if not k.startswith("tables.")})
