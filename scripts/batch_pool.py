"""Runs the work on many files in processes of this machine or of a Dask cluster.

A file whose process dies, for want of memory or by a fault in a library, fails alone: all that were being
worked on then are tried again, each in a process of its own, and only one that kills that too has failed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from latentpress.scripts.batch_records import Item
from latentpress.scripts.batch_worker import Outcome, Recipe, failed, start_worker, work

# So many files a process are under way or wait, so that none idles while results are printed.
_AHEAD = 2


def run_in_processes(recipe: Recipe, items: Iterator[Item], jobs: int) -> Generator[Outcome, None, None]:
    """Works on files in processes of this machine.

    Args:
        recipe: What is done with each.
        items: The files; they are taken when there is somebody to work on them.
        jobs: How many processes.

    Yields:
        What became of each file, in the order in which they are finished.
    """
    suspects: list[Item] = []
    while True:
        lost = yield from _drain(_local_pool(jobs), jobs * _AHEAD, recipe, items)
        if not lost:
            break
        suspects += lost
    for item in suspects:
        if (yield from _drain(_local_pool(1), 1, recipe, iter([item]))):
            yield failed(item, OSError(f"{item.source}: the process that worked on it ended unexpectedly"))


def run_on_cluster(recipe: Recipe, items: Iterator[Item], address: str) -> Generator[Outcome, None, None]:
    """Works on files in the workers of a Dask cluster, which must see them under the same paths.

    Args:
        recipe: What is done with each.
        items: The files.
        address: Of the scheduler.

    Yields:
        What became of each file, in the order in which they are finished.

    Raises:
        ModuleNotFoundError: The extra ``dask`` is not installed.
        OSError: There is no scheduler, or it has no workers.
    """
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        places = sum(client.nthreads().values())
        if not places:
            raise OSError(f"the scheduler {address} has no workers")
        # Dask itself gives a task to another worker when one dies, a few times.
        lost = yield from _drain(client.get_executor(pure=False), places * _AHEAD, recipe, items)
    for item in lost:
        yield failed(item, OSError(f"{item.source}: the cluster lost it"))


def default_threads(jobs: int) -> int:
    """Shares the processor among processes.

    Args:
        jobs: How many processes there are.

    Returns:
        Threads for each, at least one.
    """
    known = getattr(os, "sched_getaffinity", None)
    cores = len(known(0)) if known is not None else os.cpu_count() or 1
    return max(1, cores // jobs)


def _local_pool(jobs: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a process that is forked while torch has threads may never end.
    return ProcessPoolExecutor(jobs, get_context("spawn"), start_worker)


def _drain(
    pool: Executor, width: int, recipe: Recipe, items: Iterator[Item]
) -> Generator[Outcome, None, list[Item]]:
    """Keeps a pool busy until there are no more items, or until it breaks; returns what it then had."""
    running: dict[Future[Outcome], Item] = {}
    lost: list[Item] = []
    try:
        while True:
            while len(running) < width and not lost and (item := next(items, None)) is not None:
                try:
                    running[pool.submit(work, recipe, item)] = item
                except BrokenExecutor:
                    lost.append(item)
            if not running:
                return lost
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenExecutor:
                    lost.append(item)
                except Exception as error:
                    yield failed(item, error)
                else:
                    yield outcome
    finally:
        # What is being worked on is finished, what waits is not begun.
        for future in running:
            future.cancel()
        pool.shutdown(wait=True)
