"""Coders of symbols in other processes: the range coder holds Python's lock, so threads would not help.

::

    this process, a thread for each other:   groups -> queue -> pipe -> | coding_worker | -> pipe -> future

The processes are plain Python without torch. They are not forked, which does not go with GPUs, nor do they
run the main program anew, so calling programs need no guard. They wait for the next call, and end with this
process.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.symbol_coders import (
    CodedPart,
    InProcessCoders,
    SymbolCoders,
    SymbolGroup,
    SymbolReading,
)

MOST_USEFUL = 8
"""So many processes keep up with a GPU."""

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from latentpress.codecs.coding_worker import main; main()"
)


class _Process:
    """One of the processes, and the thread that talks to it."""

    def __init__(self) -> None:
        # In safe-path mode, what lies in the working folder is not imported by accident.
        command = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="latentpress-coding")
        self._known: set[bytes] = set()
        self._lock = threading.Lock()
        self.load = 0

    def ask(self, *request: Any) -> Future[Any]:
        """Sends a request after those before it; the future has the answer, or raises it."""
        self._add_load(1)
        future = self._thread.submit(self._exchange, request)
        future.add_done_callback(lambda _: self._add_load(-1))
        return future

    def key_of(self, tables: TableSet) -> bytes:
        """What the process knows tables by, which it has been told of."""
        key = tables.digest()
        if key not in self._known:
            self._known.add(key)
            self.ask("learn", key, tables)
        return key

    def close(self) -> None:
        """Ends the process, when it has answered what it was asked."""
        self._thread.shutdown(wait=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def _add_load(self, requests: int) -> None:
        with self._lock:
            self.load += requests

    def _exchange(self, request: tuple[Any, ...]) -> Any:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        try:
            pickle.dump(request, requests, protocol=pickle.HIGHEST_PROTOCOL)
            requests.flush()
            succeeded, answer = pickle.load(answers)
        except (OSError, EOFError) as error:
            raise RuntimeError("a process that codes symbols has ended unexpectedly") from error
        if not succeeded:
            raise answer
        return answer


class CodingProcesses:
    """Codes symbols in other processes.

    Args:
        count: How many.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> group = SymbolGroup(np.array([0, 1, 7], np.int16), np.zeros(3, np.uint8))
        >>> with CodingProcesses(1) as processes:
        ...     part = processes.write([group], tables, b"").result()
        ...     processes.read(part, tables, b"").get(group.indexes).result()
        array([0, 1, 7], dtype=int16)
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"there must be at least one process, got {count}")
        self._processes = [_Process() for _ in range(count)]
        self._numbers = itertools.count()

    def __enter__(self) -> CodingProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._processes)

    def write(self, groups: Sequence[SymbolGroup], tables: TableSet, prefix: bytes) -> Future[CodedPart]:
        """Codes a part."""
        process = min(self._processes, key=lambda process: process.load)
        return process.ask("write", groups, process.key_of(tables), prefix)

    def read(self, part: CodedPart, tables: TableSet, prefix: bytes) -> SymbolReading:
        """Begins to decode a part; what is wrong with it is said when its symbols are asked for."""
        number = next(self._numbers)
        process = self._processes[number % len(self._processes)]
        process.ask("open", number, part, process.key_of(tables), prefix)
        return _Reading(process, number)

    @property
    def are_alive(self) -> bool:
        """Whether all can still be asked."""
        return all(process.is_alive for process in self._processes)

    def close(self) -> None:
        """Ends the processes, when they are done with what they were asked."""
        for process in self._processes:
            process.close()


class _Reading:
    """A part that a process decodes."""

    def __init__(self, process: _Process, number: int) -> None:
        self._process = process
        self._number = number
        self._forget = weakref.finalize(self, _forget, process, number)
        self._forget.atexit = False

    def get(self, indexes: NDArray[np.uint8]) -> Future[NDArray[np.int16]]:
        return self._process.ask("get", self._number, indexes)

    def finish(self) -> Future[None]:
        self._forget.detach()
        return self._process.ask("finish", self._number)


def _forget(process: _Process, number: int) -> None:
    with suppress(RuntimeError):  # the process may be closed by then
        process.ask("forget", number)


def default_processes(device_type: str) -> int:
    """How many processes are worth their while.

    Args:
        device_type: Where the networks run. On a CPU they take far longer than the coders, and all cores.

    Example:
        >>> default_processes("cpu")
        0
    """
    known = getattr(os, "sched_getaffinity", None)
    cores = len(known(0)) if known is not None else os.cpu_count() or 1
    return 0 if device_type == "cpu" or cores < 3 else min(MOST_USEFUL, cores - 1)


def shared_coders(count: int) -> SymbolCoders:
    """Coders for whoever asks: in ``count`` processes, which stay for the next call; here for 0.

    Args:
        count: How many.

    Raises:
        ValueError: It is negative.
    """
    if count < 0:
        raise ValueError(f"processes must not be negative, got {count}")
    if count == 0:
        return InProcessCoders()
    with _lock:
        found = _shared.get(count)
        if found is None or not found.are_alive:
            found = _shared[count] = CodingProcesses(count)
        return found


def close_shared() -> None:
    """Ends the processes of :func:`shared_coders`. They are started again when they are needed."""
    with _lock:
        while _shared:
            _shared.popitem()[1].close()


def _disown_shared() -> None:
    """The processes belong to who started them, not to who was forked from it."""
    global _lock
    _lock = threading.Lock()
    _shared.clear()


_lock = threading.Lock()
_shared: dict[int, CodingProcesses] = {}
atexit.register(close_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_shared)
