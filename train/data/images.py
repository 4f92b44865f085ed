"""Photographs for training: decoded once, kept on the GPU, cropped there."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import lightning
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

from latentpress.train.data.camera_traces import CameraTraces

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp"})


class CropBatch(NamedTuple):
    """A batch for training.

    Attributes:
        image: ``(B, S, S, 3)`` uint8.
        quality: ``(B,)`` float32 in [0, 100].
    """

    image: Tensor
    quality: Tensor


def find_images(folder: str | Path) -> list[Path]:
    """All pictures below a folder, sorted.

    Raises:
        FileNotFoundError: There is none.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"no picture ({', '.join(sorted(SUFFIXES))}) below {folder}")
    return paths


def read_rgb(path: str | Path) -> np.ndarray:
    """Decodes a file to ``(H, W, 3)`` uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


class ImagePool:
    """Decoded pictures in one flat buffer, with random crops, flips and transpositions by index arithmetic.

    Pictures are also kept at reduced sizes: downscaled photographs are sharp, as test pictures are, and
    show content at several scales.

    Args:
        device: Where the buffer lives.
        crop_size: Side of the crops, in pixels.
        scales: Sizes to keep besides the original, as fractions.
        area_cap: Pictures are drawn in proportion to their area, but none counts for more pixels than this.
    """

    def __init__(
        self,
        device: torch.device | str,
        crop_size: int,
        scales: tuple[float, ...] = (0.67, 0.5, 0.33),
        area_cap: float = 2e6,
    ) -> None:
        self.device = torch.device(device)
        self.crop_size = crop_size
        self.scales = scales
        self.area_cap = area_cap
        self._parts: list[Tensor] = []
        self._sizes: list[tuple[int, int]] = []

    def add(self, image: np.ndarray) -> None:
        """Adds a picture, ``(H, W, 3)`` uint8, and its smaller copies; one smaller than a crop is skipped."""
        full = torch.from_numpy(np.array(image)).to(self.device)
        for scale in (1.0, *self.scales):
            height, width = round(full.shape[0] * scale), round(full.shape[1] * scale)
            if min(height, width) < self.crop_size:
                continue
            picture = full
            if scale < 1:
                planes = full.permute(2, 0, 1)[None].float()
                planes = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)
                picture = planes[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
            self._parts.append(picture.reshape(-1, 3))
            self._sizes.append((height, width))

    def finish(self) -> ImagePool:
        """Builds the flat buffer; call once, after the last :meth:`add`.

        Raises:
            ValueError: No picture was large enough for a crop.
        """
        if not self._parts:
            raise ValueError(f"no picture is at least {self.crop_size} pixels on both sides")
        self.pixels = torch.cat(self._parts)
        self._parts = []
        sizes = torch.tensor(self._sizes, device=self.device)
        self.heights, self.widths = sizes[:, 0], sizes[:, 1]
        areas = self.heights * self.widths
        self.offsets = torch.cumsum(areas, 0) - areas
        self.weights = areas.double().clamp(max=self.area_cap)
        return self

    def crops(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws crops, each flipped and transposed at random.

        Args:
            count: B.
            generator: Of this pool's device.

        Returns:
            ``(B, S, S, 3)`` uint8.
        """
        size = self.crop_size

        def uniform() -> Tensor:
            return torch.rand(count, generator=generator, device=self.device, dtype=torch.float64)

        picture = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        width = self.widths[picture]
        top = (uniform() * (self.heights[picture] - size + 1)).long()
        left = (uniform() * (width - size + 1)).long()
        # A flipped axis starts at its far end and runs backwards; a transposition swaps the two strides.
        flip_rows, flip_columns = (uniform() < 0.5).long(), (uniform() < 0.5).long()
        start = (
            self.offsets[picture] + (top + flip_rows * (size - 1)) * width + left + flip_columns * (size - 1)
        )
        row_stride, column_stride = width * (1 - 2 * flip_rows), 1 - 2 * flip_columns
        transpose = uniform() < 0.5
        stride_i = torch.where(transpose, column_stride, row_stride)
        stride_j = torch.where(transpose, row_stride, column_stride)
        steps = torch.arange(size, device=self.device)
        index = (
            start[:, None, None] + steps[:, None] * stride_i[:, None, None] + steps * stride_j[:, None, None]
        )
        return self.pixels[index]


Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""From a batch of crops ``(B, S, S, 3)`` uint8, and randomness, to a changed one."""


class CropStream(IterableDataset):
    """Endless batches of crops from an :class:`ImagePool`, with random qualities.

    Args:
        pool: The pictures.
        batch_size: Crops a batch.
        seed: Of crops, qualities and augmentation.
        augmentation: Changes every batch; None leaves crops as they are.
    """

    def __init__(
        self, pool: ImagePool, batch_size: int, seed: int, augmentation: Augmentation | None = None
    ) -> None:
        self.pool = pool
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation

    def __iter__(self) -> Iterator[CropBatch]:
        generator = torch.Generator(self.pool.device).manual_seed(self.seed)
        while True:
            # Stratified over the batch: every step sees all rates, which steadies the gradient.
            jitter = torch.rand(self.batch_size, generator=generator, device=self.pool.device)
            quality = (torch.arange(self.batch_size, device=self.pool.device) + jitter) * (
                100 / self.batch_size
            )
            crops = self.pool.crops(self.batch_size, generator)
            if self.augmentation is not None:
                crops = self.augmentation(crops, generator)
            yield CropBatch(crops, quality)


class FolderCrops(Dataset):
    """One random crop a file and epoch, decoded by the loader's workers: for machines without a large GPU."""

    def __init__(self, paths: list[Path], crop_size: int) -> None:
        self.paths = paths
        self.crop_size = crop_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> CropBatch:
        image = torch.from_numpy(read_rgb(self.paths[index]).copy())
        size = self.crop_size
        pad_h, pad_w = max(0, size - image.shape[0]), max(0, size - image.shape[1])
        if pad_h or pad_w:
            image = F.pad(image.permute(2, 0, 1)[None].float(), (0, pad_w, 0, pad_h), mode="replicate")
            image = image[0].permute(1, 2, 0).to(torch.uint8)
        top = int(torch.randint(image.shape[0] - size + 1, ()))
        left = int(torch.randint(image.shape[1] - size + 1, ()))
        return CropBatch(image[top : top + size, left : left + size], torch.rand(()) * 100)


class WholeImages(Dataset):
    """Pictures for validation, cut to multiples of 16 so that no padding blurs the estimate."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = torch.from_numpy(read_rgb(self.paths[index]).copy())
        height, width = (side // 16 * 16 for side in image.shape[:2])
        return image[:height, :width]


class ImageDataModule(lightning.LightningDataModule):
    """Crops of the photographs below a folder; whole pictures for validation.

    With ``resident`` every picture is decoded once and stays on the training device; otherwise worker
    processes decode files as they are needed.

    Args:
        train_folder: Photographs to train on, searched recursively.
        val_folder: Pictures for validation, or None for none.
        crop_size: Side of the crops, in pixels; a multiple of 64.
        batch_size: Crops a step and device.
        resident: Keep decoded pictures on the device.
        scales: Reduced sizes kept besides the original, as fractions.
        augmentation: Of resident crops; None leaves them as they are.
        workers: Decoding threads (resident) or loader processes.
        seed: Of the crops; every device adds its rank.
    """

    def __init__(
        self,
        train_folder: str,
        val_folder: str | None = None,
        crop_size: int = 256,
        batch_size: int = 64,
        resident: bool = True,
        scales: tuple[float, ...] = (0.67, 0.5, 0.33),
        augmentation: CameraTraces | None = None,
        workers: int = 8,
        seed: int = 1,
    ) -> None:
        super().__init__()
        if crop_size % 64:
            raise ValueError(f"crop_size must be a multiple of 64, got {crop_size}")
        self.train_folder = train_folder
        self.val_folder = val_folder
        self.crop_size = crop_size
        self.batch_size = batch_size
        self.resident = resident
        self.scales = tuple(scales)
        self.augmentation = augmentation
        self.workers = workers
        self.seed = seed
        self._pool: ImagePool | None = None

    def build_pool(self, device: torch.device | str) -> ImagePool:
        """Decodes the training folder onto a device."""
        pool = ImagePool(device, self.crop_size, self.scales)
        with ThreadPoolExecutor(max(1, min(self.workers, os.cpu_count() or 1))) as threads:
            for image in threads.map(read_rgb, find_images(self.train_folder)):
                pool.add(image)
        return pool.finish()

    def train_dataloader(self) -> DataLoader:
        """Batches of :class:`CropBatch`, on the device when resident."""
        if not self.resident:
            paths = find_images(self.train_folder)
            # Enough for one batch on every device, however few the pictures.
            devices = self.trainer.world_size if self.trainer is not None else 1
            repeats = math.ceil(self.batch_size * devices / len(paths))
            return DataLoader(
                FolderCrops(paths * repeats, self.crop_size),
                self.batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
            )
        if self._pool is None:
            self._pool = self.build_pool(self.trainer.strategy.root_device)
        # A resumed run must not see the same crops again.
        seed = self.seed + 1000 * self.trainer.global_step + self.trainer.global_rank
        return DataLoader(CropStream(self._pool, self.batch_size, seed, self.augmentation), batch_size=None)

    def val_dataloader(self) -> DataLoader | list:
        """Whole pictures one at a time, ``(H, W, 3)`` uint8; the sampler shares them out over devices."""
        if self.val_folder is None:
            return []
        return DataLoader(WholeImages(find_images(self.val_folder)), batch_size=None)
