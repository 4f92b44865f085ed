"""The field codec: simulation data to bytes and back, learned, with a bound on the error if wanted."""

from __future__ import annotations

import io
import math
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import DEFAULT_LIMITS, Limits, TableSet, UnknownModel, read_container
from latentpress.codecs.field_blocks import is_in_blocks
from latentpress.codecs.field_decoding import check_decoder, decode_stream
from latentpress.codecs.field_effort import Effort
from latentpress.codecs.field_encoding import DEFAULT_QUALITY, FieldJob, packed
from latentpress.codecs.field_file import FieldFile
from latentpress.codecs.field_input import bound_of, checked_bound, checked_field
from latentpress.codecs.field_networks import Decoder, RatioModel, load_ratio, with_prefix
from latentpress.codecs.field_payload import ANY_MODEL
from latentpress.codecs.field_quality import FlowCritic, shipped_critic
from latentpress.codecs.field_refinement import FieldRefiner
from latentpress.codecs.field_time import between
from latentpress.codecs.field_writer import ArraySource, BlockWriter, Coding
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.codecs.volume_coder import Axes
from latentpress.codecs.weights import WeightFile, read_weight_file


class FieldCodec(Codec):
    """Compresses fields of two or three dimensions with any number of components.

    ::

        field -> mask of NaN, offset, scale -> analysis -> y, z -> integer networks + range coder --> payload
                                        +--> what the decoder lacks -> multiples of 2 * max_error --+
        payload -> range coder + integer networks -> y_hat -> synthesis -> + multiples -> field

    Components are coded in groups of three by networks made for velocities. With ``max_error`` the networks
    are used only where they save bytes; otherwise interpolation and a range coder do all the work.

    Args:
        weights: A weight file of the family ``field``; None for a codec that keeps bounds without networks.
        device: Where the networks run.

    Attributes:
        ratios: For which there are networks.
        refuses: Whether a field that the networks would lose most of is refused, where no bound is given.
            Whoever measures unfinished weights may want it otherwise.

    Example:
        >>> codec = FieldCodec()
        >>> field = torch.rand(1, 6, 7, 8)
        >>> decoded = codec.decompress(codec.compress(field, max_error=0.01))
        >>> bool((decoded - field).abs().max() <= 0.01)
        True
    """

    name = "field"

    def __init__(self, weights: WeightFile | None = None, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.fingerprint = ANY_MODEL
        self._models: dict[int, RatioModel] = {}
        self._refiners: dict[int, FieldRefiner] = {}
        self.ratios: tuple[int, ...] = ()
        self.refuses = True
        if weights is not None:
            self._load(weights)

    def _load(self, weights: WeightFile) -> None:
        if weights.family != self.name:
            raise ValueError(f"weights of the family {weights.family!r} do not fit the codec {self.name!r}")
        self.fingerprint = weights.fingerprint()
        tables = TableSet.from_arrays(with_prefix(weights.tensors, "tables."))
        added = weights.added()
        self._models = {
            int(ratio): load_ratio(
                config,
                with_prefix(weights.tensors, f"ratio{ratio}."),
                tables,
                self.device,
                with_prefix(added, f"ratio{ratio}."),
            )
            for ratio, config in weights.config["networks"].items()
        }
        self.ratios = tuple(sorted(self._models))

    @property
    def has_realistic(self) -> bool:
        """Whether every ratio has a realistic decoder."""
        models = self._models.values()
        return bool(models) and all(model.realistic is not None for model in models)

    @cached_property
    def critic(self) -> FlowCritic:
        """Scores velocity fields without their originals; read when it is first asked for.

        One of one's own can be assigned.

        Raises:
            ValueError: The one that ships knows other weights than these.
        """
        path = shipped_critic()
        if self.fingerprint == ANY_MODEL:
            raise ValueError("without weights there is no critic, so fields cannot be scored")
        critic = FlowCritic(read_weight_file(path), self.device)
        if critic.codec != self.fingerprint.hex():
            raise ValueError(
                f"these weights have no critic, so they cannot score fields: {path.name} knows what the "
                f"weights {critic.codec} make of them"
            )
        return critic

    def compress(  # type: ignore[override]
        self,
        x: NDArray[Any] | Tensor,
        *,
        ratio: int | None = None,
        quality: float | None = None,
        target_bytes: int | None = None,
        max_error: float | None = None,
        relative_error: float | None = None,
        periodic: bool | Axes = False,
        effort: int = 0,
        progress: Progress | None = None,
    ) -> bytes:
        """Compresses a field to a complete stream.

        Args:
            x: ``(C, D, H, W)`` or ``(C, H, W)``, float32 or float64, numpy or torch. Values that are
                not finite are kept exactly.
            ratio: 8, 64 or 512, of the numbers of samples; of bytes it is far more. Without any of the other
                options, 64.
            quality: 0 (smallest) to 100 (best) within the ratio; 50 if nothing is said.
            target_bytes: The best field whose stream has at most this many bytes.
            max_error: No decoded value may differ by more than this. 0 is lossless.
            relative_error: ``max_error`` as a fraction of the range of the values.
            periodic: Axes that continue at their far ends; True for all.
            effort: 0 to 10: how long to look for better latents of this very field, see
                :mod:`latentpress.codecs.field_effort`; any decoder reads the result.
            progress: Called with the fraction done and the stage.

        Raises:
            TypeError: x is of another type, the effort is no whole number, or options exclude each other.
            ValueError: The shape or an option is out of bounds, the target cannot be met, or the networks
                would lose most of the field.
        """
        values, flat = checked_field(x)
        notify = progress or no_progress
        bounded = self._check_options(ratio, max_error, relative_error)
        if target_bytes is not None and (bounded or quality is not None):
            raise TypeError("target_bytes stands alone or with ratio")
        tenths = None if quality is None else quality_to_tenths(quality)
        axes = (periodic, periodic, periodic) if isinstance(periodic, bool) else periodic
        job = FieldJob(self, values, flat, axes, Effort(effort, notify))
        notify(0.0, "encoding")
        if bounded:
            best = job.bounded(bound_of(values, max_error, relative_error), ratio, tenths)
        elif target_bytes is not None:
            best = job.within_bytes(target_bytes, ratio)
        else:
            tenths = round(10 * DEFAULT_QUALITY) if tenths is None else tenths
            best = job.best_at(ratio or self._preferred_ratio(), tenths)
        notify(1.0, "done")
        return packed(best)

    def _check_options(
        self, ratio: int | None, max_error: float | None, relative_error: float | None
    ) -> bool:
        """Whether a bound was given; complains about what excludes each other or is not there."""
        if max_error is not None and relative_error is not None:
            raise TypeError("give max_error or relative_error, not both")
        if ratio is not None and ratio not in self.ratios:
            raise ValueError(
                f"ratio must be one of {', '.join(map(str, self.ratios)) or 'none'}, got {ratio}"
            )
        bounded = max_error is not None or relative_error is not None
        if not bounded and not self.ratios:
            raise ValueError("without weights a bound is needed: max_error or relative_error")
        return bounded

    def _preferred_ratio(self) -> int:
        return 64 if 64 in self.ratios else self.ratios[0]

    def compress_blocks(
        self,
        source: ArraySource | Tensor,
        target: str | Path | BinaryIO,
        *,
        block: int | tuple[int, ...] | None = None,
        ratio: int | None = None,
        quality: float | None = None,
        max_error: float | None = None,
        relative_error: float | None = None,
        periodic: bool | Axes = False,
        effort: int = 0,
        progress: Progress | None = None,
    ) -> int:
        """Compresses a field that need not fit into memory, block by block, to one stream.

        With a bound every block is a field of its own. Without one all blocks share a network: each is
        analysed with a halo of samples around it, and the decoder synthesises it with a halo of latents, so
        that there are no seams and blocks cost no more samples than they have.

        Args:
            source: ``(C, D, H, W)`` or ``(C, H, W)``, float32 or float64: an array or tensor, a memory map,
                a zarr, HDF5 or dask array. It is read once or twice, in parts.
            target: Path of the stream, which appears when it is complete, or a file.
            block: Sides of a block, multiples of 8; chosen by the number of components if nothing is said.
            ratio: As for :meth:`compress`.
            quality: As for :meth:`compress`.
            max_error: As for :meth:`compress`.
            relative_error: As for :meth:`compress`, of the range of the whole field.
            periodic: As for :meth:`compress`; ignored under a bound.
            effort: As for :meth:`compress`, spent on each block beside what is around it, as the analysis has
                that.
            progress: Called with the fraction done and the stage.

        Returns:
            Bytes of the stream.

        Raises:
            TypeError: The source is of another type, the effort is no whole number, or options exclude each
                other.
            ValueError: The shape or an option is out of bounds, or the networks would lose most of the field.
                Nothing has been written then.
        """
        bounded = self._check_options(ratio, max_error, relative_error)
        if bounded and (ratio is not None or quality is not None):
            raise TypeError("blocks have a bound, or a ratio and a quality")
        axes = (periodic, periodic, periodic) if isinstance(periodic, bool) else periodic
        if isinstance(source, Tensor):
            source = source.detach().cpu().numpy()
        writer = BlockWriter(self, source, block, axes, progress or no_progress, effort)
        if not bounded:
            tenths = quality_to_tenths(DEFAULT_QUALITY if quality is None else quality)
            chosen = ratio or self._preferred_ratio()
            return writer.write(target, Coding(None, (chosen, tenths)), writer.statistics())
        if max_error is not None:
            bound = checked_bound("max_error", max_error)
        else:
            extent = writer.statistics().range
            bound = checked_bound("relative_error", relative_error) * extent
        return writer.write(target, Coding(bound if math.isfinite(bound) else 0.0, None), None)

    def open(
        self,
        source: str | Path | BinaryIO,
        *,
        decoder: Decoder = "faithful",
        limits: Limits = DEFAULT_LIMITS,
    ) -> FieldFile:
        """Opens a stream of :meth:`compress_blocks` without decoding it, see :class:`FieldFile`.

        Args:
            source: Path of the stream, or a file that can be sought in.
            decoder: As for :meth:`decompress`.
            limits: Caps on a block, and on what one reading returns.

        Raises:
            StreamError: The file is no stream of a field in blocks.
            ValueError: The decoder is unknown or not in the weights.
        """
        check_decoder(decoder)
        return FieldFile(self, source, decoder, limits)

    def decompress(
        self,
        data: bytes,
        *,
        decoder: Decoder = "faithful",
        divergence_free: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Tensor:
        """Restores a field.

        Args:
            data: A stream of this codec and these weights, or one that needs no network.
            decoder: ``faithful`` has the smaller error, ``realistic`` restores small scales. Streams
                with a bound are decoded faithfully.
            divergence_free: Remove the divergence of a velocity field of three components, see
                :func:`latentpress.models.field.projection.solenoidal`.
            limits: Caps, checked before anything is allocated.
            progress: Called with the fraction done and the stage.

        Returns:
            On the CPU, the shape and type that went in.

        Raises:
            StreamError: Anything is wrong with the bytes.
            ValueError: The decoder is unknown or not in the weights, or the field has no divergence to
                remove.
        """
        notify = progress or no_progress
        notify(0.0, "decoding")
        values, header = decode_stream(self, data, decoder, limits, divergence_free)
        notify(1.0, "done")
        return torch.from_numpy(values[:, 0] if header.flat else values)

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes a stream with all its checksums.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        if is_in_blocks(read_container(data, limits).payload):
            with self.open(io.BytesIO(data), limits=limits) as field:
                field.verify()
            return
        decode_stream(self, data, "faithful", limits)

    def coarse(self, data: bytes, factor: int, *, limits: Limits = DEFAULT_LIMITS) -> Tensor:
        """The decoded field averaged over cubes of ``factor`` samples a side.

        Raises:
            StreamError: Anything is wrong with the bytes.
            ValueError: The factor does not divide the shape.
        """
        field = self.decompress(data, limits=limits)
        sizes = field.shape[1:]
        if any(size % factor for size in sizes):
            raise ValueError(f"{factor} does not divide the shape {tuple(sizes)}")
        pool = F.avg_pool3d if field.ndim == 4 else F.avg_pool2d
        return pool(field.double(), factor).to(field.dtype)

    def interpolate(
        self,
        first: bytes,
        second: bytes,
        t: float,
        *,
        decoder: Decoder = "faithful",
        limits: Limits = DEFAULT_LIMITS,
    ) -> Tensor:
        """A field between two compressed snapshots, see :func:`latentpress.codecs.field_time.between`.

        Args:
            first: Stream of the snapshot at time 0.
            second: Stream of the snapshot at time 1.
            t: In [0, 1].
            decoder: As for :meth:`decompress`.
            limits: Caps, checked before anything is allocated.

        Raises:
            StreamError: Anything is wrong with the bytes.
            ValueError: The snapshots do not have one shape, or t is out of range.
        """
        (a, header), (b, _) = (decode_stream(self, data, decoder, limits) for data in (first, second))
        fields = [torch.from_numpy(values[:, 0] if header.flat else values) for values in (a, b)]
        return between(fields[0], fields[1], t, all(header.periodic))

    def quality_score(
        self, data: bytes, *, decoder: Decoder = "faithful", limits: Limits = DEFAULT_LIMITS
    ) -> float:
        """How close a decoded flow is to its original, judged without it.

        Args:
            data: Stream of a velocity field of three components and dimensions.
            decoder: As for :meth:`decompress`; its fields are scored.
            limits: Caps, checked before anything is allocated.

        Returns:
            The critic's estimate of ``-log10(NRMSE)``: higher is better. It knows turbulence, and nothing of
            other fields.

        Raises:
            StreamError: Anything is wrong with the bytes.
            ValueError: The weights have no critic, or the field is none that it scores.
        """
        return self.critic.score(self.decompress(data, decoder=decoder, limits=limits))

    def model(self, ratio: int) -> RatioModel:
        """The networks of a ratio.

        Raises:
            UnknownModel: The weights have none.
        """
        if ratio not in self._models:
            raise UnknownModel(f"these weights have no network for the ratio {ratio}")
        return self._models[ratio]

    def refiner(self, ratio: int) -> FieldRefiner:
        """What refines latents of a ratio; made when it is first asked for.

        Raises:
            UnknownModel: The weights have no network for the ratio.
        """
        if ratio not in self._refiners:
            self._refiners[ratio] = FieldRefiner(self.model(ratio))
        return self._refiners[ratio]
