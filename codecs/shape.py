"""The shape codec: meshes, point clouds and radiance fields to a few hundred bytes and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import DEFAULT_LIMITS, Limits
from latentpress.codecs.effort import check_effort
from latentpress.codecs.polygon_payload import is_polygons
from latentpress.codecs.polygon_stream import read_polygons
from latentpress.codecs.posed_images import PosedImages
from latentpress.codecs.shape_generator_mode import decoded_code, encode_generated
from latentpress.codecs.shape_model import ShapeModel
from latentpress.codecs.shape_modes import encode_either
from latentpress.codecs.shape_polygon_mode import decoded_polygons
from latentpress.codecs.shape_report import EncodedShape
from latentpress.codecs.shape_source import shape_source
from latentpress.codecs.weights import WeightFile
from latentpress.models.shape.radiance import RadianceField

if TYPE_CHECKING:
    import trimesh

DEFAULT_QUALITY = 50.0
MAX_RESOLUTION = 1024


class ShapeCodec(ShapeModel, Codec):
    """Squeeze3D: a frozen encoder, a bridge through a compact code, a frozen generator.

    ::

        mesh, points, images -> surface samples -> encoder -> bridge -> code -> range coder -> container
        container -> range coder -> code -> bridge -> generator -> field -> mesh | points | radiance field

    Meshes may go another way, as polygons, see :mod:`latentpress.codecs.shape_modes`.

    Args:
        weights: A weight file of the family ``shape``.
        device: Where the networks run.
    """

    name = "shape"

    def __init__(self, weights: WeightFile, device: torch.device | str = "cpu") -> None:
        if weights.family != self.name:
            raise ValueError(f"weights of the family {weights.family!r} do not fit the codec {self.name!r}")
        super().__init__(weights, device)

    def compress(self, x: Any, **options: Any) -> bytes:
        """Compresses a shape to a complete stream; the options are those of :meth:`encode`."""
        return self.encode(x, **options).data

    def encode(
        self,
        x: trimesh.Trimesh | NDArray[Any] | Tensor | PosedImages | str | Path,
        *,
        quality: float | None = None,
        colour_quality: float | None = None,
        target_bytes: int | None = None,
        max_error: float | None = None,
        effort: int = 0,
        colour: bool = True,
        mode: Literal["auto", "generator", "polygons"] = "auto",
        progress: Progress | None = None,
    ) -> EncodedShape:
        """Compresses a shape, and measures what the stream will give.

        At most one of ``quality``, ``target_bytes`` and ``max_error`` may be given; without any, the quality
        is 50.

        Args:
            x: A mesh, open or not, with vertex colours, face colours or a texture if it has any; points
                ``(N, 3)`` or ``(N, 6)`` with RGB in [0, 1]; posed images; or a file of a mesh or points.
            quality: Of the geometry, 0 (smallest) to 100 (best), in steps of 0.4.
            colour_quality: Of the colour, if it is to differ from the geometry's.
            target_bytes: The best shape whose stream has at most this many bytes.
            max_error: The smallest stream whose Chamfer distance, where the longest side is 2, is at most
                this; it never gets below the samples' own distance of about .007.
            effort: 0 to 10: how long the code is refined for this shape, 20 steps each.
            colour: Keep colours, where there are any.
            mode: ``generator``: what the networks make of the shape. ``polygons``: a mesh of fewer triangles,
                for meshes with ``target_bytes`` only. ``auto``: for these whichever is better, by Chamfer
                distance or, for a coloured mesh, by pictures from all sides; for all else the generator.
            progress: Called with the fraction done and the stage.

        Raises:
            TypeError: x is no shape, or more than one target is given.
            ValueError: The shape has no surface, an option is out of bounds, or a target cannot be met.
        """
        notify = progress or no_progress
        options = {"quality": quality, "target_bytes": target_bytes, "max_error": max_error}
        given = {name: float(value) for name, value in options.items() if value is not None}
        if len(given) > 1:
            raise TypeError(f"give one of quality, target_bytes and max_error, not {' and '.join(given)}")
        name, value = next(iter(given.items()), ("quality", DEFAULT_QUALITY))
        if name != "quality" and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
        check_effort(effort)
        notify(0.0, "sampling")
        if mode not in ("auto", "generator", "polygons"):
            raise ValueError(f"mode must be auto, generator or polygons, got {mode!r}")
        source = shape_source(x, colour)
        fits = name == "target_bytes" and source.triangles is not None
        if mode == "polygons" and not fits:
            raise ValueError("polygons are made of meshes, for target_bytes")
        if fits and mode != "generator":
            return encode_either(self, source, int(value), effort, colour_quality, mode, notify)
        return encode_generated(self, source, name, value, effort, colour_quality, notify)[0]

    @overload  # type: ignore[override]
    def decompress(
        self,
        data: bytes,
        *,
        as_: Literal["mesh"] = ...,
        resolution: int = ...,
        limits: Limits = ...,
        progress: Progress | None = ...,
    ) -> trimesh.Trimesh: ...

    @overload
    def decompress(
        self,
        data: bytes,
        *,
        as_: Literal["points"],
        resolution: int = ...,
        count: int = ...,
        limits: Limits = ...,
        progress: Progress | None = ...,
    ) -> NDArray[np.float32]: ...

    @overload
    def decompress(
        self,
        data: bytes,
        *,
        as_: Literal["field"],
        limits: Limits = ...,
        progress: Progress | None = ...,
    ) -> RadianceField: ...

    def decompress(
        self,
        data: bytes,
        *,
        as_: Literal["mesh", "points", "field"] = "mesh",
        resolution: int = 128,
        count: int = 2048,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> trimesh.Trimesh | NDArray[np.float32] | RadianceField:
        """Restores a shape.

        Args:
            data: A stream of this codec and these weights.
            as_: ``mesh``: a ``trimesh.Trimesh``, with vertex colours if there are any. ``points``: samples of
                its surface, ``(count, 3)`` float32, or ``(count, 6)`` with RGB in [0, 1]. ``field``:
                density and colour at any place, which can be rendered.
            resolution: Cells each way of the grid that the mesh is made on, 4 to 1024.
            count: Number of points.
            limits: Caps, checked before anything is allocated.
            progress: Called with the fraction done and the stage.

        Raises:
            StreamError: Anything is wrong with the bytes.
            ValueError: An option is out of bounds, or the decoded shape has no surface to sample.
        """
        notify = progress or no_progress
        if as_ not in ("mesh", "points", "field"):
            raise ValueError(f"as_ must be mesh, points or field, got {as_!r}")
        if not 4 <= resolution <= MAX_RESOLUTION:
            raise ValueError(f"resolution must be in [4, {MAX_RESOLUTION}], got {resolution}")
        if as_ == "points":
            limits.check_vertices(count)
        if as_ != "field":
            limits.check_voxels((resolution + 1,) * 3)
        notify(0.0, "entropy decoding")
        payload = self.payload_of(data, limits)
        decoded: trimesh.Trimesh | NDArray[np.float32] | RadianceField
        if is_polygons(payload):
            decoded = decoded_polygons(self.system.generator, read_polygons(payload, limits), as_, count)
        else:
            header, code = self.decode_payload(payload)
            decoded = decoded_code(self, code, header, as_, resolution, count, limits, notify)
        notify(1.0, "done")
        return decoded

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes all symbols and checks every checksum, without making the shape.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        payload = self.payload_of(data, limits)
        if is_polygons(payload):
            read_polygons(payload, limits)
        else:
            self.decode_payload(payload)

    def generate(self, count: int = 1, seed: int = 0) -> list[RadianceField]:
        """New shapes from the generator's prior.

        Args:
            count: How many.
            seed: Of the noise they are made of.

        Raises:
            ValueError: The weights have no prior.
        """
        if self.system.prior is None:
            raise ValueError("these weights have no prior to generate from")
        random = torch.Generator(self.device).manual_seed(seed)
        latent = self.system.prior.sample(count, generator=random)
        return [
            RadianceField(
                self.system.generator,
                self.system.generator(latent.geometry[k : k + 1], latent.colour[k : k + 1]),
                1.0,
                (0.0, 0.0, 0.0),
            )
            for k in range(count)
        ]
