"""Random fields and bounds, every point checked: ``python -m latentpress.scripts.check_field_bounds``.

Fields of two and three dimensions, of one to five components, float32 and float64, smooth, noisy, constant,
tiny, huge, of mixed sizes, with gaps and infinities, down to a single element, at once and in blocks. Exit
code 1 if one value is off by more than the bound, or one that is not finite has become another.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs import inspect
from latentpress.codecs.field import FieldCodec
from latentpress.scripts.field_report import add_codec_arguments, field_codec

_LONGEST = 24


class Trial(NamedTuple):
    """One field with its bound.

    Attributes:
        kind: Of values.
        field: The field.
        options: The bound, as ``compress`` takes it.
        bound: What it means for this field.
        block: Sides of blocks; None for none.
    """

    kind: str
    field: NDArray[Any]
    options: dict[str, float]
    bound: float
    block: int | None


def _smooth(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = np.zeros(shape)
    for axis, size in enumerate(shape):
        line = np.sin(np.arange(size) * random.uniform(0.05, 0.8) + random.uniform(0, 6))
        values += line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return values


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]] = {
    "smooth": _smooth,
    "noise": lambda random, shape: random.normal(size=shape),
    "constant": lambda random, shape: np.full(shape, random.normal()),
    "zero": lambda random, shape: np.zeros(shape),
    "tiny": lambda random, shape: 1e-30 * random.normal(size=shape),
    "subnormal": lambda random, shape: 1e-42 * random.normal(size=shape),
    "huge": lambda random, shape: 1e37 * _smooth(random, shape),
    "far from zero": lambda random, shape: 1e6 + 0.1 * _smooth(random, shape),
    "all sizes": lambda random, shape: random.normal(size=shape) * 10.0 ** random.integers(-20, 20, shape),
    "steps": lambda random, shape: np.rint(2 * _smooth(random, shape)),
}


def make_trial(random: np.random.Generator) -> Trial:
    """Draws one field.

    Args:
        random: What decides all of it.

    Example:
        >>> make_trial(np.random.default_rng(0)).field.ndim
        4
    """
    kind = str(random.choice(list(KINDS)))
    axes = int(random.integers(2, 4))
    shape = (int(random.integers(1, 6)), *(int(n) for n in random.integers(1, _LONGEST + 1, axes)))
    if random.random() < 0.05:
        shape = (1,) * len(shape)
    field = KINDS[kind](random, shape).astype(str(random.choice(["float32", "float64"])))
    if random.random() < 0.3:
        kind += ", gaps"
        for value in (np.nan, np.inf, -np.inf):
            field[random.random(shape) < random.choice([0.0, 0.02, 0.3])] = value
    finite = field[np.isfinite(field)].astype(np.float64)
    extent = float(np.ptp(finite)) if finite.size else 0.0
    if random.random() < 0.5:
        fraction = float(10.0 ** random.uniform(-6, -0.5))
        options, bound = {"relative_error": fraction}, fraction * extent
    else:
        bound = float(random.choice([0.0, extent or 1.0]) * 10.0 ** random.uniform(-7, 0.5))
        options = {"max_error": bound}
    block = int(random.choice([8, 16])) if random.random() < 0.25 else None
    return Trial(kind, field, options, bound, block)


def violations(trial: Trial, codec: FieldCodec) -> tuple[int, str]:
    """Values that are off by more than the bound or, not being finite, have changed; and how it was coded.

    Args:
        trial: Field and bound.
        codec: With or without networks.
    """
    if trial.block is None:
        data = codec.compress(trial.field, **trial.options)  # type: ignore[arg-type]
    else:
        file = io.BytesIO()
        codec.compress_blocks(trial.field, file, block=trial.block, **trial.options)  # type: ignore[arg-type]
        data = file.getvalue()
    decoded = codec.decompress(data).numpy()
    if decoded.shape != trial.field.shape or decoded.dtype != trial.field.dtype:
        return trial.field.size, "wrong shape or type"
    finite = np.isfinite(trial.field)
    off = decoded[finite].astype(np.float64) - trial.field[finite].astype(np.float64)
    count = int(np.count_nonzero(~(np.abs(off) <= trial.bound)))
    same = np.isnan(decoded) & np.isnan(trial.field) | (decoded == trial.field)
    return count + int(np.count_nonzero(~same & ~finite)), str(inspect(data).parameters["mode"])


def main(argv: Sequence[str] | None = None) -> int:
    """Codes and checks all fields; prints what was off and a summary.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.check_field_bounds", description=__doc__
    )
    parser.add_argument("--fields", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    add_codec_arguments(parser, without=True)
    options = parser.parse_args(argv)
    codec = field_codec(options)
    random = np.random.default_rng(options.seed)
    points = total = 0
    modes: Counter[str] = Counter()
    for number in range(options.fields):
        trial = make_trial(random)
        count, mode = violations(trial, codec)
        modes[mode] += 1
        points += trial.field.size
        total += count
        if count:
            print(
                f"field {number}, {trial.kind}, {trial.field.shape}, bound {trial.bound}: {count} violations"
            )
    coded = ", ".join(f"{mode} {count}" for mode, count in sorted(modes.items()))
    print(f"{options.fields} fields, {points} points ({coded}): {total} violations")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
