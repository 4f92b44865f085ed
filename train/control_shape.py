"""The control of the bridge: the generator's own latent, quantised directly, at the same bytes.

Usage::

    python -m latentpress.train.control_shape MESH... --codec shape [--autoencoder CKPT --prior CKPT]

The latent is that of the generator's own encoder, which does not ship, in a checkpoint of stage 1. Without
one it is found by gradient descent through the generator, from what the bridge makes of the shape at its
best: nearer to the shape than any encoder's. A latent value is normalised by the prior's mean and deviation,
rounded in steps of one size and counted as the information of a Gaussian; the bytes of the real codec's
container and header are added.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs import load
from latentpress.codecs.chamfer import chamfer_distance, sample_triangles
from latentpress.codecs.shape import ShapeCodec
from latentpress.codecs.shape_encoding import refinement_places
from latentpress.codecs.shape_source import ShapeSource, read_shape, shape_source
from latentpress.models.entropy.gaussian import gaussian_bits
from latentpress.models.quality import QUALITY_MAX
from latentpress.models.shape.bridge import CodeQuality
from latentpress.models.shape.extraction import extract_mesh
from latentpress.models.shape.flow_prior import build_flow_prior
from latentpress.models.shape.generator import ShapeAutoencoder, ShapeGenerator, build_shape_autoencoder
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.shape_training import frozen

OVERHEAD_BYTES = 32
"""Container, header with a pose, and what a range coder ends with."""

_POINTS = 2048
_PLACES = 32768
_BATCH = 4096
_DESCENT_STEPS = 150
_DESCENT_RATE = 0.02
_TRUNCATION = 0.1
_SEARCH_STEPS = 24


class Control(NamedTuple):
    """One shape through the generator's own latent.

    Attributes:
        bytes: That the rounded latent would take, overhead included.
        chamfer: Distance, where the longest side is 2.
    """

    bytes: float
    chamfer: float


def own_latent(autoencoder: ShapeAutoencoder, source: ShapeSource) -> Tensor:
    """The geometry tokens of a shape, ``(1, 64, Dg)``, by the generator's own encoder."""
    position, normal = (part[:_POINTS] for part in source.surface)
    points = torch.cat((position, normal, torch.zeros_like(position)), dim=1)[None]
    return autoencoder.encode(points).geometry


def descended_latent(codec: ShapeCodec, source: ShapeSource, steps: int = _DESCENT_STEPS) -> Tensor:
    """The geometry tokens that decode nearest to a shape, ``(1, 64, Dg)``, by descent through the generator.

    Args:
        codec: Whose bridge makes the start, and whose generator is descended through.
        source: The shape.
        steps: Of Adam.
    """
    bridge, generator = codec.system.bridge, codec.system.generator
    best = torch.tensor([float(QUALITY_MAX)])
    with torch.no_grad():
        code = codec.free_code(source).geometry.clone() * bridge.geometry_gain(best)[:, None]
        start = bridge.decode_geometry(torch.round(code), CodeQuality(best, best))
    random = torch.Generator().manual_seed(1)
    places = refinement_places(source.surface.position, _PLACES, random)
    wanted = source.signed_distance(places).clamp(-_TRUNCATION, _TRUNCATION)
    latent = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([latent], lr=_DESCENT_RATE)
    for _ in range(steps):
        chosen = torch.randint(len(places), (_BATCH,), generator=random)
        found = generator.signed_distance(generator(latent), places[chosen][None])[0]
        loss = (found.clamp(-_TRUNCATION, _TRUNCATION) - wanted[chosen]).abs().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return latent.detach()


def quantised(latent: Tensor, step: float) -> tuple[Tensor, float]:
    """A normalised latent rounded in steps, and the bytes it takes as standard normal values.

    Example:
        >>> value, size = quantised(torch.zeros(1, 64, 2), 2.0)
        >>> float(value.abs().max()), 8 < size < 10
        (0.0, True)
    """
    rounded = torch.round(latent / step)
    bits = gaussian_bits(rounded, torch.full_like(latent, 1 / step))
    return rounded * step, float(bits.sum()) / 8


@torch.inference_mode()
def control(
    generator: ShapeGenerator,
    latent: Tensor,
    mean: Tensor,
    deviation: Tensor,
    source: ShapeSource,
    target: int,
) -> Control:
    """The best that direct quantisation gives within so many bytes.

    Args:
        generator: The generator.
        latent: Of the shape, ``(1, 64, Dg)``.
        mean: ``(64, D)`` of the latents.
        deviation: ``(64, D)`` of the latents.
        source: The shape.
        target: Bytes, overhead included.
    """
    channels = generator.geometry_channels
    mean, deviation = mean[:, :channels], deviation[:, :channels]
    normal = (latent - mean) / deviation
    low, high = 0.01, 1000.0  # too fine, coarse enough
    for _ in range(_SEARCH_STEPS):
        middle = (low * high) ** 0.5
        fits = quantised(normal, middle)[1] + OVERHEAD_BYTES <= target
        low, high = (low, middle) if fits else (middle, high)
    value, size = quantised(normal, high)
    field = generator(value * deviation + mean)
    mesh = extract_mesh(lambda points: generator.signed_distance(field, points), 128, "cpu")
    if not len(mesh.faces):
        return Control(size + OVERHEAD_BYTES, float("inf"))
    decoded, _ = sample_triangles(mesh.vertices, mesh.faces, 30000)
    return Control(size + OVERHEAD_BYTES, chamfer_distance(source.reference, decoded))


class GeneratorControl:
    """Direct quantisation of a generator's own latent.

    Args:
        codec: Whose generator and prior are used where no checkpoints are named.
        autoencoder: Checkpoint of stage 1, with the generator's own encoder; None for descent.
        prior: Checkpoint of stage 2.

    Raises:
        ValueError: There is no prior.
    """

    def __init__(self, codec: ShapeCodec, autoencoder: str | None = None, prior: str | None = None) -> None:
        self.latent_of: Callable[[ShapeSource], Tensor] = partial(descended_latent, codec)
        self._generator = codec.system.generator
        if autoencoder is not None:
            config, state = network_from_checkpoint(autoencoder)
            network = frozen(build_shape_autoencoder(**config), state)
            self.latent_of, self._generator = partial(own_latent, network), network.generator
        found = codec.system.prior
        if prior is not None:
            config, state = network_from_checkpoint(prior)
            found = frozen(build_flow_prior(**config), state)
        if found is None:
            raise ValueError("the codec has no prior: name a checkpoint of one")
        self._mean, self._deviation = found.mean, found.deviation

    def within(self, latent: Tensor, source: ShapeSource, target: int) -> Control:
        """The best of a shape's latent within so many bytes."""
        return control(self._generator, latent, self._mean, self._deviation, source, target)


def main(args: Sequence[str] | None = None) -> None:
    """Prints codec and control side by side.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.control_shape",
        description="Compares the bridge with direct quantisation of the generator's own latent.",
    )
    parser.add_argument("meshes", nargs="+", metavar="MESH", help="mesh file")
    parser.add_argument("--autoencoder", metavar="FILE", help="checkpoint of stage 1 (default: descent)")
    parser.add_argument("--prior", metavar="FILE", help="checkpoint of stage 2 (default: the codec's)")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    parser.add_argument("--bytes", type=int, nargs="+", default=[100, 200, 500], metavar="N", help="sizes")
    options = parser.parse_args(args)
    codec = load(options.codec)
    if not isinstance(codec, ShapeCodec):
        parser.error(f"{options.codec} is no shape codec")
    controlled = GeneratorControl(codec, options.autoencoder, options.prior)
    print("mesh                 target   bridge  control")
    losses: dict[int, list[float]] = {size: [] for size in options.bytes}
    for path in options.meshes:
        source = shape_source(read_shape(path), colour=False)
        latent = controlled.latent_of(source)
        for size in options.bytes:
            own = codec.encode(path, target_bytes=size, colour=False, mode="generator")
            ours = own.report.chamfer
            theirs = controlled.within(latent, source, size).chamfer
            losses[size].append(ours / theirs - 1)
            print(f"{Path(path).stem:20s} {size:6d} {ours:8.4f} {theirs:8.4f}", flush=True)
    for size, found in losses.items():
        print(
            f"{size} bytes: the bridge's Chamfer distance is {100 * np.mean(found):+.0f} % of the control's"
        )


if __name__ == "__main__":
    main()
