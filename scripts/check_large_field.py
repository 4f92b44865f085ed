"""A field larger than memory, in and out: ``python -m latentpress.scripts.check_large_field --gib 4``.

Two checks, whose memory is measured (peaks of resident memory, torch and all libraries included):

::

    cluster: dask tasks make chunks -> zarr with the field codec, a worker is killed -> read, compare
    stream:  blocks made on demand -> one stream of blocks -> read block by block, compare

Exit code 1 if a value is off by more than the bound, something is lost, or the memory is exceeded.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.field import FieldCodec

BOUND = 1e-2
_KILL_AFTER = 0.25
"""Of the blocks that are there when a worker is killed."""

_WAIT_SECONDS = 3600.0


class Outcome(NamedTuple):
    """What one check found.

    Attributes:
        name: Of the check.
        bytes: Of what was written.
        largest_error: Over all points.
        memory: Peaks of resident memory of all processes, added, in bytes.
        write_seconds: For writing.
        read_seconds: For reading and comparing.
        killed_at: Part of the blocks that were there when a worker was killed; None if none was.
    """

    name: str
    bytes: int
    largest_error: float
    memory: int
    write_seconds: float
    read_seconds: float
    killed_at: float | None = None


class MadeField:
    """A field with structures of all sizes whose parts are made when they are asked for.

    Args:
        side: Points along each axis of space.

    Attributes:
        shape: One component and three axes.
        dtype: float32.

    Example:
        >>> field = MadeField(32)
        >>> part = field[:, 4:8, :, 30:]
        >>> bool((part == field[...][:, 4:8, :, 30:]).all())
        True
    """

    dtype = np.dtype(np.float32)

    def __init__(self, side: int) -> None:
        self.shape = (1, side, side, side)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Makes a part, for slices of all four axes or an ellipsis."""
        slices = [slice(None)] * 4 if key is Ellipsis else list(key)
        z, y, x = (
            np.arange(size, dtype=np.float32)[part]
            for size, part in zip(self.shape[1:], slices[1:], strict=True)
        )
        values = np.zeros((len(z), len(y), len(x)), np.float32)
        for wave in (0.03, 0.11, 0.37):
            first = np.sin(wave * z)[:, None, None] * np.cos(0.7 * wave * y)[:, None]
            values += (first * np.sin(1.3 * wave * x + 1)) * np.float32(0.03 / wave)
        return values[None]


def check_cluster(folder: Path, side: int, chunk: int, workers: int) -> Outcome:
    """Writes and reads a zarr array by a cluster of processes on this machine, one of which is killed.

    Args:
        folder: For the array.
        side: Points along each axis.
        chunk: Points along each axis of a chunk.
        workers: Processes with one thread each.
    """
    import dask.array
    import zarr
    from dask.distributed import Client, LocalCluster, wait

    from latentpress.codecs.zarr_codec import FieldSerializer

    field = MadeField(side)
    path = folder / "field.zarr"
    # For dask, anything that takes slices.
    store: Any = zarr.create_array(
        path,
        shape=field.shape[1:],
        chunks=(chunk,) * 3,
        dtype="float32",
        serializer=FieldSerializer(max_error=BOUND),
        compressors=None,
        fill_value=float("nan"),
    )
    made = dask.array.map_blocks(
        _block_of,
        side,
        chunks=dask.array.core.normalize_chunks((chunk,) * 3, field.shape[1:]),
        dtype="float32",
    )
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        start = time.perf_counter()
        job = client.compute(dask.array.store(made, store, lock=False, compute=False))
        killed_at, before = _kill_one(client, path, made.npartitions)
        wait(job, timeout=_WAIT_SECONDS)
        job.result()
        write_seconds = time.perf_counter() - start
        start = time.perf_counter()
        difference = abs(dask.array.from_zarr(str(path)).astype("float64") - made)
        largest = float(client.compute(difference.max(), sync=True))
        read_seconds = time.perf_counter() - start
        memory = _peak_memory() + workers * max(before, *client.run(_peak_memory).values())
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Outcome("cluster", stored, largest, memory, write_seconds, read_seconds, killed_at)


def check_stream(folder: Path, side: int, chunk: int) -> Outcome:
    """Writes and reads one stream of blocks in this process.

    Args:
        folder: For the stream.
        side: Points along each axis.
        chunk: Points along each axis of a block.
    """
    field, codec = MadeField(side), FieldCodec()
    path = folder / "field.lpz"
    start = time.perf_counter()
    count = codec.compress_blocks(field, path, block=min(chunk, side), max_error=BOUND)
    write_seconds = time.perf_counter() - start
    start = time.perf_counter()
    largest = 0.0
    with codec.open(path) as opened:
        for place, values in opened.blocks():
            difference = values.astype(np.float64) - field[place]
            largest = max(largest, float(np.abs(difference).max()))
    return Outcome("stream", count, largest, _peak_memory(), write_seconds, time.perf_counter() - start)


def _block_of(side: int, block_info: Any = None) -> NDArray[np.float32]:
    place = block_info[None]["array-location"]
    return MadeField(side)[(slice(None), *(slice(*ends) for ends in place))][0]


def _kill_one(client: Any, path: Path, chunks: int) -> tuple[float, int]:
    """Ends a worker when some chunks are there; the part of chunks that were, and the memory it had used."""
    pids = client.run(os.getpid)
    address, pid = next(iter(pids.items()))
    deadline = time.monotonic() + _WAIT_SECONDS
    while (found := _written(path)) < _KILL_AFTER * chunks and time.monotonic() < deadline:
        time.sleep(0.02)
    memory = int(client.run(_peak_memory, workers=[address])[address])
    os.kill(pid, signal.SIGKILL)
    return found / chunks, memory


def _written(path: Path) -> int:
    folder = path / "c"
    return sum(1 for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0


def _peak_memory() -> int:
    """Of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the checks that are asked for and prints a line for each.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.check_large_field", description=__doc__
    )
    parser.add_argument("--gib", type=float, default=4.0, help="size of the field (default: 4)")
    parser.add_argument("--chunk", type=int, default=128, help="points a side of a block (default: 128)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the cluster (default: 2)")
    parser.add_argument("--memory-gib", type=float, default=2.0, help="that is allowed (default: 2)")
    parser.add_argument("--folder", help="for what is written (default: a temporary one)")
    parser.add_argument("--only", choices=("cluster", "stream"), help="one check alone")
    options = parser.parse_args(argv)
    side = round((options.gib * 2**30 / 4) ** (1 / 3))
    failures = 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        outcomes = []
        # The stream first: it is this process whose peak is measured.
        if options.only != "cluster":
            outcomes.append(check_stream(Path(folder), side, options.chunk))
        if options.only != "stream":
            outcomes.append(check_cluster(Path(folder), side, options.chunk, options.workers))
    for found in outcomes:
        # Written like this, a NaN, which is what a lost chunk reads as, fails.
        good = found.largest_error <= BOUND and found.memory < options.memory_gib * 2**30
        failures += not good
        killed = "" if found.killed_at is None else f", a worker killed at {100 * found.killed_at:.0f} %"
        size = f"{side}^3 float32 ({4 * side**3 / 2**30:.2f} GiB)"
        print(
            f"{found.name}: {'ok' if good else 'FAILED'}: {size} in {found.bytes} bytes, "
            f"largest error {found.largest_error:.6f} (bound {BOUND}), "
            f"{found.memory / 2**30:.2f} GiB of memory, written in {found.write_seconds:.0f} s, "
            f"read in {found.read_seconds:.0f} s{killed}"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
