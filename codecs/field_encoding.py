"""The ways to code one field: lossless, interpolated, by a network, with or without a bound."""

from __future__ import annotations

import math
import struct
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CodecId, Limits, SectionType, write_container
from latentpress.codecs.bounded_residual import encode_residual
from latentpress.codecs.field_decoding import decode_payload, finished, network_base
from latentpress.codecs.field_effort import MOST_REFINEMENTS, NEIGHBOURHOOD, Effort, Subject, refined_bytes
from latentpress.codecs.field_energies import is_worth_it, pack_energies, whole_groups
from latentpress.codecs.field_exact import (
    Exceptions,
    filled,
    pack_array,
    pack_exceptions,
    pack_mask,
)
from latentpress.codecs.field_payload import (
    ANY_MODEL,
    GROUP,
    QUALITY_TENTHS_MAX,
    RATIOS,
    FieldHeader,
    Mode,
    join_parts,
    read_field_header,
)
from latentpress.codecs.field_suitability import check_suits
from latentpress.codecs.rate_control import QualitySearch, quality_to_tenths, search_nearby
from latentpress.codecs.volume_coder import Axes
from latentpress.models.field.transforms import STRIDE

if TYPE_CHECKING:
    from latentpress.codecs.field import FieldCodec

DEFAULT_QUALITY = 50.0

# A network's output differs a little between machines. Where a bound has to hold, this share of it is left
# for that, and the bound must be so much larger than float32 can resolve that the share is enough.
_MARGIN = 0.02
_LEAST_RELATIVE_BOUND = 1e-3

# Networks tried under a bound: (ratio, quality).
_TRIED_UNDER_BOUND = ((8, 0.0), (8, 50.0), (64, 50.0))


class Candidate(NamedTuple):
    """A way to code a field.

    Attributes:
        payload: Of the stream.
        fingerprint: Of the model that it needs.
        energies: Section of the energies of small scales; empty for none.
    """

    payload: bytes
    fingerprint: bytes
    energies: bytes = b""


class FieldJob:
    """One field and the ways to code it.

    Args:
        codec: Whose networks are used.
        values: ``(C, D, H, W)`` float32 or float64.
        flat: Whether the field has two dimensions, so that D is 1.
        periodic: Axes that continue at their far ends.
        effort: That is spent on the latents of networks; None for none.
    """

    def __init__(
        self,
        codec: FieldCodec,
        values: NDArray[Any],
        flat: bool,
        periodic: Axes,
        effort: Effort | None = None,
    ) -> None:
        self.codec = codec
        self.effort = effort if effort is not None and effort.iterations else None
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
        """The header of this field's payload in some mode."""
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

    def best_at(self, ratio: int, tenths: int) -> Candidate:
        """Without a bound, with the effort spent on it."""
        if self.effort is not None:
            self.effort.expect(len(self.scales))
        if self.usable:
            self._check_suits(ratio, tenths)
        return self.with_network(ratio, tenths, self.effort)

    def _check_suits(self, ratio: int, tenths: int) -> None:
        if not self.codec.refuses:
            return
        for number, scale in enumerate(self.scales):
            group = unit_group(self.centred, number, scale)
            check_suits(self.codec.model(ratio), group, tenths, self.periodic)

    def with_network(self, ratio: int, tenths: int, effort: Effort | None = None) -> Candidate:
        """Without a bound."""
        if not self.usable:
            raise ValueError(
                "values are too large for a network; with max_error any finite field can be coded"
            )
        header = self.header(Mode.NETWORK, None, ratio, tenths)
        parts = [*self.mask, *self._groups(ratio, tenths, effort)]
        payload = header.to_bytes() + join_parts(parts)
        # Where weights have no gain, small scales keep their energy by themselves.
        needed = self.codec.model(ratio).gain_of(self.periodic) is not None
        energies = self._energies if needed and is_worth_it(self._energies, payload) else b""
        return Candidate(payload, self.codec.fingerprint, energies)

    @cached_property
    def _energies(self) -> bytes:
        """Of small scales, for the realistic decoder; the same at every ratio and quality."""
        model = self.codec.model(self.codec.ratios[0])
        return pack_energies(
            [
                model.energies(unit_group(self.centred, number, self.scales[number]), self.periodic)
                for number in range(whole_groups(self.values.shape))
            ]
        )

    def within_bytes(self, limit: int, ratio: int | None) -> Candidate:
        """The network stream of at most ``limit`` bytes with the least error."""
        found = []
        for tried in (ratio,) if ratio is not None else self.codec.ratios:
            trial = partial(self.with_network, tried)
            best = QualitySearch(trial, lambda c: len(packed(c)), QUALITY_TENTHS_MAX).at_most(limit)
            if best is not None:
                found.append(best)
        if not found:
            raise ValueError(f"{limit} bytes cannot be met: quality 0 of the largest ratio needs more")
        plain = found[0] if len(found) == 1 else min(found, key=self._squared_error)
        header, _ = read_field_header(plain.payload, Limits(max_voxels=self.values.size))
        self._check_suits(header.ratio, header.quality_tenths)
        return plain if self.effort is None else self._refined_within(limit, plain, self.effort)

    def _refined_within(self, limit: int, plain: Candidate, effort: Effort) -> Candidate:
        """The best of what fits: without effort, or refined at a quality that is moved to use the bytes."""
        header, _ = read_field_header(plain.payload, Limits(max_voxels=self.values.size))
        start, ratio = header.quality_tenths, header.ratio

        def size(candidate: Candidate) -> float:
            return len(packed(candidate))

        low, high = max(0, start - NEIGHBOURHOOD), min(QUALITY_TENTHS_MAX, start + NEIGHBOURHOOD)
        ends = [size(self.with_network(ratio, tenths)) for tenths in (low, high)]
        growth = math.log(ends[1] / ends[0]) / (high - low)
        effort.expect(MOST_REFINEMENTS * len(self.scales))
        refined = search_nearby(
            lambda tenths: self.with_network(ratio, tenths, effort),
            size,
            limit,
            start,
            growth,
            QUALITY_TENTHS_MAX,
            MOST_REFINEMENTS,
        )
        return min((c for c in (plain, *refined) if size(c) <= limit), key=self._squared_error)

    def _squared_error(self, candidate: Candidate) -> float:
        header, offset = read_field_header(candidate.payload, Limits(max_voxels=self.values.size))
        error = decode_payload(header, candidate.payload, offset, self.codec).astype(np.float64) - self.exact
        return float(np.square(error[np.isfinite(self.exact)]).sum())

    def bounded(self, bound: float, ratio: int | None, tenths: int | None) -> Candidate:
        """The smallest stream that keeps a bound."""
        candidates = [self._lossless(bound)]
        if self.usable and 0 < bound < math.inf:
            candidates.append(self._interpolated(bound))
            tried: tuple[tuple[int, float], ...] = _TRIED_UNDER_BOUND
            if ratio is not None or tenths is not None:
                tried = ((ratio or 64, (tenths or 0) / 10 if tenths is not None else DEFAULT_QUALITY),)
            if self._suits_network(bound):
                corrected = {
                    (r, quality_to_tenths(q)): self._corrected(bound, r, quality_to_tenths(q))
                    for r, q in tried
                    if r in self.codec.ratios
                }
                candidates += corrected.values()
                if corrected and self.effort is not None:
                    r, chosen = min(corrected, key=lambda key: len(corrected[key].payload))
                    self.effort.expect(len(self.scales))
                    candidates.append(self._corrected(bound, r, chosen, self.effort))
        return min(candidates, key=lambda candidate: len(candidate.payload))

    def _suits_network(self, bound: float) -> bool:
        components, depth, height, width = self.values.shape
        large = components % GROUP == 0 and min(depth, height, width) >= 2 * STRIDE
        return large and bound >= _LEAST_RELATIVE_BOUND * max(self.scales)

    def _groups(self, ratio: int, tenths: int, effort: Effort | None = None) -> list[bytes]:
        parts = []
        model = self.codec.model(ratio)
        finite = np.isfinite(self.values) if effort is not None else None
        for number, scale in enumerate(self.scales):
            group = unit_group(self.centred, number, scale)
            if effort is None or finite is None:
                parts.append(model.encode(group, tenths, self.periodic))
                continue
            counts = np.zeros(group.shape, np.bool_)
            known = finite[number * GROUP : (number + 1) * GROUP]
            counts[: len(known)] = known
            subject = Subject(group, counts, self.periodic, self.periodic)
            parts.append(refined_bytes(self.codec.refiner(ratio), subject, tenths, effort))
        return parts

    def _lossless(self, bound: float) -> Candidate:
        header = self.header(Mode.LOSSLESS, bound)
        # A mask is not needed where every bit is kept, but would say nothing wrong.
        parts = [*self.mask, pack_array(self.values.astype(header.dtype))]
        return Candidate(header.to_bytes() + join_parts(parts), ANY_MODEL)

    def _interpolated(self, bound: float) -> Candidate:
        header = self.header(Mode.INTERPOLATION, bound)
        return self._with_residual(header, [], np.zeros_like(self.centred), ANY_MODEL, 1.0)

    def _corrected(self, bound: float, ratio: int, tenths: int, effort: Effort | None = None) -> Candidate:
        header = self.header(Mode.NETWORK, bound, ratio, tenths)
        groups = self._groups(ratio, tenths, effort)
        base = network_base(header, groups, self.codec)
        return self._with_residual(header, groups, base, self.codec.fingerprint, 1.0 - _MARGIN)

    def _with_residual(
        self,
        header: FieldHeader,
        groups: list[bytes],
        base: NDArray[np.float64],
        fingerprint: bytes,
        share: float,
    ) -> Candidate:
        bound = header.bound or 0.0
        coded = encode_residual(self.centred - base, residual_bound(header, self.exact, share))
        decoded = finished(header, base + coded.decoded)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(decoded.astype(np.float64) - self.exact)
        # Where the network had a part in it, half of the margin is left for other machines.
        wrong = ~(error <= bound * (0.5 + 0.5 * share)) & np.isfinite(self.exact)
        positions = np.flatnonzero(wrong).astype(np.int64)
        exceptions = Exceptions(positions, self.values.ravel()[positions].astype(header.dtype))
        width = struct.pack("<d", residual_bound(header, self.exact, share))
        parts = [*self.mask, *groups, width + coded.data, pack_exceptions(exceptions)]
        return Candidate(header.to_bytes() + join_parts(parts), fingerprint)


def unit_group(centred: NDArray[np.float64], number: int, scale: float) -> NDArray[np.float64]:
    """Three components of unit variance, zeros in the place of those that are missing.

    Args:
        centred: ``(C, D, H, W)``.
        number: Of the group.
        scale: Of the group.

    Example:
        >>> unit_group(np.full((4, 1, 1, 1), 2.0), 1, 2.0).ravel().tolist()
        [1.0, 0.0, 0.0]
    """
    group = centred[number * GROUP : (number + 1) * GROUP] / scale
    missing = GROUP - len(group)
    return np.concatenate((group, np.zeros((missing, *group.shape[1:])))) if missing else group


def residual_bound(header: FieldHeader, values: NDArray[np.float64], share: float) -> float:
    """The bound a residual is coded with: what was promised, less what rounding at the end may add."""
    bound = (header.bound or 0.0) * share
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    unit = 2.0**-52 if header.double else 2.0**-24
    return max(0.5 * bound, bound - 4 * unit * largest if header.double else bound - 1.01 * unit * largest)


def packed(candidate: Candidate) -> bytes:
    """The complete stream of a payload."""
    sections = [(SectionType.PAYLOAD, candidate.payload)]
    if candidate.energies:
        sections.append((SectionType.ENERGIES, candidate.energies))
    return write_container(CodecId.FIELD, candidate.fingerprint, sections)
