"""Fields on the page: slices of the original, of what came back and of the error, and energy spectra."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import Limits
from latentpress.scripts.field_peers import PEERS, Peer
from latentpress.scripts.fields import is_field, read_field
from latentpress.scripts.view.kinds import OWN_LABEL, Content, Item, Kind, Notify, Rate, Result, new_id
from latentpress.scripts.view.offer import FIELD
from latentpress.scripts.view.spectrum import Spectrum, energy_spectrum

MAX_VALUES = 2**25
"""Of a field on the page: its spectra take eight times the memory."""

_MOST_COMPONENTS = 4
_SEARCH_STEPS = 14


class Fidelity(NamedTuple):
    """How close a decoded field is.

    Attributes:
        largest: Largest error of any value.
        relative: The same over the range of the values.
        psnr: dB, peak the range of the values; infinite for equal fields.
    """

    largest: float
    relative: float
    psnr: float


@dataclass(frozen=True, kw_only=True)
class FieldItem(Item):
    """A field that was dropped.

    Attributes:
        values: ``(C, D, H, W)`` or ``(C, H, W)``, float32 or float64.
        spectrum: Of the values.
    """

    kind: ClassVar[str] = FIELD

    values: NDArray[Any]
    spectrum: Spectrum

    def facts(self) -> Mapping[str, Any]:
        """Shape, type and the range of each component."""
        return {
            "shape": list(self.values.shape),
            "dtype": str(self.values.dtype),
            "values_bytes": self.values.nbytes,
            "ranges": [_range(component) for component in self.values],
        }

    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """One slice."""
        return _slice(self.values, name, query)


@dataclass(frozen=True, kw_only=True)
class FieldResult(Result[FieldItem]):
    """A field compressed and decoded.

    Attributes:
        decoded: As the item's values.
        fidelity: How close they are.
        spectrum: Of the decoded values.
        error_spectrum: Of what they lack.
    """

    decoded: NDArray[Any]
    fidelity: Fidelity
    spectrum: Spectrum
    error_spectrum: Spectrum

    def figures(self) -> Mapping[str, Any]:
        """Byte ratio, errors, spectra."""
        return {
            "ratio": self.item.values.nbytes / len(self.data),
            "largest": self.fidelity.largest,
            "relative": self.fidelity.relative,
            "psnr": None if math.isinf(self.fidelity.psnr) else self.fidelity.psnr,
            "spectra": {
                "wavenumbers": self.item.spectrum.wavenumbers,
                "original": self.item.spectrum.energy,
                "decoded": self.spectrum.energy,
                "error": self.error_spectrum.energy,
            },
        }

    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """One slice of the decoded field."""
        return _slice(self.decoded, name, query)


class FieldKind(Kind[FieldItem, FieldResult]):
    """Fields in numpy, HDF5 and netCDF files with one array.

    Args:
        limits: Cap on the number of values.
    """

    name = FIELD

    def __init__(self, limits: Limits) -> None:
        self._most = min(limits.max_voxels, MAX_VALUES)

    def takes(self, name: str) -> bool:
        """By the suffix."""
        return is_field(name)

    def peers(self) -> tuple[str, ...]:
        """Those that are installed."""
        return tuple(peer.name for peer in PEERS if peer.installed())

    def read(self, name: str, content: bytes) -> FieldItem:
        """Reads a file of one array."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"field{Path(name).suffix.lower()}"
            path.write_bytes(content)
            try:
                values = read_field(str(path))
            except (ValueError, EOFError) as error:
                raise ValueError(str(error).replace(str(path), name)) from error
        if values.size > self._most:
            raise ValueError(f"{values.size:,} values are too many for the page, which takes {self._most:,}")
        if not values.size:
            raise ValueError("the field is empty")
        notes = []
        if values.ndim == 3 and values.shape[0] > _MOST_COMPONENTS:
            values = values[None]
            notes.append(f"taken as one component of {' x '.join(map(str, values.shape[1:]))} samples")
        if not np.isfinite(values).all():
            notes.append("values that are not finite are kept, and left out of all figures")
        return FieldItem(
            id=new_id(),
            name=name,
            file_bytes=len(content),
            notes=tuple(notes),
            values=values,
            spectrum=energy_spectrum(values),
        )

    def warm_up(self, codec: Any) -> None:
        """Compresses a small field of noise."""
        noise = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32)
        codec.decompress(codec.compress(noise, relative_error=0.1))

    def compress(self, result: str, item: FieldItem, codec: Any, rate: Rate, notify: Notify) -> FieldResult:
        """Compresses within a bound, at a ratio and quality, or to a number of bytes."""
        options = rate.options("target_bytes", "ratio")
        if rate.relative_error is not None:
            options["relative_error"] = rate.relative_error
        if rate.quality is not None:
            options["quality"] = rate.quality
        reading = {"decoder": "realistic"} if rate.realistic and rate.relative_error is None else {}
        start = time.perf_counter()
        data = codec.compress(item.values, progress=notify, **options)
        middle = time.perf_counter()
        decoded = codec.decompress(data, **reading).numpy()
        end = time.perf_counter()
        return _result(result, item, OWN_LABEL, _setting(rate), data, decoded, middle - start, end - middle)

    def against(self, own: FieldResult, peer: str) -> FieldResult:
        """The peer's stream that is the largest found that is not larger."""
        found = {one.name: one for one in PEERS}[peer]
        values = own.item.values
        if not np.isfinite(values).all():
            raise ValueError(f"{peer} takes finite values only")
        return _at_size(found, own, values)


def _at_size(peer: Peer, own: FieldResult, values: NDArray[Any]) -> FieldResult:
    """Searches the setting, for the field with mean 0 and variance 1, which settings are meant for."""
    mean, spread = float(values.mean()), float(values.std()) or 1.0
    volume = values if values.ndim == 4 else values[:, None]
    normal = ((volume - mean) / spread).astype(np.float32)
    low, high = peer.settings
    best: tuple[bytes, float, float] | None = None
    for _ in range(_SEARCH_STEPS):
        setting = math.sqrt(low * high)
        start = time.perf_counter()
        data = peer.encode(normal, setting)
        seconds = time.perf_counter() - start
        if len(data) > len(own.data):
            low = setting
            continue
        high = setting
        best = data, seconds, setting
    if best is None:
        raise ValueError(f"{peer.name} makes no file that is so small")
    data, seconds, setting = best
    start = time.perf_counter()
    decoded = peer.decode(data, normal.shape).reshape(values.shape).astype(np.float64) * spread + mean
    taken = time.perf_counter() - start
    bound = f"error {setting * spread:.2g} at most"
    return _result(
        new_id(), own.item, peer.name, bound, data, decoded.astype(values.dtype), seconds, taken, ".bin"
    )


def _result(
    key: str,
    item: FieldItem,
    label: str,
    setting: str,
    data: bytes,
    decoded: NDArray[Any],
    encode_seconds: float,
    decode_seconds: float,
    suffix: str = ".lpz",
) -> FieldResult:
    with np.errstate(invalid="ignore"):
        error = decoded.astype(np.float64) - item.values
    return FieldResult(
        id=key,
        item=item,
        label=label,
        setting=setting,
        data=data,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        suffix=suffix,
        decoded=decoded,
        fidelity=_fidelity(item.values, error),
        spectrum=energy_spectrum(decoded),
        error_spectrum=energy_spectrum(error),
    )


def _fidelity(values: NDArray[Any], error: NDArray[np.float64]) -> Fidelity:
    left = np.abs(error[np.isfinite(error)])
    if not left.size:
        return Fidelity(0.0, 0.0, math.inf)
    low, high = _range(values)
    span = (high - low) or 1.0
    square = float(np.square(left).mean())
    psnr = math.inf if square == 0.0 else 20 * math.log10(span / math.sqrt(square))
    return Fidelity(float(left.max()), float(left.max()) / span, psnr)


def _range(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _setting(rate: Rate) -> str:
    if rate.relative_error is not None:
        if not rate.relative_error:
            return "lossless"
        return f"error {rate.relative_error:.3g} of the range at most"
    if rate.target_bytes is not None:
        return f"{rate.target_bytes:,} bytes at most"
    parts = [f"ratio {rate.ratio}", f"quality {rate.quality:g}" if rate.quality is not None else ""]
    return ", ".join([*filter(None, parts), *(["realistic decoder"] if rate.realistic else [])])


def _slice(values: NDArray[Any], name: str, query: Mapping[str, str]) -> Content:
    """One plane of one component as little-endian float32, row by row."""
    if name != "slice.f32":
        raise KeyError(name)
    try:
        component, axis, index = (int(query.get(key, "0")) for key in ("component", "axis", "index"))
        plane = values[component] if values.ndim == 3 else np.take(values[component], index, axis)
    except (ValueError, IndexError) as error:
        raise ValueError(f"no such slice: {error}") from error
    return Content(np.ascontiguousarray(plane, "<f4").tobytes(), "application/octet-stream")
