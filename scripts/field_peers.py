"""Codecs that scientists use for fields, each with one setting that trades bytes for error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


class Peer(NamedTuple):
    """A codec with a setting.

    Attributes:
        name: As people call it.
        module: That has to be installed.
        settings: Least and largest setting; larger ones make fewer bytes.
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


def _components(parts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def _split(data: bytes) -> list[bytes]:
    parts, offset = [], 0
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        parts.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return parts


def _zfp_encode(field: Field, tolerance: float) -> bytes:
    import zfpy

    return _components([zfpy.compress_numpy(np.ascontiguousarray(c), tolerance=tolerance) for c in field])


def _zfp_decode(data: bytes, shape: tuple[int, ...]) -> Field:
    import zfpy

    return np.stack([zfpy.decompress_numpy(part) for part in _split(data)])


def _sz3_encode(field: Field, tolerance: float) -> bytes:
    from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

    parts = []
    for component in field:
        trials = []
        for algorithm in (szAlgorithm.INTERP_LORENZO, szAlgorithm.INTERP, szAlgorithm.LORENZO_REG):
            config = szConfig(component.shape)
            config.errorBoundMode = szErrorBoundMode.ABS
            config.absErrorBound = tolerance
            config.cmprAlgo = algorithm
            trials.append(bytes(sz.compress(np.ascontiguousarray(component), config)[0]))
        parts.append(min(trials, key=len))
    return _components(parts)


def _sz3_decode(data: bytes, shape: tuple[int, ...]) -> Field:
    from pysz import sz

    parts = [np.frombuffer(part, np.uint8) for part in _split(data)]
    return np.stack([np.asarray(sz.decompress(part, np.float32, shape[1:])[0]) for part in parts])


def _sperr(tolerance: float = 1.0) -> Any:
    from numcodecs_wasm_sperr import Sperr

    return Sperr(mode="pwe", pwe=tolerance)


def _sperr_encode(field: Field, tolerance: float) -> bytes:
    codec = _sperr(tolerance)
    return _components([bytes(codec.encode(np.ascontiguousarray(c))) for c in field])


def _sperr_decode(data: bytes, shape: tuple[int, ...]) -> Field:
    codec = _sperr()
    parts = [np.frombuffer(part, np.uint8) for part in _split(data)]
    return np.stack([np.asarray(codec.decode(part)).reshape(shape[1:]) for part in parts])


PEERS = (
    Peer("zfp", "zfpy", (1e-5, 30.0), _zfp_encode, _zfp_decode),
    Peer("SZ3", "pysz", (1e-5, 10.0), _sz3_encode, _sz3_decode),
    Peer("SPERR", "numcodecs_wasm_sperr", (1e-5, 10.0), _sperr_encode, _sperr_decode),
)
