"""Residuals and latents of fields, decoded a second time, see second_field_decoder.py."""

import math
import struct
from typing import NamedTuple

import numpy as np

from latentpress.codecs.bitstream import SymbolDecoder, TableSet, crc32c

TIGHTENINGS = ((1.0, 1.0), (0.8, 0.4), (0.65, 0.2))
UNITS = 2**24
LIMIT = 2**20 - 1

Periodic = tuple[bool, bool, bool]


class ResidualHead(NamedTuple):
    """What stands before the words of a residual.

    Attributes:
        error: The bound it is coded with.
        shape: That is coded, (C, D, H, W), or (C * D, 1, H, W) if it is sliced.
        tightening: 0 to 2.
        levels: L.
        passes: Level and axis of all but the first point.
        predictors: Of these passes.
        tables: Number of the table of every context, -1 where there is none.
        words: Of the range coder.
    """

    error: float
    shape: tuple[int, ...]
    tightening: int
    levels: int
    passes: list[tuple[int, int]]
    predictors: list[int]
    tables: np.ndarray
    words: bytes


def read_head(data: bytes, shape: tuple[int, ...]) -> ResidualHead:
    """Read what stands before the words of a residual of a field of this shape."""
    error, size = struct.unpack_from("<dI", data)
    head, words = data[12 : 12 + size], data[12 + size :]
    assert head[0] < 8
    if head[0] & 4:
        shape = (shape[0] * shape[1], 1, *shape[2:])
    levels = (max(shape[1:]) - 1).bit_length()
    passes = [
        (level, axis)
        for level in range(levels, 0, -1)
        for axis in range(3)
        if shape[1 + axis] > 2 ** (level - 1)
    ]
    # The first point is a pass too and has two bits, though it is always predicted by 0.
    flags_at = 1 + (1 + len(passes) + 3) // 4
    pairs = bits_of(head[1:flags_at])
    predictors = (pairs[0::2] + 2 * pairs[1::2]).tolist()
    assert predictors[0] == 0
    assert not any(predictors[1 + len(passes) :])
    tables = np.full(320, -1)
    tables[bits_of(head[flags_at : flags_at + 40]).astype(bool)] = np.frombuffer(head[flags_at + 40 :], "<u2")
    return ResidualHead(
        error, shape, head[0] & 3, levels, passes, predictors[1 : 1 + len(passes)], tables, words
    )


def bits_of(data: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")


def decode_residual(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The residual of a field of this shape, in float64."""
    head = read_head(data, shape)
    coder = SymbolDecoder(head.words)
    values, symbols = np.zeros(head.shape), np.zeros(head.shape, np.int64)
    scales = level_scales(head.levels + 1, *TIGHTENINGS[head.tightening])
    widths = [2 * head.error * scale for scale in scales]
    used, ranks = np.unique(head.tables[head.tables >= 0], return_inverse=True)
    tables = residual_tables(used.tolist())
    table_of = np.full(320, -1)
    table_of[head.tables >= 0] = ranks

    def get(contexts: np.ndarray) -> np.ndarray:
        indexes = table_of[contexts.reshape(-1)]
        assert (indexes >= 0).all()
        return coder.get(indexes, tables).astype(np.int64).reshape(contexts.shape)

    first = get(np.full(head.shape[0], 32 * 9))
    symbols[:, 0, 0, 0] = first
    values[:, 0, 0, 0] = first * widths[head.levels]
    for (level, axis), predictor in zip(head.passes, head.predictors, strict=True):
        half = 2 ** (level - 1)
        steps = [slice(0, None, half if other < axis else 2 * half) for other in range(3)]
        known = (slice(None), *steps)
        steps[axis] = slice(half, None, 2 * half)
        wanted = (slice(None), *steps)
        count = values[wanted].shape[1 + axis]
        a, b, c, d = surroundings(np.moveaxis(values[known], 1 + axis, -1), count)
        width = widths[level - 1]
        prediction = ((9 * (b + c) - (a + d)) * 0.0625) if predictor == 2 else (0.0, 0.5)[predictor] * (b + c)
        activity = np.abs((a + d) - (b + c) if predictor == 2 else c - b) / width
        sizes = np.minimum(np.abs(np.moveaxis(symbols[known], 1 + axis, -1)), 64)
        sizes = np.concatenate([sizes, sizes[..., -1:]], axis=-1)
        near = sizes[..., :count] + sizes[..., 1 : count + 1]
        u = sum((near > limit).astype(int) for limit in (0, 2, 6))
        v = sum((activity > limit).astype(int) for limit in (0.25, 0.5, 1, 2, 4, 8, 16))
        group = 3 * (level - 1) + axis if level <= 3 else 9
        # Symbols stand in the raster order of the field, whatever the axis.
        found = get(np.moveaxis(32 * group + 8 * u + v, -1, 1 + axis))
        symbols[wanted] = found
        values[wanted] = np.moveaxis(prediction, -1, 1 + axis) + found * width
    coder.finish()
    return values.reshape(shape)


def level_scales(number: int, factor: float, least: float) -> list[float]:
    scales = [1.0]
    while len(scales) < number:
        scales.append(max(least, scales[-1] * factor))
    return scales


def surroundings(known: np.ndarray, count: int) -> list[np.ndarray]:
    """The two points before and the two after each of `count` points behind known ones, on the last axis."""
    first, last = known[..., :1], known[..., -1:]
    before = 3 * (first - known[..., 1:2]) + known[..., 2:3] if known.shape[-1] >= 3 else first
    after = 2 * last - known[..., -2:-1] if known.shape[-1] >= 2 else last
    extended = np.concatenate([before, known, after, after], axis=-1)
    return [extended[..., k : k + count] for k in range(4)]


def residual_tables(numbers: list[int]) -> TableSet:
    shares = [15 * UNITS // 16]
    while len(shares) < max(16, max(numbers) // 16 + 1):
        shares.append(3 * shares[-1] // 4)
    rows = []
    for number in numbers:
        i, j = divmod(number, 16)
        rest, magnitudes = shares[i] // 2, []
        while rest > 64 and len(magnitudes) < 2048:
            magnitudes.append(max(1, rest * shares[j] // UNITS))
            rest -= magnitudes[-1]
        escape = max(1, 2 * rest)
        zero = UNITS - 2 * sum(magnitudes) - escape
        rows.append([*magnitudes[::-1], zero, *magnitudes, escape])
    lengths = np.array([len(row) for row in rows])
    return TableSet(np.concatenate(rows), lengths, -(lengths - 2) // 2)


def spread(x: np.ndarray, side: int) -> np.ndarray:
    """Channels to the positions of cubes."""
    d, h, w, _ = x.shape
    x = x.reshape(d, h, w, side, side, side, -1).transpose(0, 3, 1, 4, 2, 5, 6)
    return x.reshape(side * d, side * h, side * w, -1)


def gathered(x: np.ndarray, side: int) -> np.ndarray:
    """Positions of cubes to channels."""
    d, h, w = (size // side for size in x.shape[:3])
    x = x.reshape(d, side, h, side, w, side, -1).transpose(0, 2, 4, 1, 3, 5, 6)
    return x.reshape(d, h, w, -1)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


class SecondNetwork:
    """The networks of one ratio; activations are (d, h, w, channel)."""

    def __init__(self, weights: dict[str, np.ndarray], ratio: int, tenths: int, periodic: Periodic) -> None:
        prefix = f"ratio{ratio}."
        self.weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        arrays = {k.removeprefix("tables."): v for k, v in weights.items() if k.startswith("tables.")}
        self.tables = TableSet.from_arrays(arrays)
        self.depth = sum(name.endswith("value.bias") for name in self.weights if "context.blocks." in name)
        self.tenths, self.periodic = tenths, periodic

    def array(self, name: str) -> np.ndarray:
        return self.weights[name].astype(np.int64)

    def scale(self, name: str, sums: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.scale(name, x.clip(-LIMIT, LIMIT) @ self.array(f"{name}.weight").T)

    def seven(self, x: np.ndarray) -> list[np.ndarray]:
        """Every point, then those before and after it along each axis."""
        found = [x]
        for axis, around in enumerate(self.periodic):
            size, pads = x.shape[axis], [(0, 0)] * 4
            pads[axis] = (1, 1)
            padded = np.pad(x, pads, mode="wrap" if around else "edge")
            found += [padded.take(range(size), axis), padded.take(range(2, size + 2), axis)]
        return found

    def neighbours(self, name: str, x: np.ndarray) -> np.ndarray:
        points = self.seven(x.clip(-LIMIT, LIMIT))
        taps = self.array(f"{name}.weight")
        return self.scale(name, sum(p * tap for p, tap in zip(points, taps, strict=True)))

    def block(self, name: str, x: np.ndarray) -> np.ndarray:
        hidden = self.linear(f"{name}.expand", x)
        hidden = np.where(hidden > 0, hidden, hidden >> 3)
        x = x + self.linear(f"{name}.project", self.neighbours(f"{name}.neighbours", hidden))
        value = self.linear(f"{name}.value", x).clip(-LIMIT, LIMIT)
        gate = self.linear(f"{name}.gate", x).clip(0, 2**13)
        return x + self.linear(f"{name}.output", (value * gate + 512) >> 10)

    def upsample(self, name: str, x: np.ndarray) -> np.ndarray:
        return spread(self.linear(name, x), 2)

    def quality_vector(self, name: str) -> np.ndarray:
        knots = self.array(f"{name}.knots")
        position = self.tenths * (len(knots) - 1)
        index = min(position // 1000, len(knots) - 2)
        fraction = position - 1000 * index
        return (knots[index] * (1000 - fraction) + knots[index + 1] * fraction + 500) // 1000

    def table_index(self, raw: np.ndarray) -> np.ndarray:
        return ((8 * raw + 24 * 1024 + 512) >> 10).clip(0, 63).astype(np.uint8)

    def decode(self, part: bytes, extent: tuple[int, ...]) -> np.ndarray:
        """The latent of a group, in units of 2**-10 steps."""
        shape = [-(-size // 8) for size in extent]
        hyper_shape = [-(-size // 4) for size in shape]
        coder = SymbolDecoder(part[4:])
        indexes = self.table_index(self.quality_vector("hyper_prior.raw_scale"))
        symbols = [coder.get(np.tile(indexes, math.prod(hyper_shape)), self.tables)]
        z = symbols[0].reshape(*hyper_shape, -1).astype(np.int64)

        x = self.upsample("hyper_synthesis.up_coarse", z * 1024)
        x = self.upsample("hyper_synthesis.up_fine", self.block("hyper_synthesis.coarse", x))
        x = x + self.quality_vector("hyper_synthesis.bias")
        features = self.block("hyper_synthesis.fine", x)[: shape[0], : shape[1], : shape[2]]

        exponent = self.array("context.scale.exponent")
        y_hat = np.zeros((*shape, len(exponent)), np.int64)
        d, h, w, channel = np.indices(y_hat.shape)
        for step, order in enumerate((0, 3, 2, 1)):
            x = features
            if step > 0:
                shrunk = (2 * y_hat + (1 << exponent)) >> (exponent + 1)
                x = self.linear(f"context.adaptors.{step - 1}", np.concatenate([features, shrunk], axis=3))
                for number in range(self.depth):
                    x = self.block(f"context.blocks.{number}", x)
            mean, raw_scale = np.split(self.linear(f"context.heads.{step}", x), 2, axis=3)
            if step > 0:
                name = f"context.predictors.{step - 1}"
                predicted = len(self.array(f"{name}.bias"))
                around = np.concatenate(self.seven(shrunk[..., :predicted]), axis=3)
                mean[..., :predicted] += self.linear(name, around)
            mean = mean << exponent
            coded = (2 * (d % 2 ^ h % 2) + (d % 2 ^ w % 2)) ^ order == channel % 4
            symbols.append(coder.get(self.table_index(raw_scale[coded]), self.tables))
            y_hat[coded] = symbols[-1].astype(np.int64) * 1024 + mean[coded]
        coder.finish()
        found = crc32c(np.concatenate(symbols).astype("<i4").tobytes())
        assert found == int.from_bytes(part[:4], "little"), "another checksum"
        return y_hat

    def synthesise(self, y_hat: np.ndarray, enhancer: str = "synthesis.enhancer") -> np.ndarray:
        """Three components from a latent, in float64, (3, 8 d, 8 h, 8 w)."""
        x = y_hat / 1024 / np.exp(self.real_vector("gain"))
        x = spread(x @ self.real("synthesis.stem.weight").T, 8)
        for axis, around in enumerate(self.periodic):
            x = np.moveaxis(self.mixed(np.moveaxis(x, axis, 0), around), 0, axis)
        p = self.real_linear(f"{enhancer}.stem", gathered(x, 4)) + self.real_vector(f"{enhancer}.bias")
        blocks = sum(n.startswith(f"{enhancer}.blocks.") and n.endswith("value.bias") for n in self.weights)
        for number in range(blocks):
            p = self.real_block(f"{enhancer}.blocks.{number}", p)
        p = self.real_linear(f"{enhancer}.head", p) * np.exp(self.real_vector(f"{enhancer}.gain"))
        return (x + spread(p, 4)).transpose(3, 0, 1, 2)

    def mixed(self, x: np.ndarray, around: bool) -> np.ndarray:
        """The samples on both sides of every boundary along the first axis, mixed."""
        matrix, mixed = self.real("synthesis.boundary.matrix"), x.copy()
        for boundary in range(0 if around else 8, len(x), 8):
            places = np.arange(boundary - 4, boundary + 4)
            mixed[places] = np.tensordot(matrix, x[places], 1)
        return mixed

    def real(self, name: str) -> np.ndarray:
        array = self.weights[name].astype(np.float64)
        if f"{name}.row_scale" in self.weights:
            array = array * self.weights[f"{name}.row_scale"].astype(np.float64)[:, None]
        return array

    def real_vector(self, name: str) -> np.ndarray:
        knots = self.real(f"{name}.knots")
        at = self.tenths / 1000 * (len(knots) - 1)
        return np.array([np.interp(at, np.arange(len(knots)), column) for column in knots.T])

    def real_linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.real(f"{name}.weight").T + self.real(f"{name}.bias")

    def real_block(self, name: str, x: np.ndarray) -> np.ndarray:
        points = self.seven(silu(self.real_linear(f"{name}.expand", x)))
        hidden = sum(p * tap for p, tap in zip(points, self.real(f"{name}.neighbours.taps"), strict=True))
        x = x + self.real_linear(f"{name}.project", hidden + self.real(f"{name}.neighbours.bias"))
        gated = self.real_linear(f"{name}.value", x) * silu(self.real_linear(f"{name}.gate", x))
        return x + self.real_linear(f"{name}.output", gated)
