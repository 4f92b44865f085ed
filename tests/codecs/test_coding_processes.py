"""Coding in other processes: the same bytes and the same errors as here, and no process left behind."""

import gc
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from latentpress.codecs import coding_processes
from latentpress.codecs.bitstream import CorruptStream, StreamError, gaussian_tables
from latentpress.codecs.coding_processes import (
    CodingProcesses,
    close_shared,
    default_processes,
    shared_coders,
)
from latentpress.codecs.symbol_coders import InProcessCoders, SymbolGroup


@pytest.fixture(scope="module")
def tables():
    return gaussian_tables(np.array([0.3, 1.0, 4.0, 20.0]))


@pytest.fixture(scope="module")
def processes():
    with CodingProcesses(2) as found:
        yield found


def groups(seed: int, sizes=(100, 0, 3000, 1)) -> list[SymbolGroup]:
    random = np.random.default_rng(seed)
    return [
        SymbolGroup(
            random.normal(0, 5, size).round().astype(np.int16), random.integers(0, 4, size).astype(np.uint8)
        )
        for size in sizes
    ]


def read_all(reading, some) -> None:
    for group in some:
        reading.get(group.indexes).result()
    reading.finish().result()


def test_the_same_bytes(processes, tables):
    here = InProcessCoders()
    work = [groups(seed) for seed in range(20)]
    pending = [
        (processes.write(some, tables, bytes([number])), here.write(some, tables, bytes([number])))
        for number, some in enumerate(work)
    ]
    for there, expected in pending:
        assert there.result() == expected.result()


def test_reading(processes, tables):
    """Several parts at a time, each in its own order, with as many requests under way."""
    work = [groups(seed) for seed in range(5)]
    parts = [processes.write(some, tables, b"p").result() for some in work]
    readings = [processes.read(part, tables, b"p") for part in parts]
    for step in range(4):
        pending = [reading.get(some[step].indexes) for reading, some in zip(readings, work, strict=True)]
        for found, some in zip(pending, work, strict=True):
            assert found.result().dtype == np.int16
            assert np.array_equal(found.result(), some[step].symbols)
    for reading in readings:
        assert reading.finish().result() is None


def test_errors_are_those_of_the_reader(processes, tables):
    some = groups(1)
    part = processes.write(some, tables, b"").result()
    for damaged in (
        part._replace(data=part.data[:-1]),
        part._replace(data=part.data[:100]),
        part._replace(data=b""),
        part._replace(checksum=part.checksum ^ 1),
    ):
        with pytest.raises(StreamError):
            read_all(processes.read(damaged, tables, b""), some)
    with pytest.raises(CorruptStream):
        processes.read(part._replace(data=b"abc"), tables, b"").finish().result()
    # And the processes are as they were.
    assert processes.write(some, tables, b"").result() == part


def test_abandoned_parts_are_forgotten(tables):
    with CodingProcesses(1) as processes:
        process = processes._processes[0]
        part = processes.write(groups(1), tables, b"").result()
        reading = processes.read(part, tables, b"")
        reading.get(groups(1)[0].indexes).result()
        number = reading._number
        del reading
        gc.collect()
        with pytest.raises(KeyError):
            process.ask("get", number, groups(1)[0].indexes).result()


def test_a_process_that_dies(tables):
    with CodingProcesses(1) as processes:
        part = processes.write(groups(1), tables, b"").result()
        processes._processes[0]._process.kill()
        with pytest.raises(RuntimeError, match="ended unexpectedly"):
            processes.write(groups(1), tables, b"").result()
        deadline = time.monotonic() + 60
        while processes.are_alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not processes.are_alive
    assert part.data


class TestShared:
    @pytest.fixture(autouse=True)
    def ended(self):
        yield
        close_shared()

    def test_none(self):
        assert isinstance(shared_coders(0), InProcessCoders)
        with pytest.raises(ValueError, match="negative, got -1"):
            shared_coders(-1)

    def test_stay_until_they_are_dead(self, tables):
        first = shared_coders(1)
        assert shared_coders(1) is first
        first.write(groups(0), tables, b"").result()
        first._processes[0]._process.kill()
        first._processes[0]._process.wait()
        second = shared_coders(1)
        assert second is not first
        second.write(groups(0), tables, b"").result()
        first.close()

    def test_forked_processes_have_none(self):
        shared_coders(1)
        child = os.fork()
        if not child:
            os._exit(int(bool(coding_processes._shared)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert coding_processes._shared

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_default(self, device):
        assert 0 <= default_processes(device) <= coding_processes.MOST_USEFUL


PROGRAM = """
import numpy as np
from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.coding_processes import shared_coders
from latentpress.codecs.symbol_coders import SymbolGroup
tables = TableSet([2**23, 2**22, 2**22], [3], [0])
group = SymbolGroup(np.array([0, 1, 7], np.int16), np.zeros(3, np.uint8))
coders = shared_coders(2)
print(coders.write([group], tables, b"").result().data.hex())
print(*(process._process.pid for process in coders._processes))
"""


def test_a_program_needs_no_guard_and_leaves_nothing(tmp_path):
    """Warnings are errors there, and a process that is not waited for is one."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "error", "program.py"]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stderr) == (0, "")
    words, pids = done.stdout.splitlines()
    assert words == "0000305f"
    for pid in map(int, pids.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
