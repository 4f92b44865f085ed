"""Alpha and 16-bit pictures of format version 1 decode to the same values for ever.

Imports only core dependencies: this also runs where nothing else is installed. The decoder below is a second
one, written from docs/bitstream.md pixel by pixel in Python's integers; it shares the tables and the range
coder with the library, whose own golden tests are in tests/codecs/bitstream.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.alpha_coder import decode_alpha, encode_alpha
from latentpress.codecs.bitstream import (
    SectionType,
    SymbolDecoder,
    TableSet,
    crc32c,
    decode_varint,
    read_container,
)
from latentpress.codecs.registry import inspect, load

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "alpha.json").read_text(encoding="utf-8"))
SECTIONS, STREAMS = EXPECTED["sections"], EXPECTED["streams"]

NEAREST = (((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (0, -1), (0, 1), (1, 0)))
NEXT = (
    ((-3, -1), (-3, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (3, -1), (3, 1)),
    ((-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)),
)


class CountedTables:
    """Tables that follow counts."""

    def __init__(self, counts: list[list[int]], minimum: int) -> None:
        self.counts, self.minimum = counts, minimum

    def get(self, decoder: SymbolDecoder, keys: list[int]) -> list[int]:
        rows = []
        for counts in self.counts:
            row = [1 + c * (2**24 - len(counts)) // sum(counts) for c in counts]
            row[row.index(max(row))] += 2**24 - sum(row)
            rows.append(row)
        lengths = [len(row) for row in rows]
        tables = TableSet(np.concatenate(rows), np.array(lengths), np.full(len(rows), self.minimum))
        symbols = decoder.get(np.array(keys, np.int32), tables).tolist()
        for key, symbol in zip(keys, symbols, strict=True):
            slot = symbol - self.minimum
            inside = 0 <= slot < len(self.counts[key]) - 1
            self.counts[key][slot if inside else -1] += 64
        return symbols


class SecondDecoder:
    """Decodes the content of an ALPHA section."""

    def __init__(self, section: bytes, height: int, width: int) -> None:
        self.bits = 16 if section[0] & 1 else 8
        self.top = 2**self.bits - 1
        number, offset = decode_varint(section, 1)
        self.values = [[number] * width for _ in range(height)]
        if section[0] & 2:
            assert offset == len(section)
            return
        self.error = number
        places = [(i, j) for i in range(0, height, 512) for j in range(0, width, 512)]
        entries = []
        for _ in places:
            entry, offset = decode_varint(section, offset)
            entries.append(entry)
        for (i, j), entry in zip(places, entries, strict=True):
            rows, columns = min(512, height - i), min(512, width - j)
            tile = [[entry * self.top] * columns for _ in range(rows)]
            if entry >= 2:
                size = self.bits // 8
                corner = int.from_bytes(section[offset : offset + size], "little")
                checksum = int.from_bytes(section[offset + size : offset + size + 2], "little")
                end = offset + size + 2 + 4 * (entry - 2)
                tile = self.tile(section[offset + size + 2 : end], rows, columns, corner)
                content = b"".join(v.to_bytes(size, "little") for row in tile for v in row)
                assert crc32c(content) % 2**16 == checksum
                offset = end
            for k, row in enumerate(tile):
                self.values[i + k][j : j + columns] = row
        assert offset == len(section)

    def tile(self, words: bytes, height: int, width: int, corner: int) -> list[list[int]]:
        decoder = SymbolDecoder(words)
        self.classes = CountedTables([*self.class_counts(), *self.class_counts()], 0)
        self.differences = CountedTables([self.difference_counts(k) for k in range(17)], -128)
        found = [[-1] * width for _ in range(height)]
        found[0][0] = corner
        spacing = 1
        while 2 * spacing < max(height, width):
            spacing *= 2
        while spacing:
            for phase in (0, 1):
                self.phase(decoder, found, spacing, phase)
            spacing //= 2
        decoder.finish()
        return found

    def phase(self, decoder: SymbolDecoder, found: list[list[int]], spacing: int, phase: int) -> None:
        rows, columns = len(found[0::spacing]), len(found[0][0::spacing])
        lattices = [(1, 1)] if phase == 0 else [(0, 1), (1, 0)]
        pixels = [(i, j) for a, b in lattices for i in range(a, rows, 2) for j in range(b, columns, 2)]
        if not pixels:
            return

        def known(i: int, j: int, offsets: tuple) -> list[int | None]:
            inside = [(i + y, j + x) for y, x in offsets]
            return [
                found[y * spacing][x * spacing] if 0 <= y < rows and 0 <= x < columns else None
                for y, x in inside
            ]

        around = [(known(i, j, NEAREST[phase]), known(i, j, NEXT[phase])) for i, j in pixels]
        assert all(value != -1 for near, far in around for value in near + far)
        contexts = [80 * phase + self.context(*planes) for planes in around]
        classes = self.classes.get(decoder, contexts)
        between = [k for k, kind in enumerate(classes) if kind == 1]
        error = self.error if spacing <= 2 else self.error // 2
        step = 2 * error + 1
        levels = (self.top - 2 + 2 * error) // step + 1
        predicted = [self.predict(around[k][0]) for k in between]
        kinds = [(activity // step).bit_length() for _, activity in predicted]
        differences = self.differences.get(decoder, kinds) if between else []
        differences = [d << max(kind - 8, 0) for d, kind in zip(differences, kinds, strict=True)]
        shifted = [k for k, kind in enumerate(kinds) if kind > 8]
        if shifted:
            sizes = [2**z for z in range(1, 9)]
            even = [[(2**24 - 1) // n + (i < (2**24 - 1) % n) for i in range(n)] + [1] for n in sizes]
            tables = TableSet(np.concatenate(even), np.array(sizes) + 1, np.zeros(8, np.int32))
            low = decoder.get(np.array([kinds[k] - 9 for k in shifted], np.int32), tables)
            for k, bits in zip(shifted, low.tolist(), strict=True):
                differences[k] += bits
        values = [self.top * (kind == 2) for kind in classes]
        for k, (prediction, _), difference in zip(between, predicted, differences, strict=True):
            lowest = -((prediction - 1 + error) // step)
            value = prediction + step * (lowest + (difference - lowest) % levels)
            values[k] = min(max(value, 1), self.top - 1)
        for (i, j), value in zip(pixels, values, strict=True):
            found[i * spacing][j * spacing] = value

    def context(self, near: list[int | None], far: list[int | None]) -> int:
        nearest, following = ([v for v in planes if v is not None] for planes in (near, far))
        s, t = sum(nearest), sum(following)
        value = 6 * s - t if len(nearest) == 4 and len(following) == 8 else 16 * s // len(nearest)
        share = 1 + min(max((value + 4 * self.top) * 14 // (24 * self.top), 0), 13)
        if s + t == 0:
            share = 0
        elif s + t == (len(nearest) + len(following)) * self.top:
            share = 15
        m, n = (sum(0 < v < self.top for v in planes) for planes in (nearest, following))
        return 16 * (min(m, 3) + 1 if m else min(n, 1)) + share

    def predict(self, near: list[int | None]) -> tuple[int, int]:
        nearest = [v for v in near if v is not None]
        prediction = (2 * sum(nearest) + len(nearest)) // (2 * len(nearest))
        activity = max(nearest) - min(nearest)
        if len(nearest) == 4:
            a, b, c, d = nearest
            along, across = abs(a - d), abs(b - c)
            if 2 * along < across:
                prediction, activity = (a + d + 1) // 2, along + across // 4
            elif 2 * across < along:
                prediction, activity = (b + c + 1) // 2, across + along // 4
        return min(max(prediction, 1), self.top - 1), activity

    def class_counts(self) -> list[list[int]]:
        counts = []
        for u in (5, 26, 77, 154, 205):
            for share in range(16):
                x, y = (15 - share) ** 2, share**2
                both = 256 * (x + y)
                row = [
                    1 + 128 * (256 - u) * x // both,
                    1 + 128 * u // 256,
                    1 + 128 * (256 - u) * y // both,
                    0,
                ]
                counts.append(row)
        return counts

    def difference_counts(self, kind: int) -> list[int]:
        error = self.error // 2
        levels = (self.top - 2 + 2 * error) // (2 * error + 1) + 1
        most = max(levels // 2 >> max(kind - 8, 0), 1)
        sizes = [abs(g) for g in range(-128, 128)]
        row = [0 if g > most else 1 + (32 >> min(2 * g >> max(kind - 1, 0), 6)) for g in sizes]
        return [*row, 1]


def section(name: str) -> bytes:
    return (FOLDER / f"alpha_{name}.bin").read_bytes()


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.mark.parametrize("name", SECTIONS)
class TestSections:
    def test_bytes_are_those_that_were_made(self, name):
        assert hashlib.sha256(section(name)).hexdigest() == SECTIONS[name]["section_sha256"]

    def test_values(self, name):
        facts = SECTIONS[name]
        values = decode_alpha(section(name), facts["height"], facts["width"])
        assert 8 * values.dtype.itemsize == facts["bits"]
        assert digest(values) == facts["values_sha256"]

    def test_second_decoder(self, name):
        facts = SECTIONS[name]
        second = SecondDecoder(section(name), facts["height"], facts["width"])
        assert second.bits == facts["bits"]
        assert digest(np.array(second.values, f"u{second.bits // 8}")) == facts["values_sha256"]

    def test_encoding_the_values_again_gives_the_same_bytes(self, name):
        """Of those that were coded exactly; others have found a prediction in what was changed."""
        facts = SECTIONS[name]
        if section(name)[0] & 2 or section(name)[1] == 0:
            values = decode_alpha(section(name), facts["height"], facts["width"])
            assert encode_alpha(values) == section(name)


def test_what_the_sections_cover():
    """Both depths, constants, all entries of the directory, escapes, and differences in two parts."""
    assert {facts["bits"] for facts in SECTIONS.values()} == {8, 16}
    assert {section(name)[0] for name in SECTIONS} >= {0, 1, 2, 3}
    entries = set()
    number, offset = decode_varint(section("tiles_2"), 1)
    for _ in range(6):
        entry, offset = decode_varint(section("tiles_2"), offset)
        entries.add(min(entry, 2))
    assert number == 2
    assert entries == {0, 1, 2}
    seen: dict[str, int] = {"escapes": 0, "parts": 0}

    class Recorder(CountedTables):
        def get(self, decoder, keys):
            found = super().get(decoder, keys)
            if self.minimum:
                seen["escapes"] += sum(not -128 <= symbol < 128 for symbol in found)
                seen["parts"] += sum(key > 8 for key in keys)
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "CountedTables", Recorder)
        for name in ("disc_16", "noise_16"):
            SecondDecoder(section(name), SECTIONS[name]["height"], SECTIONS[name]["width"])
    assert min(seen.values()) > 5


@pytest.fixture(scope="module")
def codec():
    return load(FOLDER / "image_tiny.safetensors")


@pytest.mark.parametrize("name", STREAMS)
class TestStreams:
    def stream(self, name: str) -> bytes:
        return (FOLDER / f"picture_{name}.lpz").read_bytes()

    def test_header(self, name):
        data, facts = self.stream(name), STREAMS[name]
        assert hashlib.sha256(data).hexdigest() == facts["stream_sha256"]
        header = inspect(data)
        assert dict(header.parameters) == facts["parameters"]
        assert [part.name for part in header.sections] == facts["sections"]

    def test_samples(self, codec, name):
        """Alpha is exact. Transforms are floating point, so the last bit of colour may differ."""
        data, facts = self.stream(name), STREAMS[name]
        expected = np.load(FOLDER / f"picture_{name}.npy")
        codec.verify(data)
        decoded = codec.decompress(data)
        deep = facts["parameters"]["bits"] == 16
        assert decoded.dtype == (torch.uint16 if deep else torch.uint8)
        assert decoded.shape == expected.shape
        error = np.abs(decoded.numpy().astype(int) - expected.astype(int))
        assert error.max() <= (8 if deep else 1)
        if len(expected) % 2 == 0:
            assert error[-1].max() == 0
            alpha = read_container(data).get(SectionType.ALPHA)
            assert alpha is not None
            second = np.array(SecondDecoder(alpha, *expected.shape[1:]).values)
            np.testing.assert_array_equal(second, expected[-1])
