"""What a worker process does with one file of a folder, here or on another machine.

Nothing but names and options comes to it: it loads the codec itself, once, and keeps it.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING

from latentpress.scripts.batch_records import Item, Record, add_record, digest_of
from latentpress.scripts.codec_access import effort_option, open_codec
from latentpress.scripts.failures import EXIT_FAILED, describe, exit_code
from latentpress.scripts.file_io import write_bytes

if TYPE_CHECKING:
    from latentpress import Codec

# Pillow's limits and torch's threads belong to the process, and Dask may give a worker several tasks at once.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Recipe:
    """What is done with every file.

    Attributes:
        verb: ``encode`` or ``decode``.
        out: The output folder, where records are kept.
        codec: Weights by name or path; None for those that each stream names.
        fingerprint: Of these weights, hexadecimal; None where each stream names its own.
        rate: Name of an argument of `Codec.compress` and its value.
        effort: 0 to 10.
        suffix: Suffix of outputs, with its dot.
        strip: Whether colour profile, EXIF and XMP are left out.
        max_pixels: Larger pictures are refused when decoding; None for the usual limit.
        device: Where networks run.
        threads: CPU threads of a process; None for as many as Dask gave the worker.
    """

    verb: str
    out: str
    suffix: str
    codec: str | None = None
    fingerprint: str | None = None
    rate: tuple[str, float] | None = None
    effort: int = 0
    strip: bool = False
    max_pixels: int | None = None
    device: str = "cpu"
    threads: int | None = None

    @property
    def identity(self) -> str:
        """Everything that decides the content of an output, besides its source.

        Example:
            >>> Recipe("encode", "out", ".lpz", "image", "00ff", ("quality", 50.0)).identity
            'encode .lpz 00ff quality=50.0'
        """
        words = [self.verb, self.suffix]
        if self.fingerprint is not None:
            words.append(self.fingerprint)
        if self.rate is not None:
            words.append(f"{self.rate[0]}={self.rate[1]!r}")
        if self.effort:
            words.append(f"effort={self.effort}")
        return " ".join([*words, *(["strip"] if self.strip else [])])


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        content: Of the file.
        width: Pixels.
        height: Pixels.
        seconds: Time that the codec took.
    """

    content: bytes
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Attributes:
        item: The item.
        size: Bytes that were written.
        width: Pixels.
        height: Pixels.
        seconds: Time that the codec took.
        notes: Warnings.
        error: One line that says why there is no file; None if there is.
        trace: The traceback of that.
        unexpected: Whether it is a mistake in the program.
        hopeless: Whether it would be the same for every item.
    """

    item: Item
    size: int = 0
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None
    trace: str = ""
    unexpected: bool = False
    hopeless: bool = False


class _NoCodec(Exception):
    """The codec that every file needs cannot be loaded."""


def start_worker() -> None:
    """Prepares a process: it ends when its parent does, and Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def work(recipe: Recipe, item: Item) -> Outcome:
    """Makes one file. It is there whole or not at all, and its record before it.

    Args:
        recipe: What to do.
        item: With which file.

    Returns:
        What became of it; errors are in there too.
    """
    notes: list[str] = []
    try:
        with _one_at_a_time:
            made = _make(recipe, item, notes)
    except _NoCodec as error:
        return failed(item, error.args[0], notes, hopeless=True)
    except Exception as error:
        return failed(item, error, notes)
    return Outcome(item, len(made.content), made.width, made.height, made.seconds, tuple(notes))


def failed(item: Item, error: Exception, notes: list[str] | None = None, hopeless: bool = False) -> Outcome:
    """Puts an error into a form that can be sent and printed.

    Args:
        item: What failed.
        error: Why.
        notes: Warnings until then.
        hopeless: Whether it would be the same for every item.

    Returns:
        The outcome.
    """
    unexpected = exit_code(error) is None
    text = describe(error, None if hopeless else item.source)
    if unexpected:
        text = f"{item.source}: {type(error).__name__}: {describe(error)}"
    trace = "".join(traceback.format_exception(error))
    return Outcome(
        item, notes=tuple(notes or ()), error=text, trace=trace, unexpected=unexpected, hopeless=hopeless
    )


def _make(recipe: Recipe, item: Item, notes: list[str]) -> Made:
    with open(item.source, "rb") as file:
        # Asked before reading: if the file changes while it is read, the record no longer fits it.
        stat = os.fstat(file.fileno())
        content = file.read()
    made = (_encode if recipe.verb == "encode" else _decode)(recipe, content, notes)
    source = os.path.abspath(item.source)
    digest = digest_of(made.content)
    record = Record(item.name, source, stat.st_size, stat.st_mtime_ns, recipe.identity, digest)
    add_record(recipe.out, record)
    write_bytes(item.target, made.content, force=True)
    return made


def _encode(recipe: Recipe, content: bytes, notes: list[str]) -> Made:
    from latentpress.scripts.pictures import read_picture

    assert recipe.codec is not None
    assert recipe.rate is not None
    codec = _codec_for_all(recipe, recipe.codec)
    picture = read_picture(content)
    notes += picture.notes
    options: dict[str, object] = {recipe.rate[0]: recipe.rate[1], **effort_option(recipe.effort)}
    if picture.metadata and not recipe.strip:
        options["metadata"] = picture.metadata
    _, height, width = picture.pixels.shape
    start = time.perf_counter()
    data = codec.compress(picture.pixels, **options)
    return Made(data, width, height, time.perf_counter() - start)


def _decode(recipe: Recipe, content: bytes, notes: list[str]) -> Made:
    import latentpress
    from latentpress.codecs import read_metadata
    from latentpress.codecs.registry import weights_for
    from latentpress.scripts.pictures import picture_file

    limits = latentpress.Limits()
    if recipe.max_pixels is not None:
        limits = latentpress.Limits(max_pixels=recipe.max_pixels)
    header = latentpress.inspect(content, limits)
    name = weights_for(header) if recipe.codec is None else recipe.codec
    codec = _codec(name, header.fingerprint, recipe.device, _threads(recipe))
    start = time.perf_counter()
    pixels = codec.decompress(content, limits=limits)
    seconds = time.perf_counter() - start
    metadata = {} if recipe.strip else read_metadata(content)
    _, height, width = pixels.shape
    file = picture_file(pixels, recipe.suffix, metadata)
    notes += file.notes
    return Made(file.data, width, height, seconds)


def _codec_for_all(recipe: Recipe, name: str) -> Codec:
    assert recipe.fingerprint is not None
    try:
        codec = _codec(name, recipe.fingerprint, recipe.device, _threads(recipe))
        if codec.fingerprint.hex() != recipe.fingerprint:
            raise ValueError(
                f"'{name}' has the fingerprint {codec.fingerprint.hex()} where it is used and "
                f"{recipe.fingerprint} where the command was given"
            )
    except Exception as error:
        raise _NoCodec(error) from error
    return codec


@functools.lru_cache(maxsize=2)
def _codec(name: str, fingerprint: str, device: str, threads: int) -> Codec:
    """Loads a codec; by fingerprint too, because a file may change while a worker waits for its next task."""
    return open_codec(name, argparse.Namespace(device=device, threads=threads))


def _threads(recipe: Recipe) -> int:
    import torch

    threads = recipe.threads
    if threads is None:
        from distributed import get_worker

        threads = get_worker().state.nthreads
    # Torch keeps the number by thread, and Dask runs tasks in several.
    torch.set_num_threads(threads)
    return threads


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(EXIT_FAILED)
