"""Turbulence for training: simulated on the device at the start, cropped, turned and mirrored there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from latentpress.train.data.turbulence import simulate


class FlowBatch(NamedTuple):
    """A batch for training.

    Attributes:
        field: ``(B, S, S, S, 3)`` float32 velocities with unit variance over their whole box.
        quality: ``(B,)`` float32 in [0, 100].
        periodic: ``(B, 3)`` boolean: the sample is a whole periodic box.
    """

    field: Tensor
    quality: Tensor
    periodic: Tensor


class ValidationFlow(NamedTuple):
    """A field for validation.

    Attributes:
        name: What it is.
        field: ``(1, D, H, W, 3)`` float32, unit variance.
        periodic: ``(1, 3)`` boolean.
    """

    name: str
    field: Tensor
    periodic: Tensor


class FlowPool:
    """Snapshots of periodic boxes of one size, with random shifts and all 48 symmetries of the cube.

    Turning or mirroring a velocity field permutes and negates its components along with its axes.

    Args:
        velocity: ``(n, 3, N, N, N)``, component i along axis i; each snapshot is scaled to unit variance.

    Example:
        >>> pool = FlowPool(torch.randn(2, 3, 8, 8, 8))
        >>> pool.crops(4, 6, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 6, 6, 6, 3])
    """

    def __init__(self, velocity: Tensor) -> None:
        self.size = velocity.shape[-1]
        self.count = len(velocity)
        self.device = velocity.device
        self._values = unit_variance(velocity).permute(0, 2, 3, 4, 1).reshape(-1, 3).contiguous()

    def crops(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draws cubes; one as large as the box is the whole box, shifted.

        Args:
            count: B.
            size: S, at most the size of the boxes.
            generator: Of this pool's device.

        Returns:
            ``(B, S, S, S, 3)`` float32.
        """

        def integers(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=self.device)

        # Axis a of the crop is axis source[:, a] of the box, walked along in the direction of sign[:, a].
        source = torch.rand(count, 3, generator=generator, device=self.device).argsort(1)
        sign = integers(2, count, 3) * 2 - 1
        start = integers(self.size, count, 3)
        steps = torch.arange(size, device=self.device)
        strides = torch.tensor([self.size**2, self.size, 1], device=self.device)
        offsets = (start[..., None] + sign[..., None] * steps) % self.size * strides[source][..., None]
        index = (
            offsets[:, 0, :, None, None] + offsets[:, 1, None, :, None] + offsets[:, 2, None, None, :]
        ) + (integers(self.count, count) * self.size**3)[:, None, None, None]
        values = self._values[index]
        component = source[:, None, None, None, :].expand_as(values)
        return values.gather(-1, component) * sign[:, None, None, None, :]


def unit_variance(velocity: Tensor) -> Tensor:
    """Removes each component's mean and divides by the root mean square over all components.

    Args:
        velocity: ``(n, C, D, H, W)``.
    """
    centred = velocity - velocity.mean(dim=(2, 3, 4), keepdim=True)
    return centred / centred.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()


class FlowStream(IterableDataset):
    """Endless batches: crops of large boxes, then whole small boxes, which are periodic.

    Args:
        large: Boxes to crop.
        small: Boxes of the size of the crops, or None.
        batch_size: B.
        size: S.
        periodic_share: Fraction of the batch that are whole small boxes.
        seed: Of the crops.
    """

    def __init__(
        self,
        large: FlowPool,
        small: FlowPool | None,
        batch_size: int,
        size: int,
        periodic_share: float,
        seed: int,
    ) -> None:
        self.large = large
        self.small = small
        self.batch_size = batch_size
        self.size = size
        self.whole = round(batch_size * periodic_share) if small is not None else 0
        self.seed = seed

    def __iter__(self) -> Iterator[FlowBatch]:
        device = self.large.device
        generator = torch.Generator(device).manual_seed(self.seed)
        number = torch.arange(self.batch_size, device=device)
        periodic = (number >= self.batch_size - self.whole)[:, None].expand(-1, 3).contiguous()
        while True:
            field = self.large.crops(self.batch_size - self.whole, self.size, generator)
            if self.whole and self.small is not None:
                field = torch.cat((field, self.small.crops(self.whole, self.size, generator)))
            # Stratified over the batch: every step sees all rates, which steadies the gradient.
            jitter = torch.rand(self.batch_size, generator=generator, device=device)
            order = torch.randperm(self.batch_size, generator=generator, device=device)
            yield FlowBatch(field, (order + jitter) * (100 / self.batch_size), periodic)


class _Flows(Dataset):
    def __init__(self, flows: Sequence[ValidationFlow]) -> None:
        self.flows = flows

    def __len__(self) -> int:
        return len(self.flows)

    def __getitem__(self, index: int) -> ValidationFlow:
        return self.flows[index]


class FlowDataModule(lightning.LightningDataModule):
    """Simulates turbulence on the training device and serves crops of it.

    ::

        simulate -> large boxes (crops) --+
                    small boxes (whole) --+-> random shift, symmetry -> FlowBatch
                    other seeds ---------> validation: a periodic box, and a corner of a box of twice the size

    Args:
        size: Points a side of the large boxes.
        boxes: Large boxes, each with its own seed and one of the viscosities.
        viscosities: At ``size`` points, dealt out in turn.
        snapshots: Kept of every box, half a time unit apart.
        small_boxes: Periodic boxes of the size of a crop; their viscosities are scaled to resolve as well.
        crop_size: Side of the crops, in samples; a multiple of 32.
        batch_size: Crops a step and device.
        periodic_share: Fraction of a batch that are whole periodic boxes.
        spin_up: Time on every grid before the first snapshot, coarsest first.
        val_viscosity: Of the validation boxes, at ``size`` points.
        val_double: Also validate on a corner of a box of twice the size, at a Reynolds number never
            trained on.
        cache: File to keep the simulated boxes in, so that the next run on this machine starts at once.
        seed: Of the training boxes and crops; validation uses others.
    """

    def __init__(
        self,
        size: int = 128,
        boxes: int = 12,
        viscosities: Sequence[float] = (0.0115, 0.0115, 0.0115, 0.0145, 0.02, 0.03),
        snapshots: int = 4,
        small_boxes: int = 24,
        crop_size: int = 64,
        batch_size: int = 32,
        periodic_share: float = 0.25,
        spin_up: Sequence[float] = (5.0, 3.0, 2.0),
        val_viscosity: float = 0.0115,
        val_double: bool = True,
        cache: str | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__()
        if crop_size % 32:
            raise ValueError(f"crop_size must be a multiple of 32, got {crop_size}")
        self.size = size
        self.boxes = boxes
        self.viscosities = tuple(viscosities)
        self.snapshots = snapshots
        self.small_boxes = small_boxes
        self.crop_size = crop_size
        self.batch_size = batch_size
        self.periodic_share = periodic_share
        self.spin_up = tuple(spin_up)
        self.val_viscosity = val_viscosity
        self.val_double = val_double
        self.cache = cache
        self.seed = seed
        self._velocity: dict[str, Tensor] = {}

    def simulated(self, device: torch.device | str) -> dict[str, Tensor]:
        """Boxes by name: ``large``, ``small``, ``box`` and ``corner``; from the cache if it has them.

        Returns:
            ``(n, 3, N, N, N)`` float32 each, on the device.
        """
        if self._velocity:
            return self._velocity
        described = repr(
            (
                self.size,
                self.boxes,
                self.viscosities,
                self.snapshots,
                self.small_boxes,
                self.crop_size,
                self.spin_up,
                self.val_viscosity,
                self.val_double,
                self.seed,
            )
        )
        if self.cache is not None and Path(self.cache).is_file():
            stored = torch.load(self.cache, map_location=device, weights_only=True)
            if stored.pop("described") == described:
                self._velocity = stored
                return stored
        self._velocity = self._simulate(device)
        if self.cache is not None and (self.trainer is None or self.trainer.is_global_zero):
            Path(self.cache).parent.mkdir(parents=True, exist_ok=True)
            torch.save({**self._velocity, "described": described}, self.cache)
        return self._velocity

    def _simulate(self, device: torch.device | str) -> dict[str, Tensor]:
        start = time.monotonic()
        found = {"large": self._run(self.size, self.boxes, self.seed, device, self.snapshots)}
        if self.small_boxes:
            small = self._run(self.crop_size, self.small_boxes, self.seed + 1, device, self.snapshots)
            found["small"] = small
        # Seeds that no training run has: its own are small numbers.
        found["box"] = self._run(self.size, 1, self.seed + 10**6, device, 1, [self.val_viscosity])
        if self.val_double:
            # On twice the points the same resolution belongs to a viscosity smaller by 2^(4/3).
            velocity = self._run(2 * self.size, 1, self.seed + 10**6 + 1, device, 1, [self.val_viscosity])
            found["corner"] = velocity[..., : self.size, : self.size, : self.size].clone()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        print(
            f"simulated {len(found['large'])} large snapshots in {time.monotonic() - start:.0f} s", flush=True
        )
        return found

    def _run(
        self,
        size: int,
        boxes: int,
        seed: int,
        device: torch.device | str,
        snapshots: int,
        viscosities: Sequence[float] | None = None,
    ) -> Tensor:
        """Snapshots ``(n, 3, size, size, size)`` of boxes that are resolved as those of ``self.size`` are."""
        scale = (self.size / size) ** (4 / 3)
        viscosities = viscosities or self.viscosities
        dealt = [viscosities[number % len(viscosities)] * scale for number in range(boxes)]
        found = simulate(dealt, size, seed, device, snapshots, spin_up=self.spin_up)
        return found.velocity.flatten(0, 1)

    def train_dataloader(self) -> DataLoader:
        """Batches of :class:`FlowBatch` on the device."""
        velocity = self.simulated(self.trainer.strategy.root_device)
        large = FlowPool(velocity["large"])
        small = FlowPool(velocity["small"]) if "small" in velocity else None
        # A resumed run must not see the same crops again.
        seed = self.seed + 1000 * self.trainer.global_step + self.trainer.global_rank
        stream = FlowStream(large, small, self.batch_size, self.crop_size, self.periodic_share, seed)
        return DataLoader(stream, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """:class:`ValidationFlow` one at a time."""
        velocity = self.simulated(self.trainer.strategy.root_device)
        flows = []
        for name in ("box", "corner"):
            if name in velocity:
                field = unit_variance(velocity[name]).permute(0, 2, 3, 4, 1).contiguous()
                periodic = torch.full((1, 3), name == "box", device=field.device)
                flows.append(ValidationFlow(name, field, periodic))
        return DataLoader(_Flows(flows), batch_size=None)
