"""The index codec: photographs at extreme rates, as indices of a codebook at three granularities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    Container,
    CorruptStream,
    Limits,
    SectionType,
    StreamError,
    TableSet,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.effort import check_effort
from latentpress.codecs.index_coder import IndexCoder
from latentpress.codecs.index_colours import anchors_of, read_section
from latentpress.codecs.index_payload import (
    MARKER,
    MAX_PACKETS,
    Body,
    IndexHeader,
    bodies_of,
    find_packets,
    read_payload,
)
from latentpress.codecs.index_repair import RepairedPicture, report_on
from latentpress.codecs.index_residual import ResidualBook, Residuals, raw_bits
from latentpress.codecs.index_streams import IndexStreams, ReceivedIndexes
from latentpress.codecs.index_trials import DEFAULT_QUALITY, Trials, setting_of_quality, setting_of_shares
from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.picture_input import picture_input
from latentpress.codecs.picture_output import (
    finished_picture,
    read_picture_sections,
    remaining_picture_sections,
)
from latentpress.codecs.symbol_channel import Sender
from latentpress.codecs.weights import ADDITION, APPEARANCE, WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.index.cell_lattice import CellLattice, LatticeDirections
from latentpress.models.index.cell_texture import CellTexture
from latentpress.models.index.colour_anchors import with_anchors
from latentpress.models.index.granularity import GrainMap
from latentpress.models.index.model import IndexModel, build_index_model
from latentpress.models.index.prior import GrainIndexes

TEXTURE_PATTERN = "texture.pattern"
"""Name of the pattern among the additions of weights."""

LATTICE_NAMES = ("lattice.coarse", "lattice.medium")
"""Names of the lattice's directions among the appearance of weights."""


class IndexBits(NamedTuple):
    """Where the bits of a stream go.

    Attributes:
        map: Of the granularity map, coded alone.
        indexes: Of everything else in the payload.
        raw_indexes: Logarithms of the numbers of codes and patches, which is what indices need without a
            prior.
    """

    map: int
    indexes: int
    raw_indexes: float


class IndexCodec(Codec):
    """Compresses pictures of any size, RGB or grey, to between about 0.01 and 0.8 bits a pixel.

    ::

        picture -> pad to 16 -> encoder -> nearest codes -> indices --+
                            -> local entropy -> router -> map --------+-> integer prior, range coder -> bytes
                            -> rest that no fine index says -> patches, above the rate of fine indices
        bytes -> range coder, integer prior -> map, indices -----+--> decoder -> + patches -> crop -> picture
        lost packets -> prior predicts their indices ------------+

    Args:
        weights: A weight file of the family ``index``.
        device: Where the networks run.

    Attributes:
        coder: Codes indices, and predicts lost ones.
        streams: Codes pictures' symbols to payloads and back.
        residual_book: Patches beyond fine indices; None if the weights have none.
        fingerprint: Of streams without residual indices.
        extended_fingerprint: Of those with them.
    """

    name = "index"

    def __init__(self, weights: WeightFile, device: torch.device | str = "cpu") -> None:
        if weights.family != self.name:
            raise ValueError(f"weights of the family {weights.family!r} do not fit the codec {self.name!r}")
        self.fingerprint = weights.fingerprint()
        self.extended_fingerprint = weights.extended_fingerprint()
        self.device = torch.device(device)
        tables = TableSet.from_arrays(
            {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
        )
        self.model = _loaded_model(weights).eval().requires_grad_(False).to(self.device)
        self.coder = IndexCoder(self.model.prior)
        self.residual_book = ResidualBook.of(weights, self.device)
        pattern = weights.added().get(TEXTURE_PATTERN)
        self.texture = None if pattern is None else CellTexture(torch.from_numpy(np.array(pattern)))
        self.lattice = _lattice_of(weights)
        self.streams = IndexStreams(
            self.coder, self.model.books.books, tables, self.residual_book, self.device
        )

    def compress(  # type: ignore[override]
        self,
        x: Tensor,
        *,
        quality: float | None = None,
        target_bytes: int | None = None,
        target_bpp: float | None = None,
        granularity: tuple[float, float, float] | None = None,
        packets: int = 1,
        effort: int = 0,
        metadata: Mapping[str, bytes] | None = None,
        alpha_max_error: float | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Compresses a picture to a complete stream.

        At most one of ``quality``, the targets and ``granularity`` may be given; without any, the quality is
        50.

        Args:
            x: ``(3, H, W)`` RGB, ``(4, H, W)`` RGBA, ``(1, H, W)`` grey or ``(2, H, W)`` grey and alpha;
                uint8, uint16 or floating point in [0, 1]; a tensor on any device, or an array. Colour is not
                multiplied by alpha.
            quality: 0 (smallest) to 100 (best).
            target_bytes: The stream, metadata included, has at most this many bytes and as few less as
                possible.
            target_bpp: The same in bits per pixel of the picture.
            granularity: Shares of the picture's area that are coarse, medium and fine; their sum is 1.
            packets: Above 1, the stream is divided into so many packets, of which any half show the whole
                picture, each one more of its detail.
            effort: Above 0, what finer indices do for each part of the picture is measured by decoding it
                three times, where otherwise its local entropy decides: about a third less Wasserstein
                distortion in as many bytes. Above 1, indices are refined for this picture besides, which
                halves it again where there is time: seconds for each of 6 (effort 2) to 50 (effort 10) steps
                a megapixel on a processor. 0 to 10.
            metadata: ``icc``, ``exif`` and ``xmp`` blocks to carry along.
            alpha_max_error: By how much a value of alpha may change, as a share of full opacity (default:
                2/255); 0 for not at all. What is transparent or opaque stays so in any case.
            progress: Called with the fraction done and the stage.

        Raises:
            TypeError: x is not a tensor of a supported type, or more than one target is given.
            ValueError: The shape, the range or a target is out of bounds, or the target cannot be met.
        """
        source = picture_input(x)
        picture = source.pixels()
        notify = progress or no_progress
        targets = {
            "quality": quality,
            "target_bytes": target_bytes,
            "target_bpp": target_bpp,
            "granularity": granularity,
        }
        given = {name: value for name, value in targets.items() if value is not None}
        if len(given) > 1:
            raise TypeError(f"give one of {', '.join(targets)}, not {' and '.join(given)}")
        if not 1 <= packets <= MAX_PACKETS:
            raise ValueError(f"packets must be within 1 and {MAX_PACKETS}, got {packets}")
        check_effort(effort)
        sections = source.sections(metadata or {}, alpha_max_error)
        notify(0.0, "analysis")
        trials = Trials(self, picture, packets, sections, notify, effort)
        if target_bytes is not None:
            data = trials.refined(lambda: trials.within_bytes(float(target_bytes)))
        elif target_bpp is not None:
            limit = float(target_bpp) * picture.shape[1] * picture.shape[2] / 8
            data = trials.refined(lambda: trials.within_bytes(limit))
        elif granularity is not None:
            shares = setting_of_shares(granularity, self.model.books.full)
            data = trials.refined(lambda: trials.at(shares))
        else:
            chosen = DEFAULT_QUALITY if quality is None else quality
            setting = setting_of_quality(chosen, self.model.books.full, self.residual_book is not None)
            data = trials.refined(lambda: trials.at(setting))
        notify(1.0, "done")
        return data

    def decompress(  # type: ignore[override]
        self,
        data: bytes,
        *,
        repair: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Tensor | RepairedPicture:
        """Restores a picture.

        Args:
            data: A stream of this codec and these weights.
            repair: Restore what can be restored of a stream of several packets, whatever has become of its
                other bytes: indices of missing and damaged packets are predicted.
            limits: Caps, checked before anything is allocated.
            progress: Called with the fraction done and the stage.

        Returns:
            On the codec's device, with the channels it was compressed with; uint16 if that was uint16,
            otherwise uint8. With ``repair`` a :class:`RepairedPicture`, which says what was lost; with alpha
            only if the section that holds it is intact.

        Raises:
            StreamError: Anything is wrong with the bytes; with ``repair``, less than half of the packets are
                left.
        """
        notify = progress or no_progress
        notify(0.0, "entropy decoding")
        sections = (remaining_picture_sections if repair else read_picture_sections)(data, limits)
        found = self._receive_remains(data, limits) if repair else self._receive(data, limits)
        notify(0.4, "synthesis")
        header, grains = found.header, found.grains
        report = report_on(
            found.indexes, grains, (header.height, header.width), header.packets, found.lost_packets
        )
        colour = self.synthesise(found, bool(report.lost_indexes))
        lost = sections.lost
        if sections.colour is not None:
            try:
                colour = self._with_colours(colour, sections.colour)
            except StreamError:
                if not repair:
                    raise
                lost = True
        picture = finished_picture(colour, sections, header.height, header.width, limits)
        notify(1.0, "done")
        return RepairedPicture(picture, report._replace(lost_sections=lost)) if repair else picture

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes all symbols and checks every checksum, without synthesising the picture.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        header = self._receive(data, limits).header
        sections = read_picture_sections(data, limits)
        sections.check(header.height, header.width, limits)
        if sections.colour is not None:
            read_section(sections.colour, (header.channels, header.height, header.width))

    def index_bits(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> IndexBits:
        """What the parts of a stream need, and what they would need without a prior.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        found = self._receive(data, limits)
        header, grains = found.header, found.grains
        alone = Sender()
        self.streams.send_map(alone, header, grains, found.residuals)
        sizes = (self.model.books.books[header.book].size, *2 * (self.model.books.books[-1].size,))
        masks = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())
        raw = sum(int(mask.sum()) * math.log2(size) for mask, size in zip(masks, sizes, strict=True))
        if found.residuals is not None and self.residual_book is not None:
            raw += raw_bits(self.residual_book, found.residuals)
        maps = 8 * len(alone.finish())
        return IndexBits(maps, 8 * len(read_container(data, limits).payload) - maps, raw)

    def send(
        self,
        header: IndexHeader,
        grains: GrainMap,
        indexes: GrainIndexes,
        residuals: Residuals | None = None,
    ) -> bytes:
        """Codes a map, its indices and residual indices to a payload."""
        return self.streams.send(header, grains, indexes, residuals, self.fingerprint_for(header))

    def fingerprint_for(self, header: IndexHeader) -> bytes:
        """What a stream with a header names as its model."""
        return self.extended_fingerprint if header.residual_level else self.fingerprint

    def pack(
        self, payload: bytes, sections: list[tuple[int, bytes]], header: IndexHeader | None = None
    ) -> bytes:
        """Puts a payload into a container; without a header it is one without residual indices."""
        fingerprint = self.fingerprint if header is None else self.fingerprint_for(header)
        return write_container(CodecId.INDEX, fingerprint, [*sections, (SectionType.PAYLOAD, payload)])

    def _receive(self, data: bytes, limits: Limits) -> ReceivedIndexes:
        container = read_container(data, limits)
        self._check_model(container)
        bodies = read_payload(container.payload, container.fingerprint, limits)
        if container.fingerprint != self.fingerprint_for(bodies[0].header):
            raise CorruptStream("a stream names another model than what is in it needs")
        if len(bodies) == 1:
            return self.streams.receive(bodies[0])
        return self.streams.receive_packets(dict(enumerate(bodies)), strict=True)

    def _receive_remains(self, data: bytes, limits: Limits) -> ReceivedIndexes:
        try:
            return self._receive(data, limits)
        except StreamError:
            # What is left may still be whole packets.
            if MARKER not in data:
                raise
        bodies: dict[int, Body] = {}
        # Without a container there is no saying which of the two fingerprints its packets have.
        for fingerprint in dict.fromkeys((self.fingerprint, self.extended_fingerprint)):
            for number, body in bodies_of(find_packets(data, fingerprint), limits):
                first = next(iter(bodies.values()), body)
                if body.header == first.header and fingerprint == self.fingerprint_for(body.header):
                    bodies.setdefault(number, body)
        return self.streams.receive_packets(bodies, strict=False)

    def finished(self, image: Tensor, grains: GrainMap) -> Tensor:
        """What the decoder's output ``(B, 16h, 16w, 3)`` becomes: other texture, and no lattice."""
        for finish in (self.texture, self.lattice):
            image = image if finish is None else finish(image, grains)
        return image

    @torch.inference_mode()
    def _with_colours(self, picture: Tensor, section: bytes) -> Tensor:
        """A decoded picture with the colours that a section says."""
        channels, height, width = picture.shape
        cells = read_section(section, (channels, height, width))
        return with_anchors(picture, anchors_of(cells, picture.device))

    @torch.inference_mode()
    def synthesise(self, found: ReceivedIndexes, incomplete: bool = False) -> Tensor:
        """The picture of indices, as it is before colours and alpha of other sections.

        Args:
            found: Its symbols.
            incomplete: Whether some are lost, so that the prior has to say what they may have been.

        Returns:
            ``(3, H, W)`` or ``(1, H, W)`` around [0, 1].
        """
        header, grains, indexes = found.header, found.grains, found.indexes
        book = torch.tensor([header.book], device=self.device)
        if incomplete:
            beliefs = self.coder.predict(grains, header.book, indexes)
            vectors = self.model.expected_vectors(indexes, beliefs, grains, book)
        else:
            vectors = self.model.vectors(indexes, grains, book)
        image = self.finished(self.model.decoder(vectors, grains), grains)
        if found.residuals is not None:
            image = image.clamp(0, 1) + self.streams.book_for(header).picture(found.residuals.indexes)
        picture = image[0, : header.height, : header.width].permute(2, 0, 1)
        if header.channels == 1:
            picture = picture.mean(dim=0, keepdim=True)
        return picture

    def _check_model(self, container: Container) -> None:
        if container.codec_id != CodecId.INDEX:
            raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not index")
        if container.fingerprint not in (self.fingerprint, self.extended_fingerprint):
            raise UnknownModel(
                f"the stream needs the model {container.fingerprint.hex()}, "
                f"this codec is {self.fingerprint.hex()}"
            )


def _loaded_model(weights: WeightFile) -> IndexModel:
    """Builds and fills a model from a weight file; its prior becomes an integer network."""
    left_out = (ADDITION, APPEARANCE, "tables.")
    tensors = {k: v for k, v in weights.tensors.items() if not k.startswith(left_out)}
    model = build_network(lambda: build_index_model(**weights.config), weights.config, tensors)
    converted: Any = convert(model.prior)
    model.prior = converted
    fill_network(model, tensors)
    return model


def _lattice_of(weights: WeightFile) -> CellLattice | None:
    """What takes the lattice out of pictures; None if the weights say nothing of one."""
    held = weights.appearance()
    found = [torch.from_numpy(np.array(held[name])) for name in LATTICE_NAMES if name in held]
    if not found:
        return None
    if len(found) < len(LATTICE_NAMES):
        raise ValueError(f"weights with one of {' and '.join(LATTICE_NAMES)} must have the other")
    return CellLattice(LatticeDirections(*found))
