"""Fields between two compressed snapshots, against blending them linearly.

From a burst of snapshots (``make_turbulence --spacing 0.1``), pairs that are some steps apart are compressed,
fields between them are made with ``interpolate`` and by blending the decoded snapshots, and both are held
against the snapshots that were left out: ``python -m latentpress.scripts.field_between --data burst.zarr``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.field import FieldCodec
from latentpress.scripts.field_measures import Measures, TrueField
from latentpress.scripts.field_report import add_codec_arguments, field_codec, write_report
from latentpress.scripts.text_table import format_table
from latentpress.scripts.turbulence_store import TurbulenceStore

DEFAULT_GAPS = (2, 4)


class BetweenRow(NamedTuple):
    """A field between two snapshots.

    Attributes:
        pair: Numbers of both snapshots.
        t: Where between them, 0 to 1.
        gap: Time between them, in Kolmogorov times.
        ratio: Byte ratio of the first stream.
        interpolated: Measures of what the codec makes.
        blended: Measures of the mean of both decoded snapshots, weighted.
        truth: Measures of the snapshot that was left out.
    """

    pair: tuple[int, int]
    t: float
    gap: float
    ratio: float
    interpolated: Measures
    blended: Measures
    truth: Measures

    @property
    def better(self) -> bool:
        """A smaller error, and gradients closer to the truth in size and density."""
        ours, theirs = self.interpolated, self.blended
        dissipation = abs(ours.gradient - 1) < abs(theirs.gradient - 1)
        return ours.nrmse < theirs.nrmse and dissipation and ours.gradient_distance < theirs.gradient_distance

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        content = {**self._asdict(), "better": self.better}
        for name in ("interpolated", "blended", "truth"):
            content[name] = content[name]._asdict()
        return content


def measure(
    codec: FieldCodec,
    snapshots: NDArray[np.float32],
    gap: int,
    kolmogorov_times: float,
    **options: Any,
) -> list[BetweenRow]:
    """All pairs of snapshots that are ``gap`` steps apart, and every snapshot between them.

    Args:
        codec: The codec.
        snapshots: ``(T, 3, D, H, W)`` at equal distances.
        gap: Steps between the snapshots of a pair, at least 2.
        kolmogorov_times: The gap in the flow's own unit of time.
        **options: Of ``compress``.
    """
    rows = []
    for first in range(0, len(snapshots) - gap, gap):
        last = first + gap
        streams = [codec.compress(snapshots[number], **options) for number in (first, last)]
        ends = [codec.decompress(data).numpy() for data in streams]
        for middle in range(first + 1, last):
            t = (middle - first) / gap
            true = TrueField(snapshots[middle])
            found = codec.interpolate(streams[0], streams[1], t).numpy()
            rows.append(
                BetweenRow(
                    pair=(first, last),
                    t=t,
                    gap=kolmogorov_times,
                    ratio=snapshots[first].nbytes / len(streams[0]),
                    interpolated=true.measure(found),
                    blended=true.measure((1 - t) * ends[0] + t * ends[1]),
                    truth=true.measure(snapshots[middle]),
                )
            )
    return rows


def table(rows: Sequence[BetweenRow]) -> str:
    """Rows as text: each measure of the interpolated field, then of the blended one."""
    head = (
        "pair",
        "t",
        "Kolmogorov",
        "ratio",
        "NRMSE",
        "blend",
        "dissip.",
        "blend",
        "PDF",
        "blend",
        "skewness",
    )
    body = [
        [
            f"{row.pair[0]}-{row.pair[1]}",
            f"{row.t:.2f}",
            f"{row.gap:.1f}",
            f"{row.ratio:.0f}",
            f"{row.interpolated.nrmse:.4f}",
            f"{row.blended.nrmse:.4f}",
            f"{row.interpolated.gradient:.3f}",
            f"{row.blended.gradient:.3f}",
            f"{row.interpolated.gradient_distance:.4f}",
            f"{row.blended.gradient_distance:.4f}",
            f"{row.interpolated.skewness:.3f} / {row.blended.skewness:.3f} / {row.truth.skewness:.3f}",
        ]
        for row in rows
    ]
    return format_table(head, body)


def main(args: Sequence[str] | None = None) -> int:
    """Measures a burst of snapshots.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if blending was better somewhere.
    """
    parser = argparse.ArgumentParser(prog="python -m latentpress.scripts.field_between", description=__doc__)
    parser.add_argument("--data", required=True, metavar="STORE", help="of scripts.make_turbulence")
    parser.add_argument("--box", type=int, default=0, help="number of the box (default: 0)")
    parser.add_argument("--gaps", type=int, nargs="+", default=DEFAULT_GAPS, help="steps between snapshots")
    parser.add_argument("--ratio", type=int, help="of the codec: 8, 64 or 512 (default: 64)")
    parser.add_argument("--quality", type=float, help="0 to 100 (default: 50)")
    parser.add_argument(
        "--relative-error", type=float, metavar="E", help="a bound in their place, which needs no weights"
    )
    parser.add_argument("--out", metavar="FILE", help="JSON file for the rows")
    add_codec_arguments(parser, without=True)
    options = parser.parse_args(args)
    if min(options.gaps) < 2:
        parser.error("between snapshots one step apart there is none to compare with")
    codec = field_codec(options)
    store = TurbulenceStore(options.data)
    snapshots = np.stack([store.velocity(options.box, time) for time in range(store.times)])
    kolmogorov_time = store.kolmogorov_time(options.box)
    coding = {"ratio": options.ratio, "quality": options.quality, "relative_error": options.relative_error}
    coding = {name: value for name, value in coding.items() if value is not None}
    rows = []
    for gap in options.gaps:
        rows += measure(codec, snapshots, gap, gap * store.spacing / kolmogorov_time, periodic=True, **coding)
    print(table(rows))
    better = sum(row.better for row in rows)
    print(f"\n{better} of {len(rows)} fields better than the blend in error, dissipation and derivatives")
    if options.out:
        content = {"settings": coding, "rows": [row.as_json() for row in rows]}
        write_report(options.out, content, codec, options.device)
    return int(better < len(rows))


if __name__ == "__main__":
    sys.exit(main())
