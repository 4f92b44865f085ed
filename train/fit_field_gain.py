"""Measures how weak or strong a field codec's realistic small scales are, and writes gains against that.

::

    boxes, or open pieces of them -> coded at ratios of 64 and 512, at five qualities -> realistic decoder
      -> no divergence -> energies by wave number -> sqrt(true / decoded)
      -> its logarithm, linear in what tells flows apart
      -> addition.ratioN.realistic.gain.rows, .spread, of open pieces .open_gain.rows, .spread

Fields with open ends have gains of their own: they are coded worse, and their energies, which are those under
a window, belong to the middle alone.

Boxes of turbulence are simulated, with other seeds than any validation. That takes half an hour on one core;
``--cache FILE`` keeps them for the next time. The rest takes about a quarter of an hour. Gains are additions
to the weights: fingerprint and streams stay as they are. They have to be measured again when the realistic
decoders change.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_networks import GAIN_ARRAYS, OPEN_GAIN_ARRAYS
from latentpress.codecs.weights import ADDITION, WeightFile, read_weight_file
from latentpress.models.field.projection import solenoidal
from latentpress.models.field.spectral_gain import BANDS, LARGEST, LEAST_SIDE, SEEN, band_densities
from latentpress.train.card import write_with_card
from latentpress.train.data.flows import unit_variance
from latentpress.train.data.turbulence import simulate

QUALITIES = (0.0, 25.0, 50.0, 75.0, 100.0)
"""At which gains are measured; equally spaced."""

_FULL_SIZE = 128
_PERIODIC = (True, True, True)
_OPEN = (False, False, False)

_LARGE_SCALES = 4
"""So many of the first bands keep their energy: they hold the flow's, and no codec loses it."""

_RIGHT = 0.02
"""Energies that differ by less are right."""

_SIMULATED = 2 / 3
"""Simulations keep modes up to here, as a share of the Nyquist wave number; nothing is known beyond."""

_UNITY = 0.85
"""From here on there is no gain."""

_LEAST_RATIO = 64
"""Below, shells 24 to 40 have 0.99 of their energy at a byte ratio of 64: a gain would only cost error."""

_SMALL_SCALES = slice(12, 21)
"""Bands of the wave numbers 24 to 40 on 128^3 points."""

_HARDLY_ANY = 8.0
"""Flows that get more than so many times their energy there when decoded have no small scales to speak of.

What is decoded is not theirs. They would bend the linear law of all others, which lack energy.
"""

_FEWEST = 3
"""Flows that a law is taken from."""

_RIDGE = 0.003
"""Keeps coefficients small that few boxes cannot tell."""


class Boxes(NamedTuple):
    """Boxes to simulate at once.

    Attributes:
        size: Points a side.
        viscosities: One a box, as they would be on 128^3 points.
        seed: Of the random start.
        snapshots: Of each, a time unit apart.
        spin_up: Time on every grid before the first, coarsest first.
    """

    size: int
    viscosities: tuple[float, ...]
    seed: int
    snapshots: int
    spin_up: tuple[float, ...]


MEASURED = (
    Boxes(128, (0.0115,), 3, 1, (5.0, 3.0, 0.5)),
    Boxes(128, (0.0145, 0.03), 4, 1, (5.0, 3.0, 0.5)),
    Boxes(128, (0.0115,), 17, 1, (5.0, 3.0, 0.6)),
    Boxes(64, (0.0115, 0.0115, 0.0135, 0.017, 0.022, 0.03), 12, 2, (5.0, 3.0)),
)
"""What gains are measured on: viscosities of the training, on both of its grids."""


class Gain(NamedTuple):
    """Arrays of a :class:`latentpress.models.field.spectral_gain.SpectralGain`.

    Attributes:
        rows: ``(Q, BANDS, 3)``.
        spread: ``(Q, 2, 3)``.
    """

    rows: NDArray[np.float32]
    spread: NDArray[np.float32]


class Gains(NamedTuple):
    """Both gains of a ratio.

    Attributes:
        periodic: Of fields without ends.
        open: Of all others.
    """

    periodic: Gain
    open: Gain


def simulated(boxes: Sequence[Boxes], cache: str | None = None) -> list[Tensor]:
    """Velocities ``(3, N, N, N)`` of boxes.

    Args:
        boxes: Which.
        cache: File that they are kept in, and taken from if it has them; another's file is not overwritten.

    Raises:
        ValueError: The file has other boxes.
    """
    described = repr(tuple(boxes))
    if cache is not None and Path(cache).is_file():
        stored = torch.load(cache, weights_only=True)
        if stored.get("described") != described:
            raise ValueError(f"{cache} has other boxes")
        return list(stored["velocity"])
    found: list[Tensor] = []
    for one in boxes:
        # On a finer grid the same resolution belongs to a smaller viscosity.
        scale = (_FULL_SIZE / one.size) ** (4 / 3)
        viscosities = [viscosity * scale for viscosity in one.viscosities]
        flows = simulate(viscosities, one.size, one.seed, "cpu", one.snapshots, 1.0, one.spin_up)
        found += list(flows.velocity.transpose(0, 1).flatten(0, 1))
        print(f"{len(found)} boxes simulated", flush=True)
    if cache is not None:
        torch.save({"described": described, "velocity": found}, cache)
    return found


def fit(weights: WeightFile, boxes: Sequence[Tensor]) -> dict[int, Gains]:
    """Gains of all ratios but the smallest.

    Args:
        weights: Of a field codec with realistic decoders; gains that it has do not count.
        boxes: Velocities ``(3, N, N, N)`` of periodic boxes, at least three.

    Returns:
        By ratio.

    Raises:
        ValueError: The weights have no realistic decoders, or boxes are too few or small.
    """
    codec = FieldCodec(with_gains(weights, {}))
    codec.refuses = False
    if not codec.has_realistic:
        raise ValueError("these weights have no realistic decoders")
    if len(boxes) < 3 or min(box.shape[-1] for box in boxes) < LEAST_SIDE:
        raise ValueError(f"gains are measured on three boxes or more, of at least {LEAST_SIDE}^3 points")
    whole = [_unit(box) for box in boxes]
    pieces = [_unit(piece) for box in boxes for piece in _open_pieces(box)]
    return {
        ratio: Gains(_measured(codec, ratio, whole, _PERIODIC), _measured(codec, ratio, pieces, _OPEN))
        for ratio in codec.ratios
        if ratio >= _LEAST_RATIO
    }


def _unit(box: Tensor) -> Tensor:
    """A box of unit variance, as gains see it."""
    return unit_variance(box[None])[0].float().cpu()


def _open_pieces(box: Tensor) -> list[Tensor]:
    """A box as if it were open; of a large one also what it is when cut elsewhere, and two corners.

    Energies are those of the middle, so each of them is another flow.
    """
    size = box.shape[-1]
    if size < _FULL_SIZE:
        return [box]
    quarter, half = size // 4, size // 2
    shifts = ((0, 0, 0), (half, 0, 0), (0, 0, half), (0, half, half), (half, half, half))
    corners = [box[:, :-quarter, :-quarter, :-quarter], box[:, quarter:, quarter:, quarter:]]
    return [box.roll(shift, (1, 2, 3)) for shift in shifts] + corners


def _measured(
    codec: FieldCodec, ratio: int, flows: Sequence[Tensor], periodic: tuple[bool, bool, bool]
) -> Gain:
    """The gain of a ratio from fields of unit variance, at all qualities."""
    true = torch.stack([band_densities(field, periodic) for field in flows])
    # The larger a field, the better its energies are known.
    share = torch.tensor([float(field.shape[-1]) ** 2 for field in flows], dtype=torch.float64)
    parts = []
    for quality in QUALITIES:
        seen, left = [], []
        for field in flows:
            stream = codec.compress(field, ratio=ratio, quality=quality, periodic=periodic)
            decoded = codec.decompress(stream, decoder="realistic")
            seen.append(band_densities(decoded, periodic)[list(SEEN)])
            left.append(band_densities(solenoidal(decoded, periodic), periodic))
        parts.append(fitted(true, torch.stack(left), torch.stack(seen), share))
    rows, spread = (torch.stack(part).float().numpy() for part in zip(*parts, strict=True))
    return Gain(rows, spread)


def fitted(true: Tensor, left: Tensor, seen: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Gains at one quality, by ridge regression over boxes that have small scales.

    Args:
        true: Densities in the bands of each box, ``(n, BANDS)``.
        left: Of the same, decoded and without divergence.
        seen: In the two bands that tell flows apart, decoded, ``(n, 2)``.
        share: Weight of each box, ``(n,)``.

    Returns:
        ``(BANDS, 3)`` and ``(2, 3)``, see :class:`latentpress.models.field.spectral_gain.SpectralGain`.
    """
    waves = torch.linspace(0, 1, BANDS, dtype=torch.float64)
    kept = _with_small_scales(true, left, waves)
    true, left, seen, share = true[kept], left[kept], seen[kept], share[kept] / share[kept].sum()
    features = seen.log()
    mean = share @ features
    covariance = (features - mean).T @ ((features - mean) * share[:, None])
    matrix = torch.linalg.inv(torch.linalg.cholesky(covariance + 1e-6 * torch.eye(2, dtype=torch.float64)))
    u = (features - mean) @ matrix.T
    known = int((waves <= _SIMULATED).sum())
    limit = math.log(LARGEST)
    logarithms = (0.5 * (true[:, :known] / left[:, :known]).log()).nan_to_num().clamp(-limit, limit)
    constant = share @ logarithms
    gram = (u * share[:, None]).T @ u + _RIDGE * torch.eye(2, dtype=torch.float64)
    coefficients = torch.linalg.solve(gram, (u * share[:, None]).T @ (logarithms - constant))
    rows = torch.zeros(BANDS, 3, dtype=torch.float64)
    rows[:known] = torch.stack((constant, *coefficients), dim=1)
    rows[:known][logarithms.abs().amax(0) < _RIGHT / 2] = 0
    rows[:_LARGE_SCALES] = 0
    fading = ((_UNITY - waves) / (_UNITY - waves[known - 1])).clamp(0, 1)
    rows[known:] = rows[known - 1] * fading[known:, None]
    return rows, torch.cat((matrix, mean[:, None]), dim=1)


def _with_small_scales(true: Tensor, left: Tensor, waves: Tensor) -> Tensor:
    """Which flows have small scales, ``(n,)`` boolean; all, if hardly any have."""
    energies = [(densities * waves.square())[:, _SMALL_SCALES].sum(1) for densities in (left, true)]
    kept = energies[0] < _HARDLY_ANY * energies[1]
    return kept if int(kept.sum()) >= _FEWEST else torch.ones_like(kept)


def with_gains(weights: WeightFile, gains: Mapping[int, Gains]) -> WeightFile:
    """Weights with gains in the place of those that they may have."""
    tensors: dict[str, NDArray[Any]] = {
        name: array
        for name, array in weights.tensors.items()
        if not (name.startswith(ADDITION) and name.endswith(GAIN_ARRAYS + OPEN_GAIN_ARRAYS))
    }
    for ratio, both in gains.items():
        for names, gain in zip((GAIN_ARRAYS, OPEN_GAIN_ARRAYS), both, strict=True):
            for name, array in zip(names, gain, strict=True):
                tensors[f"{ADDITION}ratio{ratio}.{name}"] = array
    return dataclasses.replace(weights, tensors=tensors)


def main(args: Sequence[str] | None = None) -> int:
    """Gives a field codec's weight file gains of the small scales, and refreshes its card.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.fit_field_gain", description=main.__doc__
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file of the family field")
    parser.add_argument("--out", metavar="FILE", help="weight file to write (default: that of --weights)")
    parser.add_argument("--cache", metavar="FILE", help="keeps the simulated boxes")
    parser.add_argument("--small", action="store_true", help="tiny boxes, to try the command")
    options = parser.parse_args(args)
    boxes = (Boxes(32, (0.02, 0.03, 0.04), 3, 1, (0.1,)),) if options.small else MEASURED
    out = Path(options.out or options.weights)
    try:
        weights = read_weight_file(options.weights)
        velocity = simulated(boxes, options.cache)
        start = time.monotonic()
        extended = with_gains(weights, fit(weights, velocity))
        write_with_card(extended, out, card_of=options.weights)
    except (OSError, ValueError) as error:
        print(f"{options.weights}: {error}", file=sys.stderr)
        return 1
    print(f"gains of {len(velocity)} boxes, measured in {time.monotonic() - start:.0f} s")
    print(f"weights {extended.fingerprint().hex()}, written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
