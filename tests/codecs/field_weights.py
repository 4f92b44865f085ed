"""A tiny field codec that works without training, for tests of the codec and for the golden streams."""

from __future__ import annotations

import numpy as np
import torch

from latentpress.codecs.weights import WeightFile
from latentpress.models.field.network import build_field_network
from latentpress.train.field_export import TrainedRatio, export_field
from latentpress.train.field_initialise import initialise

CONFIG = {
    "channels": 8,
    "latent_channels": 32,
    "analysis_depth": 1,
    "synthesis_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 16,
    "context_depth": 1,
}


def waves(seed: int, *sizes: int, components: int = 3) -> np.ndarray:
    """A smooth field with waves of several lengths, float32."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij")
    field = np.zeros((components, *sizes))
    for _ in range(24):
        k = random.normal(size=len(sizes)) * 0.35
        phase = sum(a * b for a, b in zip(axes, k, strict=True))
        size = random.normal(size=components) / (0.1 + np.linalg.norm(k))
        field += size[(slice(None), *[None] * len(sizes))] * np.sin(phase + random.uniform(0, 6))
    return field.astype(np.float32)


def field_weights(channels: tuple[int, int] = (32, 16)) -> WeightFile:
    """Two ratios of a linear codec for waves with so many latent channels, and realistic decoders.

    The enhancers are a little random, so that their halos matter.
    """
    trained = {}
    fields = [torch.from_numpy(waves(seed, 16, 16, 16)).permute(1, 2, 3, 0)[None] for seed in range(40)]
    pairs = [(f / f.square().mean().sqrt(), torch.zeros(1, 3, dtype=torch.bool)) for f in fields]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for ratio, lambdas, count in zip((8, 64), ((1.0, 3e3), (0.3, 1e3)), channels, strict=True):
            config = CONFIG | {"latent_channels": count}
            network = build_field_network(**config)
            initialise(network, pairs, *lambdas)
            with torch.no_grad():
                for enhancer in (network.analysis.enhancer, network.synthesis.enhancer):
                    enhancer.head.weight += 0.01 * torch.randn_like(enhancer.head.weight)
            realistic = {k: v + 0.01 for k, v in network.synthesis.enhancer.state_dict().items()}
            trained[ratio] = TrainedRatio(config, network.state_dict(), realistic)
    return export_field(trained)
