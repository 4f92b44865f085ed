"""Fits a context model of the side information z to the pictures it is made of.

    python -m latentpress.train.fit_side_information --weights image.safetensors --data PHOTOS --out FILE
    python -m latentpress.train.fit_side_information --weights image-max.safetensors --like FILE --out OTHER

z has one position for 4096 pixels and its networks are small, so a processor does it in minutes. Everything
else in the weights stays as it is: pictures are what they were, from fewer bytes. The second form takes over
what was fitted for other weights that have the same transforms.

::

    picture -> reduced and turned at random -> window -> analysis at a random quality -> z, kept
    z kept -> context model -> bits, noise in place of rounding -> Muon and Adam

Where weights have a context model already, it is trained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.gaussian import gaussian_bits, round_with_gradient, scale_from_raw
from latentpress.models.entropy.hyperprior import ContextualHyperPrior, HyperPrior, SideInformationDesign
from latentpress.models.quality import QUALITY_MAX
from latentpress.train.card import refreshed, write_card
from latentpress.train.data.images import find_images, read_rgb
from latentpress.train.image_module import balanced_lambdas
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.schedule import learning_rate_factor
from latentpress.train.warm_start import copy_matching, network_in

LENGTHS = (4, 6, 8, 12)
"""Rows and columns of z that a window can have; of 64 pixels each."""

_PIXELS_OF_Z = 64
_REDUCTIONS = (1.0, 0.67, 0.5, 0.4)
_REDUCED_FROM = 768
_QUALITIES_EACH = 2
_HOLD_OUT_EVERY = 20
_LAMBDAS = (0.0006, 0.14)
_BATCH = 16
_LR = 2e-3
_WARM_UP = 50
_CONSTANT_UNTIL = 0.3
_AVERAGE_DECAY = 0.998
_PREFIX = "hyper_prior."


class SideInformation(NamedTuple):
    """z of windows of one size.

    Attributes:
        z: ``(N, h, w, Z)`` float32 in quantisation steps, not rounded.
        quality: ``(N,)``.
    """

    z: Tensor
    quality: Tensor


def collect(
    codec: ImageCodec,
    paths: Iterable[Path],
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[SideInformation]:
    """Analyses a window of every picture, at a random size and at two random qualities.

    Args:
        codec: Whose transforms.
        paths: Of the pictures; those smaller than 256 pixels are passed over.
        seed: Of sizes, windows and qualities.
        progress: Called with the number of pictures done.

    Returns:
        As many as there are sizes of windows.
    """
    random = np.random.default_rng(seed)
    found: dict[tuple[int, ...], list[tuple[Tensor, float]]] = defaultdict(list)
    for done, path in enumerate(paths, start=1):
        window = _window(torch.from_numpy(read_rgb(path).copy()).permute(2, 0, 1), random)
        if window is not None:
            for quality in random.uniform(0, QUALITY_MAX, _QUALITIES_EACH).round(1):
                z = codec.analyse(window, torch.tensor([quality], dtype=torch.float32)).z[0].clone()
                found[tuple(z.shape)].append((z, float(quality)))
        if progress is not None:
            progress(done)
    groups = [tuple(zip(*pairs, strict=True)) for pairs in found.values()]
    return [SideInformation(torch.stack(z), torch.tensor(quality)) for z, quality in groups]


def _window(picture: Tensor, random: np.random.Generator) -> Tensor | None:
    """A window of a picture ``(3, H, W)`` uint8, in [0, 1], reduced before and turned as it comes."""
    pixels = picture.float()[None] / 255
    scale = random.choice(_REDUCTIONS) if min(picture.shape[1:]) >= _REDUCED_FROM else 1.0
    if scale < 1:
        pixels = functional.interpolate(pixels, scale_factor=scale, mode="bicubic", antialias=True)
    if random.random() < 0.5:
        pixels = pixels.transpose(2, 3)
    if random.random() < 0.5:
        pixels = pixels.flip(3)
    if min(pixels.shape[2:]) < _PIXELS_OF_Z * LENGTHS[0]:
        return None
    height, width = (
        _PIXELS_OF_Z * max(n for n in LENGTHS if n * _PIXELS_OF_Z <= size) for size in pixels.shape[2:]
    )
    top = random.integers(pixels.shape[2] - height + 1)
    left = random.integers(pixels.shape[3] - width + 1)
    return pixels[0, :, top : top + height, left : left + width].clamp(0, 1)


def split(groups: Sequence[SideInformation]) -> tuple[list[SideInformation], list[SideInformation]]:
    """What to train on, and one window in twenty that is held out, at all its qualities."""
    fitted, held_out = [], []
    for group in groups:
        number = torch.arange(len(group.z)) // _QUALITIES_EACH
        chosen = number % _HOLD_OUT_EVERY == _HOLD_OUT_EVERY - 1
        fitted.append(SideInformation(*(x[~chosen] for x in group)))
        held_out.append(SideInformation(*(x[chosen] for x in group)))
    return fitted, held_out


def bits_of(prior: HyperPrior, groups: Iterable[SideInformation]) -> Tensor:
    """Bits of every window, with true rounding."""
    with torch.no_grad():
        found = []
        for group in groups:
            for z, quality in zip(*(x.split(_BATCH) for x in group), strict=True):
                side = prior.quantise(z, quality, torch.round)
                bits = gaussian_bits(torch.round(z - side.mean), scale_from_raw(side.raw_scale))
                found.append(bits.sum(dim=(1, 2, 3)))
        return torch.cat(found)


def fit(
    prior: ContextualHyperPrior,
    groups: Sequence[SideInformation],
    minutes: float,
    seed: int = 1,
    progress: Callable[[int, float], None] | None = None,
) -> int:
    """Trains a context model of z in place and leaves it with its averaged weights.

    The loss weighs every bit by what a picture of its quality has of them, as training of the whole codec
    does.

    Args:
        prior: On the CPU.
        groups: To train on, at least one window.
        minutes: How long.
        seed: Of batches and noise.
        progress: Called now and then with the steps made and the loss.

    Returns:
        Steps made.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = MuonAdam(parameter_groups(prior), lr=_LR, weight_decay=0.02)
    average = [p.detach().clone() for p in prior.parameters()]
    windows = torch.tensor([float(len(group.z)) for group in groups])
    begin, steps, spent = time.monotonic(), 0, 0.0
    while spent < 1 or steps == 0:
        factor = learning_rate_factor(spent, _CONSTANT_UNTIL, 0.01) * min(1.0, (steps + 1) / _WARM_UP)
        for options in optimizer.param_groups:
            options["lr"] = _LR * factor
        group = groups[int(torch.multinomial(windows, 1, generator=generator))]
        chosen = torch.randint(len(group.z), (_BATCH,), generator=generator)
        loss = _loss(prior, SideInformation(*(x[chosen] for x in group)), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        with torch.no_grad():
            keep = min(_AVERAGE_DECAY, steps / (steps + 10))
            torch._foreach_lerp_(average, list(prior.parameters()), 1 - keep)
        spent = (time.monotonic() - begin) / (60 * minutes)
        if progress is not None and steps % 50 == 0:
            progress(steps, float(loss.detach()))
    with torch.no_grad():
        for parameter, mean in zip(prior.parameters(), average, strict=True):
            parameter.copy_(mean)
    return steps


def _loss(prior: ContextualHyperPrior, batch: SideInformation, generator: torch.Generator) -> Tensor:
    side = prior.quantise(*batch, round_with_gradient)
    noise = torch.rand(batch.z.shape, generator=generator) - 0.5
    bits = gaussian_bits(batch.z - side.mean + noise, scale_from_raw(side.raw_scale)).mean(dim=(1, 2, 3))
    return (bits * balanced_lambdas(batch.quality, *_LAMBDAS)[1]).mean()


def contextual_prior(weights: str | Path, design: SideInformationDesign) -> ContextualHyperPrior:
    """A context model of z on real numbers that begins as what the weights have, whatever that is.

    Args:
        weights: Weight file of an image codec.
        design: Sizes of the context model, if there is none yet.

    Raises:
        ValueError: It is no weight file of an image codec.
    """
    network = network_in(Path(weights))
    if network is None:
        raise ValueError(f"{weights} is no weight file of an image codec")
    if isinstance(network.hyper_prior, ContextualHyperPrior):
        return network.hyper_prior
    channels = network.hyper_prior.raw_scale.knots.shape[1]
    prior = ContextualHyperPrior(channels, design)
    copy_matching(prior, network.hyper_prior.state_dict())
    return prior


def with_prior(weights: WeightFile, prior: ContextualHyperPrior) -> WeightFile:
    """A weight file with another distribution of z.

    Raises:
        InexactLayer: The integer arithmetic of a layer cannot be proved exact.
    """
    arrays = {f"{_PREFIX}{k}": v.cpu().numpy() for k, v in convert(prior).state_dict().items()}
    design = SideInformationDesign(prior.bias.knots.shape[1], len(prior.context.blocks))
    return _replaced(weights, arrays, dataclasses.asdict(design))


def with_prior_of(weights: WeightFile, other: WeightFile) -> WeightFile:
    """A weight file with the distribution of z of another one, whose z is the same.

    Raises:
        ValueError: The other one has no context model, or other transforms.
    """
    if "side_information" not in other.config:
        raise ValueError("the other weights have no context model of the side information")
    head = "hyper_analysis.head.linear.weight"
    if not np.array_equal(weights.tensors[head], other.tensors[head]):
        raise ValueError("the other weights have side information of their own")
    arrays = {name: array for name, array in other.tensors.items() if name.startswith(_PREFIX)}
    return _replaced(weights, arrays, other.config["side_information"])


def _replaced(weights: WeightFile, arrays: dict[str, np.ndarray], design: dict[str, int]) -> WeightFile:
    kept = {name: array for name, array in weights.tensors.items() if not name.startswith(_PREFIX)}
    config = {**weights.config, "side_information": design}
    return dataclasses.replace(weights, config=config, tensors={**kept, **arrays})


def main(args: Sequence[str] | None = None) -> None:
    """Writes a weight file with a context model of z.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.fit_side_information",
        description="Writes a weight file with a context model of the side information.",
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file to start from")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", help="pictures, searched recursively")
    source.add_argument("--like", metavar="FILE", help="weights with the same transforms to take it from")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file to write")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training (default: 20)")
    parser.add_argument("--channels", type=int, default=128, help="width (default: 128)")
    parser.add_argument("--depth", type=int, default=2, help="blocks (default: 2)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    options = parser.parse_args(args)
    try:
        weights = read_weight_file(options.weights)
        if options.like:
            result = with_prior_of(weights, read_weight_file(options.like))
        else:
            result = with_prior(weights, _fitted(weights, options))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    # Read before it is overwritten, in case --out is --weights.
    card = read_card(options.weights) if card_path(options.weights).is_file() else None
    write_whole(options.out, result.to_bytes())
    print(f"written: {options.out}, weights {result.fingerprint().hex()}")
    if card is not None:
        print(f"written: {write_card(refreshed(card, options.out), options.out)}, without the old figures")


def _fitted(weights: WeightFile, options: argparse.Namespace) -> ContextualHyperPrior:
    """Collects z, trains, and says what that saves."""
    paths = find_images(options.data)[: options.limit]
    torch.manual_seed(1)
    prior = contextual_prior(options.weights, SideInformationDesign(options.channels, options.depth))
    groups = collect(
        ImageCodec(weights), paths, progress=lambda done: print(f"\r{done}/{len(paths)}", end="", flush=True)
    )
    fitted, held_out = split(groups)
    before = bits_of(prior, held_out)
    steps = fit(
        prior,
        fitted,
        options.minutes,
        progress=lambda step, loss: print(f"\rstep {step}, loss {loss:.4f}", end="", flush=True),
    )
    saved = 100 * (1 - bits_of(prior, held_out) / before)
    print(f"\n{steps} steps; saves {saved.mean():.1f} % of z in {len(saved)} windows held out")
    return prior


if __name__ == "__main__":
    main()
