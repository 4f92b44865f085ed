"""Whole folders: what is in them, what is still to be done, and saying what was done.

Nothing is done twice: `latentpress.scripts.batch_records` tells which outputs are there already. The work
itself is in `latentpress.scripts.batch_worker`, the processes in `latentpress.scripts.batch_pool`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from latentpress.scripts.batch_pool import default_threads, run_in_processes, run_on_cluster
from latentpress.scripts.batch_records import Item, Records, State
from latentpress.scripts.batch_worker import Outcome, Recipe, failed
from latentpress.scripts.codec_access import positive_int
from latentpress.scripts.failures import EXIT_FAILED, PictureError, UsageError, warn
from latentpress.scripts.file_io import STANDARD, Task, check_target, remove_abandoned
from latentpress.scripts.progress import Report, progress_bar

PICTURES = (
    *(".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""Suffixes of the files of a folder that are taken for pictures."""

Outcomes = Generator[Outcome, None, None]
Runner = Callable[[Recipe, Iterator[Item]], Outcomes]


@dataclass(frozen=True)
class Batch:
    """What a verb wants done with a folder.

    Attributes:
        verb: ``encode`` or ``decode``.
        folder: The folder of sources.
        suffixes: Lower-case suffixes of the files in it that are sources.
        suffix: Suffix of outputs, with its dot.
        codec: Shipped weights by name, others by absolute path; None for those that each stream names.
        fingerprint: Of these weights, hexadecimal.
        rate: Name of an argument of `Codec.compress` and its value.
        effort: 0 to 10.
    """

    verb: str
    folder: str
    suffixes: tuple[str, ...]
    suffix: str
    codec: str | None = None
    fingerprint: str | None = None
    rate: tuple[str, float] | None = None
    effort: int = 0


@dataclass
class Tally:
    """What became of the files so far.

    Attributes:
        total: How many files there are.
        made: How many were made.
        current: How many were up to date.
        size: Bytes of those that were made.
        failures: What became of the others.
    """

    total: int
    made: int = 0
    current: int = 0
    size: int = 0
    failures: list[Outcome] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many files need no more work."""
        return self.made + self.current + len(self.failures)


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that concern folders.

    Args:
        parser: The parser of a verb.
    """
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs", type=positive_int, metavar="N", help="of a folder: processes that work on it (default: 1)"
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a folder: Dask cluster that works on it (extra 'dask')"
    )


def is_batch(inputs: Sequence[str], args: argparse.Namespace) -> bool:
    """Tells whether a verb was given a folder.

    Args:
        inputs: Its inputs.
        args: Arguments, those of `add_batch_arguments` included.

    Returns:
        Whether the only input is a folder.

    Raises:
        UsageError: The arguments do not go together.
    """
    folders = [name for name in inputs if name != STANDARD and os.path.isdir(name)]
    if not folders:
        if args.jobs is not None or args.scheduler is not None:
            raise UsageError("--jobs and --scheduler need a folder as input")
        return False
    if len(inputs) > 1:
        raise UsageError(f"{folders[0]} is a folder, which has to be the only input")
    if args.output is not None:
        raise UsageError("-o names one file, but the input is a folder: use --out FOLDER")
    return True


def run_batch(batch: Batch, args: argparse.Namespace) -> int:
    """Makes every output of a folder that is not there yet or not up to date, and says so.

    Args:
        batch: What to do.
        args: Arguments of the verb.

    Returns:
        Exit code 0 if all outputs are there now, otherwise 1.

    Raises:
        PictureError: The folder holds nothing to work on.
        ValueError: The codec cannot be loaded.
        OSError: There is no cluster.
    """
    folder, out = batch.folder, args.out if args.out is not None else batch.folder
    threads = args.threads
    runner: Runner
    if args.scheduler is None:
        jobs = args.jobs or 1
        threads = threads or default_threads(jobs)

        def runner(recipe: Recipe, items: Iterator[Item]) -> Outcomes:
            return run_in_processes(recipe, items, jobs)
    else:
        # What is relative here is relative to something else on another machine.
        folder, out = os.path.abspath(folder), os.path.abspath(out)

        def runner(recipe: Recipe, items: Iterator[Item]) -> Outcomes:
            return run_on_cluster(recipe, items, args.scheduler)

    recipe = Recipe(
        batch.verb,
        out,
        batch.suffix,
        batch.codec,
        batch.fingerprint,
        batch.rate,
        effort=batch.effort,
        strip=args.strip,
        max_pixels=getattr(args, "max_pixels", None),
        device=args.device,
        threads=threads,
    )
    items, unread = find_items(folder, out, batch.suffixes, batch.suffix)
    if not items and not unread:
        raise PictureError(f"{folder} holds nothing to {batch.verb} ({', '.join(batch.suffixes)})")
    return run_items(recipe, items, unread, runner, force=args.force, debug=args.debug)


def find_items(
    folder: str, out: str, suffixes: Sequence[str], suffix: str
) -> tuple[list[Item], list[OSError]]:
    """Lists the sources in a folder and below it, and where the output for each goes.

    Hidden files and folders are left out, and links to folders are not followed.

    Args:
        folder: The folder of sources.
        out: The folder of outputs, which gets the same folders.
        suffixes: Lower-case suffixes of sources.
        suffix: Suffix of outputs.

    Returns:
        The sources in the order of their paths, and why folders could not be read.
    """
    unread: list[OSError] = []
    sources: list[PurePath] = []
    for place, folders, files in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = PurePath(os.path.relpath(place, folder))
        found = (below / name for name in sorted(files) if not name.startswith("."))
        sources += [path for path in found if path.suffix.lower() in suffixes]
    targets = name_outputs(sources, suffix)
    items = [
        Item(str(Path(folder, source)), str(Path(out, target)), target.as_posix())
        for source, target in zip(sources, targets, strict=True)
    ]
    return items, unread


def name_outputs(sources: Sequence[PurePath], suffix: str) -> list[PurePath]:
    """Gives every source an output of its own.

    The suffix is replaced. Sources that would share an output keep their suffix before the new one, whether
    or not the file system tells upper case from lower.

    Args:
        sources: Relative paths, all different.
        suffix: Suffix of outputs.

    Returns:
        Relative paths, all different.

    Example:
        >>> names = name_outputs([PurePath("a.jpg"), PurePath("a.png"), PurePath("b.png")], ".lpz")
        >>> [str(name) for name in names]
        ['a.jpg.lpz', 'a.png.lpz', 'b.lpz']
    """
    short = [source.with_suffix(suffix) for source in sources]
    full = [source.with_name(source.name + suffix) for source in sources]
    names = list(short)
    while True:
        counts = Counter(str(name).casefold() for name in names)
        # A long name may be the short one of somebody else, who then gives way too.
        shared = [k for k, name in enumerate(names) if counts[str(name).casefold()] > 1 and name != full[k]]
        if not shared:
            return names
        for k in shared:
            names[k] = full[k]


def run_items(
    recipe: Recipe,
    items: Sequence[Item],
    unread: Sequence[OSError],
    runner: Runner,
    force: bool = False,
    debug: bool = False,
) -> int:
    """Makes what is missing among the outputs and prints a line for each; errors and a summary at the end.

    Args:
        recipe: What is done with each source.
        items: Sources and outputs.
        unread: Why folders could not be read.
        runner: Does the work.
        force: Whether everything is made again, whatever is there.
        debug: Whether tracebacks are shown.

    Returns:
        Exit code 0 if all outputs are there now, otherwise 1.

    Raises:
        ValueError: The codec cannot be loaded.
    """
    start = time.perf_counter()
    places = sorted({os.path.dirname(item.target) for item in items})
    for place in places:
        remove_abandoned(place)
    tally = Tally(len(items))
    with (
        progress_bar(recipe.verb) as progress,
        closing(runner(recipe, _pending(recipe, items, tally, force, progress))) as outcomes,
    ):
        for outcome in outcomes:
            if outcome.hopeless:
                if debug:
                    print(outcome.trace, end="", file=sys.stderr)
                raise ValueError(outcome.error)
            _count(outcome, recipe.verb, tally)
            _show(tally, progress)
    for place in places:
        remove_abandoned(place)
    for error in unread:
        tally.failures.append(failed(Item(str(error.filename), "", ""), error))
    _print_failures(tally.failures, debug)
    seconds = time.perf_counter() - start
    print(
        f"{tally.made} made ({tally.size} bytes), {tally.current} up to date, {len(tally.failures)} failed"
        f"  {seconds:.2f} s"
    )
    return EXIT_FAILED if tally.failures else 0


def _pending(
    recipe: Recipe, items: Sequence[Item], tally: Tally, force: bool, progress: Report | None
) -> Iterator[Item]:
    """The items that need work, found while work goes on."""
    records = Records(recipe.out)
    for item in items:
        try:
            check_target(Task(item.source, item.target), force=True)
            state = State.MISSING if force else records.state(item, recipe.identity)
            if state is State.FOREIGN:
                raise FileExistsError(
                    f"{item.target} exists and was not made from this file: use --force to replace it"
                )
        except (OSError, UsageError) as error:
            tally.failures.append(failed(item, error))
        else:
            if state is not State.CURRENT:
                yield item
                continue
            tally.current += 1
            print(f"{item.target}  up to date")
        _show(tally, progress)


def _count(outcome: Outcome, verb: str, tally: Tally) -> None:
    for note in outcome.notes:
        warn(outcome.item.source, note)
    if outcome.error is not None:
        tally.failures.append(outcome)
        return
    tally.made += 1
    tally.size += outcome.size
    facts = f"{outcome.width} x {outcome.height}"
    if verb == "encode":
        facts = f"{outcome.size} bytes  {outcome.size * 8 / (outcome.width * outcome.height):.4f} bpp"
    print(f"{outcome.item.target}  {facts}  {outcome.seconds:.2f} s", flush=True)


def _show(tally: Tally, progress: Report | None) -> None:
    if progress is not None:
        progress(tally.done / tally.total, f"{tally.done} of {tally.total} files")


def _print_failures(failures: Sequence[Outcome], debug: bool) -> None:
    for outcome in failures:
        if outcome.unexpected or debug:
            print(outcome.trace, end="", file=sys.stderr)
        print(f"latentpress: error: {outcome.error}", file=sys.stderr)
