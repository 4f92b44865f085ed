"""A second decoder of streams of the family image-max, written from docs/bitstream.md with numpy's integers.

It shares the container, the tables and the range coder with the library; what the family has in common with
the family image is in second_image_decoder.py, beside this file.
"""

import importlib.util
import math
import struct
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from latentpress.codecs.bitstream import SymbolDecoder, crc32c, decode_varint, encode_varint


def load_beside(name: str) -> ModuleType:
    """A module beside this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


common = load_beside("second_image_decoder")
parts = load_beside("second_image_max_parts")


class Part(NamedTuple):
    """A part of a picture or tile: CRC32C of its symbols, and words of the range coder."""

    checksum: int
    data: bytes


class Stream(NamedTuple):
    """What a stream holds of a picture: of each tile the parts that are there."""

    fields: bytes
    height: int
    width: int
    channels: int
    quality_tenths: int
    tile_size: int
    tiles: list[list[Part]]


class Decoded(NamedTuple):
    """What is in a tile: z in steps, y_hat in units, and the symbols of each part in coding order."""

    z: np.ndarray
    y_hat: np.ndarray
    symbols: list[np.ndarray]


def read_stream(payload: bytes, index: bytes | None, part_count: int, missing: int = 0) -> Stream:
    """Takes the sections PAYLOAD and TILES apart; so many bytes are missing at the payload's end."""
    height, offset = decode_varint(payload, 0)
    width, offset = decode_varint(payload, offset)
    code, offset = decode_varint(payload, offset)
    tile_size = 0
    if code >= 2048:
        tile_size, offset = decode_varint(payload, offset)
        tile_size, code = 64 * tile_size, code - 2048
    fields = payload[:offset]
    end = len(payload) + missing
    if tile_size:
        count = -(-height // tile_size) * -(-width // tile_size)
        tiles = tiled_parts(payload, index, count, part_count, offset, end)
    else:
        assert index is None
        tiles = [untiled_parts(payload, part_count, offset, end)]
    return Stream(fields, height, width, 1 if code % 2 else 3, code // 2, tile_size, tiles)


def untiled_parts(payload: bytes, part_count: int, offset: int, end: int) -> list[Part]:
    found = []
    for number in range(part_count):
        if offset + 4 > len(payload):
            break
        (checksum,) = struct.unpack_from("<I", payload, offset)
        offset += 4
        if number < part_count - 1:
            length, offset = decode_varint(payload, offset)
        else:
            length = end - offset
        if offset + length > len(payload):
            break
        found.append(Part(checksum, payload[offset : offset + length]))
        offset += length
    return found


def tiled_parts(
    payload: bytes, index: bytes, tile_count: int, part_count: int, offset: int, end: int
) -> list[list[Part]]:
    tiles: list[list[Part]] = [[] for _ in range(tile_count)]
    at = 0
    for tile in part_count * tiles:
        words, at = decode_varint(index, at)
        (checksum,) = struct.unpack_from("<I", index, at)
        at += 4
        if offset + 4 * words <= len(payload):
            tile.append(Part(checksum, payload[offset : offset + 4 * words]))
        offset += 4 * words
    assert (at, offset) == (len(index), end)
    return tiles


def tile_place(stream: Stream, number: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a tile, in pixels."""
    size = stream.tile_size or max(stream.height, stream.width)
    row, column = divmod(number, -(-stream.width // size))
    top, left = row * size, column * size
    return top, left, min(size, stream.height - top), min(size, stream.width - left)


class SecondTiledDecoder(common.SecondDecoder):
    """Decodes streams of the family image, which may be in tiles."""

    part_count = 1

    def decode_stream(self, stream: Stream) -> list[Decoded]:
        """Every tile; a picture without tiles is one."""
        found = []
        for number, tile_parts in enumerate(stream.tiles):
            height, width = tile_place(stream, number)[2:]
            covered = stream.fields if self.part_count > 1 or stream.tile_size else b""
            covered += encode_varint(number) if stream.tile_size else b""
            found.append(self.decode_tile(tile_parts, covered, height, width, stream.quality_tenths))
        return found

    def joined(self, stream: Stream, tiles: list[Decoded]) -> np.ndarray:
        """y_hat of the picture."""
        shape = -(-stream.height // 16), -(-stream.width // 16), self.config["latent_channels"]
        y_hat = np.zeros(shape, np.int64)
        for number, tile in enumerate(tiles):
            top, left = tile_place(stream, number)[:2]
            rows, columns = tile.y_hat.shape[:2]
            y_hat[top // 16 : top // 16 + rows, left // 16 : left // 16 + columns] = tile.y_hat
        return y_hat

    def decode_tile(
        self, tile_parts: list[Part], covered: bytes, height: int, width: int, tenths: int
    ) -> Decoded:
        """Everything in the parts that are there; their checksums cover some bytes besides the symbols."""
        ((checksum, data),) = tile_parts
        z, y_hat, symbols = self.decode(data, height, width, tenths)
        assert crc32c(covered + symbols.astype("<i4").tobytes()) == checksum
        return Decoded(z, y_hat, [symbols])


class SecondMaxDecoder(SecondTiledDecoder):
    """Decodes streams of image-max."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights)
        self.stages = self.config["schedule"]["stages"]
        self.design = self.config["context"]
        self.part_count = 1 + max(stage["part"] for stage in self.stages)
        self.slice_channels = self.config["latent_channels"] // self.config["schedule"]["slices"]

    def decode_tile(
        self, tile_parts: list[Part], covered: bytes, height: int, width: int, tenths: int
    ) -> Decoded:
        """Everything in the parts that are there; their checksums cover some bytes besides the symbols."""
        rows, columns = -(-height // 16), -(-width // 16)
        y_hat = np.zeros((rows, columns, self.config["latent_channels"]), np.int64)
        symbols: list[list[np.ndarray]] = [[] for _ in tile_parts]
        coders = [SymbolDecoder(part.data) for part in tile_parts]
        z, batches = self.decode_z(coders[0], rows, columns, tenths)
        symbols[0] += batches
        features = self.features(z, rows, columns, tenths)
        for number, stage in enumerate(self.stages):
            there = stage["part"] < len(coders)
            coder = coders[stage["part"]] if there else None
            found, batches = self.decode_stage(number, features, y_hat, coder)
            y_hat[:, :, self.channels_of(stage["slices"])] = found
            if there:
                symbols[stage["part"]] += batches
        joined = [np.concatenate(batches) for batches in symbols]
        for part, coder, values in zip(tile_parts, coders, joined, strict=True):
            coder.finish()
            assert crc32c(covered + values.astype("<i4").tobytes()) == part.checksum
        return Decoded(z / 1024, y_hat, joined)

    def channels_of(self, slices: list[int]) -> list[int]:
        width = self.slice_channels
        return [channel for number in slices for channel in range(number * width, (number + 1) * width)]

    def decode_stage(
        self, number: int, features: np.ndarray, y_hat: np.ndarray, coder: SymbolDecoder | None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The channels of a stage, and the symbols of its two batches."""
        name = f"context.stages.{number}"
        width = features.shape[1]
        seen = y_hat[:, :, self.channels_of(self.stages[number]["sees"])]
        known = features
        if seen.size:
            known = np.concatenate([features, self.contexts(name, seen)], axis=2)

        joined = [parts.half(known, other=False)]
        if self.design["hyper_correlation"] and not seen.size:
            joined.append(self.hyper_correlation(f"{name}.hyper_correlation", features))
        anchors, first = self.decode_half(f"{name}.anchor", joined, width, False, coder)

        joined = [parts.half(known, other=True)]
        if self.design["local_attention"]:
            joined.append(self.local_attention(f"{name}.local_attention", joined[0], anchors, width))
        if self.design["intra_slice"] and seen.size:
            joined.append(self.intra_slice(f"{name}.intra_slice", seen, anchors))
        others, second = self.decode_half(f"{name}.other", joined, width, True, coder)
        return parts.whole(anchors, width, False) + parts.whole(others, width, True), [first, second]

    def decode_half(
        self, name: str, joined: list[np.ndarray], width: int, other: bool, coder: SymbolDecoder | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Half the positions of a stage, and their symbols."""
        x = self.linear(f"{name}.parameters_of.fuse", np.concatenate(joined, axis=2))
        for number in range(self.design["own_blocks"]):
            x = self.pointwise_block(f"{name}.parameters_of.blocks.{number}", x)
        for number in range(self.design["shared_blocks"]):
            x = self.pointwise_block(f"context.blocks.{number}", x)
        hidden = x
        mean, raw_scale = np.split(self.linear(f"{name}.parameters_of.head", hidden), 2, axis=2)
        coded = parts.half(np.ones((x.shape[0], width, 1), bool), other) & np.ones(mean.shape, bool)
        if self.design["selective"]:
            coded = coded & (self.linear(f"{name}.selective.head", hidden) - raw_scale <= 0)
        residual = np.zeros_like(mean)
        symbols = np.zeros(0, np.int64)
        if coder is not None:
            symbols = self.decode_symbols(coder, raw_scale, coded)
            residual[coded] = symbols * 1024
        value = mean + residual
        if self.design["residual_prediction"]:
            inputs = np.concatenate([hidden, residual.clip(-4096, 4096)], axis=2)
            inner = common.rectifier(self.linear(f"{name}.residual_prediction.expand", inputs))
            value = value + self.linear(f"{name}.residual_prediction.head", inner).clip(-512, 512)
        return value, symbols

    def pointwise_block(self, name: str, x: np.ndarray) -> np.ndarray:
        x = x + self.linear(f"{name}.project", common.rectifier(self.linear(f"{name}.expand", x)))
        gated = common.product(self.linear(f"{name}.value", x), self.linear(f"{name}.gate", x))
        return x + self.linear(f"{name}.output", gated)

    def contexts(self, name: str, seen: np.ndarray) -> np.ndarray:
        """What earlier slices say."""
        x = common.rectifier(self.linear(f"{name}.channel_context.expand", seen))
        x = self.depthwise(f"{name}.channel_context.depthwise", x)
        x = self.linear(f"{name}.channel_context.project", x)
        if self.design["inter_slice"]:
            x = np.concatenate([x, self.inter_slice(f"{name}.inter_slice", seen)], axis=2)
        for number in range((self.design["reweighting"] or {"blocks": 0})["blocks"]):
            x = self.reweighting(f"{name}.reweighting.{number}", x)
        return x

    def inter_slice(self, name: str, seen: np.ndarray) -> np.ndarray:
        x = self.depthwise(f"{name}.depthwise", self.linear(f"{name}.project", seen))
        thirds = np.split(x, 3, axis=2)
        return self.linear_attention(*thirds, self.design["inter_slice"]["heads"])

    def intra_slice(self, name: str, seen: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        x = self.depthwise(f"{name}.depthwise", self.linear(f"{name}.project", seen))
        query, key = np.split(x, 2, axis=2)
        query, key = parts.half(query, other=True), parts.half(key, other=False)
        value = self.linear(f"{name}.value", anchors)
        return self.linear_attention(query, key, value, self.design["intra_slice"]["heads"])

    def hyper_correlation(self, name: str, features: np.ndarray) -> np.ndarray:
        anchors, others = parts.half(features, other=False), parts.half(features, other=True)
        query = self.linear(f"{name}.query", anchors)
        key, value = (self.linear(f"{name}.{layer}", others) for layer in ("key", "value"))
        x = self.linear_attention(query, key, value, self.design["hyper_correlation"]["heads"])
        return common.product(self.linear(f"{name}.project", x), self.linear(f"{name}.gate", anchors))

    def linear_attention(
        self, query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int
    ) -> np.ndarray:
        flat = [x.reshape(-1, x.shape[2]) for x in (query, key, value)]
        return parts.linear_attention(*flat, heads).reshape(query.shape)

    def reweighting(self, name: str, x: np.ndarray) -> np.ndarray:
        flat = x.reshape(-1, x.shape[2])
        query, key, value = (self.linear(f"{name}.{layer}", flat) for layer in ("query", "key", "value"))
        mixed = parts.channel_attention(query, key, value)
        return x + common.product(mixed, self.linear(f"{name}.gate", flat)).reshape(x.shape)

    def local_attention(self, name: str, known: np.ndarray, anchors: np.ndarray, width: int) -> np.ndarray:
        design = self.design["local_attention"]
        heads = design["heads"]
        query = self.linear(f"{name}.query", known)
        key, value = (
            parts.neighbours(self.linear(f"{name}.{layer}", anchors), width) for layer in ("key", "value")
        )
        inside = parts.neighbours(np.ones((*anchors.shape[:2], 1), bool), width)
        query = query.reshape(*query.shape[:2], 1, heads, -1)
        key, value = (x.reshape(*x.shape[:3], heads, -1) for x in (key, value))
        if design["position"] == "rotary":
            turns = (self.array(f"{name}.scores.{wave}") for wave in ("cosine", "sine"))
            scores = parts.rotary_scores(query, key, *turns)
        else:
            scores = parts.bias_scores(query, key, self.array(f"{name}.scores.bias"))
        found = parts.window_average(scores, value, inside)
        return found.reshape(*known.shape[:2], -1)

    def mixed(self, name: str, x: np.ndarray) -> np.ndarray:
        """Through the token mixing blocks of the synthesis, in float64."""
        key = "deep_blocks" if name.endswith("deep_mixers") else "blocks"
        for number in range((self.config["token_mixing"] or {key: 0})[key]):
            x = self.mixing_block(f"{name}.{number}", x)
        return x

    def mixing_block(self, name: str, x: np.ndarray) -> np.ndarray:
        mixed = self.norm(f"{name}.mixing_norm", x)
        mixed = mixed + self.real_depthwise(
            f"{name}.second", gelu(self.real_depthwise(f"{name}.first", mixed))
        )
        x = x + self.real_linear(f"{name}.project", self.real_depthwise(f"{name}.wide", mixed))
        gate = gelu(self.real_linear(f"{name}.expand", self.norm(f"{name}.gate_norm", x)))
        gate = self.real_linear(f"{name}.gate", gelu(self.real_depthwise(f"{name}.depthwise", gate)))
        return x + x * np.tanh(gate)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=2, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=2, keepdims=True) + 1e-5)
        return scaled * self.real(f"{name}.weight") + self.real(f"{name}.bias")


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 + 0.5 * np.vectorize(math.erf)(x / math.sqrt(2)))
