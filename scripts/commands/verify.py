"""``latentpress verify``: are these files whole?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from latentpress.scripts.codec_access import CodecShelf, add_machine_arguments
from latentpress.scripts.failures import run_each
from latentpress.scripts.file_io import STANDARD, read_bytes

if TYPE_CHECKING:
    from latentpress import Header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb.

    Args:
        parser: Its parser.
    """
    parser.add_argument("files", nargs="+", metavar="FILE", help="compressed file, or - for stdin")
    parser.add_argument(
        "--quick", action="store_true", help="check the container only: no weights, no torch, no symbols"
    )
    parser.add_argument("--codec", help="weights to use instead of those that each file names")
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Checks each file and prints a line for each that is whole.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """
    import latentpress
    from latentpress.codecs.field_description import inspect_blocks

    shelf = CodecShelf(args.codec, args)

    def verify(path: str) -> None:
        blocks = None if path == STANDARD else inspect_blocks(path)
        if blocks is not None:
            _verify_blocks(path, blocks, shelf, args.quick)
            return
        data = read_bytes(path)
        header = latentpress.inspect(data)
        if not args.quick:
            shelf.get(header).verify(data)
        what = "container" if args.quick else "container and symbols"
        print(f"{path}  ok ({what}, {len(data)} bytes)")

    return run_each(args.files, verify, debug=args.debug)


def _verify_blocks(path: str, header: Header, shelf: CodecShelf, quick: bool) -> None:
    """Checks a field in blocks, which may be of any size, piece by piece."""
    from latentpress.codecs.bitstream.container_file import check_payload, find_payload
    from latentpress.codecs.field import FieldCodec

    if quick:
        with open(path, "rb") as file:
            check_payload(file, find_payload(file))
    else:
        codec = shelf.get(header)
        if not isinstance(codec, FieldCodec):
            raise ValueError(f"{path} is a field, and these are weights of the codec {codec.name}")
        with codec.open(path) as field:
            field.verify()
    print(f"{path}  ok ({'container' if quick else 'container and symbols'}, {header.total_bytes} bytes)")
