"""A tiny field codec that really trades bytes for precision, fitted to waves in a second, and such waves."""

from typing import Any

import numpy as np
import torch

CONFIG = {
    "channels": 8,
    "latent_channels": 16,
    "analysis_depth": 1,
    "synthesis_depth": 1,
    "hyper_channels": 4,
    "hyper_width": 8,
    "context_channels": 16,
    "context_depth": 1,
}


def waves(seed: int, *sizes: int, components: int = 3) -> np.ndarray:
    """A smooth field, float32, ``(components, *sizes)``."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    field = np.zeros((components, *sizes))
    for _ in range(24):
        k = random.normal(size=len(sizes)) * 0.35
        phase = sum(place * wave for place, wave in zip(axes, k, strict=True))
        height = random.normal(size=components) / (0.1 + np.linalg.norm(k))
        field += height[(slice(None), *[None] * len(sizes))] * np.sin(phase + random.uniform(0, 6))
    return field.astype(np.float32)


def make_weights(seed: int = 0) -> Any:
    """A weight file with networks for the ratios 8 and 64."""
    from latentpress.models.field.network import build_field_network
    from latentpress.train.field_export import TrainedRatio, export_field
    from latentpress.train.field_initialise import initialise

    fields = [torch.from_numpy(waves(k, 16, 16, 16)).permute(1, 2, 3, 0)[None] for k in range(8)]
    pairs = [(f / f.square().mean().sqrt(), torch.zeros(1, 3, dtype=torch.bool)) for f in fields]
    trained = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for ratio, lambdas in ((8, (1.0, 3e3)), (64, (0.3, 1e3))):
            network = build_field_network(**CONFIG)
            initialise(network, pairs, *lambdas)
            realistic = {k: v + 0.01 for k, v in network.synthesis.enhancer.state_dict().items()}
            trained[ratio] = TrainedRatio(CONFIG, network.state_dict(), realistic)
    return export_field(trained)
