"""``latentpress verify``: are these files whole?"""

from __future__ import annotations

import argparse

from latentpress.scripts.codec_access import CodecShelf, add_machine_arguments
from latentpress.scripts.failures import run_each
from latentpress.scripts.file_io import read_bytes


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

    shelf = CodecShelf(args.codec, args)

    def verify(path: str) -> None:
        data = read_bytes(path)
        header = latentpress.inspect(data)
        if not args.quick:
            shelf.get(header).verify(data)
        what = "container" if args.quick else "container and symbols"
        print(f"{path}  ok ({what}, {len(data)} bytes)")

    return run_each(args.files, verify, debug=args.debug)
