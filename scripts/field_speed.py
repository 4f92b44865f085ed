"""How fast the field codec is, beside SPERR: ``python -m latentpress.scripts.field_speed --field flow.npy``.

MB of float32 a second, the best of several runs, everything in one process. The codec runs on the processor
and, with ``--device cuda``, on the GPU as well; SPERR always on the processor, its components side by side.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.field import FieldCodec
from latentpress.scripts.field_evaluation import Subject, evaluate_peer
from latentpress.scripts.field_peers import sperr
from latentpress.scripts.field_report import add_codec_arguments, field_codec, write_report
from latentpress.scripts.fields import add_selection_arguments, read_field
from latentpress.scripts.text_table import format_table


class SpeedRow(NamedTuple):
    """One codec at one setting.

    Attributes:
        codec: Its name.
        device: Where it ran.
        ratio: Of bytes.
        encode: MB of float32 a second.
        decode: MB of float32 a second.
    """

    codec: str
    device: str
    ratio: float
    encode: float
    decode: float


def fastest(work: Callable[[], Any], runs: int) -> float:
    """Seconds of the fastest of several runs, without the first, which pays for memory and threads."""
    work()
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def measure_codec(
    codec: FieldCodec, field: NDArray[np.float32], periodic: bool, runs: int, quality: float = 50.0
) -> list[SpeedRow]:
    """Every ratio of the codec, both decoders where it has two."""
    megabytes = field.nbytes / 1e6
    rows = []
    for ratio in codec.ratios:

        def encode(ratio: int = ratio) -> bytes:
            return codec.compress(field, ratio=ratio, quality=quality, periodic=periodic)

        data = encode()
        encoding = megabytes / fastest(encode, runs)
        for decoder in ("faithful", "realistic")[: 2 if codec.has_realistic else 1]:

            def decode(decoder: str = decoder, data: bytes = data) -> Any:
                return codec.decompress(data, decoder=decoder)  # type: ignore[arg-type]

            decoding = megabytes / fastest(decode, runs)
            rows.append(
                SpeedRow(
                    f"latentpress {ratio}, {decoder}",
                    codec.device.type,
                    field.nbytes / len(data),
                    encoding,
                    decoding,
                )
            )
    return rows


def measure_sperr(subject: Subject, ratios: Sequence[float], threads: int, runs: int) -> list[SpeedRow]:
    """SPERR at the byte ratios of the codec's streams."""
    peer = sperr(threads)
    if not peer.installed():
        return []
    field = subject.field
    rows = []
    for ratio in ratios:
        found = evaluate_peer(peer, subject, ratio)
        data = peer.encode(field, float(found.setting))
        encoding = fastest(lambda: peer.encode(field, float(found.setting)), runs)  # noqa: B023
        decoding = fastest(lambda: peer.decode(data, field.shape), runs)  # noqa: B023
        megabytes = field.nbytes / 1e6
        rows.append(
            SpeedRow("SPERR", "cpu", field.nbytes / len(data), megabytes / encoding, megabytes / decoding)
        )
    return rows


def table(rows: Sequence[SpeedRow]) -> str:
    """Rows as text."""
    body = [
        [row.codec, row.device, f"{row.ratio:.0f}", f"{row.encode:.1f}", f"{row.decode:.1f}"] for row in rows
    ]
    return format_table(("codec", "device", "ratio", "encode MB/s", "decode MB/s"), body, left=(0, 1))


def main(args: Sequence[str] | None = None) -> int:
    """Measures speeds on one field.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if a GPU was there and decoding on it did not pass SPERR on the processor.
    """
    parser = argparse.ArgumentParser(prog="python -m latentpress.scripts.field_speed", description=__doc__)
    parser.add_argument("--field", required=True, metavar="FILE", help="velocities (3, D, H, W)")
    parser.add_argument("--periodic", action="store_true", help="the field is a whole periodic box")
    parser.add_argument("--runs", type=int, default=3, help="of which the fastest counts (default: 3)")
    parser.add_argument("--out", metavar="FILE", help="JSON file for the rows")
    add_selection_arguments(parser)
    add_codec_arguments(parser)
    options = parser.parse_args(args)
    field = np.ascontiguousarray(read_field(options.field, options.variable, options.index), np.float32)
    codec = field_codec(options)
    rows = []
    if options.device != "cpu":
        on_cpu = argparse.Namespace(**{**vars(options), "device": "cpu"})
        rows += measure_codec(field_codec(on_cpu), field, options.periodic, options.runs)
    rows += measure_codec(codec, field, options.periodic, options.runs)
    ratios = [row.ratio for row in rows if row.device == codec.device.type and "faithful" in row.codec]
    peers = measure_sperr(Subject.of(field, options.periodic), ratios, options.threads, options.runs)
    print(table([*rows, *peers]))
    behind = False
    if peers and codec.device.type != "cpu":
        fastest_peer = max(row.decode for row in peers)
        slowest = min(row.decode for row in rows if row.device == codec.device.type)
        behind = slowest < fastest_peer
        print(f"\ndecoding on the GPU: {slowest:.0f} MB/s at least; SPERR {fastest_peer:.0f} MB/s at most")
    if options.out:
        content = {"shape": list(field.shape), "rows": [row._asdict() for row in [*rows, *peers]]}
        write_report(options.out, content, codec, options.device)
    return int(behind)


if __name__ == "__main__":
    sys.exit(main())
