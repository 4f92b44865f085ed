"""The shape codec: meshes, point clouds and radiance fields to a few hundred bytes and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Codec, Progress, no_progress
from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    TableSet,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.chamfer import chamfer_distance, sample_triangles
from latentpress.codecs.effort import check_effort
from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.polygon_payload import is_polygons
from latentpress.codecs.polygon_stream import read_polygons
from latentpress.codecs.posed_images import PosedImages
from latentpress.codecs.shape_coder import CodeCoder, CodedShape, CodePlan, DecodedCode
from latentpress.codecs.shape_encoding import ShapeEncoding, ShapeTrial, best_reading
from latentpress.codecs.shape_modes import decoded_polygons, encode_either, placed_mesh
from latentpress.codecs.shape_payload import TENTHS_PER_CODE, ShapeHeader, read_shape_header
from latentpress.codecs.shape_refine import FreeCode
from latentpress.codecs.shape_source import ShapeSource, shape_source
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.quality import QUALITY_MAX
from latentpress.models.shape.bridge import CodeQuality
from latentpress.models.shape.extraction import ExtractedMesh, grid_values, in_parts, surface_of
from latentpress.models.shape.generator import ShapeField
from latentpress.models.shape.radiance import RadianceField
from latentpress.models.shape.smoothing import SMOOTHINGS
from latentpress.models.shape.system import ShapeSystem

if TYPE_CHECKING:
    import trimesh

INTEGER_PARTS = ("geometry_prior", "colour_prior")
"""Parts of the bridge that decide probability tables, and so run in integers."""

DEFAULT_QUALITY = 50.0
MAX_RESOLUTION = 1024

_ENCODER_POINTS = 2048
_MEASURED_POINTS = 30000
_MEASURED_RESOLUTION = 128


@dataclass(frozen=True)
class Report:
    """What a stream will give, measured by its encoder.

    Attributes:
        bytes: Length of the stream.
        chamfer: Chamfer distance between original and decoded mesh where the longest side is 2: the mean of
            the two directed mean distances between 30000 samples of each, or the cloud's own points. Infinite
            where nothing is decoded.
        quality: Of the geometry, 0 to 100; None for polygons.
        colour_quality: Of the colour; None for a shape without and for polygons.
        steps: Of the refinement.
        mode: ``generator`` or ``polygons``.
    """

    bytes: int
    chamfer: float
    quality: float | None
    colour_quality: float | None
    steps: int
    mode: str = "generator"


class EncodedShape(NamedTuple):
    """A stream and what is known of it.

    Attributes:
        data: The stream.
        report: What it will give.
    """

    data: bytes
    report: Report


class ShapeCodec(Codec):
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
        self.fingerprint = weights.fingerprint()
        self.device = torch.device(device)
        config = dict(weights.config)
        self._geometry_price = tuple(config.pop("geometry_price"))
        self._colour_price = tuple(config.pop("colour_price"))
        networks = {k: v for k, v in weights.tensors.items() if not k.startswith("tables.")}
        system = build_network(lambda: ShapeSystem(**config), config, networks)
        tables = TableSet.from_arrays(
            {k.removeprefix("tables."): v for k, v in weights.tensors.items() if k.startswith("tables.")}
        )
        _load(system, networks)
        self.system = system.eval().requires_grad_(False).to(self.device)
        self._coder = CodeCoder(system.bridge.geometry_prior, system.bridge.colour_prior, tables)

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
        return self.encode_generated(source, name, value, effort, colour_quality, notify)[0]

    def encode_generated(
        self,
        source: ShapeSource,
        name: str,
        value: float,
        effort: int,
        colour_quality: float | None,
        notify: Progress,
    ) -> tuple[EncodedShape, ShapeTrial]:
        """Encodes a shape by the networks.

        Args:
            source: The shape.
            name: ``quality``, ``target_bytes`` or ``max_error``.
            value: Of it.
            effort: As for :meth:`encode`.
            colour_quality: As for :meth:`encode`.
            notify: Called with the fraction done and the stage.

        Returns:
            The stream with its report, and what it was made of.
        """

        def encoded(encoding: ShapeEncoding) -> ShapeTrial:
            if name == "target_bytes":
                return encoding.within_bytes(int(value))
            return encoding.at_quality(value if name == "quality" else QUALITY_MAX)

        source = best_reading(self, source, encoded)
        encoding = ShapeEncoding(self, source, effort, colour_quality, notify)
        trial = encoding.within_error(value) if name == "max_error" else encoded(encoding)
        notify(0.95, "measuring")
        trial, chamfer = encoding.smoothed(trial)
        data = self.pack(trial)
        header = trial.header
        step = TENTHS_PER_CODE / 10
        report = Report(
            bytes=len(data),
            chamfer=chamfer,
            quality=header.geometry_quality * step,
            colour_quality=None if header.colour_quality is None else header.colour_quality * step,
            steps=encoding.steps_done,
        )
        notify(1.0, "done")
        return EncodedShape(data, report), trial

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
        payload = self._payload(data, limits)
        if is_polygons(payload):
            polygons = read_polygons(payload, limits)
            notify(1.0, "done")
            decoded: trimesh.Trimesh | NDArray[np.float32] | RadianceField
            decoded = decoded_polygons(self.system.generator, polygons, as_, count)
            return decoded
        header, code = self._decode(data, limits)
        notify(0.1, "generating")
        field = self.field_of(code, header)
        if as_ == "field":
            notify(1.0, "done")
            return RadianceField(self.system.generator, field, header.pose.scale, header.pose.centre)
        mesh = self.mesh_of(field, resolution, header.smoothing)
        limits.check_vertices(len(mesh.vertices))
        limits.check_faces(len(mesh.faces))
        notify(0.9, "colouring")
        result = (
            self._placed_mesh(mesh, field, header)
            if as_ == "mesh"
            else self._points(mesh, field, header, count)
        )
        notify(1.0, "done")
        return result

    def verify(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decodes all symbols and checks every checksum, without making the shape.

        Raises:
            StreamError: Anything is wrong with the bytes.
        """
        payload = self._payload(data, limits)
        if is_polygons(payload):
            read_polygons(payload, limits)
        else:
            self._decode(data, limits)

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

    @torch.inference_mode()
    def field_of(self, code: DecodedCode, header: ShapeHeader) -> ShapeField:
        """The field that a decoded code stands for."""
        quality = self.quality_of(header)
        bridge = self.system.bridge
        geometry = bridge.decode_geometry(code.geometry, quality)
        colour = None if code.colour is None else bridge.decode_colour(code.geometry, code.colour, quality)
        field: ShapeField = self.system.generator(geometry, colour)
        return field

    def mesh_of(self, field: ShapeField, resolution: int, smoothing: int = 0) -> ExtractedMesh:
        """The surface of a field as a mesh in the cube, after one of :data:`SMOOTHINGS`."""
        return surface_of(self._distances(field, resolution), SMOOTHINGS[smoothing])

    def measure(self, source: ShapeSource, code: DecodedCode, header: ShapeHeader) -> list[float]:
        """Chamfer distances between a shape and what its code decodes to, longest side 2.

        Returns:
            One for each of :data:`SMOOTHINGS`; infinite where nothing is left.
        """
        distances = self._distances(self.field_of(code, header), _MEASURED_RESOLUTION)
        found = []
        for smoothing in SMOOTHINGS:
            mesh = surface_of(distances, smoothing)
            if len(mesh.faces):
                decoded, _ = sample_triangles(mesh.vertices, mesh.faces, _MEASURED_POINTS)
                found.append(chamfer_distance(source.reference, decoded))
            else:
                found.append(math.inf)
        return found

    def _distances(self, field: ShapeField, resolution: int) -> Tensor:
        return grid_values(
            lambda points: self.system.generator.signed_distance(field, points), resolution, self.device
        )

    def quality_of(self, header: ShapeHeader) -> CodeQuality:
        """Qualities of a header, ``(1,)`` each, on the codec's device."""
        colour = header.geometry_quality if header.colour_quality is None else header.colour_quality
        return CodeQuality(self.quality_tensor(header.geometry_quality), self.quality_tensor(colour))

    def quality_tensor(self, code: int) -> Tensor:
        """The quality of a code, ``(1,)``."""
        return torch.tensor([code * TENTHS_PER_CODE / 10], device=self.device)

    def prices(self, quality: CodeQuality) -> tuple[float, float]:
        """Error that a bit of geometry and of colour is worth: what the weights were trained with."""

        def at(ends: tuple[float, ...], level: Tensor) -> float:
            low, high = ends
            return float(low * (high / low) ** (float(level) / QUALITY_MAX))

        return at(self._geometry_price, quality.geometry), at(self._colour_price, quality.colour)

    @torch.inference_mode()
    def free_code(self, source: ShapeSource) -> FreeCode:
        """The code that the frozen encoder and the bridge make of a shape, not scaled by any gain."""
        position, normal = (part[:_ENCODER_POINTS] for part in source.surface)
        if source.colour is None:
            colour = torch.zeros_like(position)
        else:
            colour = torch.from_numpy(source.colour[:_ENCODER_POINTS]) - 0.5
        points = torch.cat((position, normal, colour), dim=1)[None].to(self.device)
        bridge = self.system.bridge
        code = bridge.forward_mapping(self.system.encoder(points)).float()
        geometry, paint = code.split((bridge.geometry_prior.channels, bridge.colour_prior.channels), dim=-1)
        return FreeCode(geometry, None if source.colour is None else paint)

    @torch.inference_mode()
    def encode_payload(self, source: ShapeSource, code: FreeCode, header: ShapeHeader) -> ShapeTrial:
        """Encodes a code at the qualities and groups of a header."""
        quality, bridge = self.quality_of(header), self.system.bridge
        plan = self._plan(header)
        colour = None
        if code.colour is not None:
            colour = code.colour * bridge.colour_gain(quality.colour)[:, None]
        geometry = code.geometry * bridge.geometry_gain(quality.geometry)[:, None]
        coded: CodedShape = self._coder.encode(geometry, colour, plan)
        return ShapeTrial(coded.data, coded.code, replace(header, checksum=coded.checksum))

    def pack(self, trial: ShapeTrial) -> bytes:
        """The stream of an encoding."""
        return self.pack_payload(trial.payload)

    def _plan(self, header: ShapeHeader) -> CodePlan:
        colour = None if header.colour_quality is None else self.quality_tensor(header.colour_quality)
        geometry = self.quality_tensor(header.geometry_quality)
        return CodePlan(geometry, colour, header.geometry_groups, header.colour_groups)

    def _payload(self, data: bytes, limits: Limits) -> bytes:
        container = read_container(data, limits)
        if container.codec_id != CodecId.SHAPE:
            raise CorruptStream(f"this is a stream of the codec {container.codec_id.name.lower()}, not shape")
        if container.fingerprint != self.fingerprint:
            raise UnknownModel(
                f"the stream needs the model {container.fingerprint.hex()}, "
                f"this codec is {self.fingerprint.hex()}"
            )
        return container.payload

    def _decode(self, data: bytes, limits: Limits) -> tuple[ShapeHeader, DecodedCode]:
        payload = self._payload(data, limits)
        header, offset = read_shape_header(payload)
        bridge = self.system.bridge
        if (
            header.geometry_groups > bridge.geometry_prior.groups
            or header.colour_groups > bridge.colour_prior.groups
        ):
            raise CorruptStream("the stream has more code groups than the model")
        code = self._coder.decode(payload[offset:], header.checksum, self._plan(header))
        return header, code

    def _colours(self, field: ShapeField, vertices: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """RGB in [0, 1] at points of the cube, ``(N, 3)``; None for a shape without colour."""
        if field.colour is None:
            return None
        points = torch.from_numpy(vertices)[None].to(self.device)
        with torch.inference_mode():
            found = in_parts(lambda part: self.system.generator.colour_at(field, part), points)
        result: NDArray[np.float32] = found[0].clamp(0, 1).cpu().numpy()
        return result

    def coloured_mesh(self, trial: ShapeTrial) -> tuple[ExtractedMesh, NDArray[np.float32] | None]:
        """The mesh of an encoding as it will be decoded, in the cube, and its colours."""
        field = self.field_of(trial.code, trial.header)
        mesh = self.mesh_of(field, _MEASURED_RESOLUTION, trial.header.smoothing)
        return mesh, self._colours(field, mesh.vertices) if len(mesh.vertices) else None

    def pack_payload(self, payload: bytes) -> bytes:
        """The stream of a payload."""
        return write_container(CodecId.SHAPE, self.fingerprint, [(SectionType.PAYLOAD, payload)])

    def _placed_mesh(self, mesh: ExtractedMesh, field: ShapeField, header: ShapeHeader) -> trimesh.Trimesh:
        colours = self._colours(field, mesh.vertices) if len(mesh.vertices) else None
        rgb = None if colours is None else np.round(colours * 255).astype(np.uint8)
        return placed_mesh(mesh.vertices, mesh.faces, rgb, header)

    def _points(
        self, mesh: ExtractedMesh, field: ShapeField, header: ShapeHeader, count: int
    ) -> NDArray[np.float32]:
        if not len(mesh.faces):
            raise ValueError("the decoded shape has no surface to sample")
        points, _ = sample_triangles(mesh.vertices, mesh.faces, count)
        placed = (points * header.pose.scale + header.pose.centre).astype(np.float32)
        colours = self._colours(field, points)
        return placed if colours is None else np.hstack((placed, colours))


def _load(system: ShapeSystem, tensors: Mapping[str, Any]) -> None:
    """Fills the networks from a weight file; the bridge's priors become integer networks."""
    for part in INTEGER_PARTS:
        setattr(system.bridge, part, convert(getattr(system.bridge, part)))
    fill_network(system, tensors)
