"""Symbols, experts and edges of polygons, decoded a second time, see second_polygon_decoder.py."""

from math import isqrt

import numpy as np

from latentpress.codecs import polygon_tables as constants
from latentpress.codecs.bitstream import crc32c
from latentpress.codecs.bitstream.reference_coder import ReferenceDecoder

Vector = tuple[int, ...]


class Symbols:
    """Symbols with a row of weights each.

    Args:
        data: Words of the range coder, packed as in a shape payload.
    """

    def __init__(self, data: bytes) -> None:
        assert data[-1:] != b"\0" or len(data) % 4 == 1, "a zero byte that could have been left out"
        data += bytes(-len(data) % 4)
        words = [data[at : at + 4][::-1] for at in range(0, len(data), 4)]
        self.coder = ReferenceDecoder(b"".join(words))
        self.coded: list[int] = []

    def take(self, weights: list[int]) -> int:
        """The next symbol, of one with these weights."""
        if len(weights) == 1:
            return 0
        total, spare = sum(weights), 2**24 - len(weights)
        row = [1 + weight * spare // total for weight in weights]
        row[row.index(max(row))] += 2**24 - sum(row)
        self.coded.append(int(self.coder.get_rows(np.array([row]))[0]))
        return self.coded[-1]

    def adaptive(self, counts: list[int], unit: int) -> int:
        """The next symbol, counted."""
        symbol = self.take(counts)
        counts[symbol] += unit
        return symbol

    def finish(self, checksum: int) -> None:
        """Check that nothing is left, and that these were the symbols."""
        self.coder.finish()
        assert crc32c(np.array(self.coded, "<i4").tobytes()) % 65536 == checksum, "another checksum"


class Mean:
    """A mean that begins with a value a number of times."""

    def __init__(self, total: int, count: int) -> None:
        self.total, self.count = total, count

    def value(self) -> int:
        return self.total // self.count

    def add(self, value: int) -> None:
        self.total += value
        self.count += 1


class Mixture:
    """The experts' opinions of some coordinates, one after another.

    Args:
        trust: In each expert.
    """

    def __init__(self, trust: list[int]) -> None:
        self.trust = list(trust)
        self.rows: list[list[int]] = []

    def mixed(self, rows: list[list[int]]) -> list[int]:
        """The weights of all places of a coordinate."""
        self.rows = rows
        shares = [trust * 4096 // sum(self.trust) for trust in self.trust]
        sums = (sum(w * share for w, share in zip(ws, shares, strict=True)) for ws in zip(*rows, strict=True))
        return [total // 4096 + constants.UNIFORM_WEIGHT for total in sums]

    def learn(self, place: int) -> None:
        """Trust those more who thought this place likely."""
        trust = [max(t * row[place] // 256, 1) for t, row in zip(self.trust, self.rows, strict=True)]
        self.trust = [t * 2**20 // sum(trust) + 1 for t in trust]


def expert_row(places: range, mean: int, spread: int) -> list[int]:
    """An expert's weights of places; the mean and the root of the spread are in 256ths of their steps."""
    width = min(constants.FREEDOM * spread, 2**47)
    peaks = [2**15 * width // (width + (256 * place - mean) ** 2) for place in places]
    weights = [(q * q // 2**15) ** 2 for q in peaks]
    total = max(sum(weights), 1)
    return [w * 2**24 // total + 1 for w in weights]


class Expert:
    """One expert's opinion of a corner.

    Args:
        mean: Where it expects the corner.
        scales: Its matrix of scales.
    """

    def __init__(self, mean: Vector, scales: list[list[int]]) -> None:
        self.mean, self.scales = list(mean), [list(row) for row in scales]
        self.known = self.distance = 0

    def own(self) -> int:
        """Its scale along the axis that is next."""
        return max(self.scales[self.known][self.known], constants.ROUNDING_SPREAD)

    def row(self, grid: int) -> list[int]:
        """Its weights of all nodes along the axis that is next."""
        degrees = constants.FREEDOM
        spread = self.own() * (degrees * 4096 + self.distance) // ((degrees + self.known) * 4096)
        return expert_row(range(grid + 1), self.mean[self.known], spread)

    def condition(self, node: int) -> None:
        """Learn that the coordinate along the axis that is next is at this node."""
        k, s = self.known, self.own()
        away = 256 * node - self.mean[k]
        column = list(self.scales[k])
        for i in range(k + 1, 3):
            self.mean[i] += column[i] * away // s
            for j in range(k + 1, 3):
                self.scales[i][j] -= column[i] * column[j] // s
        self.distance += 4096 * away * away // s
        self.known += 1


def dot(a: Vector, b: Vector) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def minus(a: Vector, b: Vector) -> Vector:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def square(a: Vector) -> int:
    return dot(a, a)


class Frame:
    """An edge with its triangle, in 256ths of a step.

    Args:
        a: Node of its start.
        b: Of its end.
        o: Of the third vertex.
        rise: The mesh's.
    """

    def __init__(self, a: Vector, b: Vector, o: Vector, rise: int) -> None:
        along_edge = minus(b, a)
        e = tuple(256 * x for x in along_edge)
        back = tuple(x + y - 2 * z for x, y, z in zip(a, b, o, strict=True))
        ee = max(square(e), 65536)
        along = dot(back, along_edge) * 256 // (2 * (ee // 65536))
        t = tuple(128 * x - along * y for x, y in zip(back, along_edge, strict=True))
        n = (t[1] * e[2] - t[2] * e[1], t[2] * e[0] - t[0] * e[2], t[0] * e[1] - t[1] * e[0])
        tt, nn = max(square(t), 1), max(square(n), 1)
        self.directions, self.squares = (e, t, n), (ee, tt, nn)
        self.size = size = (3 * ee + 5 * tt) // 8
        lengths = constants.ACROSS_LENGTH * min(isqrt(ee * 2**24 // tt), 16384)
        share = lengths - constants.ACROSS_SIZE * isqrt(size * 2**24 // tt)
        in_edge, in_triangle = constants.ALONG_SHARE * along // 256, constants.ACROSS_SHARE + share // 4096
        self.flat = tuple(
            128 * (x + y) + (in_edge * u + in_triangle * v) // 4096
            for x, y, u, v in zip(a, b, e, t, strict=True)
        )
        up = rise * isqrt(size * 2**24 // nn)
        self.place = tuple(x + up * y // 2**24 for x, y in zip(self.flat, n, strict=True))

    def scales(self, variances: list[int], factors: Vector) -> list[list[int]]:
        """The matrix of scales of an expert with these factors."""
        parts = [self.size * (v * f // 64) // 4096 for v, f in zip(variances, factors, strict=True)]
        axes = list(zip(parts, self.directions, self.squares, strict=True))
        return [
            [
                sum(p * d[i] * d[j] // s for p, d, s in axes) + constants.ROUNDING_SPREAD * (i == j)
                for j in range(3)
            ]
            for i in range(3)
        ]
