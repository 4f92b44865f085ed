"""Real fields under a bound, beside SZ3: ``python -m latentpress.scripts.field_bounds --data FOLDER``.

Every floating-point array with at least two axes of space in the ``.npz`` and ``.npy`` files of a folder is
coded with ``max_error`` at fractions of its range, decoded again, and compared with the original at every
point. SZ3 codes every component with the best of its three algorithms.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs import inspect
from latentpress.codecs.field import FieldCodec
from latentpress.scripts.field_peers import PEERS
from latentpress.scripts.field_report import add_codec_arguments, field_codec, write_report
from latentpress.scripts.text_table import format_table

FRACTIONS = (1e-2, 1e-3)
MOST_OF_SZ3 = 1.3
"""Bytes over those of SZ3 that are still acceptable."""

_LEAST_SIDE = 16
_MOST_COMPONENTS_LAST = 4
_COORDINATES = {"points"}


class BoundRow(NamedTuple):
    """One field under one bound.

    Attributes:
        field: File and array.
        shape: As it was coded.
        fraction: Of the range of its values.
        bytes: Of the stream.
        sz3_bytes: Of SZ3's streams together; None where it is not installed.
        mode: How the codec coded it.
        largest: Largest error over the bound.
        violations: Points with a larger error.
    """

    field: str
    shape: tuple[int, ...]
    fraction: float
    bytes: int
    sz3_bytes: int | None
    mode: str
    largest: float
    violations: int

    @property
    def over_sz3(self) -> float | None:
        """Bytes over SZ3's."""
        return None if self.sz3_bytes is None else self.bytes / self.sz3_bytes


def fields_in(folder: Path) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """All fields of a folder, as ``(C, D, H, W)`` or ``(C, H, W)``, with their names.

    Arrays that hold coordinates, a single value or less than a plane are left out.
    """
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*.npy")]):
        content = np.load(path, allow_pickle=False)
        arrays = {"": content} if path.suffix == ".npy" else {name: content[name] for name in content.files}
        for name, values in arrays.items():
            field = as_components(values)
            if name not in _COORDINATES and field is not None:
                yield f"{path.stem}:{name}".rstrip(":"), field


def as_components(values: NDArray[np.generic]) -> NDArray[np.floating] | None:
    """An array as a field with its components first; None if it is none.

    Example:
        >>> [as_components(np.eye(32)[..., None] + np.zeros(n)).shape for n in (2, 3)]
        [(2, 32, 32), (3, 32, 32)]
        >>> as_components(np.zeros((40, 40))) is None
        True
    """
    if values.dtype not in (np.float32, np.float64) or values.ndim < 2:
        return None
    if values.ndim > 2 and values.shape[-1] <= _MOST_COMPONENTS_LAST:
        values = np.moveaxis(values, -1, 0)
    field = values[None] if values.ndim == 2 else values.reshape(-1, *values.shape[-3:])
    if values.ndim == 3:
        field = values
    finite = field[np.isfinite(field)]
    if min(field.shape[-2:]) < _LEAST_SIDE or not finite.size or finite.min() == finite.max():
        return None
    return np.ascontiguousarray(field)


def measure(codec: FieldCodec, name: str, field: NDArray[np.floating], fraction: float) -> BoundRow:
    """Codes and checks one field."""
    finite = np.isfinite(field)
    exact = field.astype(np.float64)
    bound = fraction * float(exact[finite].max() - exact[finite].min())
    data = codec.compress(field, max_error=bound)
    decoded = codec.decompress(data).numpy()
    same_gaps = np.array_equal(decoded[~finite], field[~finite], equal_nan=True)
    error = np.abs(decoded.astype(np.float64) - exact)[finite]
    return BoundRow(
        field=name,
        shape=field.shape,
        fraction=fraction,
        bytes=len(data),
        sz3_bytes=sz3_bytes(field, bound),
        mode=str(inspect(data).parameters["mode"]),
        largest=float(error.max()) / bound,
        violations=int((error > bound).sum()) + (0 if same_gaps else int((~finite).sum())),
    )


def sz3_bytes(field: NDArray[np.floating], bound: float) -> int | None:
    """Bytes of SZ3, each component with the best of its algorithms; gaps are filled for it with the mean."""
    peer = next(peer for peer in PEERS if peer.name == "SZ3")
    if not peer.installed():
        return None
    finite = np.isfinite(field)
    filled = np.where(finite, field, field[finite].mean()).astype(np.float32)
    # The lengths that keep the components apart are not its own.
    return len(peer.encode(filled, bound)) - 4 * len(filled)


def table(rows: Sequence[BoundRow]) -> str:
    """Rows as text."""
    head = ("field", "shape", "bound", "mode", "bytes", "over SZ3", "largest error", "violations")
    body = [
        [
            row.field,
            "x".join(map(str, row.shape)),
            f"{row.fraction:g}",
            row.mode,
            str(row.bytes),
            "-" if row.over_sz3 is None else f"{row.over_sz3:.3f}",
            f"{row.largest:.4f}",
            str(row.violations),
        ]
        for row in rows
    ]
    return format_table(head, body, left=(0, 1, 3))


def main(args: Sequence[str] | None = None) -> int:
    """Measures all fields of a folder.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if a bound was exceeded.
    """
    parser = argparse.ArgumentParser(prog="python -m latentpress.scripts.field_bounds", description=__doc__)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="of .npz and .npy files")
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS, help="bounds over the range")
    parser.add_argument("--out", metavar="FILE", help="JSON file for the rows")
    add_codec_arguments(parser, without=True)
    options = parser.parse_args(args)
    codec = field_codec(options)
    rows = [
        measure(codec, name, field, fraction)
        for name, field in fields_in(Path(options.data))
        for fraction in options.fractions
    ]
    if not rows:
        parser.error(f"no fields in {options.data}")
    print(table(rows))
    violations = sum(row.violations for row in rows)
    ratios = [row.over_sz3 for row in rows if row.over_sz3 is not None]
    within = sum(ratio <= MOST_OF_SZ3 for ratio in ratios)
    print(f"\n{violations} violations; {within} of {len(ratios)} within {MOST_OF_SZ3:g} times SZ3")
    if options.out:
        content = {"rows": [row._asdict() | {"over_sz3": row.over_sz3} for row in rows]}
        write_report(options.out, content, codec, options.device)
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
