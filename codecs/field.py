"""The field codec: simulation data to bytes and back, learned, with a bound on the error if wanted."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    TableSet,
    TruncatedStream,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.bounded_residual import decode_residual, encode_residual
from latentpress.codecs.field_exact import (
    Exceptions,
    filled,
    pack_array,
    pack_exceptions,
    pack_mask,
    restore_mask,
    unpack_array,
    unpack_exceptions,
    unpack_mask,
)
from latentpress.codecs.field_payload import (
    DTYPES,
    GROUP,
    QUALITY_TENTHS_MAX,
    RATIOS,
    FieldHeader,
    Mode,
    join_parts,
    read_field_header,
    split_parts,
)
from latentpress.codecs.field_time import between
from latentpress.codecs.latent_coder import CodedPart
from latentpress.codecs.rate_control import QualitySearch
from latentpress.codecs.volume_coder import Axes, VolumeCoder
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.field.network import FieldNetwork, build_field_network
from latentpress.models.field.projection import solenoidal
from latentpress.models.field.transforms import STRIDE, Enhancer

INTEGER_PARTS = ("hyper_prior", "hyper_synthesis", "context")
"""Parts of a network that decide probability tables, and so run in integers."""

Decoder = Literal["faithful", "realistic"]

DEFAULT_QUALITY = 50.0

ANY_MODEL = bytes(8)
"""Fingerprint of streams that need no network."""

# A network's output differs a little between machines. Where a bound has to hold, this share of it is left
# for that, and the bound must be so much larger than float32 can resolve that the share is enough.
_MARGIN = 0.02
_LEAST_RELATIVE_BOUND = 1e-3

# Networks tried under a bound: (ratio, quality).
_TRIED_UNDER_BOUND = ((8, 0.0), (8, 50.0), (64, 50.0))


class _Candidate(NamedTuple):
    """A payload and the model it needs."""

    payload: bytes
    fingerprint: bytes


class _RatioModel(NamedTuple):
    """The networks of one ratio."""

    network: FieldNetwork
    coder: VolumeCoder
    realistic: Enhancer | None


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
        self._models: dict[int, _RatioModel] = {}
        self.ratios: tuple[int, ...] = ()
        if weights is not None:
            self._load(weights)

    def _load(self, weights: WeightFile) -> None:
        if weights.family != self.name:
            raise ValueError(f"weights of the family {weights.family!r} do not fit the codec {self.name!r}")
        self.fingerprint = weights.fingerprint()
        tables = TableSet.from_arrays(_with_prefix(weights.tensors, "tables."))
        self._models = {
            int(ratio): _load_ratio(
                config, _with_prefix(weights.tensors, f"ratio{ratio}."), tables, self.device
            )
            for ratio, config in weights.config["networks"].items()
        }
        self.ratios = tuple(sorted(self._models))

    @property
    def has_realistic(self) -> bool:
        """Whether every ratio has a realistic decoder."""
        models = self._models.values()
        return bool(models) and all(model.realistic is not None for model in models)

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
            progress: Called with the fraction done and the stage.

        Raises:
            TypeError: x is of another type, or options exclude each other.
            ValueError: The shape or an option is out of bounds, or the target cannot be met.
        """
        values, flat = _checked_field(x)
        notify = progress or no_progress
        if max_error is not None and relative_error is not None:
            raise TypeError("give max_error or relative_error, not both")
        bounded = max_error is not None or relative_error is not None
        if target_bytes is not None and (bounded or quality is not None):
            raise TypeError("target_bytes stands alone or with ratio")
        if ratio is not None and ratio not in self.ratios:
            raise ValueError(
                f"ratio must be one of {', '.join(map(str, self.ratios)) or 'none'}, got {ratio}"
            )
        if not bounded and not self.ratios:
            raise ValueError("without weights a bound is needed: max_error or relative_error")
        tenths = None if quality is None else quality_to_tenths(quality)
        axes = (periodic, periodic, periodic) if isinstance(periodic, bool) else periodic
        job = _Job(self, values, flat, axes)
        notify(0.0, "encoding")
        if bounded:
            best = job.bounded(_bound(values, max_error, relative_error), ratio, tenths)
        elif target_bytes is not None:
            best = job.within_bytes(target_bytes, ratio)
        else:
            tenths = round(10 * DEFAULT_QUALITY) if tenths is None else tenths
            preferred = 64 if 64 in self.ratios else self.ratios[0]
            best = job.with_network(preferred if ratio is None else ratio, tenths)
        notify(1.0, "done")
        return _packed(best)

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
            divergence_free: Remove the divergence of a periodic velocity field of three components.
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
        values, header = self._decoded(data, limits, decoder)
        if divergence_free:
            if header.shape[0] != GROUP or not all(header.periodic) or header.bound is not None:
                raise ValueError(
                    "only a periodic field of three components, without a bound, is made divergence-free"
                )
            values = solenoidal(torch.from_numpy(values)).numpy()
        notify(1.0, "done")
        return torch.from_numpy(values[:, 0] if header.flat else values)

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes a stream with all its checksums.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        self._decoded(data, limits, "faithful")

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
        (a, header), (b, _) = (self._decoded(data, limits, decoder) for data in (first, second))
        fields = [torch.from_numpy(values[:, 0] if header.flat else values) for values in (a, b)]
        return between(fields[0], fields[1], t, all(header.periodic))

    def _decoded(self, data: bytes, limits: Limits, decoder: Decoder) -> tuple[NDArray[Any], FieldHeader]:
        if decoder not in ("faithful", "realistic"):
            raise ValueError(f"decoder must be faithful or realistic, got {decoder!r}")
        container = read_container(data, limits)
        if container.codec_id != CodecId.FIELD:
            raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not field")
        header, offset = read_field_header(container.payload, limits)
        expected = self.fingerprint if header.mode == Mode.NETWORK else ANY_MODEL
        if container.fingerprint != expected:
            raise UnknownModel(
                f"the stream needs the model {container.fingerprint.hex()}, "
                f"this codec is {self.fingerprint.hex()}"
            )
        return decode_payload(header, container.payload, offset, self, decoder), header

    def model(self, ratio: int) -> _RatioModel:
        """The networks of a ratio.

        Raises:
            UnknownModel: The weights have none.
        """
        if ratio not in self._models:
            raise UnknownModel(f"these weights have no network for the ratio {ratio}")
        return self._models[ratio]

    @torch.inference_mode()
    def encode_group(self, values: NDArray[np.float64], ratio: int, tenths: int, periodic: Axes) -> bytes:
        """Codes three components ``(3, D, H, W)`` of unit variance."""
        model = self.model(ratio)
        quality, flags = self._operands(tenths, periodic)
        with _full_precision(self.device):
            field = torch.from_numpy(values.astype(np.float32)).to(self.device)[None]
            depth, height, width = (-size % STRIDE for size in field.shape[2:])
            field = F.pad(field, (0, width, 0, height, 0, depth), mode="replicate").permute(0, 2, 3, 4, 1)
            network = model.network
            y = network.analysis(field.contiguous(), quality, flags) * _spread(network.gain(quality))
            z = network.hyper_analysis(y / _powers(network), quality, flags)
        with model.coder.axes(periodic):
            coded = model.coder.encode(y, z, quality)
        return struct.pack("<I", coded.checksum) + coded.data

    @torch.inference_mode()
    def decode_group(
        self,
        data: bytes,
        shape: tuple[int, int, int],
        ratio: int,
        tenths: int,
        periodic: Axes,
        decoder: Decoder,
    ) -> NDArray[np.float32]:
        """Restores three components of unit variance."""
        model = self.model(ratio)
        if decoder == "realistic" and model.realistic is None:
            raise ValueError(f"these weights have no realistic decoder for the ratio {ratio}")
        if len(data) < 4:
            raise TruncatedStream("coded latents end before their checksum does")
        quality, flags = self._operands(tenths, periodic)
        latent_shape = tuple(-(-size // STRIDE) for size in shape)
        with model.coder.axes(periodic):
            (checksum,) = struct.unpack_from("<I", data)
            y_hat = model.coder.decode_parts([CodedPart(data[4:], checksum)], latent_shape, quality)
        with _full_precision(self.device):
            synthesis = model.network.synthesis
            linear = synthesis.linear(y_hat / _spread(model.network.gain(quality)), flags)
            enhancer = synthesis.enhancer
            if decoder == "realistic" and model.realistic is not None:
                enhancer = model.realistic
            field = enhancer(linear, quality, flags)[0].permute(3, 0, 1, 2)
        depth, height, width = shape
        result: NDArray[np.float32] = field[:, :depth, :height, :width].contiguous().cpu().numpy()
        return result

    def _operands(self, tenths: int, periodic: Axes) -> tuple[Tensor, Tensor]:
        quality = torch.tensor([tenths / 10], dtype=torch.float32, device=self.device)
        return quality, torch.tensor([periodic], device=self.device)


class _Job:
    """One field and the ways to code it."""

    def __init__(self, codec: FieldCodec, values: NDArray[Any], flat: bool, periodic: Axes) -> None:
        self.codec = codec
        self.values = values
        self.exact = values.astype(np.float64)
        self.masked = not bool(np.isfinite(values).all())
        self.mask = [pack_mask(values)] if self.masked else []
        # An axis that does not end with a block cannot be continued by the blocks at its other end.
        first, second, third = (
            p and n % STRIDE == 0 for p, n in zip(periodic, values.shape[1:], strict=True)
        )
        self.periodic: Axes = (first, second, third)
        self.flat = flat
        self.smooth = filled(self.exact) if self.masked else self.exact
        with np.errstate(over="ignore", invalid="ignore"):
            self.offsets = self.smooth.mean(axis=(1, 2, 3))
            self.centred = self.smooth - self.offsets[:, None, None, None]
        self.scales = [self._scale(start) for start in range(0, values.shape[0], GROUP)]
        self.usable = bool(np.isfinite(self.centred).all()) and all(map(math.isfinite, self.scales))

    def _scale(self, start: int) -> float:
        group = self.centred[start : start + GROUP]
        with np.errstate(over="ignore", invalid="ignore"):
            return math.sqrt(float(np.square(group).mean())) or 1.0

    def header(self, mode: Mode, bound: float | None, ratio: int = RATIOS[0], tenths: int = 0) -> FieldHeader:
        components, depth, height, width = self.values.shape
        return FieldHeader(
            mode=mode,
            shape=(components, depth, height, width),
            flat=self.flat,
            double=self.values.dtype == np.float64,
            periodic=self.periodic,
            masked=self.masked,
            bound=bound,
            ratio=ratio,
            quality_tenths=tenths,
            offsets=tuple(map(float, self.offsets)) if mode != Mode.LOSSLESS else (),
            scales=tuple(self.scales) if mode == Mode.NETWORK else (),
        )

    def with_network(self, ratio: int, tenths: int) -> _Candidate:
        """Without a bound."""
        if not self.usable:
            raise ValueError(
                "values are too large for a network; with max_error any finite field can be coded"
            )
        header = self.header(Mode.NETWORK, None, ratio, tenths)
        parts = [*self.mask, *self._groups(ratio, tenths)]
        return _Candidate(header.to_bytes() + join_parts(parts), self.codec.fingerprint)

    def within_bytes(self, limit: int, ratio: int | None) -> _Candidate:
        """The best network stream of at most ``limit`` bytes."""
        for tried in (ratio,) if ratio is not None else self.codec.ratios:
            trial = partial(self.with_network, tried)
            found = QualitySearch(trial, lambda c: len(_packed(c)), QUALITY_TENTHS_MAX).at_most(limit)
            if found is not None:
                return found
        raise ValueError(f"{limit} bytes cannot be met: quality 0 of the largest ratio needs more")

    def bounded(self, bound: float, ratio: int | None, tenths: int | None) -> _Candidate:
        """The smallest stream that keeps a bound."""
        candidates = [self._lossless(bound)]
        if self.usable and 0 < bound < math.inf:
            candidates.append(self._interpolated(bound))
            tried: tuple[tuple[int, float], ...] = _TRIED_UNDER_BOUND
            if ratio is not None or tenths is not None:
                tried = ((ratio or 64, (tenths or 0) / 10 if tenths is not None else DEFAULT_QUALITY),)
            if self._suits_network(bound):
                candidates += [
                    self._corrected(bound, r, quality_to_tenths(q))
                    for r, q in tried
                    if r in self.codec.ratios
                ]
        return min(candidates, key=lambda candidate: len(candidate.payload))

    def _suits_network(self, bound: float) -> bool:
        components, depth, height, width = self.values.shape
        large = components % GROUP == 0 and min(depth, height, width) >= 2 * STRIDE
        return large and bound >= _LEAST_RELATIVE_BOUND * max(self.scales)

    def _groups(self, ratio: int, tenths: int) -> list[bytes]:
        parts = []
        for number, scale in enumerate(self.scales):
            group = self.centred[number * GROUP : (number + 1) * GROUP] / scale
            missing = GROUP - len(group)
            if missing:
                group = np.concatenate((group, np.zeros((missing, *group.shape[1:]))))
            parts.append(self.codec.encode_group(group, ratio, tenths, self.periodic))
        return parts

    def _lossless(self, bound: float) -> _Candidate:
        header = self.header(Mode.LOSSLESS, bound)
        # A mask is not needed where every bit is kept, but would say nothing wrong.
        parts = [*self.mask, pack_array(self.values.astype(header.dtype))]
        return _Candidate(header.to_bytes() + join_parts(parts), ANY_MODEL)

    def _interpolated(self, bound: float) -> _Candidate:
        header = self.header(Mode.INTERPOLATION, bound)
        return self._with_residual(header, [], np.zeros_like(self.centred), ANY_MODEL, 1.0)

    def _corrected(self, bound: float, ratio: int, tenths: int) -> _Candidate:
        header = self.header(Mode.NETWORK, bound, ratio, tenths)
        groups = self._groups(ratio, tenths)
        base = _network_base(header, groups, self.codec, "faithful")
        return self._with_residual(header, groups, base, self.codec.fingerprint, 1.0 - _MARGIN)

    def _with_residual(
        self,
        header: FieldHeader,
        groups: list[bytes],
        base: NDArray[np.float64],
        fingerprint: bytes,
        share: float,
    ) -> _Candidate:
        bound = header.bound or 0.0
        coded = encode_residual(self.centred - base, residual_bound(header, self.exact, share))
        decoded = _finished(header, base + coded.decoded)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(decoded.astype(np.float64) - self.exact)
        # Where the network had a part in it, half of the margin is left for other machines.
        wrong = ~(error <= bound * (0.5 + 0.5 * share)) & np.isfinite(self.exact)
        positions = np.flatnonzero(wrong).astype(np.int64)
        exceptions = Exceptions(positions, self.values.ravel()[positions].astype(header.dtype))
        width = struct.pack("<d", residual_bound(header, self.exact, share))
        parts = [*self.mask, *groups, width + coded.data, pack_exceptions(exceptions)]
        return _Candidate(header.to_bytes() + join_parts(parts), fingerprint)


def decode_payload(
    header: FieldHeader, payload: bytes, offset: int, codec: FieldCodec | None, decoder: Decoder = "faithful"
) -> NDArray[Any]:
    """Restores the values of a payload, ``(C, D, H, W)`` in the type they came in.

    Args:
        header: Of the payload.
        payload: The whole payload.
        offset: Where the header ends.
        codec: Of the stream's model; None where the mode needs no network.
        decoder: For streams without a bound.

    Raises:
        StreamError: The payload is damaged.
    """
    bounded = header.bound is not None and header.mode != Mode.LOSSLESS
    groups = header.groups if header.mode == Mode.NETWORK else 0
    count = header.masked + groups + 2 * bounded + (header.mode == Mode.LOSSLESS)
    parts = split_parts(payload, offset, count)
    classes = unpack_mask(parts.pop(0), header.shape) if header.masked else None
    if header.mode == Mode.LOSSLESS:
        values = unpack_array(parts[0], math.prod(header.shape), header.dtype).reshape(header.shape)
        return values.astype(values.dtype.newbyteorder("="))
    base = np.zeros(header.shape)
    if header.mode == Mode.NETWORK and codec is not None:
        base = _network_base(header, parts[:groups], codec, "faithful" if bounded else decoder)
    exceptions: Exceptions | None = None
    if bounded:
        residual = parts[groups]
        if len(residual) < 8:
            raise TruncatedStream("a coded residual ends before its width does")
        (width,) = struct.unpack_from("<d", residual)
        if not 0 < width < math.inf:
            raise CorruptStream(f"a residual cannot have the width {width}")
        base += decode_residual(residual[8:], header.shape, width)
        exceptions = unpack_exceptions(parts[groups + 1], math.prod(header.shape), header.dtype)
    values = _finished(header, base)
    if exceptions is not None:
        values.ravel()[exceptions.positions] = exceptions.values
    if classes is not None:
        restore_mask(values, classes)
    return values


def residual_bound(header: FieldHeader, values: NDArray[np.float64], share: float) -> float:
    """The bound a residual is coded with: what was promised, less what rounding at the end may add."""
    bound = (header.bound or 0.0) * share
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    unit = 2.0**-52 if header.double else 2.0**-24
    return max(0.5 * bound, bound - 4 * unit * largest if header.double else bound - 1.01 * unit * largest)


def _network_base(
    header: FieldHeader, groups: list[bytes], codec: FieldCodec, decoder: Decoder
) -> NDArray[np.float64]:
    components = header.shape[0]
    base = np.empty(header.shape)
    for number, (data, scale) in enumerate(zip(groups, header.scales, strict=True)):
        found = codec.decode_group(
            data, header.shape[1:], header.ratio, header.quality_tenths, header.periodic, decoder
        )
        first = number * GROUP
        base[first : first + GROUP] = found[: components - first].astype(np.float64) * scale
    return base


def _finished(header: FieldHeader, centred: NDArray[np.float64]) -> NDArray[Any]:
    """Adds the offsets and gives the values their type."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = centred + np.array(header.offsets)[:, None, None, None]
        typed: NDArray[Any] = values.astype(np.float64 if header.double else np.float32)
        return typed


def quality_to_tenths(quality: float) -> int:
    """Rounds a quality to the tenths that are coded.

    Raises:
        ValueError: It is outside [0, 100].
    """
    if not 0 <= quality <= 100:
        raise ValueError(f"quality must be within 0 and 100, got {quality}")
    return round(quality * 10)


def _checked_field(x: NDArray[Any] | Tensor) -> tuple[NDArray[Any], bool]:
    """The values as ``(C, D, H, W)``, and whether the field has two dimensions."""
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy() if x.dtype in (torch.float32, torch.float64) else x
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        came = getattr(x, "dtype", type(x).__name__)
        raise TypeError(
            f"expected a float32 or float64 array or tensor (C, D, H, W) or (C, H, W), got {came}"
        )
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(f"expected a field of shape (C, D, H, W) or (C, H, W), got {x.shape}")
    flat = x.ndim == 3
    x = x.astype(DTYPES[x.dtype == np.float64][1:])
    return (x[:, None] if flat else x), flat


def _bound(values: NDArray[Any], max_error: float | None, relative_error: float | None) -> float:
    name, given = ("max_error", max_error) if max_error is not None else ("relative_error", relative_error)
    if given is None or not 0 <= given < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {given}")
    if max_error is not None:
        return float(max_error)
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0.0
    with np.errstate(over="ignore"):
        bound = float(given) * float(finite.max() - finite.min())
    return bound if math.isfinite(bound) else 0.0


def _packed(candidate: _Candidate) -> bytes:
    return write_container(CodecId.FIELD, candidate.fingerprint, [(SectionType.PAYLOAD, candidate.payload)])


def _spread(vector: Tensor) -> Tensor:
    return vector[:, None, None, None, :]


def _powers(network: FieldNetwork) -> Tensor:
    """What latents are divided by before a network sees them."""
    return torch.exp2(network.context.scale.exponent.float())


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: a bound is computed on one machine and has to hold on another."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _with_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_ratio(
    config: Mapping[str, int], tensors: Mapping[str, Any], tables: TableSet, device: torch.device
) -> _RatioModel:
    network = build_field_network(**config)
    hyper_channels = network.hyper_analysis.head.out_features
    for part in INTEGER_PARTS:
        setattr(network, part, convert(getattr(network, part)))
    realistic_state = _with_prefix(tensors, "realistic.")
    state = {k: v for k, v in tensors.items() if not k.startswith("realistic.")}
    realistic: Enhancer | None = None
    try:
        network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
        if realistic_state:
            enhancer = network.synthesis.enhancer
            realistic = Enhancer(enhancer.stem.out_features, len(enhancer.blocks))
            realistic.load_state_dict({k: torch.from_numpy(v) for k, v in realistic_state.items()})
            realistic = realistic.eval().requires_grad_(False).to(device)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit their configuration: {error}") from error
    for module in network.modules():
        prove: Any = getattr(module, "prove_exact", None)
        if prove is not None:
            prove()
    network = network.eval().requires_grad_(False).to(device)
    coder = VolumeCoder(
        network.hyper_prior,
        network.hyper_synthesis,
        network.context,
        tables,
        latent_channels=network.latent_channels,
        hyper_channels=hyper_channels,
    )
    return _RatioModel(network, coder, realistic)
