"""The field codec beside zfp, SZ3, SPERR, wavelets and Fourier modes, at equal bytes: ``latentpress eval``.

::

    field -> every codec at some byte ratios --> table: errors, statistics, speeds    -> NAME.json
          |                              +-----> spectra, densities, slices           -> NAME-....png
          +-> every codec over its whole range --> error against ratio, where they cross
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs import inspect
from latentpress.codecs.field import FieldCodec
from latentpress.scripts.field_measures import Measures, TrueField
from latentpress.scripts.field_peers import PEERS, Peer, transforms
from latentpress.scripts.text_table import format_table

DEFAULT_RATIOS = (64.0, 512.0, 2048.0)
OWN_NAME = "latentpress"

_TRIALS = 14
_CLOSE_ENOUGH = 0.01
"""Relative difference in bytes at which the search for a peer's setting ends."""

_FAR_OFF = 1.25
"""A ratio that misses what was asked for by more than this factor is not compared."""

_SWEPT_QUALITIES = (0.0, 25.0, 50.0, 75.0, 100.0)
_SWEPT_SETTINGS = 8
_SWEPT_RATIOS = (8.0, 8192.0)
"""Byte ratios that the curves cover."""

HEAD = (
    "codec",
    "ratio",
    "NRMSE",
    "PSNR",
    "dissip.",
    "skewness",
    "flatness",
    "div",
    "E 24-40",
    "PDF",
    "QR",
    "enc",
    "dec MB/s",
)


class Row(NamedTuple):
    """One codec at one size.

    Attributes:
        codec: Its name.
        setting: What was asked of it.
        bytes: Of the stream.
        ratio: Bytes of the field over those of the stream.
        measures: Of the decoded field.
        encode_speed: MB of float32 a second.
        decode_speed: MB of float32 a second.
        decoded: The field.
    """

    codec: str
    setting: str
    bytes: int
    ratio: float
    measures: Measures
    encode_speed: float
    decode_speed: float
    decoded: NDArray[np.float32]

    def as_json(self) -> dict[str, Any]:
        """Everything but the field."""
        content = self._asdict()
        del content["decoded"]
        return content | {"measures": self.measures._asdict()}


class Point(NamedTuple):
    """A point of a codec's curve.

    Attributes:
        codec: Its name.
        ratio: Of bytes.
        nrmse: Of the decoded field.
    """

    codec: str
    ratio: float
    nrmse: float


class Subject(NamedTuple):
    """What is measured on.

    Attributes:
        field: ``(3, D, H, W)`` float32.
        true: Its statistics.
        periodic: It is a whole periodic box.
    """

    field: NDArray[np.float32]
    true: TrueField
    periodic: bool

    @classmethod
    def of(cls, field: NDArray[Any], periodic: bool) -> Subject:
        """Takes a velocity field.

        Raises:
            ValueError: It is none.
        """
        return cls(np.ascontiguousarray(field, np.float32), TrueField(field), periodic)

    @property
    def peers(self) -> list[Peer]:
        """All peers that are installed."""
        return [peer for peer in (*PEERS, *transforms(self.periodic)) if peer.installed()]


def compare(
    codec: FieldCodec, subject: Subject, ratios: Sequence[float], note: Callable[[str], None]
) -> list[Row]:
    """Every codec at every byte ratio that it reaches.

    Args:
        codec: Ours.
        subject: The field.
        ratios: Of bytes.
        note: Told what is not reached.
    """
    rows: list[Row] = []
    for ratio in ratios:
        try:
            rows += evaluate_codec(codec, subject, ratio)
        except ValueError as error:
            note(f"{OWN_NAME} at a ratio of {ratio:g}: {error}")
        for row in (evaluate_peer(peer, subject, ratio) for peer in subject.peers):
            if abs(math.log(row.ratio / ratio)) > math.log(_FAR_OFF):
                note(f"{row.codec} does not reach a ratio of {ratio:g}, the nearest is {row.ratio:.0f}")
            else:
                rows.append(row)
    return rows


def evaluate_codec(codec: FieldCodec, subject: Subject, ratio: float) -> list[Row]:
    """Both decoders of the field codec at a byte ratio.

    Raises:
        ValueError: It does not reach the ratio.
    """
    field, periodic = subject.field, subject.periodic
    data = codec.compress(field, target_bytes=int(field.nbytes / ratio), periodic=periodic)
    found = inspect(data).parameters
    options = {"ratio": int(found["ratio"]), "quality": float(found["quality"])}
    # The search takes several encodings; speed is that of a single one.
    start = time.perf_counter()
    codec.compress(field, periodic=periodic, **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    setting = f"ratio {options['ratio']}, quality {options['quality']:g}"
    decoders: dict[str, dict[str, Any]] = {
        "faithful": {},
        "faithful, divergence-free": {"divergence_free": True},
    }
    if codec.has_realistic:
        decoders["realistic"] = {"decoder": "realistic", "divergence_free": True}
    return [
        _row(f"{OWN_NAME} {name}", setting, subject, data, seconds, partial(_decoded, codec, data, decoding))
        for name, decoding in decoders.items()
    ]


def evaluate_peer(peer: Peer, subject: Subject, ratio: float) -> Row:
    """A peer at the setting whose stream comes closest to a byte ratio, found by bisection."""
    field = subject.field
    target = field.nbytes / ratio
    scale = math.sqrt(subject.true.square)
    low, high = (scale * bound if _is_step(peer) else bound for bound in peer.settings)
    best: tuple[float, float, bytes, float] | None = None
    for _ in range(_TRIALS):
        setting = math.sqrt(low * high)
        start = time.perf_counter()
        data = peer.encode(field, setting)
        seconds = time.perf_counter() - start
        miss = abs(math.log(len(data) / target))
        if best is None or miss < best[0]:
            best = miss, setting, data, seconds
        if miss < _CLOSE_ENOUGH:
            break
        low, high = (setting, high) if len(data) > target else (low, setting)
    assert best is not None
    _, setting, data, seconds = best
    return _row(peer.name, f"{setting:.4g}", subject, data, seconds, lambda: peer.decode(data, field.shape))


def curves(codec: FieldCodec, subject: Subject) -> list[Point]:
    """Errors of every codec over the range of ratios that it is used at."""
    points = []
    for model in codec.ratios:
        for quality in _SWEPT_QUALITIES:
            data = codec.compress(subject.field, ratio=model, quality=quality, periodic=subject.periodic)
            decoded = codec.decompress(data, divergence_free=True).numpy()
            points.append(_point(f"{OWN_NAME} {model}", subject, data, decoded))
    for peer in subject.peers:
        low, high = peer.settings
        scale = math.sqrt(subject.true.square) if _is_step(peer) else 1.0
        for setting in np.geomspace(max(low, high / 3e4), high, 3 * _SWEPT_SETTINGS):
            data = peer.encode(subject.field, scale * float(setting))
            ratio = subject.field.nbytes / len(data)
            if not _SWEPT_RATIOS[0] <= ratio <= _SWEPT_RATIOS[1]:
                continue
            points.append(_point(peer.name, subject, data, peer.decode(data, subject.field.shape)))
    return points


def crossover(points: Sequence[Point]) -> float | None:
    """The byte ratio from which on no installed codec has a smaller error than ours; None if there is none.

    Curves are compared at ratios that both have, logarithms being interpolated. The controls, which nobody
    can install, do not count.

    Example:
        >>> ours = [Point("latentpress 8", 10.0, 0.2), Point("latentpress 64", 1000.0, 0.3)]
        >>> theirs = [Point("SZ3", 10.0, 0.02), Point("SZ3", 1000.0, 2.0)]
        >>> round(crossover(ours + theirs), -1)
        130.0
    """
    own = _best_at([p for p in points if p.codec.startswith(OWN_NAME)])
    rivals = {p.codec for p in points if not p.codec.startswith((OWN_NAME, "control"))}
    if own is None or not rivals:
        return None
    grid = np.linspace(float(own[0][0]), float(own[0][-1]), 400)
    ours = np.interp(grid, *own)
    best = np.full(grid.shape, np.inf)
    for name in rivals:
        curve = _best_at([p for p in points if p.codec == name])
        if curve is not None:
            best = np.minimum(best, np.interp(grid, *curve, left=np.inf, right=np.inf))
    behind = np.flatnonzero(ours > best)
    if behind.size == 0:
        return float(np.exp(grid[0]))
    if behind[-1] == len(grid) - 1:
        return None
    return float(np.exp(grid[behind[-1] + 1]))


def _best_at(points: Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Logarithms of rising ratios and of the errors there, without points that a larger ratio beats."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: -p.ratio):
        if not kept or point.nrmse < kept[-1].nrmse:
            kept.append(point)
    if len(kept) < 2:
        return None
    kept.reverse()
    return np.log([p.ratio for p in kept]), np.log([max(p.nrmse, 1e-12) for p in kept])


def _is_step(peer: Peer) -> bool:
    """Whether the setting is an error or a step, in the field's unit."""
    return "truncation" not in peer.name


def _point(name: str, subject: Subject, data: bytes, decoded: NDArray[Any]) -> Point:
    error = float(np.square(decoded.astype(np.float64) - subject.true.field).mean())
    return Point(name, subject.field.nbytes / len(data), math.sqrt(error / subject.true.square))


def _decoded(codec: FieldCodec, data: bytes, options: dict[str, Any]) -> NDArray[Any]:
    values: NDArray[Any] = codec.decompress(data, **options).numpy()
    return values


def _row(
    name: str, setting: str, subject: Subject, data: bytes, seconds: float, decode: Callable[[], NDArray[Any]]
) -> Row:
    start = time.perf_counter()
    decoded = decode().astype(np.float32)
    decode_seconds = time.perf_counter() - start
    megabytes = subject.field.nbytes / 1e6
    return Row(
        codec=name,
        setting=setting,
        bytes=len(data),
        ratio=subject.field.nbytes / len(data),
        measures=subject.true.measure(decoded),
        encode_speed=megabytes / max(seconds, 1e-9),
        decode_speed=megabytes / max(decode_seconds, 1e-9),
        decoded=decoded,
    )


def table(rows: Sequence[Row], true: Measures | None = None) -> str:
    """Rows as text, the true field's statistics first if given."""
    body = [] if true is None else [["truth", "", *_cells(true), "", ""]]
    body += [
        [
            row.codec,
            f"{row.ratio:.0f}",
            *_cells(row.measures),
            f"{row.encode_speed:.1f}",
            f"{row.decode_speed:.1f}",
        ]
        for row in rows
    ]
    return format_table(HEAD, body)


def _cells(measures: Measures) -> list[str]:
    return [
        f"{measures.nrmse:.4f}",
        f"{measures.psnr:.2f}",
        f"{measures.gradient:.3f}",
        f"{measures.skewness:.3f}",
        f"{measures.flatness:.2f}",
        f"{measures.divergence:.4f}",
        f"{measures.small_scales:.2f}",
        f"{measures.gradient_distance:.3f}",
        f"{measures.q_r_distance:.3f}",
    ]
