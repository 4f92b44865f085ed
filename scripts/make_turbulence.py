"""Simulated turbulence as a zarr store, with the checks that tell whether it is any good.

``python -m latentpress.scripts.make_turbulence --out flow.zarr --seed 7`` solves the Navier-Stokes equations
in a periodic box (:mod:`latentpress.train.data.turbulence`), forced or decaying, and keeps a few snapshots:

::

    velocity (box, time, component, x, y, z)   scalar (box, time, x, y, z)   viscosity (box,)   time (time,)

Statistics of every snapshot are printed and kept as attributes. The exit code is 1 if one of them is no
resolved isotropic turbulence.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from latentpress.scripts.text_table import format_table
from latentpress.scripts.turbulence_store import write_store
from latentpress.train.data.turbulence import Snapshots, simulate, time_steps
from latentpress.train.metrics.turbulence import (
    FlowStatistics,
    ScalarStatistics,
    flow_statistics,
    objections,
    scalar_objections,
    scalar_statistics,
)

HEAD = ("box", "time", "Re", "energy", "dissipation", "skewness", "flatness", "div", "k eta", "tail")
REGIMES = ("forced", "decaying")

FULL_SIZE = 128
"""Points a side that the default viscosity is for; on other grids it is scaled to resolve as well."""

_ENERGY_TOLERANCE = 0.25
"""How far the loss of energy between snapshots may be from the mean of the dissipation at both."""


class Checked(NamedTuple):
    """A snapshot and what was found.

    Attributes:
        box: Its number.
        time: Since the first snapshot.
        flow: Statistics of the velocity.
        scalar: Of the passive scalar, or None.
        objections: Why it is not acceptable.
    """

    box: int
    time: float
    flow: FlowStatistics
    scalar: ScalarStatistics | None
    objections: list[str]


def check(snapshots: Snapshots, spacing: float, decaying: bool) -> list[Checked]:
    """Statistics of and objections to every snapshot.

    Args:
        snapshots: Of :func:`simulate`.
        spacing: Time between them.
        decaying: Without a force: energy is lost to dissipation and nothing balances it.
    """
    found: list[Checked] = []
    for box, viscosity in enumerate(snapshots.viscosity.tolist()):
        before: FlowStatistics | None = None
        for number, velocity in enumerate(snapshots.velocity[:, box]):
            flow = flow_statistics(velocity, viscosity)
            problems = objections(flow, power=None if decaying else 1.0)
            if decaying and before is not None:
                problems += _energy_objections(before, flow, spacing)
            scalar = None
            if snapshots.scalar is not None:
                # Its diffusivity is the viscosity: the solver's Schmidt number is one.
                scalar = scalar_statistics(snapshots.scalar[number, box], velocity, viscosity)
                problems += scalar_objections(scalar, stationary=not decaying)
            found.append(Checked(box, number * spacing, flow, scalar, problems))
            before = flow
    return found


def _energy_objections(before: FlowStatistics, after: FlowStatistics, spacing: float) -> list[str]:
    """The energy of a flow without a force falls by what is dissipated."""
    lost = (before.energy - after.energy) / spacing
    expected = math.sqrt(before.dissipation * after.dissipation)
    if abs(lost / expected - 1) <= _ENERGY_TOLERANCE:
        return []
    return [f"loses energy at a rate of {lost:.3f} and dissipates {expected:.3f}"]


def table(checked: Sequence[Checked]) -> str:
    """Snapshots as text."""
    rows = [
        [
            str(one.box),
            f"{one.time:g}",
            f"{one.flow.reynolds:.1f}",
            f"{one.flow.energy:.3f}",
            f"{one.flow.dissipation:.3f}",
            f"{one.flow.skewness:.3f}",
            f"{one.flow.flatness:.2f}",
            f"{one.flow.divergence:.0e}",
            f"{one.flow.resolution:.2f}",
            f"{one.flow.tail:.3f}",
        ]
        for one in checked
    ]
    return format_table(HEAD, rows, left=())


def main(args: Sequence[str] | None = None) -> int:
    """Simulates, checks and writes.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if a snapshot is not acceptable.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.make_turbulence", description=__doc__
    )
    parser.add_argument("--out", required=True, metavar="STORE", help="zarr store to make")
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="points a side (default: 128)")
    parser.add_argument(
        "--viscosity",
        type=float,
        nargs="+",
        default=[0.0115],
        help="one a box, as it would be on 128^3 points (default: 0.0115, Re about 60)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random start")
    parser.add_argument("--regime", choices=REGIMES, default="forced")
    parser.add_argument("--snapshots", type=int, default=4, help="of every box (default: 4)")
    parser.add_argument("--spacing", type=float, default=0.5, help="time between them (default: 0.5)")
    parser.add_argument(
        "--spin-up", type=float, nargs="+", default=[5.0, 3.0, 2.0], metavar="T", help="on every grid"
    )
    parser.add_argument(
        "--decay", type=float, default=0.5, help="decaying: time without a force before the first snapshot"
    )
    parser.add_argument("--scalar", action="store_true", help="carry a passive scalar along")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(args)
    if Path(options.out).exists():
        parser.error(f"{options.out} exists")
    decaying = options.regime == "decaying"
    # On a finer grid the same resolution belongs to a smaller viscosity.
    scale = (FULL_SIZE / options.size) ** (4 / 3)
    snapshots = simulate(
        [viscosity * scale for viscosity in options.viscosity],
        options.size,
        options.seed,
        options.device,
        options.snapshots,
        options.spacing,
        options.spin_up,
        passive_scalar=options.scalar,
        decay=options.decay if decaying else 0.0,
    )
    checked = check(snapshots, options.spacing, decaying)
    print(table(checked))
    for one in checked:
        if one.scalar is not None:
            print(
                f"scalar of box {one.box} at {one.time:g}: variance {one.scalar.variance:.3f}, "
                f"dissipation {one.scalar.dissipation:.3f}, production {one.scalar.production:.3f}, "
                f"tail {one.scalar.tail:.3f}"
            )
        for problem in one.objections:
            print(f"box {one.box} at {one.time:g}: {problem}")
    attributes = {
        "regime": options.regime,
        "seed": options.seed,
        "side": 2 * math.pi,
        "power": 0.0 if decaying else 1.0,
        "time_step": time_steps(options.spacing, options.size)[0],
        "checks": [_as_json(one) for one in checked],
    }
    write_store(options.out, snapshots, options.spacing, attributes)
    rejected = sum(bool(one.objections) for one in checked)
    print(f"{len(checked) - rejected} of {len(checked)} snapshots accepted; written: {options.out}")
    return int(rejected > 0)


def _as_json(one: Checked) -> dict[str, Any]:
    content: dict[str, Any] = {"box": one.box, "time": one.time, "objections": one.objections}
    content["flow"] = asdict(one.flow)
    if one.scalar is not None:
        content["scalar"] = asdict(one.scalar)
    return content


if __name__ == "__main__":
    sys.exit(main())
