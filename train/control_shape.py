"""The control of the bridge: the generator's own encoder, its latent quantised directly, at the same bytes.

Usage: ``python -m latentpress.train.control_shape MESH... --autoencoder CKPT --prior CKPT --codec shape``. A
latent value is normalised by the prior's mean and deviation, rounded in steps of one size and counted as the
information of a Gaussian; the bytes of the real codec's container and header are added.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs import load
from latentpress.codecs.chamfer import chamfer_distance, sample_triangles
from latentpress.codecs.shape import ShapeCodec
from latentpress.codecs.shape_source import ShapeSource, read_shape, shape_source
from latentpress.models.entropy.gaussian import gaussian_bits
from latentpress.models.shape.extraction import extract_mesh
from latentpress.models.shape.flow_prior import build_flow_prior
from latentpress.models.shape.generator import ShapeAutoencoder, build_shape_autoencoder
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.shape_training import frozen

OVERHEAD_BYTES = 32
"""Container, header with a pose, and what a range coder ends with."""

_POINTS = 2048
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
    autoencoder: ShapeAutoencoder, mean: Tensor, deviation: Tensor, source: ShapeSource, target: int
) -> Control:
    """The best that direct quantisation gives within so many bytes.

    Args:
        autoencoder: The generator and its own encoder.
        mean: ``(64, D)`` of the latents.
        deviation: ``(64, D)`` of the latents.
        source: The shape.
        target: Bytes, overhead included.
    """
    channels = autoencoder.generator.geometry_channels
    mean, deviation = mean[:, :channels], deviation[:, :channels]
    normal = (own_latent(autoencoder, source) - mean) / deviation
    low, high = 0.01, 1000.0  # too fine, coarse enough
    for _ in range(_SEARCH_STEPS):
        middle = (low * high) ** 0.5
        fits = quantised(normal, middle)[1] + OVERHEAD_BYTES <= target
        low, high = (low, middle) if fits else (middle, high)
    value, size = quantised(normal, high)
    field = autoencoder.generator(value * deviation + mean)
    mesh = extract_mesh(lambda points: autoencoder.generator.signed_distance(field, points), 128, "cpu")
    if not len(mesh.faces):
        return Control(size + OVERHEAD_BYTES, float("inf"))
    decoded, _ = sample_triangles(mesh.vertices, mesh.faces, 30000)
    return Control(size + OVERHEAD_BYTES, chamfer_distance(source.reference, decoded))


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
    parser.add_argument("--autoencoder", required=True, metavar="FILE", help="checkpoint of stage 1")
    parser.add_argument("--prior", required=True, metavar="FILE", help="checkpoint of stage 2")
    parser.add_argument("--codec", default="shape", help="weights, by name or .safetensors path")
    parser.add_argument("--bytes", type=int, nargs="+", default=[100, 200, 500], metavar="N", help="sizes")
    options = parser.parse_args(args)
    config, state = network_from_checkpoint(options.autoencoder)
    autoencoder = frozen(build_shape_autoencoder(**config), state)
    config, state = network_from_checkpoint(options.prior)
    prior = frozen(build_flow_prior(**config), state)
    codec = load(options.codec)
    if not isinstance(codec, ShapeCodec):
        parser.error(f"{options.codec} is no shape codec")
    print("mesh                 target   bridge  control")
    losses: dict[int, list[float]] = {size: [] for size in options.bytes}
    for path in options.meshes:
        source = shape_source(read_shape(path), colour=False)
        for size in options.bytes:
            own = codec.encode(path, target_bytes=size, colour=False, mode="generator")
            ours = own.report.chamfer
            theirs = control(autoencoder, prior.mean, prior.deviation, source, size).chamfer
            losses[size].append(ours / theirs - 1)
            print(f"{Path(path).stem:20s} {size:6d} {ours:8.4f} {theirs:8.4f}", flush=True)
    for size, found in losses.items():
        print(
            f"{size} bytes: the bridge's Chamfer distance is {100 * np.mean(found):+.0f} % of the control's"
        )


if __name__ == "__main__":
    main()
