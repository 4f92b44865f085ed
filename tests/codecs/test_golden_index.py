"""Index streams of format version 1 decode to the same indices for ever.

Imports only core dependencies: this also runs where nothing else is installed. The decoder below is a second
one, written from docs/bitstream.md with numpy's integers and without torch; it shares the container, the
tables and the range coder with the library, whose own golden tests are in tests/codecs/bitstream.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs.bitstream import (
    CorruptStream,
    Limits,
    SymbolDecoder,
    TableSet,
    crc32c,
    read_container,
)
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_payload import Body, read_payload, split_packets
from latentpress.codecs.registry import inspect, load, read_metadata
from latentpress.codecs.weights import WeightFile, read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
RESIDUAL = json.loads((FOLDER / "index_residual.json").read_text(encoding="utf-8"))
BASE = json.loads((FOLDER / "index_base.json").read_text(encoding="utf-8"))
COLOUR = json.loads((FOLDER / "index_colour.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"] | RESIDUAL["streams"] | BASE["streams"] | COLOUR["streams"]
LIMIT = 2**20 - 1
TOTAL = 2**24
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])

names = pytest.mark.parametrize("name", STREAMS)
old_names = pytest.mark.parametrize("name", EXPECTED["streams"])


def fingerprint(name: str) -> str:
    return (RESIDUAL["extended_fingerprint"], EXPECTED["fingerprint"])["marked_sha256" not in STREAMS[name]]


def stream(name: str) -> bytes:
    return (FOLDER / f"index_{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def weights() -> WeightFile:
    return read_weight_file(FOLDER / "index_tiny_residual.safetensors")


@pytest.fixture(scope="module")
def codec() -> IndexCodec:
    """With the addition of patches, which streams of all kinds decode with."""
    return load(FOLDER / "index_tiny_residual.safetensors")


@pytest.fixture(scope="module")
def old_codec() -> IndexCodec:
    return load(FOLDER / "index_tiny.safetensors")


def repeated(x: np.ndarray, factor: int) -> np.ndarray:
    return x.repeat(factor, axis=0).repeat(factor, axis=1)


def frequencies(logits: np.ndarray) -> np.ndarray:
    """Rows of integer logits to rows of frequencies, in Python's integers."""
    rows = []
    for line in logits.tolist():
        top = max(line)
        weights = []
        for value in line:
            whole, part = divmod(top - value, 1024)
            # round(2^30 2^(-part/1024)) as the largest x with (2x - 1)^1024 <= 2^(31 * 1024 - part).
            x = round(2**30 * 2 ** (-part / 1024))
            assert (2 * x - 1) ** 1024 <= 2 ** (31 * 1024 - part) < (2 * x + 1) ** 1024
            weights.append(x >> min(whole, 31))
        row = [1 + weight * (TOTAL - len(line)) // sum(weights) for weight in weights]
        row[line.index(top)] += TOTAL - sum(row)
        rows.append(row)
    return np.array(rows, np.int64)


class SecondDecoder:
    """Decodes index payloads."""

    def __init__(self, weights: WeightFile) -> None:
        self.weights = weights.tensors
        self.config = weights.config
        arrays = {k.removeprefix("tables."): v for k, v in self.weights.items() if k.startswith("tables.")}
        self.tables = TableSet.from_arrays(arrays)
        added = "addition.residual.tables."
        arrays = {k.removeprefix(added): v for k, v in self.weights.items() if k.startswith(added)}
        self.residual_tables = TableSet.from_arrays(arrays)
        # Size, first group and number of groups of every book.
        self.books, group = [], 0
        for power in range(3, self.config["codes"].bit_length()):
            self.books.append((2**power, group, max(1, 2**power // 32)))
            group += self.books[-1][2]
        self.rows = 32 * group

    def array(self, name: str) -> np.ndarray:
        return self.weights[f"prior.{name}"].astype(np.int64)

    def linear(self, name: str, x: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        sums = x.clip(-LIMIT, LIMIT) @ self.array(f"{name}.weight")[rows].T
        return (sums + (self.array(f"{name}.bias")[rows] << shift) + (1 << shift - 1)) >> shift

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        height, width = x.shape[:2]
        padded = np.pad(x.clip(-LIMIT, LIMIT), ((1, 1), (1, 1), (0, 0)))
        weight = self.array(f"{name}.weight")[:, 0]
        sums = sum(
            padded[i : i + height, j : j + width] * weight[:, i, j] for i in range(3) for j in range(3)
        )
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def blocks(self, name: str, x: np.ndarray) -> np.ndarray:
        for number in range(self.config[f"prior_{name}_depth"]):
            block = f"{name}_blocks.{number}"
            hidden = self.linear(f"{block}.expand", x)
            hidden = np.where(hidden > 0, hidden, hidden >> 3)
            x = x + self.linear(f"{block}.project", self.depthwise(f"{block}.depthwise", hidden))
            value = self.linear(f"{block}.value", x).clip(-LIMIT, LIMIT)
            gate = self.linear(f"{block}.gate", x).clip(0, 2**13)
            x = x + self.linear(f"{block}.output", (value * gate + 512) >> 10)
        return x

    def upsample(self, name: str, x: np.ndarray) -> np.ndarray:
        y = self.linear(f"{name}.linear", x)
        height, width, channels = y.shape
        y = y.reshape(height, width, 2, 2, channels // 4).transpose(0, 2, 1, 3, 4)
        return y.reshape(2 * height, 2 * width, channels // 4)

    def features(self, grain: int, known: np.ndarray, above: np.ndarray | None) -> np.ndarray:
        codes = self.config["codes"]
        if grain == 0:
            fine = self.fine
            pattern = fine[::2, ::2] + 2 * fine[::2, 1::2] + 4 * fine[1::2, ::2] + 8 * fine[1::2, 1::2]
            row = np.where(known < 0, self.rows, known + 32 * self.books[self.book][1])
            row = np.where(self.split, self.rows + 1 + pattern, row)
            x = self.array("coarse_embedding.weight")[row]
            return self.blocks("coarse", x + self.array("book_embedding.weight")[self.book])
        row = np.where(known < 0, codes, known)
        if grain == 1:
            row = np.where(repeated(self.split, 2), row, codes + 1)
            row = np.where(self.fine, codes + 2, row)
            x = self.array("medium_embedding.weight")[row]
            return self.blocks("medium", x + self.upsample("to_medium", above))
        row = np.where(repeated(self.fine, 2), row, codes + 2)
        row = np.where(repeated(self.split, 4), row, codes + 1)
        x = self.array("fine_embedding.weight")[row]
        return self.blocks("fine", x + self.upsample("to_fine", above))

    def symbols(self, grain: int, x: np.ndarray) -> np.ndarray:
        """Indices of one granularity with features (n, C), all groups and then members by group."""
        head = ("coarse_head", "medium_head", "fine_head")[grain]
        size, first, groups = self.books[self.book if grain == 0 else -1]
        first = first if grain == 0 else 0
        if not len(x):
            return np.zeros(0, np.int32)
        group = np.zeros(len(x), np.int32)
        if groups > 1:
            logits = self.linear(f"{head}.groups", x, slice(first, first + groups))
            group = self.note(self.coder.get_rows(frequencies(logits)))
        found = group * 32
        for number in np.unique(group):
            start = 32 * (first + int(number))
            logits = self.linear(f"{head}.members", x[group == number], slice(start, start + min(32, size)))
            found[group == number] += self.note(self.coder.get_rows(frequencies(logits)))
        return found

    def note(self, symbols: np.ndarray) -> np.ndarray:
        self.noted.append(symbols.astype("<i4").tobytes())
        return symbols

    def bits(self, first_table: int, level: int, asked: np.ndarray) -> np.ndarray:
        found, known = np.zeros_like(asked), ~asked
        if level == 0:
            return found
        if level == 15:
            return asked.copy()
        rows, columns = np.indices(asked.shape)
        for step, position in enumerate((0, 3, 2, 1)):
            now = asked & (2 * (rows % 2) + columns % 2 == position)
            indexes = []
            for i, j in zip(*np.nonzero(now), strict=True):
                seen = set_ = 0
                for a in (-1, 0, 1):
                    for b in (-1, 0, 1):
                        inside = 0 <= i + a < asked.shape[0] and 0 <= j + b < asked.shape[1]
                        if (a, b) != (0, 0) and inside and known[i + a, j + b]:
                            weight = 2 if 0 in (a, b) else 1
                            seen += weight
                            set_ += weight * int(found[i + a, j + b])
                context = 2 + (5 * set_ - 1) // max(seen, 1)
                context = 0 if seen == 0 else 1 if set_ == 0 else 7 if set_ == seen else context
                indexes.append(first_table + (step * 16 + level) * 8 + context)
            found[now] = self.note(self.coder.get(np.array(indexes, np.int64), self.tables)) == 1
            known |= now
        return found

    def residual(self, now: np.ndarray) -> None:
        """Residual indices of the positions of a batch."""
        codes = int(self.residual_tables.lengths[0]) - 1
        height, width = now.shape
        classes = []
        for i, j in zip(*np.nonzero(now), strict=True):
            seen = total = 0
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    inside = 0 <= i + a < height and 0 <= j + b < width
                    if (a, b) != (0, 0) and inside and self.residuals[i + a, j + b] >= 0:
                        weight = 2 if 0 in (a, b) else 1
                        seen += weight
                        total += weight * int(self.residuals[i + a, j + b])
            classes.append(1 + 7 * total // (codes * seen) if seen else 0)
        if classes:
            found = self.coder.get(np.array(classes, np.int64), self.residual_tables)
            self.residuals[now] = self.note(found)

    def start(self, body: Body, with_map: bool) -> None:
        header = body.header
        self.book, self.coder, self.noted = header.book, SymbolDecoder(body.words), []
        if with_map:
            shape = (-(-header.height // 16), -(-header.width // 16))
            self.split = self.bits(0, header.split_level, np.ones(shape, bool))
            self.fine = self.bits(512, header.fine_level, repeated(self.split, 2))
            fine = self.fine
            able = fine[::2, ::2] & fine[::2, 1::2] & fine[1::2, ::2] & fine[1::2, 1::2]
            self.marked = self.bits(0, header.residual_level, able)
        medium = repeated(self.split, 2) & ~self.fine
        self.masks = (~self.split, medium, repeated(self.fine, 2))

    def finish(self, body: Body) -> None:
        self.coder.finish()
        assert crc32c(*self.noted) == body.checksum

    def decode_grain(self, grain: int, index: np.ndarray, above: np.ndarray | None) -> np.ndarray:
        """The indices of one granularity in one piece, filled in; returns their features."""
        mask = self.masks[grain]
        step = self.steps(mask)
        for number in range(6):
            now = mask & (step == number)
            index[now] = self.symbols(grain, self.features(grain, index, above)[now])
        return self.features(grain, index, above)

    @staticmethod
    def steps(mask: np.ndarray) -> np.ndarray:
        rank = np.tile(BAYER, (-(-mask.shape[0] // 4), -(-mask.shape[1] // 4)))
        return np.searchsorted((0, 1, 2, 4, 8, 12), rank[: mask.shape[0], : mask.shape[1]], "right") - 1

    def decode(self, bodies: list[Body]) -> list[np.ndarray]:
        based = bodies[0].header.base_bytes
        if based:
            # With no packet lost, the first shares are the base.
            shares = b"".join(body.share for body in bodies[: (len(bodies) + 1) // 2])[:based]
            base = Body(bodies[0].header, int.from_bytes(shares[:4], "little"), shares[4:])
            self.start(base, True)
        else:
            self.start(bodies[0], True)
        indexes = [np.full(mask.shape, -1, np.int64) for mask in self.masks]
        self.residuals = np.full(self.masks[2].shape, -1, np.int64)
        if len(bodies) == 1:
            above = None
            for grain, index in enumerate(indexes):
                above = self.decode_grain(grain, index, above)
            for number in range(6):
                self.residual(repeated(self.marked, 4) & (self.steps(self.masks[2]) == number))
            self.finish(bodies[0])
            return indexes
        features, above = [], None
        if based:
            self.decode_grain(0, indexes[0], None)
            self.finish(base)
        for grain, index in enumerate(indexes):
            above = self.features(grain, index, above)
            features.append(above)
        for number, body in enumerate(bodies):
            self.start(body, not based and number <= len(bodies) // 5)
            for grain, (index, mask) in enumerate(zip(indexes, self.masks, strict=True)):
                if based and grain == 0:
                    continue
                rows, columns = np.indices(mask.shape)
                place = (rows * 49471 + columns * 37345 + grain * 20729) % 65536
                now = mask & (place * len(bodies) // 65536 == number)
                index[now] = self.symbols(grain, features[grain][now])
            rows, columns = np.indices(self.masks[2].shape)
            place = (rows * 49471 + columns * 37345 + 2 * 20729) % 65536
            known, self.residuals = self.residuals, np.full(self.masks[2].shape, -1, np.int64)
            self.residual(repeated(self.marked, 4) & (place * len(bodies) // 65536 == number))
            self.residuals = np.maximum(known, self.residuals)
            self.finish(body)
        return indexes


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(array).astype("<i4").tobytes()).hexdigest()


def test_weights_are_unchanged(codec, old_codec) -> None:
    for found in (codec, old_codec):
        assert found.fingerprint.hex() == EXPECTED["fingerprint"] == RESIDUAL["fingerprint"]
    assert old_codec.extended_fingerprint == old_codec.fingerprint
    assert codec.extended_fingerprint.hex() == RESIDUAL["extended_fingerprint"]


@names
def test_streams_are_unchanged(name) -> None:
    assert hashlib.sha256(stream(name)).hexdigest() == STREAMS[name]["stream_sha256"]


@names
def test_symbols(codec, name) -> None:
    found = codec._receive(stream(name), Limits())
    expected = STREAMS[name]
    assert digest(found.grains.split[0]) == expected["split_sha256"]
    assert digest(found.grains.fine[0]) == expected["fine_sha256"]
    assert [digest(index[0]) for index in found.indexes] == expected["indexes_sha256"]
    if "marked_sha256" not in expected:
        assert found.residuals is None
    else:
        assert digest(found.residuals.marked) == expected["marked_sha256"]
        assert digest(found.residuals.indexes) == expected["residuals_sha256"]


@old_names
def test_symbols_without_the_addition(old_codec, name) -> None:
    found = old_codec._receive(stream(name), Limits())
    assert [digest(index[0]) for index in found.indexes] == STREAMS[name]["indexes_sha256"]


@names
def test_second_decoder(weights, name) -> None:
    model = bytes.fromhex(fingerprint(name))
    bodies = read_payload(read_container(stream(name)).payload, model, Limits())
    decoder = SecondDecoder(weights)
    indexes = decoder.decode(bodies)
    expected = STREAMS[name]
    assert digest(decoder.split) == expected["split_sha256"]
    assert digest(decoder.fine) == expected["fine_sha256"]
    assert [digest(index) for index in indexes] == expected["indexes_sha256"]
    if "marked_sha256" in expected:
        assert digest(decoder.marked) == expected["marked_sha256"]
        assert digest(decoder.residuals) == expected["residuals_sha256"]


@names
def test_pictures(codec, name) -> None:
    """Pixels may differ in the last bit, where machines round floating point differently."""
    decoded = codec.decompress(stream(name))
    with Image.open(FOLDER / f"index_{name}.png") as image:
        expected = np.asarray(image).reshape(decoded.shape[1], decoded.shape[2], -1).transpose(2, 0, 1)
    assert np.abs(decoded.numpy().astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("name", COLOUR["streams"])
def test_colours(name) -> None:
    """Read as the specification says, without the library's reader."""
    section = read_container(stream(name)).get(130)
    expected = STREAMS[name]
    words = [int.from_bytes(section[1 + 3 * i : 4 + 3 * i], "little") for i in range(section[0])]
    colours = [[word % 128, word // 2**7 % 128, word // 2**14 % 128, word // 2**21] for word in words]
    assert colours == expected["colours"]
    # All lengths are below 128 in so small a picture, so a number is a byte.
    runs = np.frombuffer(section[1 + 3 * section[0] :], np.uint8).reshape(-1, 3).tolist()
    cells: list[int] = []
    for skipped, length, number in runs:
        cells += [-1] * skipped + [number] * length
    numbers = np.array(expected["colour_numbers"])
    assert cells + [-1] * (numbers.size - len(cells)) == numbers.ravel().tolist()


@pytest.mark.parametrize("name", ["rgb_80x112_q70_packets", "rgb_80x112_q96_residual_packets"])
@pytest.mark.parametrize("lost", [0, 3])
def test_packets_without_a_base_are_repaired(codec, name, lost) -> None:
    """As they were made once: a map in the first two packets, coarse indices in all of them."""
    packets = split_packets(stream(name))
    found = codec.decompress(b"".join(packets[:lost] + packets[lost + 1 :]), repair=True)
    assert found.report.lost_packets == (lost,)
    assert found.picture.shape == (3, 80, 112)
    with pytest.raises(CorruptStream, match="map"):
        codec.decompress(b"".join(packets[2:]), repair=True)


@names
def test_header_and_metadata(name) -> None:
    header = inspect(stream(name))
    assert header.fingerprint == fingerprint(name)
    for key in ("height", "width", "channels", "packets"):
        assert header.parameters[key] == STREAMS[name][key]
    found = read_metadata(stream(name))
    assert {key: value.hex() for key, value in found.items()} == STREAMS[name]["metadata"]
