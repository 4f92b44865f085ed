"""Triangles to symbols and back: a mesh that grows from a triangle, edge after edge.

::

    seed triangle -> open edges -> edge: boundary | next | previous | new corner | other vertex -> triangle
                        ^                                                                             |
                        +-------------------------- its other edges ---------------------------------+

Like the cut-border machine (Gumhold and Strasser, 1998) it walks over the edges between what is known and
what is not, and like Angle-Analyzer (Lee, Alliez and Desbrun, 2002) it lets geometry say what is likely.
Nothing is assumed of the mesh: it may be open, have several components, or be no manifold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import CorruptStream
from latentpress.codecs.polygon_channel import AdaptiveWeights, WeightedChannel
from latentpress.codecs.polygon_front import Front, OpenEdge
from latentpress.codecs.polygon_prediction import (
    FRACTION,
    CornerRows,
    Gate,
    Habits,
    Point,
    Prediction,
    Spreads,
    around,
    difference,
    dot,
)
from latentpress.codecs.polygon_tables import (
    APEX_COUNTS,
    APEX_UNIT,
    BOUNDARY_COUNTS,
    BOUNDARY_UNIT,
    NEAR_OTHER,
    NEARNESS,
    OLD_CORNER_COUNTS,
)

NEXT, PREVIOUS, NEW, OTHER = range(4)
"""What the third corner of a triangle behind an edge is: the end of the next open edge, the start of the one
before, a new vertex, or any other."""


class Polygons(NamedTuple):
    """Triangles between nodes of a grid.

    Attributes:
        nodes: ``(V, 3)`` int64, each in [0, grid].
        faces: ``(F, 3)`` int64, no two corners of a face the same.
    """

    nodes: NDArray[np.int64]
    faces: NDArray[np.int64]


Placing = Callable[[int, int, "list[int]", "NDArray[np.int64]"], int]
"""Chooses a coordinate of a vertex that is sent: its number in the given mesh, the axis, its coordinates
before, and the weights of all nodes."""


class PolygonCoder:
    """Sends one mesh or receives it.

    Args:
        channel: Where symbols go or come from.
        grid: Steps of the grid along an axis.
        placing: Chooses where vertices that are sent come to lie; None for where they are.
    """

    def __init__(self, channel: WeightedChannel, grid: int, placing: Placing | None = None) -> None:
        self._placing = placing
        self._channel = channel
        self._grid = grid
        self._rows = np.arange(grid + 1, dtype=np.int64) * FRACTION
        self._apex = AdaptiveWeights(APEX_COUNTS, APEX_UNIT)
        self._boundary = AdaptiveWeights(BOUNDARY_COUNTS, BOUNDARY_UNIT)
        self._old_corner = AdaptiveWeights(OLD_CORNER_COUNTS, BOUNDARY_UNIT)
        self._spreads = Spreads()
        self._habits = Habits(grid)
        self._front = Front()
        self._points: list[Point] = []
        self._faces: list[tuple[int, int, int]] = []
        self._boundaries = 0
        self._at_boundary: set[int] = set()
        self._wanted: _Wanted | None = None

    def code(self, wanted: Polygons | None, faces: int) -> Polygons:
        """Codes a mesh.

        Args:
            wanted: The mesh; None to receive it.
            faces: How many it has.

        Returns:
            The mesh, its vertices in the order in which they were met.

        Raises:
            StreamError: What is received is no mesh.
        """
        self._wanted = None if wanted is None else _Wanted(wanted)
        while len(self._faces) < faces:
            edge = self._front.take()
            if edge is None:
                self._seed()
            else:
                self._grow(edge)
        return Polygons(
            np.array(self._points, np.int64).reshape(-1, 3), np.array(self._faces, np.int64).reshape(-1, 3)
        )

    @property
    def order(self) -> list[int]:
        """Of every vertex that was sent, its number in the mesh that was given."""
        assert self._wanted is not None
        return self._wanted.given

    def _seed(self) -> None:
        wanted = None if self._wanted is None else self._wanted.seed()
        corners: list[int] = []
        for k in range(3):
            corner = None if wanted is None else self._wanted_number(wanted[k])
            corners.append(self._seed_corner(corners, corner, None if wanted is None else wanted[k]))
        self._attach(corners[0], corners[1], corners[2])
        self._front.add(corners[0], corners[1], corners[2])

    def _wanted_number(self, given: int) -> int | None:
        assert self._wanted is not None
        return self._wanted.numbers.get(given)

    def _seed_corner(self, corners: list[int], number: int | None, given: int | None) -> int:
        sending = given is not None
        old = 0
        if self._points:
            old = self._old_corner.exchange(self._channel, int(number is not None) if sending else None, 0)
        if old:
            found = self._channel.exchange(number, np.ones(len(self._points), np.int64))
            if found in corners:
                raise CorruptStream("a triangle has the same corner twice")
            return found
        if not corners:
            whole = self._grid * self._grid
            middle = self._grid // 2
            if self._points:
                prediction = around(self._points[-1], whole // 16)
            else:
                prediction = around((middle, middle, middle), whole // 4)
        elif len(corners) == 1:
            prediction = around(self._points[corners[0]], self._edge_variance())
        else:
            a, b = (self._points[k] for k in corners)
            edge = difference(b, a)
            prediction = around(
                ((a[0] + b[0]) // 2, (a[1] + b[1]) // 2, (a[2] + b[2]) // 2), max(dot(edge, edge) // 2, 1)
            )
        return self._new_corner([prediction], given)

    def _edge_variance(self) -> int:
        if not self._faces:
            return max(self._grid * self._grid // 64, 1)
        recent = self._faces[-16:]
        total = 0
        for a, b, _ in recent:
            edge = difference(self._points[a], self._points[b])
            total += dot(edge, edge)
        return max(total // (2 * len(recent)), 1)

    def _grow(self, edge: OpenEdge) -> None:
        points = self._points
        gate = Gate(points[edge.start], points[edge.end], points[edge.opposite])
        mean = gate.mean(self._spreads.rise)
        following, next_level = self._nearest(self._front.after(edge.end), edge, mean, gate)
        before, previous_level = self._nearest(self._front.before(edge.start), edge, mean, gate)
        wanted = None if self._wanted is None else self._wanted.apex(edge, mean)
        closed = None if self._wanted is None else int(wanted is None)
        ends = (edge.start in self._at_boundary) + (edge.end in self._at_boundary)
        context = (min(self._boundaries, 2) * 3 + ends) * 2 + (min(next_level, previous_level) == 0)
        if self._boundary.exchange(self._channel, closed, context):
            self._boundaries += 1
            self._at_boundary.update((edge.start, edge.end))
            return
        symbol = None
        if wanted is not None:
            number = self._wanted_number(wanted)
            known = {before: PREVIOUS, following: NEXT, None: NEW}
            symbol = known.get(number, OTHER)
        others = self._others(edge, following, before, mean)
        near = int(bool(others) and min(others)[0] * NEAR_OTHER[1] < gate.size * NEAR_OTHER[0])
        levels = len(NEARNESS) + 2
        context = (next_level * levels + previous_level) * 2 + near
        symbol = self._apex.exchange(self._channel, symbol, context)
        if symbol == NEXT:
            apex = following
        elif symbol == PREVIOUS:
            apex = before
        elif symbol == NEW:
            predictions = gate.predictions(self._spreads.values, self._spreads.rise)
            apex = self._new_corner(predictions, wanted)
            self._spreads.count(gate, self._points[apex])
        else:
            apex = self._other(edge, following, before, others, wanted)
        if apex is None or apex in (edge.start, edge.end):
            raise CorruptStream("a triangle has a corner that is none")
        self._attach(edge.end, edge.start, apex)

    def _away(self, vertex: int, mean: Point) -> int:
        x, y, z = self._points[vertex]
        away = (x * FRACTION - mean[0], y * FRACTION - mean[1], z * FRACTION - mean[2])
        return dot(away, away)

    def _nearest(
        self, candidates: list[int], edge: OpenEdge, mean: Point, gate: Gate
    ) -> tuple[int | None, int]:
        """The candidate nearest to where the corner is expected, and how near; the last level for none."""
        best: tuple[int, int] | None = None
        for vertex in candidates:
            if vertex in (edge.start, edge.end):
                continue
            key = self._away(vertex, mean), vertex
            if best is None or key < best:
                best = key
        if best is None:
            return None, len(NEARNESS) + 1
        level = 0
        while level < len(NEARNESS) and best[0] * 16 >= gate.size * NEARNESS[level]:
            level += 1
        return best[1], level

    def _others(
        self, edge: OpenEdge, following: int | None, before: int | None, mean: Point
    ) -> list[tuple[int, int]]:
        """Vertices of the front that are no other symbol, after how far away they are."""
        out = {edge.start, edge.end, following, before}
        return [(self._away(v, mean), v) for v in self._front.vertices() if v not in out]

    def _other(
        self,
        edge: OpenEdge,
        following: int | None,
        before: int | None,
        others: list[tuple[int, int]],
        wanted: int | None,
    ) -> int:
        nearest = [vertex for _, vertex in sorted(others)]
        out = {edge.start, edge.end, following, before, *nearest}
        ranked = [*nearest, *(v for v in range(len(self._points)) if v not in out)]
        if not ranked:
            raise CorruptStream("a triangle has a corner that is none")
        rank = None
        if wanted is not None:
            number = self._wanted_number(wanted)
            assert number is not None
            rank = ranked.index(number)
        weights = (1 << 20) // np.arange(1, len(ranked) + 1, dtype=np.int64) ** 2 + 1
        return ranked[self._channel.exchange(rank, weights)]

    def _new_corner(self, predictions: list[Prediction], given: int | None) -> int:
        trust = self._spreads.trust if len(predictions) > 1 else [1]
        rows = CornerRows(predictions, trust, self._habits, self._rows)
        point: list[int] = []
        for axis in range(3):
            row, wanted = rows.row(), None
            if given is not None:
                assert self._wanted is not None
                wanted = int(self._wanted.nodes[given, axis])
                if self._placing is not None:
                    wanted = self._placing(given, axis, point, row)
            node = self._channel.exchange(wanted, row)
            rows.know(node)
            self._habits.count(axis, node)
            point.append(node)
        if len(predictions) > 1:
            self._spreads.believe(rows.trust)
        number = len(self._points)
        self._points.append((point[0], point[1], point[2]))
        if given is not None:
            assert self._wanted is not None
            self._wanted.number(given, number)
        return number

    def _attach(self, a: int, b: int, c: int) -> None:
        self._faces.append((a, b, c))
        if self._wanted is not None:
            self._wanted.forget(a, b, c)
        for start, end, opposite in ((b, c, a), (c, a, b)):
            self._front.add(start, end, opposite)


class _Wanted:
    """The mesh that is sent, as far as it is not yet sent."""

    def __init__(self, mesh: Polygons) -> None:
        self.nodes = mesh.nodes
        self.numbers: dict[int, int] = {}
        self.given: list[int] = []
        self._faces = [(int(a), int(b), int(c)) for a, b, c in mesh.faces]
        self._left = set(range(len(self._faces)))
        self._edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for k, (a, b, c) in enumerate(self._faces):
            for start, end, apex in ((a, b, c), (b, c, a), (c, a, b)):
                self._edges.setdefault((start, end), []).append((k, apex))
        self._next_seed = 0

    def seed(self) -> tuple[int, int, int]:
        """A triangle that is left."""
        while self._next_seed not in self._left:
            self._next_seed += 1
        return self._faces[self._next_seed]

    def apex(self, edge: OpenEdge, mean: Point) -> int | None:
        """The corner of a triangle behind an edge, as it was given; None for a boundary."""
        start, end = self.given[edge.end], self.given[edge.start]
        found = [apex for k, apex in self._edges.get((start, end), ()) if k in self._left]
        if len(found) < 2:
            return found[0] if found else None

        def away(given: int) -> int:
            return int(
                sum((int(n) * FRACTION - m) ** 2 for n, m in zip(self.nodes[given], mean, strict=True))
            )

        return min(found, key=lambda given: (away(given), given))

    def number(self, given: int, number: int) -> None:
        """Notes which number a vertex has for the decoder."""
        self.numbers[given] = number
        self.given.append(given)

    def forget(self, a: int, b: int, c: int) -> None:
        """Takes a triangle that was sent away."""
        start, end, apex = self.given[a], self.given[b], self.given[c]
        for k, corner in self._edges[start, end]:
            if corner == apex and k in self._left:
                self._left.remove(k)
                return
        raise AssertionError("a triangle was sent that is not there")
