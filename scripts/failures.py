"""What the command says when something goes wrong, and which exit code that is."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

EXIT_FAILED = 1
EXIT_USAGE = 2

# Packages that come with an extra of the library: import name -> extra.
EXTRAS = {
    "compressai": "train",
    "dask": "field",
    "distributed": "dask",
    "fast_simplification": "shape",
    "h5netcdf": "field",
    "h5py": "field",
    "huggingface_hub": "hub",
    "igl": "shape",
    "jsonargparse": "train",
    "lightning": "train",
    "matplotlib": "demo",
    "numcodecs": "field",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pytorch_msssim": "demo",
    "scipy": "demo",
    "skimage": "demo",
    "starlette": "view",
    "timm": "train",
    "torchmetrics": "train",
    "torchvision": "train",
    "trimesh": "shape",
    "uvicorn": "view",
    "xarray": "field",
    "zarr": "field",
}

Item = TypeVar("Item")


class UsageError(Exception):
    """The arguments make no sense together; the command ends with exit code 2."""


class PictureError(Exception):
    """A file is no picture, or one that cannot be compressed."""


def exit_code(error: Exception) -> int | None:
    """Says whether an error is one a user can cause.

    Args:
        error: What was raised.

    Returns:
        The exit code, or None for a mistake in the program, which deserves its traceback.
    """
    if isinstance(error, UsageError):
        return EXIT_USAGE
    expected = (PictureError, OSError, ValueError, TypeError, MemoryError)
    if isinstance(error, expected) or _is_stream_error(error) or _is_out_of_memory(error):
        return EXIT_FAILED
    if isinstance(error, ModuleNotFoundError) and _extra(error) is not None:
        return EXIT_FAILED
    return None


def describe(error: Exception, subject: str | None = None) -> str:
    """Puts an error into one line.

    Args:
        error: What was raised.
        subject: What it happened to, usually a path.

    Returns:
        One line without the program's name.

    Example:
        >>> describe(ValueError("quality must be in [0, 100]"), "photo.png")
        'photo.png: quality must be in [0, 100]'
    """
    if isinstance(error, ModuleNotFoundError) and (extra := _extra(error)) is not None:
        return f"this needs {error.name}: pip install 'latentpress[{extra}]'"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        text = "not enough memory"
    if isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
        # The path that failed is not always the one that was asked for.
        subject = str(error.filename) if error.filename is not None else subject
    return f"{subject}: {text}" if subject else text


def report(error: Exception, subject: str | None = None, debug: bool = False) -> None:
    """Prints an error to stderr.

    Args:
        error: What was raised.
        subject: What it happened to, usually a path.
        debug: Whether the traceback is shown first.
    """
    if debug:
        traceback.print_exception(error)
    print(f"latentpress: error: {describe(error, subject)}", file=sys.stderr)


def warn(subject: str, text: str) -> None:
    """Prints a warning to stderr.

    Args:
        subject: What it is about, usually a path.
        text: One line.
    """
    print(f"latentpress: warning: {subject}: {text}", file=sys.stderr)


def run_reported(action: Callable[[], int | None]) -> int:
    """Runs all of a program's work; an error that a user can cause becomes a line and an exit code.

    Args:
        action: The work; what it returns is the exit code, 0 if that is None.

    Returns:
        The exit code.

    Raises:
        Exception: What no user can cause.
    """
    try:
        return action() or 0
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        report(error)
        return code


def run_each(items: Iterable[Item], action: Callable[[Item], None], debug: bool = False) -> int:
    """Runs an action on every item; one that fails is reported and does not keep the others from running.

    Args:
        items: What to work on; its text is what errors are prefixed with.
        action: Called with each.
        debug: Whether tracebacks are shown.

    Returns:
        Exit code 0 if all succeeded, otherwise 1.

    Raises:
        UsageError: From the action: that concerns all items.
        Exception: What no user can cause.
    """
    code = 0
    for item in items:
        try:
            action(item)
        except (BrokenPipeError, UsageError):
            raise
        except Exception as error:
            if exit_code(error) is None:
                raise
            report(error, str(item), debug=debug)
            code = EXIT_FAILED
    return code


def _extra(error: ModuleNotFoundError) -> str | None:
    return EXTRAS.get((error.name or "").partition(".")[0])


def _is_stream_error(error: Exception) -> bool:
    # Imported here: an error is rare, and the bitstream layer is not needed to print a help text.
    from latentpress.codecs.bitstream import StreamError

    return isinstance(error, StreamError)


def _is_out_of_memory(error: Exception) -> bool:
    # Torch is not imported for the sake of a message: if it is not there, it did not raise.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
