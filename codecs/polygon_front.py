"""The front of a mesh that grows: the edges behind which a triangle may follow."""

from __future__ import annotations

from typing import NamedTuple


class OpenEdge(NamedTuple):
    """An edge of one triangle, waiting for another.

    Attributes:
        start: Vertex where it begins.
        end: Vertex where it ends.
        opposite: Third vertex of its triangle.
    """

    start: int
    end: int
    opposite: int


class Front:
    """Open edges, in the order in which they are asked for.

    ::

        triangle -> its three edges: the reverse is open? -> both are closed
                                     else                 -> on top of the stack
    """

    def __init__(self) -> None:
        self._edges: dict[int, OpenEdge] = {}
        self._queue: list[int] = []
        self._by_ends: dict[tuple[int, int], list[int]] = {}
        self._leaving: dict[int, list[int]] = {}
        self._arriving: dict[int, list[int]] = {}
        self._number = 0

    def take(self) -> OpenEdge | None:
        """The edge that was added last, which is open no more; None if there is none."""
        while self._queue:
            number = self._queue.pop()
            if number in self._edges:
                return self._remove(number)
        return None

    def add(self, start: int, end: int, opposite: int) -> None:
        """Adds an edge of a new triangle, or closes the one that it meets."""
        meeting = self._by_ends.get((end, start))
        if meeting:
            self._remove(meeting[-1])
            return
        number = self._number
        self._number += 1
        self._edges[number] = OpenEdge(start, end, opposite)
        self._queue.append(number)
        self._by_ends.setdefault((start, end), []).append(number)
        self._leaving.setdefault(start, []).append(number)
        self._arriving.setdefault(end, []).append(number)

    def after(self, vertex: int) -> list[int]:
        """Where open edges lead that begin at a vertex."""
        return [self._edges[k].end for k in self._leaving.get(vertex, ())]

    def before(self, vertex: int) -> list[int]:
        """Where open edges come from that end at a vertex."""
        return [self._edges[k].start for k in self._arriving.get(vertex, ())]

    def vertices(self) -> list[int]:
        """All vertices where open edges begin, in no order that means anything."""
        return [vertex for vertex, edges in self._leaving.items() if edges]

    def _remove(self, number: int) -> OpenEdge:
        edge = self._edges.pop(number)
        self._by_ends[edge.start, edge.end].remove(number)
        for table, vertex in ((self._leaving, edge.start), (self._arriving, edge.end)):
            table[vertex].remove(number)
            if not table[vertex]:
                del table[vertex]
        return edge
