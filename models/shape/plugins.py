"""Slots for other people's encoders and generators of shapes.

A bridge needs two things of an encoder and a generator: the shape of their latents, and how to go between
latents and shapes. Whoever has the weights of a model registers an adapter for it and trains a bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class ColouredMesh(NamedTuple):
    """A mesh as generators give it.

    Attributes:
        vertices: ``(V, 3)`` float32, z upward.
        faces: ``(F, 3)`` int64.
        colours: ``(V, 3)`` float32 RGB in [0, 1], or None.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]
    colours: NDArray[np.float32] | None


@runtime_checkable
class Encoder3D(Protocol):
    """Surface points to a latent.

    Attributes:
        latent_shape: Of one latent, without the batch.
    """

    latent_shape: tuple[int, ...]

    def encode(self, points: Tensor) -> Tensor:
        """Maps surface points ``(B, N, 9)``, as ``generator.POINT_CHANNELS`` has them, to latents."""
        ...


@runtime_checkable
class Generator3D(Protocol):
    """A latent to a mesh.

    Attributes:
        latent_shape: Of one latent, without the batch.
    """

    latent_shape: tuple[int, ...]

    def mesh(self, latent: Tensor) -> ColouredMesh:
        """The mesh of one latent of shape ``latent_shape``."""
        ...


Made = TypeVar("Made", Encoder3D, Generator3D)

_ENCODERS: dict[str, Callable[..., Encoder3D]] = {}
_GENERATORS: dict[str, Callable[..., Generator3D]] = {}


def register_encoder(name: str, make: Callable[..., Encoder3D]) -> None:
    """Makes an encoder known by a name.

    Raises:
        ValueError: The name is taken.
    """
    _register(_ENCODERS, name, make)


def register_generator(name: str, make: Callable[..., Generator3D]) -> None:
    """Makes a generator known by a name.

    Raises:
        ValueError: The name is taken.
    """
    _register(_GENERATORS, name, make)


def make_encoder(name: str, **options: Any) -> Encoder3D:
    """An encoder by its name.

    Raises:
        ValueError: There is none of this name.
    """
    return _found(_ENCODERS, name, "encoder")(**options)


def make_generator(name: str, **options: Any) -> Generator3D:
    """A generator by its name.

    Raises:
        ValueError: There is none of this name.

    Example:
        >>> try:
        ...     make_generator("crystal ball")
        ... except ValueError as error:
        ...     print(str(error)[:38])
        there is no generator 'crystal ball':
    """
    return _found(_GENERATORS, name, "generator")(**options)


def _register(registry: dict[str, Callable[..., Made]], name: str, make: Callable[..., Made]) -> None:
    if name in registry:
        raise ValueError(f"{name!r} is registered already")
    registry[name] = make


def _found(registry: dict[str, Callable[..., Made]], name: str, kind: str) -> Callable[..., Made]:
    if name not in registry:
        known = ", ".join(sorted(registry)) or "none"
        raise ValueError(f"there is no {kind} {name!r}: registered are {known}")
    return registry[name]
