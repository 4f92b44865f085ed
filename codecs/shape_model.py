"""The model of the shape codec: networks, coder, and what they make of one shape or one code."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    TableSet,
    read_container,
    write_container,
)
from latentpress.codecs.chamfer import chamfer_distance, sample_triangles
from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.shape_coder import CodeCoder, CodedShape, CodePlan, DecodedCode
from latentpress.codecs.shape_payload import TENTHS_PER_CODE, ShapeHeader, read_shape_header
from latentpress.codecs.shape_refine import FreeCode
from latentpress.codecs.shape_source import ShapeSource
from latentpress.codecs.stream_origin import check_origin
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.quality import QUALITY_MAX
from latentpress.models.shape.bridge import CodeQuality
from latentpress.models.shape.extraction import ExtractedMesh, grid_values, in_parts, surface_of
from latentpress.models.shape.generator import ShapeField
from latentpress.models.shape.smoothing import SMOOTHINGS
from latentpress.models.shape.system import ShapeSystem

INTEGER_PARTS = ("geometry_prior", "colour_prior")
"""Parts of the bridge that decide probability tables, and so run in integers."""

_ENCODER_POINTS = 2048
_MEASURED_POINTS = 30000
_MEASURED_RESOLUTION = 128


class ShapeTrial(NamedTuple):
    """One encoding of the search for a rate.

    Attributes:
        symbols: Coded.
        code: As the decoder will have it.
        header: Of the payload.
    """

    symbols: bytes
    code: DecodedCode
    header: ShapeHeader

    @property
    def payload(self) -> bytes:
        """The payload of the stream."""
        return self.header.to_bytes() + self.symbols


class ShapeModel:
    """Networks and tables of a weight file, ready to code.

    Args:
        weights: A weight file of the family ``shape``.
        device: Where the networks run.

    Attributes:
        device: As given.
        fingerprint: Of the weights, which every stream names.
        system: The networks; those that decide probability tables are in integers.
    """

    def __init__(self, weights: WeightFile, device: torch.device | str = "cpu") -> None:
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
        for part in INTEGER_PARTS:
            setattr(system.bridge, part, convert(getattr(system.bridge, part)))
        fill_network(system, networks)
        self.system = system.eval().requires_grad_(False).to(self.device)
        self._coder = CodeCoder(system.bridge.geometry_prior, system.bridge.colour_prior, tables)

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
    def encode_payload(self, code: FreeCode, header: ShapeHeader) -> ShapeTrial:
        """Encodes a code at the qualities and groups of a header."""
        quality, bridge = self.quality_of(header), self.system.bridge
        plan = self._plan(header)
        colour = None
        if code.colour is not None:
            colour = code.colour * bridge.colour_gain(quality.colour)[:, None]
        geometry = code.geometry * bridge.geometry_gain(quality.geometry)[:, None]
        coded: CodedShape = self._coder.encode(geometry, colour, plan)
        return ShapeTrial(coded.data, coded.code, replace(header, checksum=coded.checksum))

    def decode_payload(self, payload: bytes) -> tuple[ShapeHeader, DecodedCode]:
        """Inverse of :meth:`encode_payload`, from a trial's payload.

        Raises:
            StreamError: The bytes are damaged.
        """
        header, offset = read_shape_header(payload)
        bridge = self.system.bridge
        if (
            header.geometry_groups > bridge.geometry_prior.groups
            or header.colour_groups > bridge.colour_prior.groups
        ):
            raise CorruptStream("the stream has more code groups than the model")
        code = self._coder.decode(payload[offset:], header.checksum, self._plan(header))
        return header, code

    def _plan(self, header: ShapeHeader) -> CodePlan:
        colour = None if header.colour_quality is None else self.quality_tensor(header.colour_quality)
        geometry = self.quality_tensor(header.geometry_quality)
        return CodePlan(geometry, colour, header.geometry_groups, header.colour_groups)

    def pack(self, trial: ShapeTrial) -> bytes:
        """The stream of an encoding."""
        return self.pack_payload(trial.payload)

    def pack_payload(self, payload: bytes) -> bytes:
        """The stream of a payload."""
        return write_container(CodecId.SHAPE, self.fingerprint, [(SectionType.PAYLOAD, payload)])

    def payload_of(self, data: bytes, limits: Limits) -> bytes:
        """Inverse of :meth:`pack_payload`.

        Raises:
            StreamError: The bytes are damaged, or of another codec or other weights.
        """
        container = read_container(data, limits)
        check_origin(container, CodecId.SHAPE, self.fingerprint)
        return container.payload

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

    def _distances(self, field: ShapeField, resolution: int) -> Tensor:
        return grid_values(
            lambda points: self.system.generator.signed_distance(field, points), resolution, self.device
        )

    def colours_of(self, field: ShapeField, vertices: NDArray[np.float32]) -> NDArray[np.float32] | None:
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
        return mesh, self.colours_of(field, mesh.vertices) if len(mesh.vertices) else None

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
