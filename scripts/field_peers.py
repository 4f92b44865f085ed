"""Codecs that scientists use for fields, and plain transforms, each with one setting that trades bytes."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.scripts.coefficient_coder import decode_groups, encode_groups, quantised

Field = NDArray[np.float32]
Modes = NDArray[Any]

_WAVELET = "bior4.4"
_COARSEST = 4
"""Side of the coarsest band at least, in points."""


class Peer(NamedTuple):
    """A codec with a setting.

    Attributes:
        name: As people call it.
        module: That has to be installed.
        settings: Least and largest setting, in units of the field's root mean square where it is an error or
            a step; larger ones make fewer bytes.
        encode: Field ``(C, D, H, W)`` and setting to bytes.
        decode: Bytes and shape to the field.
    """

    name: str
    module: str
    settings: tuple[float, float]
    encode: Callable[[Field, float], bytes]
    decode: Callable[[bytes, tuple[int, ...]], Field]

    def installed(self) -> bool:
        """Whether its module can be imported."""
        return find_spec(self.module) is not None


def join_components(parts: list[bytes]) -> bytes:
    """Byte strings one after another, each with its length in front.

    Example:
        >>> split_components(join_components([b"u", b"", b"w"]))
        [b'u', b'', b'w']
    """
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def split_components(data: bytes) -> list[bytes]:
    """Inverse of :func:`join_components`."""
    parts, offset = [], 0
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        parts.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return parts


def _each(work: Callable[[Any], Any], items: Any, threads: int) -> list[Any]:
    """Components side by side: the libraries release the interpreter while they work."""
    if threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def _zfp_encode(field: Field, tolerance: float) -> bytes:
    import imagecodecs

    mode = imagecodecs.ZFP.MODE.FIXED_ACCURACY
    encode: Callable[..., bytes | bytearray] = imagecodecs.zfp_encode
    return join_components([bytes(encode(c, tolerance, mode=mode)) for c in np.ascontiguousarray(field)])


def _zfp_decode(data: bytes, shape: tuple[int, ...]) -> Field:
    import imagecodecs

    return np.stack([imagecodecs.zfp_decode(part).reshape(shape[1:]) for part in split_components(data)])


def _sz3_component(component: Field, tolerance: float) -> bytes:
    from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

    trials = []
    for algorithm in (szAlgorithm.INTERP_LORENZO, szAlgorithm.INTERP, szAlgorithm.LORENZO_REG):
        config = szConfig(component.shape)
        config.errorBoundMode = szErrorBoundMode.ABS
        config.absErrorBound = tolerance
        config.cmprAlgo = algorithm
        trials.append(bytes(sz.compress(np.ascontiguousarray(component), config)[0]))
    return min(trials, key=len)


def _sz3_encode(field: Field, tolerance: float) -> bytes:
    return join_components([_sz3_component(component, tolerance) for component in field])


def _sz3_decode(data: bytes, shape: tuple[int, ...]) -> Field:
    from pysz import sz

    parts = [np.frombuffer(part, np.uint8) for part in split_components(data)]
    return np.stack([np.asarray(sz.decompress(part, np.float32, shape[1:])[0]) for part in parts])


def _sperr_encode(field: Field, tolerance: float, threads: int = 1) -> bytes:
    import imagecodecs

    mode = imagecodecs.SPERR.MODE.PWE

    def one(component: Field) -> bytes:
        return bytes(imagecodecs.sperr_encode(component, tolerance, mode))

    return join_components(_each(one, np.ascontiguousarray(field), threads))


def _sperr_decode(data: bytes, shape: tuple[int, ...], threads: int = 1) -> Field:
    import imagecodecs

    parts = _each(imagecodecs.sperr_decode, split_components(data), threads)
    return np.stack([np.asarray(part).reshape(shape[1:]) for part in parts])


def sperr(threads: int) -> Peer:
    """SPERR with several components at once, for measuring speed."""
    return Peer(
        "SPERR",
        "imagecodecs",
        (1e-5, 20.0),
        partial(_sperr_encode, threads=threads),
        partial(_sperr_decode, threads=threads),
    )


def _wavelet_transform(values: NDArray[Any]) -> list[Any]:
    import pywt

    levels = max(1, (min(values.shape) // _COARSEST).bit_length() - 1)
    with warnings.catch_warnings():
        # It says that all coefficients feel the border, which continues periodically here.
        warnings.simplefilter("ignore", UserWarning)
        found: list[Any] = pywt.wavedecn(values, _WAVELET, mode="periodization", level=levels)
    return found


def _wavelet_groups(shape: tuple[int, ...]) -> tuple[Any, Any, NDArray[np.int64]]:
    """Layout of the coefficients of a component, and the band of each."""
    import pywt

    empty = _wavelet_transform(np.zeros(shape))
    flat, slices, shapes = pywt.ravel_coeffs(empty)
    groups = np.zeros(flat.size, np.int64)
    number = 0
    for level in slices[1:]:
        for place in level.values():
            number += 1
            groups[place] = number
    return slices, shapes, groups


def _wavelet_encode(field: Field, step: float) -> bytes:
    import pywt

    _, _, groups = _wavelet_groups(field.shape[1:])
    parts = []
    for component in field:
        coefficients = _wavelet_transform(component.astype(np.float64))
        parts.append(encode_groups(quantised(pywt.ravel_coeffs(coefficients)[0], step), groups))
    return struct.pack("<d", step) + join_components(parts)


def _wavelet_decode(data: bytes, shape: tuple[int, ...]) -> Field:
    import pywt

    slices, shapes, groups = _wavelet_groups(shape[1:])
    (step,) = struct.unpack_from("<d", data)
    found = []
    for part in split_components(data[8:]):
        flat = decode_groups(part, groups).astype(np.float64) * step
        coefficients = pywt.unravel_coeffs(flat, slices, shapes, output_format="wavedecn")
        values = pywt.waverecn(coefficients, _WAVELET, mode="periodization")
        found.append(values[tuple(slice(size) for size in shape[1:])])
    return np.stack(found).astype(np.float32)


class _Spectrum(NamedTuple):
    """How a component is taken apart into waves.

    Attributes:
        forward: Values to real coefficients, any shape.
        inverse: Back.
        shells: Wave number of every coefficient, rounded.
    """

    forward: Callable[[NDArray[Any]], Modes]
    inverse: Callable[[Modes], NDArray[Any]]
    shells: NDArray[np.int64]


@cache
def _waves(shape: tuple[int, ...], periodic: bool) -> _Spectrum:
    """Fourier modes of a periodic field, cosines of any other."""
    from scipy import fft

    if not periodic:
        grids = np.meshgrid(*(np.arange(size) * (0.5 * max(shape) / size) for size in shape), indexing="ij")
        return _Spectrum(partial(fft.dctn, norm="ortho"), partial(fft.idctn, norm="ortho"), _rounded(grids))
    half = shape[-1] // 2 + 1
    axes = [np.fft.fftfreq(size) * max(shape) for size in shape[:-1]]
    axes.append(np.arange(half) * (max(shape) / shape[-1]))
    shells = _rounded(np.meshgrid(*axes, indexing="ij"))

    def forward(values: NDArray[Any]) -> Modes:
        modes = fft.rfftn(values, norm="ortho")
        return np.stack((modes.real, modes.imag))

    def inverse(parts: Modes) -> NDArray[Any]:
        values: NDArray[Any] = fft.irfftn(parts[0] + 1j * parts[1], s=shape, norm="ortho")
        return values

    return _Spectrum(forward, inverse, np.stack((shells, shells)))


def _rounded(grids: list[NDArray[Any]]) -> NDArray[np.int64]:
    squares: NDArray[Any] = sum(np.square(grid) for grid in grids)
    return np.sqrt(squares).round().astype(np.int64)


def _truncated_encode(field: Field, setting: float, periodic: bool) -> bytes:
    """Keeps the modes up to a wave number, as float16; the setting is the inverse of that number."""
    waves = _waves(field.shape[1:], periodic)
    kept = waves.shells <= 1.0 / setting
    parts = []
    for component in field.astype(np.float64):
        modes = waves.forward(component)[kept]
        scale = float(np.abs(modes).max()) / 6e4 or 1.0
        parts.append(struct.pack("<d", scale) + (modes / scale).astype("<f2").tobytes())
    return struct.pack("<d", setting) + join_components(parts)


def _truncated_decode(data: bytes, shape: tuple[int, ...], periodic: bool) -> Field:
    waves = _waves(shape[1:], periodic)
    (setting,) = struct.unpack_from("<d", data)
    kept = waves.shells <= 1.0 / setting
    found = []
    for part in split_components(data[8:]):
        modes = np.zeros(waves.shells.shape)
        modes[kept] = np.frombuffer(part[8:], "<f2").astype(np.float64) * struct.unpack_from("<d", part)[0]
        found.append(waves.inverse(modes))
    return np.stack(found).astype(np.float32)


def _control_encode(field: Field, step: float, periodic: bool) -> bytes:
    """One step for all waves and the range coder."""
    waves = _waves(field.shape[1:], periodic)
    groups = waves.shells.ravel()
    parts = [
        encode_groups(quantised(waves.forward(component), step).ravel(), groups)
        for component in field.astype(np.float64)
    ]
    return struct.pack("<d", step) + join_components(parts)


def _control_decode(data: bytes, shape: tuple[int, ...], periodic: bool) -> Field:
    waves = _waves(shape[1:], periodic)
    (step,) = struct.unpack_from("<d", data)
    groups = waves.shells.ravel()
    found = [
        waves.inverse(decode_groups(part, groups).reshape(waves.shells.shape) * step)
        for part in split_components(data[8:])
    ]
    return np.stack(found).astype(np.float32)


def _control_projected(data: bytes, shape: tuple[int, ...], periodic: bool) -> Field:
    import torch

    from latentpress.models.field.projection import solenoidal

    decoded = torch.from_numpy(_control_decode(data, shape, periodic))
    return solenoidal(decoded, (periodic,) * 3).numpy()


def transforms(periodic: bool) -> list[Peer]:
    """Wavelets, waves cut off, and the control: waves, one step and the range coder.

    Args:
        periodic: The field is a whole periodic box: Fourier modes then, cosines otherwise.
    """
    name = "Fourier" if periodic else "cosine"
    transform = "FFT" if periodic else "DCT"
    encode = partial(_control_encode, periodic=periodic)
    return [
        Peer(f"DWT {_WAVELET}", "pywt", (1e-4, 100.0), _wavelet_encode, _wavelet_decode),
        Peer(
            f"{name} truncation",
            "scipy",
            (0.004, 1.0),
            partial(_truncated_encode, periodic=periodic),
            partial(_truncated_decode, periodic=periodic),
        ),
        Peer(
            f"control: {transform}",
            "scipy",
            (1e-4, 100.0),
            encode,
            partial(_control_decode, periodic=periodic),
        ),
        Peer(
            "control, divergence-free",
            "scipy",
            (1e-4, 100.0),
            encode,
            partial(_control_projected, periodic=periodic),
        ),
    ]


PEERS = (
    Peer("zfp", "imagecodecs", (1e-5, 60.0), _zfp_encode, _zfp_decode),
    Peer("SZ3", "pysz", (1e-5, 20.0), _sz3_encode, _sz3_decode),
    sperr(threads=1),
)
"""What scientists install."""
