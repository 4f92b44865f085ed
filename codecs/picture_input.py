"""What codecs of pictures accept: tensors and arrays with or without alpha, and metadata to carry along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.alpha_coder import encode_alpha
from latentpress.codecs.bitstream import SectionType
from latentpress.codecs.picture_sections import DEPTH_16, METADATA_SECTIONS
from latentpress.codecs.transparent_fill import fill_transparent

ALPHA_MAX_ERROR = 2 / 255
"""By how much a value of alpha may change unless something else is asked for; full opacity is 1."""

_SHAPES = "(3, H, W) RGB, (4, H, W) RGBA, (1, H, W) grey or (2, H, W) grey and alpha"


class SquaredErrors(NamedTuple):
    """Squared errors of samples that can be seen.

    Attributes:
        total: Their sum, in squared 8-bit steps.
        samples: Their number.

    Example:
        >>> (SquaredErrors(2.0, 3) + SquaredErrors(4.0, 1)).mean
        1.5
    """

    total: float
    samples: int

    def __add__(self, other: SquaredErrors) -> SquaredErrors:  # type: ignore[override]
        return SquaredErrors(self.total + other.total, self.samples + other.samples)

    @property
    def mean(self) -> float:
        """Of a sample; 0 if there are none."""
        return self.total / self.samples if self.samples else 0.0


@dataclass(frozen=True)
class PictureInput:
    """A picture that was checked, its colour apart from its alpha.

    Attributes:
        colour: ``(3, H, W)`` or ``(1, H, W)``, uint8, uint16 or floating point in [0, 1], as it came.
        alpha: ``(H, W)``, uint8 or uint16; None where there is none.
        bits: 8 or 16: what the decoded picture has for each sample.
    """

    colour: Tensor
    alpha: NDArray[Any] | None
    bits: int

    def pixels(self) -> Tensor:
        """The colour as networks take it: float32 in [0, 1], smooth under transparent pixels."""
        colour = _in_unit_range(self.colour)
        return colour if self.alpha is None else fill_transparent(colour, self._visible())

    def to(self, device: torch.device) -> PictureInput:
        """The same with its colour on a device, where it goes as it came: 8 bits are soonest there."""
        return replace(self, colour=self.colour.to(device))

    def window(self, rows: slice, columns: slice) -> PictureInput:
        """A part of it, without a copy."""
        alpha = None if self.alpha is None else self.alpha[rows, columns]
        return replace(self, colour=self.colour[:, rows, columns], alpha=alpha)

    def squared_error(self, decoded: Tensor) -> float:
        """Mean squared error of a decoded picture where it can be seen, in squared 8-bit steps.

        Args:
            decoded: ``(C, H, W)`` as the network makes it, around [0, 1]; any device.

        Returns:
            That of the samples as they will be returned, of 8 or 16 bits; 0 if nothing can be seen.
        """
        return self.squared_errors(decoded).mean

    def squared_errors(self, decoded: Tensor) -> SquaredErrors:
        """The same, for sums over several parts of a picture."""
        difference = to_samples(decoded, self.bits).double() * (255 / (2**self.bits - 1))
        difference -= _in_unit_range(self.colour).to(decoded.device).double() * 255
        if self.alpha is not None:
            difference = difference[:, self._visible().to(decoded.device)]
        return SquaredErrors(float(difference.square().sum()), difference.numel())

    def sections(
        self, metadata: Mapping[str, bytes], alpha_max_error: float | None = None
    ) -> list[tuple[int, bytes]]:
        """Sections of a container that carry what the payload does not.

        Args:
            metadata: Blocks by the names of :data:`METADATA_SECTIONS`.
            alpha_max_error: By how much a value of alpha may change, as a share of full opacity; 0 for not at
                all, None for :data:`ALPHA_MAX_ERROR`.

        Raises:
            ValueError: A name is unknown, or the error is not within [0, 0.5).
        """
        allowed = ALPHA_MAX_ERROR if alpha_max_error is None else alpha_max_error
        if not 0 <= allowed < 0.5:
            raise ValueError(f"alpha_max_error must be within 0 and 0.5, got {allowed}")
        found = metadata_sections(metadata)
        if self.bits == 16:
            found.append((SectionType.DEPTH, DEPTH_16))
        if self.alpha is not None:
            top = np.iinfo(self.alpha.dtype).max
            found.append((SectionType.ALPHA, encode_alpha(self.alpha, int(allowed * top))))
        return found

    def _visible(self) -> Tensor:
        assert self.alpha is not None
        return torch.from_numpy(self.alpha != 0).to(self.colour.device)


def picture_input(x: Tensor | NDArray[Any]) -> PictureInput:
    """Checks a picture and takes its alpha apart.

    Args:
        x: ``(3, H, W)`` RGB, ``(4, H, W)`` RGBA, ``(1, H, W)`` grey or ``(2, H, W)`` grey and alpha; uint8,
            uint16 or floating point in [0, 1]. A tensor on any device, or an array. Colour is not multiplied
            by alpha.

    Returns:
        Its parts. Alpha of floating point is rounded to 8 bits.

    Raises:
        TypeError: It is neither tensor nor array, or of another type.
        ValueError: Its shape is another, or a value is not finite or out of range.

    Example:
        >>> found = picture_input(np.full((2, 5, 4), 0.5, np.float32))
        >>> found.colour.shape, found.alpha.shape, int(found.alpha[0, 0]), found.bits
        (torch.Size([1, 5, 4]), (5, 4), 128, 8)
    """
    if isinstance(x, np.ndarray):
        # A view that is not writable, or of another byte order, is no tensor.
        x = torch.from_numpy(np.array(x, dtype=x.dtype.newbyteorder("="), order="C"))
    if not isinstance(x, Tensor):
        raise TypeError(f"expected a tensor or an array {_SHAPES}, got {type(x).__name__}")
    if x.ndim != 3 or x.shape[0] not in (1, 2, 3, 4) or 0 in x.shape:
        raise ValueError(f"expected a picture of shape {_SHAPES}, got {tuple(x.shape)}")
    x = x.detach()
    if x.dtype.is_floating_point:
        if not bool(torch.isfinite(x).all()) or float(x.min()) < 0 or float(x.max()) > 1:
            raise ValueError(
                f"a floating-point picture of shape {tuple(x.shape)} must be finite and within [0, 1]"
            )
    elif x.dtype not in (torch.uint8, torch.uint16):
        raise TypeError(f"expected uint8, uint16 or floating point of shape {tuple(x.shape)}, got {x.dtype}")
    bits = 16 if x.dtype == torch.uint16 else 8
    if x.shape[0] % 2:
        return PictureInput(x, None, bits)
    alpha = to_samples(x[-1], bits) if x.dtype.is_floating_point else x[-1]
    return PictureInput(x[:-1], alpha.cpu().numpy(), bits)


def checked_picture(x: Tensor | NDArray[Any]) -> Tensor:
    """The colour of a picture as networks take it.

    Args:
        x: As for :func:`picture_input`.

    Returns:
        float32 in [0, 1], ``(3, H, W)`` or ``(1, H, W)``, on the same device, detached.

    Raises:
        TypeError: It is of another type.
        ValueError: Its shape is another, or a value is not finite or out of range.

    Example:
        >>> float(checked_picture(torch.full((1, 2, 2), 255, dtype=torch.uint8)).max())
        1.0
    """
    return picture_input(x).pixels()


def to_samples(picture: Tensor, bits: int) -> Tensor:
    """Rounds values around [0, 1] to uint8 or uint16.

    Example:
        >>> [int(to_samples(torch.tensor(0.5), bits)) for bits in (8, 16)]
        [128, 32768]
    """
    scaled: Tensor = (picture.clamp(0, 1) * (2**bits - 1)).round()
    # Torch has few operations for uint16, and converts to it from integers everywhere.
    return scaled.to(torch.uint8) if bits == 8 else scaled.to(torch.int32).to(torch.uint16)


def metadata_sections(metadata: Mapping[str, bytes]) -> list[tuple[int, bytes]]:
    """Sections of a container that carry metadata.

    Args:
        metadata: Blocks by the names of :data:`METADATA_SECTIONS`.

    Raises:
        ValueError: A name is unknown.
    """
    unknown = set(metadata) - set(METADATA_SECTIONS)
    if unknown:
        raise ValueError(f"metadata can be {', '.join(METADATA_SECTIONS)}, not {', '.join(sorted(unknown))}")
    return [(METADATA_SECTIONS[name], content) for name, content in metadata.items()]


def _in_unit_range(colour: Tensor) -> Tensor:
    if colour.dtype.is_floating_point:
        return colour.float()
    return colour.float() / (255 if colour.dtype == torch.uint8 else 65535)
