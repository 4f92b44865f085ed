"""``latentpress info``: what is in compressed files, without decoding them and without torch."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

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
    parser.add_argument("--json", action="store_true", help="print one JSON object a file, each on its line")


def run(args: argparse.Namespace) -> int:
    """Prints what each file says about itself.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """

    def show(path: str) -> None:
        header = inspect_file(path)
        print(as_json(path, header) if args.json else as_text(path, header))

    return run_each(args.files, show, debug=args.debug)


def inspect_file(path: str) -> Header:
    """What a file says of itself; of a field in blocks, which may be of any size, only the beginning is read.

    Args:
        path: Path, or ``-`` for stdin.

    Raises:
        StreamError: The file is damaged.
        OSError: It cannot be read.
    """
    import latentpress
    from latentpress.codecs.field_description import inspect_blocks

    blocks = None if path == STANDARD else inspect_blocks(path)
    return latentpress.inspect(read_bytes(path)) if blocks is None else blocks


def as_json(path: str, header: Header) -> str:
    """Puts a header into one line for programs.

    Args:
        path: Where it was read.
        header: The header.

    Returns:
        A JSON object.
    """
    return json.dumps(
        {
            "file": path,
            "codec": header.codec,
            "codec_id": int(header.codec_id),
            "version": header.version,
            "fingerprint": header.fingerprint,
            "total_bytes": header.total_bytes,
            "overhead_bytes": header.overhead_bytes,
            "sections": [{"name": section.name, "bytes": section.bytes} for section in header.sections],
            "parameters": dict(header.parameters),
        }
    )


def as_text(path: str, header: Header) -> str:
    """Puts a header into lines for people.

    Args:
        path: Where it was read.
        header: The header.

    Returns:
        Lines without an end of line after the last.
    """
    lines = {
        "codec": f"{header.codec} (format version {header.version})",
        "weights": header.fingerprint,
        "bytes": f"{header.total_bytes}, of which {header.overhead_bytes} container",
    }
    width, height = header.parameters.get("width"), header.parameters.get("height")
    if isinstance(width, int) and isinstance(height, int):
        lines["bpp"] = f"{header.total_bytes * 8 / (width * height):.4f}"
    lines |= {name: _number(value) for name, value in header.parameters.items()}
    lines["sections"] = ", ".join(f"{section.name} {section.bytes}" for section in header.sections)
    wide = max(map(len, lines))
    return "\n".join([path, *(f"  {name.ljust(wide)}  {value}" for name, value in lines.items())])


def _number(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
