"""A second decoder of polygon streams, written from docs/bitstream.md with plain integers of Python.

It shares the container, the range coder in plain Python, the checksum and the constants with the library, and
nothing else. What must be rejected is asserted at most.

Symbols, experts and edges are in second_polygon_parts.py, beside this file.
"""

import importlib.util
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from types import ModuleType

import numpy as np

from latentpress.codecs import polygon_tables as constants
from latentpress.codecs.bitstream import CodecId, decode_varint, read_container

NEXT, PREVIOUS, NEW, OTHER = range(4)

Vector = tuple[int, ...]


def load_beside(name: str) -> ModuleType:
    """A module beside this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts = load_beside("second_polygon_parts")
Expert, Frame, Mean, Mixture, Symbols = parts.Expert, parts.Frame, parts.Mean, parts.Mixture, parts.Symbols
dot, minus, square = parts.dot, parts.minus, parts.square


@dataclass
class SecondPolygons:
    """What a stream holds.

    Attributes:
        grid: G, steps along each axis.
        scale: Half the longest side.
        centre: Of the shape, in steps of 1/64 of it.
        unit: Number of the unit, None without one.
        step: S, step of the colours, 0 without any.
        nodes: Of the vertices.
        faces: Three numbers of vertices each.
        colours: Of the vertices, from 0 to 255, or None.
    """

    grid: int
    scale: float = 1.0
    centre: Vector = (0, 0, 0)
    unit: int | None = None
    step: int = 0
    nodes: list[Vector] = field(default_factory=list)
    faces: list[Vector] = field(default_factory=list)
    colours: list[Vector] | None = None

    def in_cube(self) -> np.ndarray:
        """Positions of the vertices in the cube, in float64."""
        return (2 * np.array(self.nodes) - self.grid) * 17 / (16 * self.grid)

    def in_place(self) -> np.ndarray:
        """Positions of the vertices in the shape's own coordinates, in float64."""
        return (self.in_cube() + np.array(self.centre) / 64) * self.scale


def decode_stream(data: bytes) -> SecondPolygons:
    """Decode a stream of polygons."""
    container = read_container(data)
    assert container.codec_id == CodecId.SHAPE
    return decode_payload(container.payload)


def decode_payload(payload: bytes) -> SecondPolygons:
    """Decode a payload of codec 4 with bit 7 of its flags."""
    flags = payload[0]
    assert flags & 0b11100011 == 0b10000000
    grid, at = decode_varint(payload, 1)
    count, at = decode_varint(payload, at)
    assert 8 <= grid <= 1023
    assert 1 <= count <= 32768
    found = SecondPolygons(grid)
    if flags & 4:
        found.step, at = payload[at], at + 1
        assert found.step
    if flags & 8:
        found.scale = 2.0 ** ((int.from_bytes(payload[at : at + 2], "little") - 32768) / 512)
        at += 2
        zigzags = []
        for _ in range(3):
            zigzag, at = decode_varint(payload, at)
            zigzags.append(zigzag)
        found.centre = tuple(-(n + 1) // 2 if n % 2 else n // 2 for n in zigzags)
        assert (found.scale, found.centre) != (1.0, (0, 0, 0))
        assert max(abs(n) for n in found.centre) <= 2**40
    if flags & 16:
        found.unit, at = payload[at], at + 1
        assert found.unit < 8
    symbols = Symbols(payload[at + 2 :])
    walk = Walk(found, symbols)
    while len(found.faces) < count:
        walk.step()
    if found.step:
        found.colours = decode_colours(found, symbols)
    symbols.finish(int.from_bytes(payload[at : at + 2], "little"))
    return found


class Walk:
    """The walk over all triangles.

    Args:
        found: Where nodes and faces go.
        symbols: Where they come from.
    """

    def __init__(self, found: SecondPolygons, symbols: Symbols) -> None:
        self.grid, self.nodes, self.faces, self.symbols = found.grid, found.nodes, found.faces, symbols
        self.open: list[tuple[int, int, int]] = []
        self.ends: set[int] = set()
        self.boundaries = 0
        self.old_counts, self.boundary_counts, self.apex_counts = (
            [list(counts) for counts in table]
            for table in (constants.OLD_CORNER_COUNTS, constants.BOUNDARY_COUNTS, constants.APEX_COUNTS)
        )
        weight = constants.PRIOR_WEIGHT
        self.variances = [Mean(spread * weight, weight) for spread in constants.PRIOR_SPREADS]
        self.rise = Mean(constants.RISE * weight, weight)
        self.trust = [trust * 2**20 for trust in constants.EXPERT_TRUST]
        self.hits = self.expected = constants.HABIT_PRIOR

    def step(self) -> None:
        """Decode the next triangle, or that none follows an edge."""
        if self.open:
            self.follow(*self.open.pop())
        else:
            self.seed()

    def add(self, face: Vector, seed: bool = False) -> None:
        """Note a triangle and push its edges."""
        a, b, c = face
        assert len(set(face)) == 3
        self.faces.append(face)
        for start, end, third in [(b, c, a), (c, a, b)] + [(a, b, c)] * seed:
            opposite = [i for i, edge in enumerate(self.open) if edge[:2] == (end, start)]
            if opposite:
                del self.open[opposite[-1]]
            else:
                self.open.append((start, end, third))

    def seed(self) -> None:
        """Decode a triangle that is behind no edge."""
        corners: list[int] = []
        for number in range(3):
            if self.nodes and self.symbols.adaptive(self.old_counts[0], constants.BOUNDARY_UNIT):
                corners.append(self.symbols.take([1] * len(self.nodes)))
                continue
            places = [self.nodes[corner] for corner in corners]
            if number == 0:
                around = self.nodes[-1] if self.nodes else (self.grid // 2,) * 3
                variance = self.grid**2 // (16 if self.nodes else 4)
            elif number == 1:
                edges = [square(minus(self.nodes[a], self.nodes[b])) for a, b, _ in self.faces[-16:]]
                around = places[0]
                variance = max(sum(edges) // (2 * len(edges)), 1) if edges else self.grid**2 // 64
            else:
                around = tuple((x + y) // 2 for x, y in zip(*places, strict=True))
                variance = max(square(minus(*places)) // 2, 1)
            spread = variance * 65536 + constants.ROUNDING_SPREAD
            scales = [[spread * (i == j) for j in range(3)] for i in range(3)]
            self.new_corner([Expert(tuple(256 * x for x in around), scales)], Mixture([2**20]))
            corners.append(len(self.nodes) - 1)
        self.add(tuple(corners), seed=True)

    def new_corner(self, experts: list[Expert], mixture: Mixture) -> None:
        """Decode the node of a new vertex, axis by axis."""
        node: list[int] = []
        for axis in range(3):
            weights = mixture.mixed([expert.row(self.grid) for expert in experts])
            used = {known[axis] for known in self.nodes}
            factor = min(max(self.hits * 16 // self.expected, 16), 512)
            row = [w * (factor if place in used else 16) // 16 for place, w in enumerate(weights)]
            place = self.symbols.take(row)
            self.hits += 4096 * (place in used)
            self.expected += 4096 * sum(weights[known] for known in used) // sum(weights)
            mixture.learn(place)
            for expert in experts:
                expert.condition(place)
            node.append(place)
        self.nodes.append(tuple(node))

    def follow(self, a: int, b: int, o: int) -> None:
        """Decode what follows the edge a-b of a triangle with the third vertex o."""
        frame = Frame(self.nodes[a], self.nodes[b], self.nodes[o], self.rise.value())
        starts = {edge[0] for edge in self.open}
        distance = {
            v: square(minus(tuple(256 * x for x in node), frame.place)) for v, node in enumerate(self.nodes)
        }

        def nearest(vertices: set[int]) -> tuple[int | None, int]:
            if not vertices - {a, b}:
                return None, 7
            found = min(vertices - {a, b}, key=lambda v: (distance[v], v))
            near = (16 * distance[found] < frame.size * limit for limit in constants.NEARNESS)
            return found, next((k for k, is_near in enumerate(near) if is_near), 6)

        following, level_next = nearest({end for start, end, _ in self.open if start == b})
        previous, level_previous = nearest({start for start, end, _ in self.open if end == a})
        mentioned = {a, b, following, previous}
        others = sorted(starts - mentioned, key=lambda v: (distance[v], v))
        at_boundaries = (a in self.ends) + (b in self.ends)
        context = (min(self.boundaries, 2) * 3 + at_boundaries) * 2 + (0 in (level_next, level_previous))
        if self.symbols.adaptive(self.boundary_counts[context], constants.BOUNDARY_UNIT):
            self.boundaries += 1
            self.ends |= {a, b}
            return
        above, below = constants.NEAR_OTHER
        near_other = any(below * distance[v] < above * frame.size for v in others)
        context = (level_next * 8 + level_previous) * 2 + near_other
        kind = self.symbols.adaptive(self.apex_counts[context], constants.APEX_UNIT)
        corner = (following, previous, len(self.nodes), None)[kind]
        if kind == NEW:
            self.new_apex(frame)
        elif kind == OTHER:
            others += [v for v in range(len(self.nodes)) if v not in mentioned | set(others)]
            assert others
            corner = others[self.symbols.take([1 + 2**20 // (rank + 1) ** 2 for rank in range(len(others))])]
        assert corner is not None
        self.add((b, a, corner))

    def new_apex(self, frame: Frame) -> None:
        """Decode a new vertex behind an edge, and learn from it."""
        variances = [mean.value() for mean in self.variances]
        mixture = Mixture(self.trust)
        self.new_corner([Expert(frame.place, frame.scales(variances, f)) for f in constants.EXPERTS], mixture)
        self.trust = [old + new for old, new in zip(self.trust, mixture.trust, strict=True)]
        corner = tuple(256 * x for x in self.nodes[-1])
        off = minus(corner, frame.place)
        for mean, v, d, s in zip(self.variances, variances, frame.directions, frame.squares, strict=True):
            mean.add(min(dot(off, d) ** 2 * 4096 // (s * frame.size), 6 * v))
        height = dot(minus(corner, frame.flat), frame.directions[2]) * 4096
        height //= isqrt(frame.squares[2] * frame.size)
        self.rise.add(min(max(height, -4096), 4096))


def decode_colours(found: SecondPolygons, symbols: Symbols) -> list[Vector]:
    """Decode the colours of all vertices, once the triangles are known."""
    step = found.step
    neighbours: list[set[int]] = [set() for _ in found.nodes]
    for face in found.faces:
        for vertex in face:
            neighbours[vertex] |= {other for other in face if other < vertex}
    luma, chroma = (255 + step // 2) // step, (255 + step) // (2 * step)
    ranges = [range(luma + 1), range(-chroma, chroma + 1), range(-chroma, chroma + 1)]
    weight = constants.COLOUR_WEIGHT
    usual = [Mean(s * 65536 * weight // step**2, weight) for s in constants.COLOUR_SPREADS]
    trust = [t * 2**20 for t in constants.COLOUR_EXPERT_TRUST]
    levels: list[Vector] = []
    for near in neighbours:
        mixture, vertex = Mixture(trust), []
        for channel, places in enumerate(ranges):
            low, high = places[0], places[-1]
            mean, unlikeness = (low + high) * 256 // 2, (high - low) ** 2 * 65536 // 16
            if near:
                values = [256 * levels[other][channel] for other in near]
                mean = sum(values) // len(values)
                unlikeness = sum((value - mean) ** 2 for value in values) // len(values)
            square_of = usual[channel].value()
            spreads = [
                (square_of * p + unlikeness * q) // 64 + constants.COLOUR_FLOOR
                for p, q in constants.COLOUR_EXPERTS
            ]
            rows = [parts.expert_row(places, mean, spread) for spread in spreads]
            symbol = symbols.take(mixture.mixed(rows))
            mixture.learn(symbol)
            vertex.append(places[symbol])
            if near:
                off = 256 * places[symbol] - mean
                usual[channel].add(min(off**2, 8 * square_of + constants.COLOUR_FLOOR))
        levels.append(tuple(vertex))
        if near:
            trust = [old + new for old, new in zip(trust, mixture.trust, strict=True)]
    return [rgb(vertex, step) for vertex in levels]


def rgb(levels: Vector, step: int) -> Vector:
    """Red, green and blue, from 0 to 255."""
    y, o, g = 4 * step * levels[0], 8 * step * levels[1], 8 * step * levels[2]
    green, blue = y + g // 2, y - g // 2 - o // 2
    return tuple(min(max((colour + 2) // 4, 0), 255) for colour in (blue + o, green, blue))
