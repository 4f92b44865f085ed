"""The field codec inside zarr stores: a codec for format 3 and one for format 2 (numcodecs).

Every chunk becomes one stream of the field codec, which says its own shape and type. Chunks are decoded
alone and in any order, so arrays larger than memory are written and read chunk by chunk, by as many
processes as one likes.

::

    zarr.create_array(store, shape=..., chunks=..., dtype="float32",
    serializer=FieldSerializer(relative_error=1e-3))
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numcodecs.compat import ensure_bytes, ndarray_copy
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from latentpress.codecs.effort import check_effort
from latentpress.codecs.field import FieldCodec

CODEC_NAME = "latentpress.field"
"""In the metadata of arrays; prefixed, as zarr asks of codecs that are not its own."""


@dataclass(frozen=True)
class Settings:
    """How chunks are compressed.

    Attributes:
        relative_error: Bound on the error of every value, as a fraction of the range of its chunk.
        max_error: The bound itself; takes the place of ``relative_error``.
        ratio: Instead of a bound: 8, 64 or 512, with networks.
        quality: Within the ratio, 0 to 100.
        periodic: Chunks are whole periodic boxes.
        weights: Name of shipped weights or path of a weight file; None where a bound is kept without
            networks.
        effort: 0 to 10, spent on the latents of networks when chunks are written.
    """

    relative_error: float | None = None
    max_error: float | None = None
    ratio: int | None = None
    quality: float | None = None
    periodic: bool = False
    weights: str | None = None
    effort: int = 0

    def __post_init__(self) -> None:
        """Checks that the settings say what to do.

        Raises:
            TypeError: The effort is no whole number.
            ValueError: No rate and no bound is given, networks without weights, or the effort is outside
                [0, 10].
        """
        check_effort(self.effort)
        if self.ratio is None and self.relative_error is None and self.max_error is None:
            raise ValueError("give relative_error, max_error or ratio")
        if self.ratio is not None and self.weights is None:
            raise ValueError("a ratio needs weights")

    def configuration(self) -> dict[str, Any]:
        """What goes into an array's metadata: what is set, and the fingerprint of the model."""
        # A bound of zero says something; no effort and no period say what is so without a word.
        found = {
            name: value
            for name, value in vars(self).items()
            if value is not None and (value or name not in ("periodic", "effort"))
        }
        if self.weights is not None:
            found["model"] = _codec(self.weights).fingerprint.hex()
        return found

    @classmethod
    def from_configuration(cls, configuration: dict[str, Any]) -> Self:
        """Settings from an array's metadata.

        Raises:
            ValueError: The weights of this name are another model.
        """
        content = dict(configuration)
        model = content.pop("model", None)
        settings = cls(**content)
        if model is not None and settings.weights is not None:
            found = _codec(settings.weights).fingerprint.hex()
            if found != model:
                raise ValueError(f"the array needs the model {model}, {settings.weights!r} is {found}")
        return settings

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Compresses a chunk of any number of axes."""
        options: dict[str, Any] = {"max_error": self.max_error, "ratio": self.ratio, "quality": self.quality}
        if self.max_error is None:
            options["relative_error"] = self.relative_error
        return _codec(self.weights).compress(
            as_field(chunk), periodic=self.periodic, effort=self.effort, **options
        )

    def decode(self, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        """Restores a chunk of this shape.

        Raises:
            StreamError: Anything is wrong with the bytes.
            ValueError: The chunk has another number of values.
        """
        values: NDArray[Any] = _codec(self.weights).decompress(data).numpy()
        return values.reshape(shape)


class FieldSerializer(ArrayBytesCodec):
    """Serialises chunks of a zarr 3 array with the field codec; arguments as of :class:`Settings`."""

    is_fixed_size = False

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Makes the codec from an array's metadata."""
        codec = cls.__new__(cls)
        codec.settings = Settings.from_configuration(data.get("configuration", {}))
        return codec

    def to_dict(self) -> dict[str, Any]:
        """The codec's part of an array's metadata."""
        return {"name": CODEC_NAME, "configuration": self.settings.configuration()}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known beforehand."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        values = chunk_data.as_numpy_array()
        data = await asyncio.to_thread(self.settings.encode, values)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        values = await asyncio.to_thread(self.settings.decode, chunk_data.to_bytes(), chunk_spec.shape)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same settings."""
        return isinstance(other, FieldSerializer) and self.settings == other.settings

    def __hash__(self) -> int:
        """Of the settings."""
        return hash(self.settings)


class FieldCompressor(NumcodecsCodec):  # type: ignore[misc]
    """The field codec for zarr 2 and whatever else uses numcodecs; arguments as of :class:`Settings`."""

    codec_id = CODEC_NAME

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)

    def encode(self, buf: Any) -> bytes:
        """Compresses an array, whose shape and type the stream keeps."""
        return self.settings.encode(np.asarray(buf))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Restores the values of an array in order."""
        values = _codec(self.settings.weights).decompress(ensure_bytes(buf)).numpy()
        return values if out is None else ndarray_copy(values, out)

    def get_config(self) -> dict[str, Any]:
        """Settings as JSON can hold them."""
        return {"id": self.codec_id, **self.settings.configuration()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes the codec from what :meth:`get_config` returned."""
        codec = cls.__new__(cls)
        content = {name: value for name, value in config.items() if name != "id"}
        codec.settings = Settings.from_configuration(content)
        return codec


def as_field(chunk: NDArray[Any]) -> NDArray[Any]:
    """An array of any number of axes as ``(C, D, H, W)``: the last three are those of space.

    Example:
        >>> [as_field(np.zeros(shape)).shape for shape in [(), (5,), (2, 3, 4), (6, 2, 3, 4, 5)]]
        [(1, 1, 1, 1), (1, 1, 1, 5), (1, 2, 3, 4), (12, 3, 4, 5)]
    """
    space = (1, 1, 1, *chunk.shape)[-3:]
    return np.ascontiguousarray(chunk).reshape(-1, *space)


@cache
def _codec(weights: str | None) -> FieldCodec:
    """The codec of some weights, loaded once a process."""
    if weights is None:
        return FieldCodec()
    from latentpress.codecs.registry import load

    codec = load(weights)
    if not isinstance(codec, FieldCodec):
        raise ValueError(f"{weights!r} are weights of the family {codec.name!r}, not of fields")
    return codec
