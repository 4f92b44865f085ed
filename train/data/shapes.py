"""Shapes for training: sampled once, kept on the training device, drawn in augmented batches.

::

    formulas, meshes -> samples -> pool --> batches
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from latentpress.train.data.shape_pool import (
    BatchSizes,
    ShapeBatch,
    ShapePool,
    ShapeSamples,
    load_samples,
    save_samples,
)
from latentpress.train.data.shape_sampling import SampleCounts, analytic_samples, mesh_samples, read_meshes


class ShapeStream(IterableDataset):
    """Endless augmented batches from a :class:`ShapePool`."""

    def __init__(self, pool: ShapePool, sizes: BatchSizes, seed: int) -> None:
        self.pool = pool
        self.sizes = sizes
        self.seed = seed

    def __iter__(self) -> Iterator[ShapeBatch]:
        generator = torch.Generator(self.pool.samples.surface.device).manual_seed(self.seed)
        while True:
            yield self.pool.batch(self.sizes, generator)


class _HeldOutShapes(IterableDataset):
    """Every shape of a pool once, in batches, not turned."""

    def __init__(self, pool: ShapePool, sizes: BatchSizes) -> None:
        self.pool = pool
        self.sizes = sizes

    def __iter__(self) -> Iterator[ShapeBatch]:
        shapes = torch.arange(len(self.pool), device=self.pool.samples.surface.device)
        for part in shapes.split(self.sizes.shapes):
            yield self.pool.take(part, self.sizes)


class ShapeDataModule(lightning.LightningDataModule):
    """Shapes from formulas and real meshes, sampled once and kept on the training device.

    Args:
        meshes: A mesh collection, see :func:`~latentpress.train.data.shape_sampling.read_meshes`; None for
            shapes from formulas only.
        analytic: Number of shapes from formulas.
        variants: Of every mesh: itself and so many bent copies less one.
        batch_size: Shapes a step and device.
        points: Surface points for the encoder.
        surface: Surface points to measure at.
        queries: Points with a signed distance to measure at.
        surface_kept: Surface points kept of every shape.
        queries_kept: Queries kept of every shape.
        dense: Surface points that distances are measured to.
        held_out: One mesh in so many is for validation.
        cache: Folder that keeps the samples for the next run; None for none.
        seed: Of shapes and batches; every device adds its rank to that of the batches.
    """

    def __init__(
        self,
        meshes: str | None = None,
        analytic: int = 16384,
        variants: int = 12,
        batch_size: int = 64,
        points: int = 2048,
        surface: int = 1024,
        queries: int = 3072,
        surface_kept: int = 4096,
        queries_kept: int = 6144,
        dense: int = 12288,
        held_out: int = 27,
        cache: str | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__()
        if points + surface > surface_kept or queries > queries_kept:
            raise ValueError(
                f"a batch takes {points} + {surface} surface points and {queries} queries of a shape, "
                f"only {surface_kept} and {queries_kept} are kept"
            )
        self.meshes = meshes
        self.analytic = analytic
        self.variants = variants
        self.sizes = BatchSizes(batch_size, points, surface, queries)
        self.counts = SampleCounts(surface_kept, queries_kept, dense)
        self.held_out = held_out
        self.cache = Path(cache) if cache is not None else None
        self.seed = seed
        self._pool: ShapePool | None = None

    def pool(self, device: torch.device | str) -> ShapePool:
        """The shapes to train on, made on the first call."""
        if self._pool is None:
            self._pool = ShapePool(self._cached("train.pt", self._training_samples, device))
        return self._pool

    def replace_pool(self, pool: ShapePool) -> None:
        """Puts other shapes in the place of those to train on."""
        self._pool = pool

    def held_out_pool(self, device: torch.device | str) -> ShapePool | None:
        """The meshes to validate on; None without meshes."""
        if self.meshes is None:
            return None
        return ShapePool(self._cached("held_out.pt", self._held_out_samples, device))

    def train_dataloader(self) -> DataLoader:
        """Batches of :class:`ShapeBatch` on the training device."""
        pool = self.pool(self.trainer.strategy.root_device)
        # A resumed run must not see the same batches again.
        seed = self.seed + 1000 * self.trainer.global_step + self.trainer.global_rank
        return DataLoader(ShapeStream(pool, self.sizes, seed), batch_size=None)

    def val_dataloader(self) -> DataLoader | list:
        """Held-out meshes as they are, in batches of at most the training size."""
        pool = self.held_out_pool(self.trainer.strategy.root_device)
        return [] if pool is None else DataLoader(_HeldOutShapes(pool, self.sizes), batch_size=None)

    def _cached(
        self, name: str, make: Callable[[torch.device | str], ShapeSamples], device: torch.device | str
    ) -> ShapeSamples:
        path = None if self.cache is None else self.cache / name
        if path is not None and path.is_file():
            return load_samples(path, device)
        start = time.monotonic()
        samples = make(device)
        print(f"{len(samples.surface)} shapes sampled in {time.monotonic() - start:.1f} s", flush=True)
        if path is not None:
            save_samples(samples, path)
        return samples

    def _split_meshes(self, held_out: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        if self.meshes is None:
            return []
        everything = read_meshes(self.meshes)
        return [mesh for k, mesh in enumerate(everything) if (k % self.held_out == 0) == held_out]

    def _training_samples(self, device: torch.device | str) -> ShapeSamples:
        parts = []
        if self.analytic:
            parts.append(analytic_samples(self.analytic, self.counts, device, self.seed))
        if self.meshes is not None:
            meshes = self._split_meshes(held_out=False)
            parts.append(mesh_samples(meshes, self.variants, self.counts, device, self.seed))
        if not parts:
            raise ValueError("there is nothing to train on: neither meshes nor shapes from formulas")
        return ShapeSamples.stack(parts)

    def _held_out_samples(self, device: torch.device | str) -> ShapeSamples:
        return mesh_samples(self._split_meshes(held_out=True), 1, self.counts, device, self.seed)
