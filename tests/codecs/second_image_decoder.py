"""A second decoder of image streams, written from docs/bitstream.md with numpy's integers and without torch.

It shares the tables and the range coder with the library, and nothing else. What both families of weights
have in common is here, for second_image_max_decoder.py as well.
"""

from typing import Any

import numpy as np

from latentpress.codecs.bitstream import SymbolDecoder, TableSet
from latentpress.codecs.weights import WeightFile

LIMIT = 2**20 - 1


class SecondDecoder:
    """Decodes image streams."""

    def __init__(self, weights: WeightFile) -> None:
        self.weights = weights.tensors
        self.config = weights.config
        arrays = {k.removeprefix("tables."): v for k, v in self.weights.items() if k.startswith("tables.")}
        self.tables = TableSet.from_arrays(arrays)

    def array(self, name: str) -> np.ndarray:
        return self.weights[name].astype(np.int64)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        sums = x.clip(-LIMIT, LIMIT) @ self.array(f"{name}.weight").T
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        shift = int(self.array(f"{name}.shift")[0])
        sums = sliding_sums(x.clip(-LIMIT, LIMIT), self.array(f"{name}.weight")[:, 0])
        return (sums + (self.array(f"{name}.bias") << shift) + (1 << shift - 1)) >> shift

    def block(self, name: str, x: np.ndarray) -> np.ndarray:
        hidden = rectifier(self.linear(f"{name}.expand", x))
        x = x + self.linear(f"{name}.project", self.depthwise(f"{name}.depthwise", hidden))
        gated = product(self.linear(f"{name}.value", x), self.linear(f"{name}.gate", x))
        return x + self.linear(f"{name}.output", gated)

    def quality_vector(self, name: str, tenths: int) -> np.ndarray:
        knots = self.array(f"{name}.knots")
        position = tenths * (len(knots) - 1)
        index = min(position // 1000, len(knots) - 2)
        fraction = position - 1000 * index
        return (knots[index] * (1000 - fraction) + knots[index + 1] * fraction + 500) // 1000

    def upsample(self, name: str, x: np.ndarray) -> np.ndarray:
        return spread(self.linear(f"{name}.linear", x), 2)

    def table_index(self, raw: np.ndarray) -> np.ndarray:
        return ((8 * raw + 24 * 1024 + 512) >> 10).clip(0, 63).astype(np.uint8)

    def decode_z(
        self, coder: SymbolDecoder, rows: int, columns: int, tenths: int
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """z in units of a latent of so many rows and columns, and the symbols of each of its batches."""
        shape = (-(-rows // 4), -(-columns // 4), self.config["hyper_channels"])
        usual = self.quality_vector("hyper_prior.raw_scale", tenths)
        if "side_information" in self.config:
            features = np.zeros((*shape[:2], 1), np.int64) + self.quality_vector("hyper_prior.bias", tenths)
            depth = self.config["side_information"]["depth"]
            return self.decode_steps(coder, "hyper_prior.context", features, depth, usual)
        symbols = coder.get(np.tile(self.table_index(usual), shape[0] * shape[1]), self.tables)
        return symbols.reshape(shape).astype(np.int64) * 1024, [symbols]

    def features(self, z: np.ndarray, rows: int, columns: int, tenths: int) -> np.ndarray:
        x = self.upsample("hyper_synthesis.up_coarse", z)
        x = self.upsample("hyper_synthesis.up_fine", self.block("hyper_synthesis.coarse", x))
        x = x + self.quality_vector("hyper_synthesis.bias", tenths)
        return self.block("hyper_synthesis.fine", x)[:rows, :columns]

    def decode_steps(
        self, coder: SymbolDecoder, name: str, features: np.ndarray, depth: int, usual: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """A latent in units, in four steps, and the symbols of each; raw scales are added to usual ones."""
        channels = len(usual)
        found = np.zeros((*features.shape[:2], channels), np.int64)
        row, column, channel = np.indices(found.shape)
        quarter = channel // (channels // 4)
        batches = []
        for step, order in enumerate((0, 3, 2, 1)):
            x = features
            if step > 0:
                x = self.linear(f"{name}.adaptors.{step - 1}", np.concatenate([features, found], axis=2))
                for number in range(depth):
                    x = self.block(f"{name}.blocks.{number}", x)
            x = self.linear(f"{name}.heads.{step}", x)
            mean, raw_scale = x[:, :, :channels], x[:, :, channels:] + usual
            coded = (2 * (row % 2) + column % 2) ^ order == quarter
            batches.append(self.decode_symbols(coder, raw_scale, coded))
            found[coded] = batches[-1] * 1024 + mean[coded]
        return found, batches

    def decode_symbols(self, coder: SymbolDecoder, raw_scale: np.ndarray, coded: np.ndarray) -> np.ndarray:
        """A batch."""
        return coder.get(self.table_index(raw_scale[coded]), self.tables).astype(np.int64)

    def decode(self, data: bytes, height: int, width: int, tenths: int) -> tuple[np.ndarray, ...]:
        """z in steps, y_hat in units, and all symbols in the order in which they are coded."""
        coder = SymbolDecoder(data)
        rows, columns = -(-height // 16), -(-width // 16)
        z, symbols = self.decode_z(coder, rows, columns, tenths)
        features = self.features(z, rows, columns, tenths)
        usual = np.zeros(self.config["latent_channels"], np.int64)
        y_hat, batches = self.decode_steps(coder, "context", features, self.config["context_depth"], usual)
        coder.finish()
        return z / 1024, y_hat, np.concatenate([*symbols, *batches])

    def synthesise(self, y_hat: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
        """Pixels from y_hat, in float64."""
        tenths = facts["quality_tenths"]
        limit, deep_limit = self.config.get("branch_limits") or (np.inf, np.inf)
        x = self.real_linear("synthesis.stem", y_hat / 1024 * self.gain("inverse_gain", tenths))
        x = self.mixed("synthesis.deep_mixers", x)
        for number in range(self.config["deep_depth"]):
            x = self.real_block(f"synthesis.deep_blocks.{number}", x, deep_limit)
        x = spread(self.real_linear("synthesis.up.linear", x), 2) * self.gain("synthesis.gain", tenths)
        x = self.mixed("synthesis.mixers", x)
        for number in range(self.config["depth"]):
            x = self.real_block(f"synthesis.blocks.{number}", x, limit)
        rgb = spread(self.real_linear("synthesis.head", x), 8) + 0.5
        rgb = rgb[: facts["height"], : facts["width"]]
        if facts["channels"] == 1:
            rgb = rgb.mean(axis=2, keepdims=True)
        return np.round(rgb.clip(0, 1) * 255).transpose(2, 0, 1)

    def mixed(self, name: str, x: np.ndarray) -> np.ndarray:
        """Through token mixing blocks, which the family image has none of."""
        return x

    def real(self, name: str) -> np.ndarray:
        return self.weights[name].astype(np.float64)

    def real_linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.real(f"{name}.weight").T + self.real(f"{name}.bias")

    def real_depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        return sliding_sums(x, self.real(f"{name}.weight")[:, 0]) + self.real(f"{name}.bias")

    def real_block(self, name: str, x: np.ndarray, limit: float) -> np.ndarray:
        hidden = silu(self.real_linear(f"{name}.expand", self.normalised(f"{name}.normalise_mixing", x)))
        hidden = self.real_linear(f"{name}.project", self.real_depthwise(f"{name}.depthwise", hidden))
        x = x + hidden.clip(-limit, limit)
        seen = self.normalised(f"{name}.normalise_feed", x)
        gated = self.real_linear(f"{name}.value", seen) * silu(self.real_linear(f"{name}.gate", seen))
        return x + self.real_linear(f"{name}.output", gated).clip(-limit, limit)

    def normalised(self, name: str, x: np.ndarray) -> np.ndarray:
        """What the branches of a block see."""
        if self.config.get("normalisation", "none") == "none":
            return x
        scaled = x * self.real(f"{name}.weight")
        return scaled / np.sqrt(1 + np.square(scaled).mean(axis=2, keepdims=True))

    def gain(self, name: str, tenths: int) -> np.ndarray:
        knots = self.real(f"{name}.knots")
        positions = np.arange(len(knots))
        at = tenths / 1000 * (len(knots) - 1)
        return np.exp([np.interp(at, positions, column) for column in knots.T])


def rectifier(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x >> 3)


def product(value: np.ndarray, gate: np.ndarray) -> np.ndarray:
    return (value.clip(-LIMIT, LIMIT) * gate.clip(0, 2**13) + 512) >> 10


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def sliding_sums(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums of the square around every position, channel by channel; weight is (C, side, side)."""
    height, width = x.shape[:2]
    side = weight.shape[1]
    padded = np.pad(x, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    return sum(
        padded[i : i + height, j : j + width] * weight[:, i, j] for i in range(side) for j in range(side)
    )


def spread(x: np.ndarray, side: int) -> np.ndarray:
    height, width, channels = x.shape
    x = x.reshape(height, width, side, side, -1).transpose(0, 2, 1, 3, 4)
    return x.reshape(side * height, side * width, channels // side**2)
