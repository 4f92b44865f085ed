"""Networks built and filled from weight files: no larger than their file, and proved exact.

::

    config -> rehearsal without memory -> sizes against the file's arrays -> network -> filled -> proved
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

N = TypeVar("N", bound=nn.Module)

# Some networks are cut out of larger ones, whose other parts are built as well and then dropped.
_DROPPED_SHARE = 4
_SPARE_ARRAYS = 64
_SPARE_NUMBERS = 2**20


def build_network(build: Callable[[], N], config: Any, tensors: Mapping[str, Any]) -> N:
    """Builds a network that a configuration describes, once it is known to be about as large as its arrays.

    A configuration of a few bytes can describe a network of any size. So it is built without memory first,
    and that is given up as soon as it has outgrown what the file holds. Whether each array fits is for
    `fill_network` to say.

    Args:
        build: Makes the network.
        config: What it makes it of: numbers, texts, mappings and sequences.
        tensors: Arrays of the weight file that the network is going to be filled with.

    Raises:
        ValueError: The network would be far larger than the arrays.

    Example:
        >>> held = {"weight": np.zeros((3, 2)), "bias": np.zeros(3)}
        >>> build_network(lambda: nn.Linear(2, 3), {"width": 3}, held)
        Linear(in_features=2, out_features=3, bias=True)
        >>> try:
        ...     build_network(lambda: nn.Linear(10**9, 10**9), {"width": 10**9}, held)
        ... except ValueError as error:
        ...     print(error)
        the configuration asks for sizes of 1000000000, the file holds 9 numbers
    """
    held = sum(np.asarray(array).size for array in tensors.values())
    largest = max(_whole_numbers(config), default=0)
    # Also bounds what is counted and listed before the first layer is made.
    if largest > max(held, _SPARE_ARRAYS):
        raise ValueError(f"the configuration asks for sizes of {largest}, the file holds {held} numbers")
    arrays = _DROPPED_SHARE * len(tensors) + _SPARE_ARRAYS
    with _no_larger_than(arrays, _DROPPED_SHARE * held + _SPARE_NUMBERS), torch.device("meta"):
        build()
    return build()


def fill_network(network: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Fills a network whose entropy parts are integer networks already, and proves these.

    Args:
        network: Changed in place.
        tensors: Arrays by the names of the network's parameters and buffers, all of them.

    Raises:
        ValueError: The arrays do not fit the network.
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    try:
        network.load_state_dict({name: torch.from_numpy(np.asarray(v)) for name, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit their configuration: {error}") from error
    for module in network.modules():
        prove: Any = getattr(module, "prove_exact", None)
        if prove is not None:
            prove()


def _whole_numbers(config: Any) -> Iterator[int]:
    """Magnitudes of all whole numbers in a configuration, however deep."""
    if isinstance(config, Mapping):
        for value in config.values():
            yield from _whole_numbers(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _whole_numbers(value)
    elif isinstance(config, int):
        yield abs(config)


@contextmanager
def _no_larger_than(arrays: int, numbers: int) -> Iterator[None]:
    """Lets this thread make so many arrays and numbers, then raises ``ValueError``."""
    thread = threading.get_ident()
    left = {"arrays": arrays, "numbers": numbers}

    def count(_: nn.Module, name: str, made: Tensor | None) -> None:
        if made is None or threading.get_ident() != thread:
            return
        left["arrays"] -= 1
        left["numbers"] -= made.numel()
        if min(left.values()) < 0:
            raise ValueError("the configuration asks for a network far larger than the file's arrays")

    with ExitStack() as hooks:
        hooks.callback(register_module_parameter_registration_hook(count).remove)
        hooks.callback(register_module_buffer_registration_hook(count).remove)
        yield
