"""Energies of a field's small scales, as the encoder saw them: a section that the realistic decoder reads.

::

    three components of unit variance -> mean energy in 18 bands of wave numbers
      -> logarithms in steps of 1/64 -> differences of differences, as spectra are smooth -> a byte each
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CorruptStream, decode_varint, encode_varint
from latentpress.codecs.field_payload import GROUP, FieldHeader, Mode
from latentpress.models.field.spectral_gain import LEAST_SIDE, TRANSMITTED

STEPS = 64
"""To a factor of e: energies are right within 0.8 %. Coarser ones would do at the smallest scales, but not at
those with most of the dissipation, of which decoders lack a few percent."""

LARGEST_SHARE = 0.005
"""Of a stream that the section may take."""

_FLOOR = 1e-12
"""Smaller energies of waves of unit variance are none."""

_FARTHEST_LEVEL = 2000
"""Levels of energies that a field can have are nearer to zero."""


def whole_groups(shape: Sequence[int]) -> int:
    """Groups of a field that have energies of small scales: those of three components.

    Args:
        shape: ``(C, D, H, W)``.

    Example:
        >>> whole_groups((7, 32, 40, 32)), whole_groups((3, 1, 400, 300))
        (2, 0)
    """
    return shape[0] // GROUP if min(shape[1:]) >= LEAST_SIDE else 0


def pack_energies(densities: Sequence[NDArray[np.float64]]) -> bytes:
    """The section of some energies.

    Args:
        densities: Of each whole group, ``(18,)``; NaN where a field has no waves.

    Example:
        >>> len(pack_energies([np.geomspace(50, 1e-4, 18)]))
        20
    """
    parts = []
    for group in densities:
        levels = np.rint(STEPS * np.log(np.maximum(np.nan_to_num(group), _FLOOR)))
        bends = map(int, np.diff(levels, n=2, prepend=(0, 0)))
        parts += [encode_varint(2 * bend if bend >= 0 else -2 * bend - 1) for bend in bends]
    return b"".join(parts)


def unpack_energies(section: bytes, header: FieldHeader) -> list[NDArray[np.float64]]:
    """Inverse of :func:`pack_energies`, for the fields that can have them; nothing for any other.

    Args:
        section: Its content.
        header: Of the payload behind it.

    Returns:
        Energies of each whole group, ``(18,)``.

    Raises:
        StreamError: The section is not one of this field.

    Example:
        >>> shape = (3, 32, 32, 32)
        >>> header = FieldHeader(Mode.NETWORK, shape, flat=False, double=False)
        >>> unpack_energies(pack_energies([np.full(18, 2.0)]), header)[0][:2].round(2).tolist()
        [1.99, 1.99]
    """
    if header.mode != Mode.NETWORK or header.bound is not None:
        return []
    found = []
    offset = 0
    for _ in range(whole_groups(header.shape)):
        level, step, levels = 0, 0, []
        for _ in range(TRANSMITTED.start, TRANSMITTED.stop):
            bend, offset = decode_varint(section, offset)
            step += -(bend + 1) // 2 if bend % 2 else bend // 2
            level += step
            if abs(level) > _FARTHEST_LEVEL:
                raise CorruptStream("waves of a field cannot have such an energy")
            levels.append(level)
        found.append(np.exp(np.array(levels) / STEPS))
    if found and offset != len(section):
        raise CorruptStream(f"{len(section) - offset} bytes follow the energies of a field")
    return found


def is_worth_it(section: bytes, payload: bytes) -> bool:
    """Whether a section is small beside its payload."""
    return 0 < len(section) <= math.floor(LARGEST_SHARE * len(payload))
