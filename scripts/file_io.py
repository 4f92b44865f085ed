"""Reading and writing whole files: nothing is overwritten unasked, and nothing is left half written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from latentpress.codecs.whole_files import open_whole, remove_abandoned, write_whole
from latentpress.scripts.failures import UsageError

STANDARD = "-"


class Task(NamedTuple):
    """One file to read and the file to make of it.

    Attributes:
        source: Path, or ``-`` for stdin.
        target: Path, or ``-`` for stdout.
    """

    source: str
    target: str

    def __str__(self) -> str:
        """What errors are prefixed with."""
        return "standard input" if self.source == STANDARD else self.source


def plan(sources: Sequence[str], target: str | None, folder: str | None, suffix: str) -> list[Task]:
    """Decides where the result for each source goes: to `target`, into `folder`, or beside the source.

    Args:
        sources: Paths, or ``-``.
        target: The one output path, or ``-``; None for names made from the sources.
        folder: Folder for the outputs.
        suffix: Suffix of made names, with its dot.

    Returns:
        A task for each source.

    Raises:
        UsageError: Several sources would go to one target, or two of them to the same made name.

    Example:
        >>> [task.target for task in plan(["a/x.png", "b/y.jpg"], None, "out", ".lpz")]
        ['out/x.lpz', 'out/y.lpz']
    """
    if target is not None:
        if len(sources) > 1:
            raise UsageError(f"-o names one file, but there are {len(sources)} inputs: use --out FOLDER")
        return [Task(sources[0], target)]
    tasks: list[Task] = []
    for source in sources:
        if source == STANDARD:
            tasks.append(Task(source, STANDARD if folder is None else str(Path(folder) / f"stdin{suffix}")))
            continue
        path = Path(source)
        place = path.parent if folder is None else Path(folder)
        tasks.append(Task(source, str(place / f"{path.stem}{suffix}")))
    _refuse_collisions(tasks)
    return tasks


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Args:
        path: Path, or ``-`` for stdin.

    Returns:
        Its content.

    Raises:
        OSError: It cannot be read.
    """
    return sys.stdin.buffer.read() if path == STANDARD else Path(path).read_bytes()


def check_target(task: Task, force: bool) -> None:
    """Refuses a target before any work is done for it.

    Args:
        task: What is going to be read and written.
        force: Whether an existing file may be replaced.

    Raises:
        UsageError: Bytes would be written to a terminal, or the target is the source itself.
        FileExistsError: The target exists, and `force` is false.
        IsADirectoryError: The target is a folder.
    """
    if task.target == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("not writing bytes to a terminal: give -o FILE, or redirect the output")
        return
    path = Path(task.target)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: use --out to write into it")
    if (
        task.source != STANDARD
        and path.exists()
        and Path(task.source).exists()
        and path.samefile(task.source)
    ):
        raise UsageError(f"{path} is input and output at once")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists: use --force to replace it")


def clear_leftovers(tasks: Iterable[Task]) -> None:
    """Removes the unfinished files of runs that were killed, from the folders that will be written to.

    Args:
        tasks: What is going to be read and written.
    """
    for folder in {Path(task.target).parent for task in tasks if task.target != STANDARD}:
        remove_abandoned(folder)


def write_bytes(path: str, data: bytes, force: bool) -> None:
    """Writes a whole file at once: a reader sees the old content or the new one, never a part.

    Args:
        path: Path, or ``-`` for stdout. Missing folders are made.
        data: Content.
        force: Whether an existing file may be replaced.

    Raises:
        FileExistsError: The file exists, and `force` is false.
        OSError: It cannot be written; then nothing is left behind.
    """
    if path == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if Path(path).exists() and not force:
        raise FileExistsError(f"{path} exists: use --force to replace it")
    write_whole(path, data)


@contextmanager
def open_target(path: str, force: bool) -> Iterator[BinaryIO]:
    """Opens a file to be written piece by piece in a ``with`` block, with the promises of `write_bytes`.

    Args:
        path: Path, or ``-`` for stdout.
        force: Whether an existing file may be replaced.

    Yields:
        The file.

    Raises:
        FileExistsError: The file exists, and `force` is false.
        OSError: It cannot be written; then nothing is left behind.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(path).exists() and not force:
        raise FileExistsError(f"{path} exists: use --force to replace it")
    with open_whole(path) as file:
        yield file


def print_result(task: Task, text: str) -> None:
    """Prints the line that says what was made: to stdout, unless the bytes went there.

    Args:
        task: What was read and written.
        text: Facts about the result.
    """
    if task.target == STANDARD:
        print(f"standard output  {text}", file=sys.stderr)
    else:
        print(f"{task.target}  {text}")


def _refuse_collisions(tasks: Iterable[Task]) -> None:
    seen: dict[Path, str] = {}
    for task in tasks:
        if task.target == STANDARD:
            continue
        path = Path(task.target).absolute()
        if path in seen:
            raise UsageError(f"{seen[path]} and {task.source} would both be written to {task.target}")
        seen[path] = task.source
