"""Shapes as samples, kept on the training device, and augmented batches of them."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.shape.layers import GRID_HALF_WIDTH
from latentpress.models.shape.oriented_points import turn


class ShapeBatch(NamedTuple):
    """A batch of shapes; all coordinates have the shape's longest side 2, centred.

    Attributes:
        points: ``(B, P, 9)`` for the encoder: position, normal, colour minus one half.
        surface: ``(B, S, 9)`` further points of the same surfaces, to measure at.
        queries: ``(B, Q, 4)``: position and signed distance.
    """

    points: Tensor
    surface: Tensor
    queries: Tensor


class ShapeSamples(NamedTuple):
    """Samples of S shapes.

    Attributes:
        surface: ``(S, P, 6)`` float16: position and outward normal, in random order.
        colour: ``(S, P, 3)`` uint8.
        queries: ``(S, Q, 4)`` float16: position and signed distance, in random order.
    """

    surface: Tensor
    colour: Tensor
    queries: Tensor

    def __add__(self, other: tuple) -> ShapeSamples:  # type: ignore[override]
        """Both sets of shapes, one after the other."""
        return ShapeSamples(*(torch.cat(pair) for pair in zip(self, other, strict=True)))

    @classmethod
    def stack(cls, shapes: list[ShapeSamples]) -> ShapeSamples:
        """Concatenates many sets at once."""
        return cls(*(torch.cat(parts) for parts in zip(*shapes, strict=True)))


class BatchSizes(NamedTuple):
    """How many shapes and samples a batch has.

    Attributes:
        shapes: B.
        points: P, for the encoder.
        surface: S, to measure at.
        queries: Q.
    """

    shapes: int
    points: int
    surface: int
    queries: int


class ShapePool:
    """Draws augmented batches from :class:`ShapeSamples`.

    Args:
        samples: Of all shapes, on the device where batches are wanted.
    """

    def __init__(self, samples: ShapeSamples) -> None:
        self.samples = samples
        self._symmetries = cube_symmetries().to(samples.surface.device)

    def __len__(self) -> int:
        return len(self.samples.surface)

    def batch(self, sizes: BatchSizes, generator: torch.Generator) -> ShapeBatch:
        """Draws shapes with replacement, turned at random.

        Args:
            sizes: Of the batch.
            generator: Of the pool's device.
        """
        device = self.samples.surface.device
        shapes = torch.randint(len(self), (sizes.shapes,), generator=generator, device=device)
        rotation = self._rotations(sizes.shapes, generator)
        return self.take(shapes, sizes, rotation, generator)

    def take(
        self,
        shapes: Tensor,
        sizes: BatchSizes,
        rotation: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ShapeBatch:
        """The batch of given shapes.

        Args:
            shapes: ``(B,)`` indices.
            sizes: Of the batch; ``sizes.shapes`` is not looked at.
            rotation: ``(B, 3, 3)`` orthogonal matrices, reflections included; None for none.
            generator: Of the pool's device; without, the first samples are taken.
        """
        count, device = sizes.points + sizes.surface, shapes.device
        index = _neighbours(self.samples.surface.shape[1], len(shapes), count, device, generator)
        surface = self.samples.surface[shapes[:, None], index].float()
        colour = self.samples.colour[shapes[:, None], index]
        index = _neighbours(self.samples.queries.shape[1], len(shapes), sizes.queries, device, generator)
        queries = self.samples.queries[shapes[:, None], index].float()
        everything = self.samples.surface[shapes, :, :3].float()
        if rotation is not None:
            surface = torch.cat((turn(surface[..., :3], rotation), turn(surface[..., 3:], rotation)), dim=-1)
            queries = torch.cat((turn(queries[..., :3], rotation), queries[..., 3:]), dim=-1)
            everything = turn(everything, rotation)
        low, high = everything.amin(1, keepdim=True), everything.amax(1, keepdim=True)
        centre, scale = (low + high) / 2, 2 / (high - low).amax(-1, keepdim=True)
        surface = torch.cat(
            ((surface[..., :3] - centre) * scale, surface[..., 3:], colour.float() / 255 - 0.5), dim=-1
        )
        queries = torch.cat(((queries[..., :3] - centre) * scale, queries[..., 3:] * scale), dim=-1)
        # A query that left the cube is replaced by a point of the surface, so that shapes stay static.
        inside = (queries[..., :3].abs() <= GRID_HALF_WIDTH).all(-1, keepdim=True)
        on_surface = torch.cat((surface[..., :3], torch.zeros_like(surface[..., :1])), dim=-1)
        repeats = -(-sizes.queries // count)
        queries = torch.where(inside, queries, on_surface.repeat(1, repeats, 1)[:, : sizes.queries])
        return ShapeBatch(surface[:, : sizes.points], surface[:, sizes.points :], queries)

    def _rotations(self, count: int, generator: torch.Generator) -> Tensor:
        """Half symmetries of the cube, half anything: many real objects stand upright."""
        device = self._symmetries.device
        index = torch.randint(len(self._symmetries), (count,), generator=generator, device=device)
        gauss = torch.randn((count, 3, 3), generator=generator, device=device)
        first = torch.nn.functional.normalize(gauss[:, 0], dim=-1)
        second = gauss[:, 1] - (gauss[:, 1] * first).sum(-1, keepdim=True) * first
        second = torch.nn.functional.normalize(second, dim=-1)
        any_rotation = torch.stack((first, second, torch.linalg.cross(first, second)), dim=1)
        upright = torch.rand((count, 1, 1), generator=generator, device=device) < 0.5
        return torch.where(upright, self._symmetries[index], any_rotation)


def _neighbours(
    total: int, shapes: int, count: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Indices of neighbouring samples from a random start, ``(B, count)``: their order is random anyway."""
    start = torch.zeros((shapes, 1), dtype=torch.int64, device=device)
    if generator is not None:
        start = torch.randint(total, (shapes, 1), generator=generator, device=device)
    return (start + torch.arange(count, device=device)) % total


def cube_symmetries() -> Tensor:
    """The 48 orthogonal matrices that map a cube onto itself, ``(48, 3, 3)``."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        found.append(torch.eye(3)[list(order)] * torch.tensor(signs)[:, None])
    return torch.stack(found)


def save_samples(samples: ShapeSamples, path: str | Path) -> None:
    """Writes samples to a file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(samples._asdict(), partial)
    partial.replace(path)


def load_samples(path: str | Path, device: torch.device | str) -> ShapeSamples:
    """Reads what :func:`save_samples` wrote."""
    return ShapeSamples(**torch.load(path, map_location=device, weights_only=True))
