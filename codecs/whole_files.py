"""Files that are written whole or not at all, whenever a program ends.

Content goes to a temporary file in the same folder, which is renamed when it is complete: who looks at the
final name finds the old content or the new one, never a part.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not a POSIX system: files are written without locks there
    fcntl = None  # type: ignore[assignment]

_PART_PREFIX = ".latentpress-"
_PART_SUFFIX = ".part"
_HAS_LOCKS: bool = fcntl is not None
_umask = threading.Lock()


def write_whole(path: str | Path, data: bytes) -> None:
    """Writes a file, or replaces it.

    Args:
        path: Where. Missing folders are made; a link stays one, and what it points to is replaced.
        data: Content.

    Raises:
        OSError: It cannot be written; then nothing is left behind.
    """
    with open_whole(path) as file:
        file.write(data)


@contextmanager
def open_whole(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file to be written, or replaced, piece by piece in a ``with`` block.

    Args:
        path: As for :func:`write_whole`.

    Yields:
        The file, which can be sought in. It has its name when the block ends; if that raises, nothing is left
        behind.

    Raises:
        OSError: It cannot be written.
    """
    with _blaming(path):
        final = Path(path).resolve()
        is_special = final.exists() and not final.is_file()
    if is_special:
        # A device or a pipe is written to; renaming a file over it would remove it.
        with _blaming(path), open(final, "wb") as special:
            yield special
        return
    with _blaming(path):
        final.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = _open_part(final.parent)
    try:
        with file:
            # What the block raises may be about other files; what writing raises names none.
            with _blaming(path, unnamed_only=True):
                yield file
            with _blaming(path):
                file.flush()
                os.chmod(temporary, _usual_mode())
                if _HAS_LOCKS:
                    os.replace(temporary, final)  # still locked, so nobody takes it for abandoned
        if not _HAS_LOCKS:
            with _blaming(path):
                os.replace(temporary, final)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


@contextmanager
def _blaming(path: str | Path, unnamed_only: bool = False) -> Iterator[None]:
    """Makes errors say what was asked for, not the temporary file."""
    try:
        yield
    except OSError as error:
        if unnamed_only and error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


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
