"""Bridges between any encoder and any generator, from a file of pairs of their latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import lightning
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from latentpress.models.shape.latent_bridge import LatentBridge
from latentpress.train.shape_bridge_module import channel_correlation
from latentpress.train.shape_training import ShapeTraining


class LatentPairs(IterableDataset):
    """Endless random batches of pairs."""

    def __init__(self, source: Tensor, target: Tensor, batch_size: int, seed: int) -> None:
        self.source = source
        self.target = target
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.source.device
        generator = torch.Generator(device).manual_seed(self.seed)
        while True:
            index = torch.randint(len(self.source), (self.batch_size,), generator=generator, device=device)
            yield self.source[index].float(), self.target[index].float()


class LatentPairData(lightning.LightningDataModule):
    """Pairs of latents of the same shapes, kept on the training device.

    Args:
        path: A safetensors file with ``source`` and ``target``, one row a pair: what an encoder says of
            shapes, and the generator's latents that these shapes were made of, as in Squeeze3D.
        batch_size: Pairs a step.
        seed: Of the batches.
    """

    def __init__(self, path: str, batch_size: int = 64, seed: int = 1) -> None:
        super().__init__()
        self.path = path
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader:
        """Batches of pairs.

        Raises:
            ValueError: The file does not hold as many sources as targets.
        """
        pairs = load_file(self.path)
        if pairs.keys() < {"source", "target"} or len(pairs["source"]) != len(pairs["target"]):
            raise ValueError(f"{self.path} must hold `source` and `target` with one row a pair")
        device = self.trainer.strategy.root_device
        source, target = pairs["source"].to(device), pairs["target"].to(device)
        seed = self.seed + 1000 * self.trainer.global_step + self.trainer.global_rank
        return DataLoader(LatentPairs(source, target, self.batch_size, seed), batch_size=None)


class LatentTerms(NamedTuple):
    """The loss of a batch, and what it is made of.

    Attributes:
        loss: Scalar to minimise.
        latent: Mean squared error of the generator's latent.
        bits: Mean, a shape.
        correlation: Mean square of the correlations between code channels.
    """

    loss: Tensor
    latent: Tensor
    bits: Tensor
    correlation: Tensor


class LatentBridgeTraining(ShapeTraining):
    """Trains a :class:`LatentBridge`.

    Args:
        network: The bridge.
        price: Squared error of the latent that a bit is worth.
        correlation_weight: Of the correlation between code channels.
        lr: Peak learning rate.
        weight_decay: Of the hidden matrices.
        compile_network: Compile and record the step on a GPU.
    """

    def __init__(
        self,
        network: LatentBridge,
        price: float = 1e-5,
        correlation_weight: float = 0.1,
        lr: float = 1.5e-3,
        weight_decay: float = 0.02,
        compile_network: bool = True,
    ) -> None:
        super().__init__(network, lr, weight_decay, compile_network)
        self.price = price
        self.correlation_weight = correlation_weight

    def loss_of_batch(self, source: Tensor, target: Tensor) -> LatentTerms:
        """The loss of a batch of pairs."""
        output = self.network(source)
        latent = (output.latent - target).square().mean()
        bits = output.bits.mean()
        correlation = channel_correlation(output.code)
        loss = latent + self.price * bits + self.correlation_weight * correlation
        return LatentTerms(loss, latent.detach(), bits.detach(), correlation.detach())
