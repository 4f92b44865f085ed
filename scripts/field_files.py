"""``latentpress encode`` and ``decode`` with fields: at once where they are small, else block by block."""

from __future__ import annotations

import argparse
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpress.scripts.codec_access import effort_option
from latentpress.scripts.fields import FieldSource, field_bytes, open_field
from latentpress.scripts.file_io import STANDARD, Task, check_target, print_result, read_bytes, write_bytes
from latentpress.scripts.progress import progress_bar

if TYPE_CHECKING:
    from latentpress import Codec
    from latentpress.codecs.field import FieldCodec
    from latentpress.codecs.field_file import FieldFile

WRITTEN = (".npy", ".zarr")
"""Suffixes of files that fields are decoded to."""

LARGEST_AT_ONCE = 2**27
"""Bytes of a field from which on it is coded block by block unless it is said otherwise."""


def add_encode_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds what ``encode`` asks of fields alone.

    Args:
        group: Of its parser.
    """
    group.add_argument("--ratio", type=int, metavar="R", help="8, 64 or 512")
    group.add_argument("--periodic", action="store_true", help="the field continues at its far ends")
    group.add_argument(
        "--block",
        type=int,
        metavar="N",
        help="sides of blocks that decode alone, multiples of 8; 0 for none (default: as suits large fields)",
    )


def add_decode_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds what ``decode`` asks of fields alone.

    Args:
        group: Of its parser.
    """
    group.add_argument(
        "--part",
        type=slices,
        metavar="A:B,C:D,...",
        help="only this part of a field in blocks: a slice for every axis, components first",
    )


def slices(text: str) -> tuple[slice, ...]:
    """Parses slices with commas between them.

    Raises:
        argparse.ArgumentTypeError: One is none.

    Example:
        >>> slices(":, 3:9, -4:")
        (slice(None, None, None), slice(3, 9, None), slice(-4, None, None))
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"(-?\d+)?:(-?\d+)?", part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected slices such as 0:3,:,10:20, got '{text}'")
    return tuple(slice(*(int(n) if n else None for n in part.split(":"))) for part in parts)


def encode_field(task: Task, codec: Codec, args: argparse.Namespace) -> None:
    """Compresses one field and prints a line for it: path, bytes, byte ratio, seconds.

    Raises:
        ValueError: The weights are not of a field codec, or options do not fit.
    """
    codec = _as_field_codec(codec, task.source)
    options = {
        "quality": args.quality,
        "target_bytes": args.bytes,
        "max_error": args.max_error,
        "relative_error": args.relative_error,
        "ratio": args.ratio,
    }
    options = {name: value for name, value in options.items() if value is not None}
    options |= effort_option(args.effort)
    start = time.perf_counter()
    with open_field(task.source, args.variable, args.index) as field, progress_bar(str(task)) as progress:
        size = int(np.prod(field.shape)) * field.dtype.itemsize
        in_blocks = args.block is not None or (size > LARGEST_AT_ONCE and "target_bytes" not in options)
        if in_blocks and args.block != 0:
            count = _in_blocks(task, codec, field, args, options, progress)
        else:
            data = codec.compress(field[...], periodic=args.periodic, progress=progress, **options)
            write_bytes(task.target, data, args.force)
            count = len(data)
    seconds = time.perf_counter() - start
    print_result(task, f"{count} bytes  ratio {size / count:.1f}  {seconds:.2f} s")


def _in_blocks(
    task: Task,
    codec: FieldCodec,
    field: FieldSource,
    args: argparse.Namespace,
    options: dict[str, Any],
    progress: Any,
) -> int:
    if "target_bytes" in options:
        raise ValueError("a field in blocks has no --bytes: give --block 0")
    if task.target == STANDARD:
        raise ValueError("a field in blocks is written to a file: give -o FILE, or --block 0")
    check_target(task, args.force)
    return codec.compress_blocks(
        field, task.target, block=args.block, periodic=args.periodic, progress=progress, **options
    )


def decode_field(task: Task, codec: Codec, args: argparse.Namespace) -> None:
    """Restores one field and prints a line for it: path, shape, type, seconds.

    Raises:
        ValueError: The target's suffix is none that fields are written to, or a part is asked of a field
            that is not in blocks.
    """
    from latentpress.codecs.field_description import inspect_blocks

    codec = _as_field_codec(codec, task.source)
    if task.target != STANDARD and args.output is None:
        task = task._replace(target=str(Path(task.target).with_suffix(WRITTEN[0])))
        check_target(task, args.force)
    suffix = WRITTEN[0] if task.target == STANDARD else Path(task.target).suffix.lower()
    if suffix not in WRITTEN:
        raise ValueError(f"a field is written as one of {', '.join(WRITTEN)}, not {suffix!r}")
    start = time.perf_counter()
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar(str(task)))
        if task.source != STANDARD and inspect_blocks(task.source) is not None:
            field = stack.enter_context(codec.open(task.source))
            shape = _restore(task, field, suffix, args, progress)
            dtype = field.dtype
        else:
            if args.part is not None:
                raise ValueError("--part is for fields in blocks, and this one is not")
            values = codec.decompress(read_bytes(task.source), progress=progress).numpy()
            _write(task, values, suffix, args)
            shape, dtype = values.shape, values.dtype
    seconds = time.perf_counter() - start
    print_result(task, f"{' x '.join(map(str, shape))} {dtype}  {seconds:.2f} s")


def _restore(
    task: Task, field: FieldFile, suffix: str, args: argparse.Namespace, progress: Any
) -> tuple[int, ...]:
    """Writes a field in blocks, or a part of it, in the memory of a block where the target allows."""
    from latentpress.codecs.base import no_progress
    from latentpress.codecs.whole_files import open_whole

    if args.part is not None or task.target == STANDARD:
        values = field[args.part if args.part is not None else ...]
        _write(task, values, suffix, args)
        return values.shape
    if suffix == ".zarr":
        sides = field.header.sides[1:] if field.header.flat else field.header.sides
        with _new_zarr(task.target, field.shape, field.dtype, (field.shape[0], *sides)) as array:
            field.copy_to(array, progress or no_progress)
        return field.shape
    with open_whole(task.target) as file:
        # A file of its own that is filled in any order, and gets its name when it is whole.
        np.lib.format.write_array_header_1_0(
            file, {"descr": field.dtype.str, "fortran_order": False, "shape": field.shape}
        )
        offset = file.tell()
        file.truncate(offset + int(np.prod(field.shape)) * field.dtype.itemsize)
        file.flush()
        target = np.memmap(file, field.dtype, "r+", offset, field.shape)
        field.copy_to(target, progress or no_progress)
        target.flush()
    return field.shape


def _write(task: Task, values: Any, suffix: str, args: argparse.Namespace) -> None:
    if suffix == ".zarr":
        with _new_zarr(task.target, values.shape, values.dtype, values.shape) as array:
            array[...] = values
    else:
        write_bytes(task.target, field_bytes(np.ascontiguousarray(values)), args.force)


@contextmanager
def _new_zarr(path: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...]) -> Iterator[Any]:
    """A zarr array that gets its name when it is whole."""
    import zarr

    partial = Path(f"{path}.part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield zarr.create_array(partial, shape=shape, dtype=dtype, chunks=chunks, zarr_format=3)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _as_field_codec(codec: Codec, source: str) -> FieldCodec:
    from latentpress.codecs.field import FieldCodec

    if not isinstance(codec, FieldCodec):
        raise ValueError(f"{source} is a field, and these are weights of the codec {codec.name}")
    return codec
