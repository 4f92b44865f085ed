"""``latentpress info``: what is in compressed files, without decoding them and without torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
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
    import latentpress
    import latentpress.codecs
    from latentpress.codecs.field_description import inspect_blocks
    from latentpress.scripts.metadata_text import metadata_lines

    def show(path: str) -> None:
        # Of a field in blocks, which may be of any size, only the beginning is read.
        header = None if path == STANDARD else inspect_blocks(path)
        metadata: dict[str, str] = {}
        if header is None:
            data = read_bytes(path)
            header = latentpress.inspect(data)
            metadata = dict(metadata_lines(latentpress.codecs.read_metadata(data)))
        print(as_json(path, header, metadata) if args.json else as_text(path, header, metadata))

    return run_each(args.files, show, debug=args.debug)


def as_json(path: str, header: Header, metadata: Mapping[str, str] | None = None) -> str:
    """Puts a header into one line for programs.

    Args:
        path: Where it was read.
        header: The header.
        metadata: A line for each block of metadata.

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
            "metadata": dict(metadata or {}),
        }
    )


def as_text(path: str, header: Header, metadata: Mapping[str, str] | None = None) -> str:
    """Puts a header into lines for people.

    Args:
        path: Where it was read.
        header: The header.
        metadata: A line for each block of metadata.

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
    lines |= metadata or {}
    lines["sections"] = ", ".join(f"{section.name} {section.bytes}" for section in header.sections)
    wide = max(map(len, lines))
    return "\n".join([path, *(f"  {name.ljust(wide)}  {value}" for name, value in lines.items())])


def _number(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
