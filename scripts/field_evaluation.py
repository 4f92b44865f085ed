"""The field codec beside zfp, SZ3, SPERR, wavelet and Fourier coding, at equal bytes.

``python -m latentpress.scripts.field_evaluation --weights field --field box.npy [--periodic] --out DIR``
measures every codec that is installed (zfpy, pysz, numcodecs-wasm-sperr, pywavelets; ``make peers``) on one
velocity field ``(3, D, H, W)`` float32 and writes a table and a JSON file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.codecs import load
from latentpress.codecs.field import FieldCodec
from latentpress.scripts.field_peers import PEERS, Peer
from latentpress.scripts.text_table import format_table

DEFAULT_RATIOS = (64.0, 512.0, 2048.0)


class Measures(NamedTuple):
    """How well a decoded field stands for the true one.

    Attributes:
        nrmse: Root mean square error over the root mean square of the field.
        gradient: Mean square gradient over the true one.
        skewness: Of longitudinal derivatives (central differences, as all below).
        flatness: Of the same.
        divergence: Root mean square divergence, grid spacing 1.
        small_scales: Energy in shells 24 to 40 (of a box of 128) over the true one.
    """

    nrmse: float
    gradient: float
    skewness: float
    flatness: float
    divergence: float
    small_scales: float


class Row(NamedTuple):
    """One codec at one size.

    Attributes:
        codec: Its name.
        bytes: Of the stream.
        ratio: Bytes of the field over those of the stream.
        measures: Of the decoded field.
        encode_speed: MB of float32 a second.
        decode_speed: MB of float32 a second.
    """

    codec: str
    bytes: int
    ratio: float
    measures: Measures
    encode_speed: float
    decode_speed: float


def measure(field: NDArray[np.float32], decoded: NDArray[np.float32]) -> Measures:
    """Compares two velocity fields ``(3, D, H, W)``.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(3, 8, 8, 8)).astype(np.float32)
        >>> measure(x, x).nrmse
        0.0
    """
    error = decoded.astype(np.float64) - field
    true, found = _differences(field), _differences(decoded)
    along = np.stack([found[i, i] for i in range(3)])
    variance = float(np.square(along).mean())
    bands = [_band_energy(x) for x in (decoded, field)]
    return Measures(
        nrmse=math.sqrt(float(np.square(error).mean() / np.square(field.astype(np.float64)).mean())),
        gradient=float(np.square(found).mean() / np.square(true).mean()),
        skewness=float((along**3).mean() / variance**1.5),
        flatness=float((along**4).mean() / variance**2),
        divergence=math.sqrt(float(np.square(along.sum(0)).mean())),
        small_scales=bands[0] / bands[1] if bands[1] else math.nan,
    )


def _differences(field: NDArray[Any]) -> NDArray[np.float64]:
    """Central differences inside the borders, component by axis."""
    values = field.astype(np.float64)
    inner = slice(1, -1)
    found = []
    for axis in range(3):
        forward, backward = [inner] * 3, [inner] * 3
        forward[axis], backward[axis] = slice(2, None), slice(None, -2)
        found.append(0.5 * (values[(slice(None), *forward)] - values[(slice(None), *backward)]))
    return np.stack(found, axis=1)


def _band_energy(field: NDArray[Any]) -> float:
    """Energy in the shells that are 24 to 40 in a box of 128, under a Hann window because of the edges."""
    sizes = field.shape[1:]
    windowed = field.astype(np.float64)
    for axis, size in enumerate(sizes, 1):
        shape = [1] * 4
        shape[axis] = size
        windowed = windowed * np.hanning(size + 1)[:-1].reshape(shape)
    modes = np.square(np.abs(np.fft.fftn(windowed, axes=(1, 2, 3)))).sum(0)
    k = np.meshgrid(*(np.fft.fftfreq(n) * 128 for n in sizes), indexing="ij")
    shell = np.sqrt(sum(np.square(axis) for axis in k))
    return float(modes[(shell >= 23.5) & (shell < 40.5)].sum())


def evaluate_peer(peer: Peer, field: NDArray[np.float32], ratio: float) -> Row:
    """A peer at the setting whose stream comes closest to a byte ratio, found by bisection."""
    target = field.nbytes / ratio
    low, high = peer.settings
    best: tuple[float, bytes, float] | None = None
    for _ in range(14):
        setting = math.sqrt(low * high)
        start = time.perf_counter()
        data = peer.encode(field, setting)
        seconds = time.perf_counter() - start
        miss = abs(math.log(len(data) / target))
        if best is None or miss < best[0]:
            best = miss, data, seconds
        if miss < 0.01:
            break
        low, high = (setting, high) if len(data) > target else (low, setting)
    assert best is not None
    return _row(peer.name, field, best[1], best[2], lambda: peer.decode(best[1], field.shape))


def evaluate_codec(
    codec: FieldCodec, field: NDArray[np.float32], ratio: float, periodic: bool, model: int | None = None
) -> list[Row]:
    """The field codec's decoders at a byte ratio."""
    data = codec.compress(field, target_bytes=int(field.nbytes / ratio), ratio=model, periodic=periodic)
    # The search takes several encodings; speed is measured on one of them.
    start = time.perf_counter()
    codec.compress(field, ratio=model or 64, periodic=periodic)
    seconds = time.perf_counter() - start
    decoders: dict[str, dict[str, Any]] = {"faithful": {}}
    if periodic:
        decoders["faithful, divergence-free"] = {"divergence_free": True}
    if codec.has_realistic:
        decoders["realistic"] = {"decoder": "realistic", "divergence_free": periodic}
    return [
        _row(f"latentpress {name}", field, data, seconds, partial(_decoded, codec, data, options))
        for name, options in decoders.items()
    ]


def _decoded(codec: FieldCodec, data: bytes, options: dict[str, Any]) -> NDArray[Any]:
    values: NDArray[Any] = codec.decompress(data, **options).numpy()
    return values


def _row(
    name: str, field: NDArray[np.float32], data: bytes, seconds: float, decode: Callable[[], NDArray[Any]]
) -> Row:
    start = time.perf_counter()
    decoded = decode()
    decode_seconds = time.perf_counter() - start
    megabytes = field.nbytes / 1e6
    return Row(
        codec=name,
        bytes=len(data),
        ratio=field.nbytes / len(data),
        measures=measure(field, decoded.astype(np.float32)),
        encode_speed=megabytes / max(seconds, 1e-9),
        decode_speed=megabytes / max(decode_seconds, 1e-9),
    )


def table(rows: Sequence[Row]) -> str:
    """Rows as text."""
    head = ["codec", "ratio", "NRMSE", "gradient", "skewness", "flatness", "div", "E 24-40", "enc / dec MB/s"]
    body = [
        [
            row.codec,
            f"{row.ratio:.0f}",
            f"{row.measures.nrmse:.4f}",
            f"{row.measures.gradient:.3f}",
            f"{row.measures.skewness:.3f}",
            f"{row.measures.flatness:.2f}",
            f"{row.measures.divergence:.4f}",
            f"{row.measures.small_scales:.2f}",
            f"{row.encode_speed:.0f} / {row.decode_speed:.0f}",
        ]
        for row in rows
    ]
    return format_table(head, body)


def main(args: Sequence[str] | None = None) -> None:
    """Measures all codecs on one field.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.field_evaluation", description=__doc__
    )
    parser.add_argument("--weights", default="field", help="name of shipped weights, or a .safetensors file")
    parser.add_argument("--field", required=True, metavar="FILE", help="(3, D, H, W) float32, .npy")
    parser.add_argument("--periodic", action="store_true", help="the field is a whole periodic box")
    parser.add_argument("--ratios", type=float, nargs="+", default=DEFAULT_RATIOS, help="byte ratios")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", metavar="FILE", help="JSON file for the rows")
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    codec = load(options.weights, options.device)
    if not isinstance(codec, FieldCodec):
        parser.error(f"{options.weights} are weights of the family {codec.name}")
    field = np.load(options.field)
    truth = measure(field, field)
    print(f"truth: skewness {truth.skewness:.3f}, flatness {truth.flatness:.2f}, div {truth.divergence:.4f}")
    rows: list[Row] = []
    for ratio in options.ratios:
        rows += evaluate_codec(codec, field, ratio, options.periodic)
        rows += [evaluate_peer(peer, field, ratio) for peer in PEERS if peer.installed()]
        print(table(rows[-12:]), flush=True)
    if options.out:
        content = {
            "weights": codec.fingerprint.hex(),
            "field": Path(options.field).name,
            "periodic": options.periodic,
            "truth": truth._asdict(),
            "rows": [row._asdict() | {"measures": row.measures._asdict()} for row in rows],
        }
        Path(options.out).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
