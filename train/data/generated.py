"""Shapes that the generator makes up, sampled like all others: the training data of Squeeze3D."""

from __future__ import annotations

import torch
from torch import Tensor

from latentpress.models.shape.flow_prior import FlowPrior
from latentpress.models.shape.generator import ShapeGenerator, ShapeLatent
from latentpress.models.shape.implicit import sample_surface
from latentpress.models.shape.layers import GRID_HALF_WIDTH
from latentpress.models.shape.oriented_points import OrientedPoints, distance_to_samples
from latentpress.train.data.shape_pool import ShapeSamples
from latentpress.train.data.shape_sampling import SampleCounts, query_points

_BATCH = 32
_CANDIDATES_PER_SAMPLE = 3


@torch.no_grad()
def generated_samples(
    prior: FlowPrior, generator: ShapeGenerator, count: int, counts: SampleCounts, seed: int
) -> ShapeSamples | None:
    """Samples of generated shapes, with the generator's own colours.

    Args:
        prior: Makes latents.
        generator: Makes fields of them, on the prior's device.
        count: Number of shapes; those without a surface are left out.
        counts: Samples a shape.
        seed: Of all randomness.

    Returns:
        The samples; None if no shape has a surface, as from a generator that was hardly trained.
    """
    random = torch.Generator(prior.mean.device).manual_seed(seed)
    shapes: list[ShapeSamples] = []
    for _ in range(-(-count // _BATCH)):
        shapes += _batch(generator, prior.sample(min(_BATCH, count), generator=random), counts, random)
    return ShapeSamples.stack(shapes) if shapes else None


def _batch(
    generator: ShapeGenerator, latent: ShapeLatent, counts: SampleCounts, random: torch.Generator
) -> list[ShapeSamples]:
    field = generator(*latent)

    def distance(points: Tensor) -> Tensor:
        return generator.signed_distance(field, points)

    size = (len(latent.geometry), _CANDIDATES_PER_SAMPLE * counts.dense, 3)
    candidates = torch.rand(size, generator=random, device=random.device) * 2 - 1
    surface = sample_surface(
        distance, candidates * GRID_HALF_WIDTH, counts.dense, 0.99 * GRID_HALF_WIDTH, random
    )
    asked = torch.stack([query_points(p, counts.queries, random) for p in surface.position])
    inside = distance(asked) < 0
    kept = surface.position[:, : counts.surface]
    colour = (generator.colour_at(field, kept).clamp(0, 1) * 255).round().to(torch.uint8)
    shapes = []
    for k in surface.usable.nonzero().flatten().tolist():
        dense = OrientedPoints(surface.position[k], surface.normal[k])
        unsigned, _ = distance_to_samples(asked[k], dense)
        signed = torch.where(inside[k], -unsigned, unsigned)
        order = torch.randperm(counts.surface, generator=random, device=random.device)
        oriented = torch.cat((kept[k], surface.normal[k, : counts.surface]), dim=-1)[order]
        labelled = torch.cat((asked[k], signed[:, None]), dim=-1)
        shapes.append(ShapeSamples(oriented.half()[None], colour[k, order][None], labelled.half()[None]))
    return shapes
