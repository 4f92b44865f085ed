"""Reading and writing fields: numpy files, HDF5, zarr and netCDF, each with the library its users have."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = frozenset({".npy", ".h5", ".hdf5", ".zarr", ".nc"})
"""Suffixes of files that hold fields."""


def is_field(path: str) -> bool:
    """Whether a path names a file of fields.

    Example:
        >>> is_field("flow.npy"), is_field("photo.png")
        (True, False)
    """
    return Path(path).suffix.lower() in FIELDS


def add_selection_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds ``--variable`` and ``--index``.

    Args:
        parser: The parser of a verb, or a group of it.
    """
    parser.add_argument("--variable", metavar="NAME", help="which array of a .h5, .zarr or .nc file")
    parser.add_argument(
        "--index",
        type=_indexes,
        default=(),
        metavar="I,I,...",
        help="along the first axes of an array that has more than a field",
    )


def _indexes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas, got '{text}'") from None


def read_field(path: str, variable: str | None = None, index: tuple[int, ...] = ()) -> NDArray[Any]:
    """Reads one array, as ``(C, D, H, W)`` or ``(C, H, W)``; a single plane is one component.

    Args:
        path: A file or, for zarr, a folder.
        variable: Which array of a file that holds several; may be left out if there is one.
        index: Along the first axes of an array with more of them, such as time.

    Raises:
        ValueError: The array is not of floating-point numbers, has too few or many axes, or is not the
            only one, or the index is outside it.
        ModuleNotFoundError: The library for this kind of file is not installed.
    """
    with open_field(path, variable, index) as field:
        # A copy: a mapped file cannot be written to, as tensors can.
        values = np.array(field[...])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def open_field(path: str, variable: str | None = None, index: tuple[int, ...] = ()) -> Iterator[FieldSource]:
    """Opens one array without reading it; arguments and errors as of :func:`read_field`.

    Yields:
        The array as a field, which reads what it is asked for.
    """
    with ExitStack() as stack:
        array = _OPENERS[Path(path).suffix.lower()](path, variable, stack)
        if array.dtype.newbyteorder("=") not in (np.float32, np.float64):
            raise ValueError(f"{path} holds {array.dtype}, a field has float32 or float64")
        axes = array.ndim - len(index)
        if not 2 <= axes <= 4:
            raise ValueError(f"{path} has {array.ndim} axes, a field has 2 to 4: choose with --index")
        if any(not 0 <= i < size for i, size in zip(index, array.shape, strict=False)):
            raise ValueError(f"{path} has the shape {tuple(array.shape)}, which has nothing at {index}")
        yield FieldSource(array, index)


class FieldSource:
    """A field within an array of any library, read piece by piece.

    Args:
        array: Has ``shape``, ``dtype`` and slices.
        index: Along its first axes.

    Attributes:
        shape: ``(C, D, H, W)`` or ``(C, H, W)``; a single plane is one component.
        dtype: As numpy names it.

    Example:
        >>> source = FieldSource(np.zeros((2, 5, 4, 6), np.float32), (1,))
        >>> source.shape, source[:, 1:3, :].shape
        ((5, 4, 6), (5, 2, 6))
    """

    def __init__(self, array: Any, index: tuple[int, ...] = ()) -> None:
        self._array = array
        self._index = index
        shape = tuple(int(size) for size in array.shape[len(index) :])
        self._plane = len(shape) == 2
        self.shape = (1, *shape) if self._plane else shape
        self.dtype = np.dtype(array.dtype).newbyteorder("=")

    @property
    def ndim(self) -> int:
        """Axes, that of the components included."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Reads a part; the key is an ellipsis or slices, one for every axis."""
        keys = (slice(None),) * self.ndim if key is Ellipsis else tuple(key)
        inner = keys[1:] if self._plane else keys
        values = np.asarray(self._array[(*self._index, *inner)], self.dtype)
        return values[None] if self._plane else values


def field_bytes(values: NDArray[Any]) -> bytes:
    """A field as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _chosen(names: list[str], variable: str | None, path: str) -> str:
    if variable is not None and variable in names:
        return variable
    if variable is None and len(names) == 1:
        return names[0]
    raise ValueError(f"{path} holds {', '.join(sorted(names)) or 'no array'}: name one with --variable")


def _open_numpy(path: str, variable: str | None, stack: ExitStack) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _open_hdf5(path: str, variable: str | None, stack: ExitStack) -> Any:
    import h5py

    names: list[str] = []
    file = stack.enter_context(h5py.File(path))
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return file[_chosen(names, variable, path)]


def _open_zarr(path: str, variable: str | None, stack: ExitStack) -> Any:
    import zarr

    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return found
    return found[_chosen(list(found.array_keys()), variable, path)]


def _open_netcdf(path: str, variable: str | None, stack: ExitStack) -> Any:
    import xarray

    file = stack.enter_context(xarray.open_dataset(path))
    return file[_chosen([str(name) for name in file.data_vars], variable, path)]


_OPENERS: dict[str, Callable[[str, str | None, ExitStack], Any]] = {
    ".npy": _open_numpy,
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
    ".zarr": _open_zarr,
    ".nc": _open_netcdf,
}
