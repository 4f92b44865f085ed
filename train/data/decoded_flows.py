"""Flows beside what a finished field codec makes of them: what its critic learns from.

Decoding costs far more than a step of the critic, so every box is coded once, with the very coder that makes
streams, and seen many times, turned and mirrored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_networks import Decoder
from latentpress.codecs.field_payload import QUALITY_TENTHS_MAX
from latentpress.codecs.registry import load
from latentpress.models.field.transforms import STRIDE
from latentpress.train.data.flows import unit_variance
from latentpress.train.data.turbulence import simulate

REFERENCE_SIZE = 128
"""Points a side that viscosities are given for; on other grids they are scaled to resolve as well."""

_VALIDATION_SEED = 10**6


class DecodedBatch(NamedTuple):
    """A batch for training.

    Attributes:
        field: ``(B, N, N, N, 3)`` float32, unit variance.
        decoded: The same boxes after coding; some are the true ones.
    """

    field: Tensor
    decoded: Tensor


class DecodedFlow(NamedTuple):
    """A box, and how it was decoded.

    Attributes:
        name: Decoder, ratio and quality.
        number: Of the box.
        field: ``(N, N, N, 3)`` float32 as decoded.
    """

    name: str
    number: int
    field: Tensor


class FlowPairs(NamedTuple):
    """True and decoded boxes.

    Attributes:
        true: ``(n, N, N, N, 3)`` float32, unit variance.
        decoded: Of all true boxes, in their order.
    """

    true: Tensor
    decoded: list[DecodedFlow]


def decoded_flows(
    codec: FieldCodec, velocity: Tensor, generator: torch.Generator, draws: int = 1
) -> FlowPairs:
    """Decodes boxes at all ratios and random qualities, by all decoders.

    Args:
        codec: With weights.
        velocity: ``(n, 3, N, N, N)`` of periodic boxes, on the CPU.
        generator: Of the qualities.
        draws: Qualities for every box and ratio.
    """
    true = unit_variance(velocity)
    decoders: tuple[Decoder, ...] = ("faithful", "realistic") if codec.has_realistic else ("faithful",)
    periodic = (True, True, True)
    found = []
    for number, box in enumerate(true):
        values = box.double().numpy()
        shape = tuple(box.shape[1:])
        for ratio in codec.ratios * draws:
            tenths = int(torch.randint(QUALITY_TENTHS_MAX + 1, (), generator=generator))
            model = codec.model(ratio)
            data = model.encode(values, tenths, periodic)
            latent = model.latents(data, tuple(size // STRIDE for size in shape), tenths, periodic)  # type: ignore[arg-type]
            for decoder in decoders:
                restored = model.synthesise(latent, tenths, periodic, decoder)
                if decoder == "realistic":
                    restored = model.sharpened(restored, tenths, periodic)
                name = f"{decoder}, ratio {ratio}, quality {tenths / 10:g}"
                found.append(DecodedFlow(name, number, restored.cpu().permute(1, 2, 3, 0).contiguous()))
    return FlowPairs(true.permute(0, 2, 3, 4, 1).contiguous(), found)


class DecodedStream(IterableDataset):
    """Endless batches of true and decoded boxes, every batch turned and mirrored in one way.

    Args:
        pairs: Boxes.
        batch_size: B.
        true_share: Fraction of a batch that is not decoded at all.
        seed: Of the choice.
    """

    def __init__(self, pairs: FlowPairs, batch_size: int, true_share: float, seed: int) -> None:
        self.pairs = pairs
        self.batch_size = batch_size
        self.true_share = true_share
        self.seed = seed

    def __iter__(self) -> Iterator[DecodedBatch]:
        generator = torch.Generator().manual_seed(self.seed)
        true, decoded = self.pairs
        while True:
            chosen = torch.randint(len(decoded), (self.batch_size,), generator=generator).tolist()
            untouched = torch.rand(self.batch_size, generator=generator) < self.true_share
            order = torch.randperm(3, generator=generator).tolist()
            flips = torch.randint(2, (3,), generator=generator).nonzero().flatten().tolist()
            fields = torch.stack([true[decoded[number].number] for number in chosen])
            coded = torch.stack([decoded[number].field for number in chosen])
            coded = torch.where(untouched[:, None, None, None, None], fields, coded)
            yield DecodedBatch(_turned(fields, order, flips), _turned(coded, order, flips))


def _turned(field: Tensor, order: Sequence[int], flips: Sequence[int]) -> Tensor:
    """``(B, S, S, S, 3)`` with axes and components in another order, and some of both reversed."""
    turned = field.permute(0, *(1 + axis for axis in order), 4)[..., list(order)]
    sign = torch.ones(3)
    sign[list(flips)] = -1
    return turned.flip([1 + axis for axis in flips]) * sign


class _Boxes(Dataset):
    def __init__(self, pairs: FlowPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs.true)

    def __getitem__(self, index: int) -> FlowPairs:
        mine = [flow for flow in self.pairs.decoded if flow.number == index]
        return FlowPairs(self.pairs.true[index][None], mine)


class DecodedFlowModule(lightning.LightningDataModule):
    """Simulates boxes, forced and decaying, and codes them with finished weights, on the CPU.

    ::

        simulate -> unit variance -> codec, all ratios, random qualities -> faithful and realistic
            |                                                                   |
            +-----------------> both turned and mirrored alike <----------------+

    Args:
        weights: Name or path of the codec's weights.
        size: Points a side of the boxes, a multiple of 8.
        viscosities: As they would be on 128^3 points; one box for each, forced and decaying.
        snapshots: Kept of every box.
        spacing: Time between them.
        spin_up: Time on every grid before the first snapshot, coarsest first.
        decay: Time without a force before the first snapshot of the decaying boxes.
        draws: Qualities for every box and ratio.
        batch_size: Boxes a step.
        true_share: Fraction of a batch that is not decoded at all.
        cache: File to keep the decoded boxes in, so that the next run on this machine starts at once.
        seed: Of the training boxes; validation uses others.
    """

    def __init__(
        self,
        weights: str = "field",
        size: int = 64,
        viscosities: Sequence[float] = (0.0115, 0.015, 0.022, 0.035, 0.013, 0.018, 0.028, 0.045),
        snapshots: int = 3,
        spacing: float = 0.5,
        spin_up: Sequence[float] = (5.0, 1.5),
        decay: float = 0.4,
        draws: int = 2,
        batch_size: int = 8,
        true_share: float = 0.15,
        cache: str | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.size = size
        self.viscosities = tuple(viscosities)
        self.snapshots = snapshots
        self.spacing = spacing
        self.spin_up = tuple(spin_up)
        self.decay = decay
        self.draws = draws
        self.batch_size = batch_size
        self.true_share = true_share
        self.cache = cache
        self.seed = seed
        self._pairs: dict[str, FlowPairs] = {}

    def pairs(self) -> dict[str, FlowPairs]:
        """Boxes for ``training`` and ``validation``; from the cache if it has them."""
        if self._pairs:
            return self._pairs
        codec = load(self.weights)
        if not isinstance(codec, FieldCodec):
            raise ValueError(f"{self.weights} are weights of the family {codec.name}, not of fields")
        codec.refuses = False
        described = repr(
            (
                codec.fingerprint.hex(),
                self.size,
                self.viscosities,
                self.snapshots,
                self.spacing,
                self.spin_up,
                self.decay,
                self.draws,
                self.seed,
            )
        )
        if self.cache is not None and Path(self.cache).is_file():
            stored = torch.load(self.cache, map_location="cpu", weights_only=True)
            if stored.pop("described") == described:
                self._pairs = {
                    name: FlowPairs(true, [DecodedFlow(*flow) for flow in decoded])
                    for name, (true, decoded) in stored.items()
                }
                return self._pairs
        self._pairs = self._made(codec)
        if self.cache is not None:
            Path(self.cache).parent.mkdir(parents=True, exist_ok=True)
            content = {
                name: (pairs.true, [tuple(flow) for flow in pairs.decoded])
                for name, pairs in self._pairs.items()
            }
            torch.save({**content, "described": described}, self.cache)
        return self._pairs

    def _made(self, codec: FieldCodec) -> dict[str, FlowPairs]:
        start = time.monotonic()
        scale = (REFERENCE_SIZE / self.size) ** (4 / 3)
        found = {}
        for name, seed, viscosities, snapshots in (
            ("training", self.seed, self.viscosities, self.snapshots),
            ("validation", self.seed + _VALIDATION_SEED, self.viscosities[:1], 1),
        ):
            # One box at a time: several do not fit into a processor's cache, and take twice as long.
            velocity = torch.cat(
                [
                    simulate(
                        [viscosity * scale],
                        self.size,
                        1000 * seed + 2 * number + decaying,
                        count=snapshots,
                        spacing=self.spacing,
                        spin_up=self.spin_up,
                        decay=self.decay * decaying,
                    ).velocity[:, 0]
                    for number, viscosity in enumerate(viscosities)
                    for decaying in (False, True)
                ]
            )
            simulated = time.monotonic() - start
            random = torch.Generator().manual_seed(seed)
            found[name] = decoded_flows(codec, velocity, random, self.draws)
            seconds = time.monotonic() - start
            print(
                f"{name}: {len(velocity)} boxes simulated and decoded {len(found[name].decoded)} times in "
                f"{seconds:.0f} s, of which {simulated:.0f} s simulation",
                flush=True,
            )
            start = time.monotonic()
        return found

    def train_dataloader(self) -> DataLoader:
        """Batches of :class:`DecodedBatch`."""
        # A resumed run must not see the same boxes in the same order.
        seed = self.seed + 1000 * self.trainer.global_step + self.trainer.global_rank
        pairs = self.pairs()["training"]
        stream = DecodedStream(pairs, self.batch_size, self.true_share, seed)
        return DataLoader(stream, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """:class:`FlowPairs` of one box at a time."""
        return DataLoader(_Boxes(self.pairs()["validation"]), batch_size=None)
