"""A process that codes symbols for another: requests come on its standard input, answers go to its output.

Started by :mod:`latentpress.codecs.coding_processes` and by nobody else: what is exchanged is pickled, which
is only for a process and those that it started itself. It ends when its input does, so with its parent at the
latest. No torch here: such a process is quick to start, and small.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from numpy.typing import NDArray

from latentpress.codecs.bitstream import StreamError, TableSet
from latentpress.codecs.symbol_coders import CodedPart, PartReader, SymbolGroup, write_part


class Worker:
    """What the other process may ask for; each method is a request.

    Example:
        >>> import numpy as np
        >>> worker = Worker()
        >>> worker.learn(b"key", TableSet([2**23, 2**22, 2**22], [3], [0]))
        >>> group = SymbolGroup(np.array([0, 1, 7], np.int16), np.zeros(3, np.uint8))
        >>> part = worker.write([group], b"key", b"")
        >>> worker.open(1, part, b"key", b"")
        >>> worker.get(1, group.indexes)
        array([0, 1, 7], dtype=int16)
        >>> worker.finish(1)
    """

    def __init__(self) -> None:
        self._tables: dict[bytes, TableSet] = {}
        self._readers: dict[int, PartReader | StreamError] = {}

    def learn(self, key: bytes, tables: TableSet) -> None:
        """Keeps tables for later requests."""
        self._tables[key] = tables

    def write(self, groups: Sequence[SymbolGroup], key: bytes, prefix: bytes) -> CodedPart:
        """Codes a part."""
        return write_part(groups, self._tables[key], prefix)

    def open(self, number: int, part: CodedPart, key: bytes, prefix: bytes) -> None:
        """Begins to decode a part, which later requests call by a number. They are told what is wrong."""
        try:
            self._readers[number] = PartReader(part, self._tables[key], prefix)
        except StreamError as error:
            self._readers[number] = error

    def get(self, number: int, indexes: NDArray[Any]) -> NDArray[Any]:
        """Decodes the next group of a part."""
        return _usable(self._readers[number]).get(indexes)

    def finish(self, number: int) -> None:
        """Checks the end of a part."""
        _usable(self._readers.pop(number)).finish()

    def forget(self, number: int) -> None:
        """Drops a part that nobody reads to its end."""
        self._readers.pop(number, None)


def _usable(reader: PartReader | StreamError) -> PartReader:
    if isinstance(reader, StreamError):
        raise reader
    return reader


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more.

    Args:
        requests: Pickled tuples of a method's name and its arguments.
        answers: For each a pickled pair: whether it succeeded, and its result or what it raised.
    """
    worker = Worker()
    while True:
        try:
            name, *arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = (True, getattr(worker, name)(*arguments))
        except Exception as error:
            answer = (False, error)
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


def main() -> None:
    """Serves on the standard streams, which nothing else may write to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)
