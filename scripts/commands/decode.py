"""``latentpress decode``: compressed files to pictures and meshes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latentpress.scripts.batch import Batch, add_batch_arguments, is_batch, run_batch
from latentpress.scripts.codec_access import (
    CodecShelf,
    add_machine_arguments,
    open_codec,
    positive_int,
    region,
)
from latentpress.scripts.failures import run_each, warn
from latentpress.scripts.field_files import add_decode_arguments, decode_field
from latentpress.scripts.file_io import (
    STANDARD,
    Task,
    check_target,
    clear_leftovers,
    open_target,
    plan,
    print_result,
    read_bytes,
    write_bytes,
)
from latentpress.scripts.progress import progress_bar

if TYPE_CHECKING:
    from latentpress import Codec, Limits

REPAIRING_CODEC = "index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb.

    Args:
        parser: Its parser.
    """
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="compressed file, or - for stdin, or one folder"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        dest="output",
        metavar="PICTURE",
        help="output file, whose suffix decides its format, or - for stdout",
    )
    where.add_argument("--out", metavar="FOLDER", help="folder for the outputs (default: beside each file)")
    parser.add_argument(
        "--suffix",
        metavar="SUFFIX",
        default=".png",
        help="format of outputs that -o does not name: .png .jpg .webp .tiff .avif (default: .png)",
    )
    parser.add_argument("--codec", help="weights to use instead of those that each file names")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="restore what is left of damaged files of several packets, and say what was lost",
    )
    parser.add_argument(
        "--region",
        type=region,
        metavar="Y,X,H,W",
        help="restore only this part: top row, left column, height and width in pixels",
    )
    parser.add_argument("--strip", action="store_true", help="leave out colour profile, EXIF and XMP")
    parser.add_argument(
        "--max-pixels", type=positive_int, metavar="N", help="refuse larger pictures before decoding them"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_decode_arguments(parser.add_argument_group("of fields"))
    add_batch_arguments(parser)
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Restores each picture and prints a line for it: path, width x height, seconds; shapes likewise.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """
    suffix = args.suffix if args.suffix.startswith(".") else f".{args.suffix}"
    if is_batch(args.files, args):
        from latentpress.scripts.pictures import format_of

        format_of(f"picture{suffix}")
        # A shipped name stays one; a path has to be right wherever the work is done.
        is_path = args.codec is not None and Path(args.codec).suffix == ".safetensors"
        codec = str(Path(args.codec).absolute()) if is_path else args.codec
        return run_batch(Batch("decode", args.files[0], (".lpz",), suffix, codec), args)
    tasks = plan(args.files, args.output, args.out, suffix)
    clear_leftovers(tasks)
    shelf = CodecShelf(args.codec, args)

    def decode(task: Task) -> None:
        check_target(task, args.force)
        _decode(task, shelf, suffix, args)

    return run_each(tasks, decode, debug=args.debug)


def _decode(task: Task, shelf: CodecShelf, suffix: str, args: argparse.Namespace) -> None:
    import latentpress
    from latentpress.codecs import read_metadata
    from latentpress.codecs.field_description import inspect_blocks
    from latentpress.scripts.pictures import format_of, picture_file
    from latentpress.scripts.shape_files import WRITTEN, decode_shape

    blocks = None if task.source == STANDARD else inspect_blocks(task.source)
    if blocks is not None:
        # Maybe too large to be read at once.
        decode_field(task, shelf.get(blocks), args)
        return
    data = read_bytes(task.source)
    limits = (
        latentpress.Limits() if args.max_pixels is None else latentpress.Limits(max_pixels=args.max_pixels)
    )
    # Without repair, what is wrong with a file is said right here.
    header = latentpress.inspect(data, limits) if not args.repair or _is_whole(data, limits) else None
    if header is not None and header.codec == "field":
        decode_field(task, shelf.get(header), args)
        return
    if header is not None and header.codec == "shape":
        if args.output is None and task.target != STANDARD:
            task = task._replace(target=str(Path(task.target).with_suffix(WRITTEN[0])))
            check_target(task, args.force)
        decode_shape(task, shelf.get(header), args)
        return
    if task.target != STANDARD:
        suffix = format_of(task.target)
    if header is None:
        _repair(task, data, suffix, limits, args)
        return
    codec = shelf.get(header)
    metadata = {} if args.strip else read_metadata(data)
    start = time.perf_counter()
    if args.region is not None or "tiles" in header.parameters:
        height, width = _decode_bands(task, data, codec, suffix, metadata, limits, args)
    else:
        with progress_bar(str(task)) as progress:
            pixels = codec.decompress(data, limits=limits, progress=progress)
        height, width = pixels.shape[1:]
        file = picture_file(pixels, suffix, metadata)
        for note in file.notes:
            warn(str(task), note)
        write_bytes(task.target, file.data, args.force)
    seconds = time.perf_counter() - start
    print_result(task, f"{width} x {height}  {seconds:.2f} s")


def _decode_bands(
    task: Task,
    data: bytes,
    codec: Codec,
    suffix: str,
    metadata: Mapping[str, bytes],
    limits: Limits,
    args: argparse.Namespace,
) -> tuple[int, int]:
    """Decodes a picture band by band; PNG is written as the bands come. Returns height and width."""
    from latentpress.codecs.image import ImageCodec
    from latentpress.scripts.large_pictures import gathered, write_png
    from latentpress.scripts.pictures import picture_file

    if not isinstance(codec, ImageCodec):
        raise ValueError(f"the codec {codec.name} has no --region")
    with progress_bar(str(task)) as progress:
        picture = codec.decompress_bands(data, limits=limits, progress=progress, region=args.region)
        if suffix.lower() == ".png":
            with open_target(task.target, args.force) as target:
                write_png(target, picture, metadata)
            return picture.shape[1:]
        pixels = gathered(picture)
    file = picture_file(pixels, suffix, metadata)
    for note in file.notes:
        warn(str(task), note)
    write_bytes(task.target, file.data, args.force)
    return picture.shape[1:]


def _is_whole(data: bytes, limits: Limits) -> bool:
    import latentpress

    try:
        latentpress.inspect(data, limits)
    except latentpress.StreamError:
        return False
    return True


def _repair(task: Task, data: bytes, suffix: str, limits: Limits, args: argparse.Namespace) -> None:
    """Restores a damaged file of the index codec, whose header may be among what is lost."""
    from latentpress.codecs.index import IndexCodec
    from latentpress.scripts.pictures import picture_bytes

    codec = open_codec(args.codec or REPAIRING_CODEC, args)
    if not isinstance(codec, IndexCodec):
        raise ValueError(f"the codec {codec.name} cannot repair files")
    start = time.perf_counter()
    picture, report = codec.decompress(data, repair=True, limits=limits)
    seconds = time.perf_counter() - start
    lost = ", ".join(map(str, report.lost_packets)) or "none"
    warn(
        str(task),
        f"lost packets: {lost} of {report.packets}; {report.lost_indexes} of {report.indexes} indices were "
        f"predicted, {100 * float(report.region.float().mean()):.1f} % of the picture",
    )
    write_bytes(task.target, picture_bytes(picture, suffix, {}), args.force)
    _, height, width = picture.shape
    print_result(task, f"{width} x {height}  {seconds:.2f} s")
