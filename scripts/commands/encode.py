"""``latentpress encode``: pictures, fields and shapes to compressed files."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.scripts.batch import PICTURES, Batch, add_batch_arguments, is_batch, run_batch
from latentpress.scripts.codec_access import (
    add_machine_arguments,
    check_options,
    effort,
    effort_option,
    open_codec,
    positive_float,
    positive_int,
    quality,
    tile_size,
)
from latentpress.scripts.failures import run_each, warn
from latentpress.scripts.field_files import add_encode_arguments, encode_field
from latentpress.scripts.fields import add_selection_arguments, is_field
from latentpress.scripts.file_io import (
    STANDARD,
    Task,
    check_target,
    clear_leftovers,
    plan,
    print_result,
    read_bytes,
    write_bytes,
)
from latentpress.scripts.progress import progress_bar
from latentpress.scripts.shape_files import encode_shape, is_shape

if TYPE_CHECKING:
    from latentpress import Codec

SUFFIX = ".lpz"
DEFAULT_QUALITY = 50.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb.

    Args:
        parser: Its parser.
    """
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="file of a picture, a field or a mesh, or - for a picture on stdin, or one folder of pictures",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", dest="output", metavar="FILE", help="output file, or - for stdout")
    where.add_argument(
        "--out", metavar="FOLDER", help="folder for the outputs (default: beside each picture)"
    )
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--quality", type=quality, metavar="Q", help="0 to 100 (default: 50)")
    rate.add_argument("--bytes", type=positive_int, metavar="N", help="size of each file, bytes")
    rate.add_argument("--bpp", type=positive_float, metavar="R", help="size of each file, bits per pixel")
    rate.add_argument("--psnr", type=positive_float, metavar="D", help="PSNR of each picture, dB")
    rate.add_argument("--max-error", type=positive_float, metavar="E", help="bound on every value of a field")
    rate.add_argument(
        "--relative-error",
        type=positive_float,
        metavar="E",
        help="the same over the field's range",
    )
    parser.add_argument(
        "--codec",
        help="weights, by name or .safetensors path (default: image, field or shape, as the file is)",
    )
    parser.add_argument(
        "--packets",
        type=positive_int,
        default=1,
        metavar="N",
        help="divide each file into N packets, some of which may get lost (codec index)",
    )
    parser.add_argument(
        "--effort",
        type=effort,
        default=0,
        metavar="N",
        help="0 to 10: time spent on making each file smaller or better (default: 0)",
    )
    parser.add_argument(
        "--tile-size",
        type=tile_size,
        metavar="N",
        help="side of tiles in pixels, a multiple of 64; 0 for none (default: 512 for large pictures)",
    )
    parser.add_argument("--strip", action="store_true", help="leave out colour profile, EXIF and XMP")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument(
        "--mode",
        choices=("auto", "generator", "polygons"),
        help="of meshes with --bytes: how to code them (default: auto, whichever is better)",
    )
    fields = parser.add_argument_group("of fields")
    add_encode_arguments(fields)
    add_selection_arguments(fields)
    add_batch_arguments(parser)
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compresses each picture or shape and prints a line for it: path, bytes, bits per pixel, seconds.

    Of a folder, only what is not there yet or not up to date.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """
    # A zarr store is a folder, and one field.
    if not any(map(is_field, args.pictures)) and is_batch(args.pictures, args):
        return run_batch(_batch(args), args)
    tasks = plan(args.pictures, args.output, args.out, SUFFIX)
    clear_leftovers(tasks)
    codecs: dict[str, Codec] = {}

    def encode(task: Task) -> None:
        check_target(task, args.force)
        family = _family_of(task.source)
        if family not in codecs:
            codecs[family] = _codec(family, args)
        _ENCODERS[family](task, codecs[family], args)

    return run_each(tasks, encode, debug=args.debug)


def rate_options(args: argparse.Namespace) -> dict[str, Any]:
    """Translates the rate arguments.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        Keyword arguments for `Codec.compress`.
    """
    options = {
        "quality": args.quality,
        "target_bytes": args.bytes,
        "target_bpp": args.bpp,
        "target_psnr": args.psnr,
    }
    return {name: value for name, value in options.items() if value is not None}


def _family_of(source: str) -> str:
    """What a file holds, by its name; a picture unless it says otherwise."""
    if is_field(source):
        return "field"
    return "shape" if is_shape(source) else "image"


def _codec(family: str, args: argparse.Namespace) -> Codec:
    """The codec of the weights that were named, or those that the family ships."""
    from latentpress.codecs import available

    if args.codec is None and family == "field" and family not in available():
        # Bounds on the error need no weights.
        from latentpress.codecs.field import FieldCodec

        return FieldCodec()
    return open_codec(args.codec or family, args)


def _batch(args: argparse.Namespace) -> Batch:
    from latentpress.codecs.weights import read_weight_file, shipped_weights

    chosen = args.codec or "image"
    shipped = shipped_weights().get(chosen)
    if shipped is None and Path(chosen).suffix != ".safetensors":
        raise ValueError(f"unknown codec '{chosen}'")
    fingerprint = read_weight_file(shipped or chosen).fingerprint().hex()
    name, value = next(iter(rate_options(args).items()), ("quality", DEFAULT_QUALITY))
    # Streams hold tenths, so what rounds to the same makes the same stream.
    rate = (name, round(value, 1) if name == "quality" else value)
    codec = chosen if shipped else str(Path(chosen).absolute())
    return Batch("encode", args.pictures[0], PICTURES, SUFFIX, codec, fingerprint, rate, args.effort)


def _encode(task: Task, codec: Codec, args: argparse.Namespace) -> None:
    from latentpress.scripts.pictures import read_picture

    picture = read_picture(read_bytes(STANDARD) if task.source == STANDARD else Path(task.source))
    for note in picture.notes:
        warn(str(task), note)
    options = {**rate_options(args), **effort_option(args.effort)}
    if args.packets > 1:
        options["packets"] = args.packets
    if args.tile_size is not None:
        options["tile_size"] = args.tile_size
    check_options(codec, options)
    if picture.metadata and not args.strip:
        options["metadata"] = picture.metadata
    start = time.perf_counter()
    with progress_bar(str(task)) as progress:
        data = codec.compress(picture.pixels, progress=progress, **options)
    seconds = time.perf_counter() - start
    write_bytes(task.target, data, args.force)
    _, height, width = picture.pixels.shape
    bpp = len(data) * 8 / (height * width)
    print_result(task, f"{len(data)} bytes  {bpp:.4f} bpp  {seconds:.2f} s")


_ENCODERS = {"image": _encode, "field": encode_field, "shape": encode_shape}
