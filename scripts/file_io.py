"""Reading and writing whole files: nothing is overwritten unasked, and nothing is left half written."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from latentpress.scripts.failures import UsageError

try:
    import fcntl
except ImportError:  # not a POSIX system: files are written without locks there
    fcntl = None  # type: ignore[assignment]

STANDARD = "-"
_PART_PREFIX = ".latentpress-"
_PART_SUFFIX = ".part"
_HAS_LOCKS: bool = fcntl is not None
_umask = threading.Lock()


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
    # A link stays a link: what it points to is replaced.
    final = Path(path).resolve()
    if final.exists() and not force:
        raise FileExistsError(f"{path} exists: use --force to replace it")
    try:
        if final.exists() and not final.is_file():
            # A device or a pipe is written to; renaming a file over it would remove it.
            final.write_bytes(data)
        else:
            _replace(final, data)
    except OSError as error:
        # What the user named, not the temporary file.
        raise OSError(error.errno, error.strerror or str(error), path) from error


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


def remove_abandoned(folder: str | Path) -> int:
    """Removes the unfinished files of processes that have ended.

    A process that writes a file holds a lock on it, which ends with the process. So a file that can be locked
    has no owner any more. Nothing is removed where there are no locks.

    Args:
        folder: Where to look, not below it. It need not exist.

    Returns:
        How many there were.
    """
    if not _HAS_LOCKS:
        return 0
    count = 0
    for path in Path(folder).glob(f"{_PART_PREFIX}*{_PART_SUFFIX}"):
        # Somebody else may be quicker, may own it, or may not share it with us: all that is no error.
        with suppress(OSError), open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            count += 1
    return count


@contextmanager
def locked(handle: int) -> Iterator[None]:
    """Waits for a lock on an open file and holds it for the time of a ``with`` block.

    Args:
        handle: The open file. Where it cannot be locked, the block runs without.

    Yields:
        Nothing.
    """
    if not _HAS_LOCKS:
        yield
        return
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)


def _replace(final: Path, data: bytes) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    file, temporary = _open_part(final.parent)
    try:
        with file:
            file.write(data)
            file.flush()
            os.chmod(temporary, _usual_mode())
            if _HAS_LOCKS:
                os.replace(temporary, final)  # still locked, so nobody takes it for abandoned
        if not _HAS_LOCKS:
            os.replace(temporary, final)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _open_part(folder: Path) -> tuple[BinaryIO, str]:
    """Makes a locked temporary file; see `remove_abandoned`."""
    while True:
        handle, path = tempfile.mkstemp(prefix=_PART_PREFIX, suffix=_PART_SUFFIX, dir=folder)
        # Between making and locking it, a cleaning process may have taken it for abandoned.
        if _try_lock(handle) and os.path.exists(path):
            return os.fdopen(handle, "wb"), path
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """False if somebody else holds the lock; True if we do, or if there are no locks here."""
    if _HAS_LOCKS:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _usual_mode() -> int:
    """Permissions of a file made with ``open``; temporary files are readable by their owner alone."""
    with _umask:  # which belongs to the process, and can only be read by setting it
        mask = os.umask(0)
        os.umask(mask)
    return 0o666 & ~mask


def _refuse_collisions(tasks: Iterable[Task]) -> None:
    seen: dict[Path, str] = {}
    for task in tasks:
        if task.target == STANDARD:
            continue
        path = Path(task.target).absolute()
        if path in seen:
            raise UsageError(f"{seen[path]} and {task.source} would both be written to {task.target}")
        seen[path] = task.source
