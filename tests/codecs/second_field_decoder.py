"""A second decoder of field payloads, written from docs/bitstream.md with numpy's numbers and without torch.

It shares the container, the tables, the range coder and the checksum with the library, and nothing else. It
trusts its streams: what must be rejected is asserted at most. Values that no network had a part in are those
of the library to the bit.

Residuals, latents and networks are in second_field_parts.py, energies of small scales in
second_field_energies.py, both beside this file.
"""

import importlib.util
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from latentpress.codecs.bitstream import crc32c, decode_varint

LOSSLESS, INTERPOLATION, NETWORK, BLOCKS = range(4)
RATIOS = (8, 64, 512)

Periodic = tuple[bool, bool, bool]


def load_beside(name: str) -> ModuleType:
    """A module beside this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts = load_beside("second_field_parts")
energies = load_beside("second_field_energies")


@dataclass
class SecondField:
    """What a payload holds; its arrays are (C, D, H, W), of two dimensions too."""

    mode: int
    shape: tuple[int, int, int, int]
    flat: bool
    kind: str
    bound: float | None = None
    ratio: int | None = None
    tenths: int | None = None
    periodic: Periodic = (False, False, False)
    offsets: np.ndarray | None = None
    scales: np.ndarray | None = None
    mask: np.ndarray | None = None
    residual: np.ndarray | None = None
    exceptions: tuple[np.ndarray, np.ndarray] | None = None
    latents: list[np.ndarray] = field(default_factory=list)
    blocks: list[tuple[tuple[int, int, int], "SecondField"]] = field(default_factory=list)
    values: np.ndarray | None = None

    def masked(self) -> np.ndarray:
        """The mask of every value, 0 where it is finite, whether the field or its blocks have it."""
        codes = np.zeros(self.shape, np.uint8)
        if self.mask is not None:
            codes[:] = self.mask
        for (i, j, k), block in self.blocks:
            _, d, h, w = block.shape
            codes[:, i : i + d, j : j + h, k : k + w] = block.masked()
        return codes


class Reader:
    """Reads bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = bytes(data), 0

    def take(self, size: int) -> bytes:
        taken = self.data[self.offset : self.offset + size]
        assert len(taken) == size
        self.offset += size
        return taken

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.offset)

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value, self.offset = decode_varint(self.data, self.offset)
        return value

    def part(self) -> bytes:
        return self.take(self.varint())

    def floats(self, number: int) -> np.ndarray:
        return np.frombuffer(self.take(8 * number), "<f8")


def inflate(data: bytes, size: int) -> bytes:
    found = zlib.decompress(data)
    assert len(found) == size
    return found


def axes_of(byte: int) -> Periodic:
    assert byte < 8
    return bool(byte & 1), bool(byte & 2), bool(byte & 4)


def decode_payload(payload: bytes, weights: dict[str, np.ndarray]) -> SecondField:
    """Decode a payload of codec 3; `weights` are the arrays of the model, empty if none is needed."""
    reader = Reader(payload)
    flags = reader.byte()
    assert flags < 64
    found = SecondField(
        flags & 3,
        (reader.varint(), reader.varint(), reader.varint(), reader.varint()),
        bool(flags & 4),
        "<f8" if flags & 8 else "<f4",
        periodic=axes_of(reader.byte()),
    )
    assert min(found.shape) >= 1
    assert not found.flat or found.shape[1] == 1
    if flags & 32:
        found.bound = float(reader.floats(1)[0])
    if found.mode == BLOCKS:
        assert not flags & 16
        read_blocks(reader, found, weights)
        return found
    if found.mode != LOSSLESS:
        read_offsets(reader, found)
    if flags & 16:
        found.mask = decode_mask(reader.part(), found.shape)
    if found.mode == LOSSLESS:
        found.values = decode_values(reader.part(), found)
    if found.mode == NETWORK:
        read_latents(reader, found, weights)
    if found.mode != LOSSLESS and found.bound is not None:
        found.residual = parts.decode_residual(reader.part(), found.shape)
        found.exceptions = decode_exceptions(reader.part(), found.kind)
    assert reader.offset == len(payload)
    if found.mode != LOSSLESS:
        sums = np.zeros(found.shape) if found.residual is None else found.residual
        if found.mode == NETWORK:
            sums = network_part(found, weights) + sums
        found.values = finished(found, sums)
    return found


def read_offsets(reader: Reader, found: SecondField) -> None:
    """The offsets, and the scales and what goes with them if there is a network."""
    components = found.shape[0]
    found.offsets = reader.floats(components)
    if found.mode != INTERPOLATION:
        found.ratio = RATIOS[reader.byte()]
        found.tenths = reader.varint()
        assert found.tenths <= 1000
        found.scales = reader.floats(-(-components // 3))


def read_latents(reader: Reader, found: SecondField, weights: dict[str, np.ndarray]) -> None:
    network = parts.SecondNetwork(weights, found.ratio, found.tenths, found.periodic)
    found.latents = [network.decode(reader.part(), found.shape[1:]) for _ in found.scales]


def network_part(
    found: SecondField,
    weights: dict[str, np.ndarray],
    enhancer: str = "synthesis.enhancer",
    section: bytes | None = None,
) -> np.ndarray:
    """What the networks make of the latents of a field or of its joint blocks, in float64.

    With a section of energies, small scales of whole groups have them.
    """
    said = [] if section is None else energies.read_section(section, found.shape[0] // 3)
    network = parts.SecondNetwork(weights, found.ratio, found.tenths, found.periodic)
    _, depth, height, width = found.shape
    groups = []
    for group, scale in enumerate(found.scales):
        if found.blocks:
            channels = found.blocks[0][1].latents[group].shape[3]
            whole = np.zeros((*[-(-size // 8) for size in found.shape[1:]], channels))
            for start, block in found.blocks:
                d, h, w, _ = block.latents[group].shape
                i, j, k = (at // 8 for at in start)
                whole[i : i + d, j : j + h, k : k + w] = block.latents[group]
        else:
            whole = found.latents[group]
        group_values = network.synthesise(whole, enhancer)[:, :depth, :height, :width]
        if group < len(said):
            group_values = energies.matched(group_values, said[group], found.periodic)
        groups.append(group_values * scale)
    return np.concatenate(groups)[: found.shape[0]]


def decode_mask(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    shape = (1, *shape[1:]) if data[0] == 1 else shape
    size = math.prod(shape)
    planes = inflate(data[1:], 2 * -(-size // 8))
    low, high = np.unpackbits(np.frombuffer(planes, np.uint8).reshape(2, -1), axis=1)[:, :size]
    return (low + 2 * high).reshape(shape)


def decode_values(data: bytes, found: SecondField) -> np.ndarray:
    number, size = math.prod(found.shape), np.dtype(found.kind).itemsize
    planes = np.frombuffer(inflate(data, number * size), np.uint8).reshape(size, number)
    return np.ascontiguousarray(planes.T).view(found.kind).reshape(found.shape)


def decode_exceptions(data: bytes, kind: str) -> tuple[np.ndarray, np.ndarray]:
    number, offset = decode_varint(data, 0)
    content = inflate(data[offset:], number * (8 + np.dtype(kind).itemsize))
    distances = np.frombuffer(content[: 8 * number], "<i8")
    assert (distances[1:] >= 1).all()
    return np.cumsum(distances), np.frombuffer(content[8 * number :], kind)


def finished(found: SecondField, sums: np.ndarray) -> np.ndarray:
    """The field of the float64 sums of network and residual."""
    values = (sums + found.offsets.reshape(-1, 1, 1, 1)).astype(found.kind)
    if found.exceptions is not None:
        positions, replacements = found.exceptions
        values.reshape(-1)[positions] = replacements
    codes = found.masked()
    for code, value in enumerate((np.nan, np.inf, -np.inf), 1):
        values[codes == code] = value
    return values


def read_blocks(reader: Reader, found: SecondField, weights: dict[str, np.ndarray]) -> None:
    sides = [reader.varint() for _ in range(3)]
    joint = reader.byte()
    assert joint in (0, 1)
    if joint:
        read_offsets(reader, found)
    table = Reader(reader.part())
    checked = reader.data[: reader.offset]
    assert crc32c(checked) == int.from_bytes(reader.take(4), "little")
    if not joint:
        found.values = np.empty(found.shape, found.kind)
    starts = [range(0, size, side) for size, side in zip(found.shape[1:], sides, strict=True)]
    for start in [(i, j, k) for i in starts[0] for j in starts[1] for k in starts[2]]:
        content = reader.take(table.varint())
        assert crc32c(content) == int.from_bytes(table.take(4), "little")
        extent = [min(side, size - at) for side, size, at in zip(sides, found.shape[1:], start, strict=True)]
        shape = (found.shape[0], *extent)
        if joint:
            block = decode_joint_block(content, found, shape, weights)
        else:
            block = decode_payload(content, weights)
            assert block.mode != BLOCKS
            assert (block.shape, block.flat, block.kind) == (shape, found.flat, found.kind)
            assert (block.bound is None) == (found.bound is None)
            inside = tuple(slice(at, at + size) for at, size in zip(start, extent, strict=True))
            found.values[(slice(None), *inside)] = block.values
        found.blocks.append((start, block))
    assert table.offset == len(table.data)
    assert reader.offset == len(reader.data)
    if joint:
        found.values = finished(found, network_part(found, weights))


def decode_joint_block(
    content: bytes, whole: SecondField, shape: tuple[int, ...], weights: dict[str, np.ndarray]
) -> SecondField:
    periodic = tuple(
        around and side == size
        for around, side, size in zip(whole.periodic, shape[1:], whole.shape[1:], strict=True)
    )
    block = SecondField(
        NETWORK,
        shape,
        whole.flat,
        whole.kind,
        ratio=whole.ratio,
        tenths=whole.tenths,
        periodic=periodic,
        offsets=whole.offsets,
        scales=whole.scales,
    )
    reader = Reader(content)
    has_mask = reader.byte()
    assert has_mask in (0, 1)
    if has_mask:
        block.mask = decode_mask(reader.part(), shape)
    read_latents(reader, block, weights)
    assert reader.offset == len(content)
    return block
