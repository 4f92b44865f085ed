"""A progress bar on stderr while somebody watches, and nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[float, str], None]


@contextmanager
def progress_bar(title: str) -> Iterator[Report | None]:
    """Shows a progress bar for the time of a ``with`` block.

    Args:
        title: What is being worked on.

    Yields:
        A function of the finished fraction in [0, 1] and the name of the current stage, as codecs take it;
        None if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    # rich takes longer to import than most verbs take to run.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[title]}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False),
        TimeRemainingColumn(),
    )
    # Lines printed meanwhile go above the bar, but only if they too would appear on the terminal.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("", total=1.0, title=title)

        def show(fraction: float, stage: str) -> None:
            bar.update(task, completed=fraction, description=stage)

        yield show
