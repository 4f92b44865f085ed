"""What a folder of outputs remembers: which file was made from what, and how.

The records are lines of JSON in one hidden file of the output folder. A line is added *before* its file gets
its name, and holds a digest of the content. So whatever moment a process is killed at, a file that is
there has its record, and a record whose file never came matches nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from latentpress.codecs.whole_files import locked

RECORDS_NAME = ".latentpress-batch.jsonl"


class State(Enum):
    """What is there where an output belongs."""

    MISSING = "missing"
    CURRENT = "current"
    """Exactly what would be made again."""
    STALE = "stale"
    """Made from this source, but damaged since, or the source, the options or the weights are others now."""
    FOREIGN = "foreign"
    """Nothing that was made from this source."""


@dataclass(frozen=True)
class Item:
    """One file to make.

    Attributes:
        source: Path of the file to read.
        target: Path of the file to write.
        name: The target below the output folder, with slashes.
    """

    source: str
    target: str
    name: str


@dataclass(frozen=True)
class Record:
    """One output as it was made.

    Attributes:
        target: Its path below the output folder, with slashes.
        source: Absolute path of what it was made from.
        source_bytes: Size of the source then.
        source_mtime_ns: Its time of modification then.
        recipe: Everything else that decides the content.
        digest: Of the output, as `digest_of` makes it.
    """

    target: str
    source: str
    source_bytes: int
    source_mtime_ns: int
    recipe: str
    digest: str


class Records:
    """The records of an output folder, those that other processes add meanwhile included.

    Args:
        folder: The output folder, which need not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / RECORDS_NAME
        self._by_target: defaultdict[str, list[Record]] = defaultdict(list)
        self._offset = 0

    def state(self, item: Item, recipe: str) -> State:
        """Decides what an output is.

        Args:
            item: The output and its source.
            recipe: What decides the content besides the source.

        Returns:
            What is there.

        Raises:
            OSError: One of the two files cannot be read.
        """
        if not os.path.lexists(item.target):
            return State.MISSING
        digest = digest_of(Path(item.target).read_bytes())
        stat = os.stat(item.source)
        # After the file: its record was there before it, so it is there now.
        self._read_new()
        known = self._by_target[item.name]
        wanted = (stat.st_size, stat.st_mtime_ns, recipe, digest)
        # Of two runs at once either may have had the last word, so every record counts, not only the last.
        if any(wanted == (r.source_bytes, r.source_mtime_ns, r.recipe, r.digest) for r in known):
            return State.CURRENT
        absolute = os.path.abspath(item.source)
        return State.STALE if any(record.source == absolute for record in known) else State.FOREIGN

    def _read_new(self) -> None:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return
        # What has no end of line yet is still being written.
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.split(b"\n"):
            try:
                record = Record(**json.loads(line))
                self._by_target[record.target].append(record)
            except (ValueError, TypeError):  # an empty line, or one that a killed process did not finish
                continue


def add_record(folder: str | Path, record: Record) -> None:
    """Writes a record down; processes on one machine, or on a file system with locks, may do so at once.

    Args:
        folder: The output folder. It is made if it is missing.
        record: The record.

    Raises:
        OSError: It cannot be written.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    # The line break before it ends what a killed process may have left unfinished.
    line = b"\n" + json.dumps(asdict(record), separators=(",", ":")).encode("ascii") + b"\n"
    with open(Path(folder) / RECORDS_NAME, "ab", buffering=0) as file, locked(file.fileno()):
        written = file.write(line)
        if written != len(line):
            raise OSError(f"{file.name}: only {written} of {len(line)} bytes could be written")


def digest_of(content: bytes) -> str:
    """Fingerprint of a file's content.

    Args:
        content: The content.

    Returns:
        The first 128 bits of its SHA-256, hexadecimal.
    """
    return hashlib.sha256(content).hexdigest()[:32]
