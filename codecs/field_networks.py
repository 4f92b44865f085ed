"""The networks of the field codec: latents of three components at one ratio, coded and decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.bitstream import TableSet, TruncatedStream
from latentpress.codecs.byte_weights import from_bytes
from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.symbol_coders import CodedPart
from latentpress.codecs.volume_coder import Axes, VolumeCoder, axis_flags
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.field.network import FieldNetwork, build_field_network
from latentpress.models.field.spectral_gain import (
    TRANSMITTED,
    SpectralGain,
    band_densities,
    matching_logarithms,
    with_factors,
)
from latentpress.models.field.transforms import PATCH, STRIDE, Enhancer

INTEGER_PARTS = ("hyper_prior", "hyper_synthesis", "context")
"""Parts of a network that decide probability tables, and so run in integers."""

Decoder = Literal["faithful", "realistic"]

GAIN_ARRAYS = ("realistic.gain.rows", "realistic.gain.spread")
"""Additions to the arrays of a ratio that make a :class:`SpectralGain`."""

OPEN_GAIN_ARRAYS = ("realistic.open_gain.rows", "realistic.open_gain.spread")
"""The same, of fields with an open axis; without them, :data:`GAIN_ARRAYS` are for those as well."""


class RatioModel(NamedTuple):
    """The networks of one ratio.

    ::

        values -> analysis -> y, z -> VolumeCoder -> bytes -> VolumeCoder -> y_hat -> synthesis -> values

    Attributes:
        network: Transforms, and entropy networks in integers.
        coder: Codes its latents.
        realistic: Takes the place of the last part of the synthesis to restore small scales; None if the
            weights have none.
        device: Where the networks run.
        gain: Of small scales, for whole fields of the realistic decoder, see :meth:`sharpened`; None if the
            weights have none.
        open_gain: The same for fields with an open axis; None if the weights have none of their own.
    """

    network: FieldNetwork
    coder: VolumeCoder
    realistic: Enhancer | None
    device: torch.device
    gain: SpectralGain | None = None
    open_gain: SpectralGain | None = None

    @property
    def analysis_halo(self) -> int:
        """Latent positions around a block on whose samples its latents depend."""
        return _halo(self.network.analysis.enhancer)

    @property
    def synthesis_halo(self) -> int:
        """Latent positions around a block on which its samples depend, whichever decoder makes them."""
        return _halo(self.network.synthesis.enhancer)

    @property
    def latent_channels(self) -> int:
        """M."""
        return self.network.latent_channels

    def encode(self, values: NDArray[np.float64], tenths: int, periodic: Axes) -> bytes:
        """Codes three components ``(3, D, H, W)`` of unit variance."""
        return self.code(self.analyse(values, tenths, periodic), tenths, periodic)

    def decode(
        self,
        data: bytes,
        shape: tuple[int, int, int],
        tenths: int,
        periodic: Axes,
        decoder: Decoder,
    ) -> Tensor:
        """Restores three components of unit variance, ``(3, D, H, W)`` float32 on the networks' device."""
        latent = self.latents(data, latent_shape(shape), tenths, periodic)
        depth, height, width = shape
        return self.synthesise(latent, tenths, periodic, decoder)[:, :depth, :height, :width]

    @torch.inference_mode()
    def analyse(self, values: NDArray[np.float64], tenths: int, periodic: Axes) -> Tensor:
        """The latent of three components, ``(1, d, h, w, M)``; sides are continued to multiples of 8."""
        quality, flags = self.operands(tenths, periodic)
        with full_precision(self.device):
            field = torch.from_numpy(values.astype(np.float32)).to(self.device)[None]
            depth, height, width = (-size % STRIDE for size in field.shape[2:])
            field = F.pad(field, (0, width, 0, height, 0, depth), mode="replicate").permute(0, 2, 3, 4, 1)
            y: Tensor = self.network.analysis(field.contiguous(), quality, flags)
            return y * _spread(self.network.gain(quality))

    def code(self, y: Tensor, tenths: int, periodic: Axes) -> bytes:
        """A latent as bytes."""
        return self.code_both(y, self.hyper_latent(y, tenths, periodic), tenths, periodic)[0]

    @torch.inference_mode()
    def hyper_latent(self, y: Tensor, tenths: int, periodic: Axes) -> Tensor:
        """The side information z that the analysis finds for a latent."""
        quality, flags = self.operands(tenths, periodic)
        with full_precision(self.device):
            z: Tensor = self.network.hyper_analysis(y / _powers(self.network), quality, flags)
        return z

    @torch.inference_mode()
    def code_both(self, y: Tensor, z: Tensor, tenths: int, periodic: Axes) -> tuple[bytes, Tensor]:
        """A latent and its side information as bytes, and the latent as a decoder has it, in steps."""
        quality, _ = self.operands(tenths, periodic)
        with self.coder.axes(periodic):
            coded = self.coder.encode(y, z, quality)
        return struct.pack("<I", coded.checksum) + coded.data, coded.y_hat

    @torch.inference_mode()
    def latents(self, data: bytes, shape: tuple[int, int, int], tenths: int, periodic: Axes) -> Tensor:
        """Inverse of :meth:`code`, scaled back: ``(1, *shape, M)``.

        Raises:
            StreamError: The bytes are damaged.
        """
        if len(data) < 4:
            raise TruncatedStream("coded latents end before their checksum does")
        quality, _ = self.operands(tenths, periodic)
        with self.coder.axes(periodic):
            (checksum,) = struct.unpack_from("<I", data)
            y_hat = self.coder.decode_parts([CodedPart(data[4:], checksum)], shape, quality)
        return y_hat / _spread(self.network.gain(quality))

    @torch.inference_mode()
    def synthesise(self, latent: Tensor, tenths: int, periodic: Axes, decoder: Decoder) -> Tensor:
        """Three components from a latent, ``(3, 8 d, 8 h, 8 w)`` float32 on the networks' device."""
        if decoder == "realistic" and self.realistic is None:
            raise ValueError("these weights have no realistic decoder for the ratio of the stream")
        quality, flags = self.operands(tenths, periodic)
        with full_precision(self.device):
            synthesis = self.network.synthesis
            linear = synthesis.linear(latent, flags)
            enhancer = synthesis.enhancer
            if decoder == "realistic" and self.realistic is not None:
                enhancer = self.realistic
            field: Tensor = enhancer(linear, quality, flags)[0].permute(3, 0, 1, 2)
        return field

    @torch.inference_mode()
    def energies(self, values: NDArray[np.float64], periodic: Axes) -> NDArray[np.float64]:
        """Energies ``(18,)`` of the small scales of three components ``(3, D, H, W)`` of unit variance."""
        field = torch.from_numpy(values.astype(np.float32)).to(self.device)
        found: NDArray[np.float64] = band_densities(field, periodic)[TRANSMITTED].cpu().numpy()
        return found

    @torch.inference_mode()
    def matched(
        self, values: Tensor, energies: NDArray[np.float64], periodic: Axes, divergence_free: bool
    ) -> Tensor:
        """Gives the small scales of a whole field of the realistic decoder the energies that a stream says.

        Args:
            values: ``(3, D, H, W)`` float32 of unit variance, on the networks' device.
            energies: That they should have, ``(18,)``.
            periodic: Axes that continue at their far ends.
            divergence_free: They should have them when divergence has been removed, which is done afterwards.

        Returns:
            Same shape.
        """
        with full_precision(self.device):
            values = values.contiguous()
            found = band_densities(values, periodic, divergence=not divergence_free)
            return with_factors(values, matching_logarithms(torch.from_numpy(energies), found), periodic)

    @torch.inference_mode()
    def sharpened(self, values: Tensor, tenths: int, periodic: Axes) -> Tensor:
        """Gives the small scales of a whole field of the realistic decoder the energy that they may have had.

        Args:
            values: ``(3, D, H, W)`` float32 of unit variance, on the networks' device.
            tenths: Quality.
            periodic: Axes that continue at their far ends.

        Returns:
            Same shape; the same values if the weights have no gain.
        """
        gain = self.gain_of(periodic)
        if gain is None:
            return values
        with full_precision(self.device):
            # In the layout that transforms of a field on its own would see.
            return gain(values.contiguous(), tenths / 10, periodic)

    def gain_of(self, periodic: Axes) -> SpectralGain | None:
        """The gain of fields that are periodic along these axes; None if the weights have none."""
        return self.gain if all(periodic) or self.open_gain is None else self.open_gain

    def operands(self, tenths: int, periodic: Axes) -> tuple[Tensor, Tensor]:
        """Quality ``(1,)`` and periodic axes ``(1, 3)`` as networks take them."""
        # Filled where it is needed: a number that is brought there would stop a GPU.
        quality = torch.full((1,), tenths / 10, dtype=torch.float32, device=self.device)
        return quality, axis_flags(periodic, self.device)


def latent_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Positions of the latent of a field.

    Example:
        >>> latent_shape((1, 16, 17))
        (1, 2, 3)
    """
    d, h, w = (-(-size // STRIDE) for size in shape)
    return d, h, w


def write_scaled(
    target: NDArray[Any], unit: Tensor, scale: float, offsets: Sequence[float] | None = None
) -> None:
    """Writes components of unit variance with their scale and offsets, computed in float64 on their device.

    Args:
        target: ``(C, D, H, W)`` float32 or float64, C at most that of ``unit``.
        unit: ``(3, D, H, W)`` float32, any device; what is beyond C is left out.
        scale: Multiplied by.
        offsets: Added afterwards, C numbers; None for nothing.

    Example:
        >>> found = np.empty((1, 1, 1, 2), np.float32)
        >>> write_scaled(found, torch.tensor([0.5, 1.0]).expand(3, 1, 1, 2), 2.0, [10.0])
        >>> found.ravel().tolist()
        [11.0, 12.0]
    """
    for number, component in enumerate(torch.from_numpy(target)):
        # One after another: float64 of all at once would need several times the field's memory. A product
        # and a sum of their own, as one operation for both would round once where numpy rounds twice.
        values = unit[number].double().mul_(scale)
        if offsets is not None:
            values.add_(offsets[number])
        component.copy_(values)


def _halo(enhancer: Enhancer) -> int:
    """Positions that a block of an enhancer and the boundary filter reach, both ways.

    Every block of the enhancer looks one cube further, and the boundary filter half a block.
    """
    return -(-(PATCH * len(enhancer.blocks) + STRIDE // 2) // STRIDE)


def _spread(vector: Tensor) -> Tensor:
    return vector[:, None, None, None, :]


def _powers(network: FieldNetwork) -> Tensor:
    """What latents are divided by before a network sees them."""
    return torch.exp2(network.context.scale.exponent.float())


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: a bound is computed on one machine and has to hold on another."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def with_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Entries whose names begin with a prefix, by what follows it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_ratio(
    config: Mapping[str, int],
    tensors: Mapping[str, Any],
    tables: TableSet,
    device: torch.device,
    added: Mapping[str, Any] | None = None,
) -> RatioModel:
    """Builds and fills the networks of one ratio.

    Args:
        config: Arguments of ``build_field_network``.
        tensors: Arrays of a weight file, without the ratio's prefix.
        tables: One for every entry of the scale table of volumes.
        device: Where the networks run.
        added: Additions of a weight file, without the ratio's prefix.

    Raises:
        ValueError: The arrays do not fit the configuration.
    """
    faithful = {k: v for k, v in tensors.items() if not k.startswith("realistic.")}
    network = build_network(lambda: build_field_network(**config), config, faithful)
    for part in INTEGER_PARTS:
        setattr(network, part, convert(getattr(network, part)))
    realistic_state = with_prefix(tensors, "realistic.")
    fill_network(network, faithful)
    realistic: Enhancer | None = None
    if realistic_state:
        enhancer = network.synthesis.enhancer
        realistic = Enhancer(enhancer.stem.out_features, len(enhancer.blocks))
        fill_network(realistic, from_bytes(realistic_state))
        realistic = realistic.eval().requires_grad_(False).to(device)
    network = network.eval().requires_grad_(False).to(device)
    coder = VolumeCoder(
        network.hyper_prior,
        network.hyper_synthesis,
        network.context,
        tables,
        latent_channels=network.latent_channels,
    )
    gains = (_gain(added or {}, names) for names in (GAIN_ARRAYS, OPEN_GAIN_ARRAYS))
    return RatioModel(network, coder, realistic, device, *gains)


def _gain(added: Mapping[str, Any], names: tuple[str, str]) -> SpectralGain | None:
    """The gain of two additions; None if they are not there."""
    if not set(names) <= set(added):
        return None
    return SpectralGain(*(torch.from_numpy(np.array(added[name])) for name in names))
