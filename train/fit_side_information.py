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
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from latentpress.codecs.card import ModelCard, card_path, read_card
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.entropy.hyperprior import ContextualHyperPrior, HyperPrior, SideInformationDesign
from latentpress.models.entropy.latent_model import to_nearest, to_nearest_with_gradient
from latentpress.models.image.families import build_from_config
from latentpress.models.quality import QUALITY_MAX
from latentpress.train.card import refreshed, write_card
from latentpress.train.data.images import find_images, read_rgb
from latentpress.train.image_module import balanced_lambdas
from latentpress.train.optimizer import MuonAdam, parameter_groups
from latentpress.train.schedule import learning_rate_factor
from latentpress.train.warm_start import copy_matching, network_in

LENGTHS = (2, 4, 6, 8, 12)
"""Rows and columns of z that a window can have; of 64 pixels each."""

_PIXELS_OF_Z = 64
_REDUCTIONS = (1.0, 0.67, 0.5, 0.4)
_REDUCED_TO = 512
_WINDOWS_EACH = 2
_HOLD_OUT_EVERY = 20
_LAMBDAS = (0.0006, 0.14)
_BATCH = 16
_LR = 2e-3
# z of all pictures there are is little to learn from; what is learnt by heart helps none but these.
_WEIGHT_DECAY = 1.0
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
    """Analyses two windows of every picture, at random sizes and qualities.

    Args:
        codec: Whose transforms.
        paths: Of the pictures; those smaller than 128 pixels are passed over.
        seed: Of sizes, windows and qualities.
        progress: Called with the number of pictures done.

    Returns:
        As many as there are sizes of windows.
    """
    random = np.random.default_rng(seed)
    found: dict[tuple[int, ...], list[tuple[Tensor, float]]] = defaultdict(list)
    for done, path in enumerate(paths, start=1):
        picture = read_rgb(path)
        if min(picture.shape[:2]) >= _PIXELS_OF_Z * LENGTHS[0]:
            for _ in range(_WINDOWS_EACH):
                quality = round(float(random.uniform(0, QUALITY_MAX)), 1)
                z = codec.analyse(_window(picture, random), torch.tensor([quality])).z[0].clone()
                found[tuple(z.shape)].append((z, quality))
        if progress is not None:
            progress(done)
    groups = [tuple(zip(*pairs, strict=True)) for pairs in found.values()]
    return [SideInformation(torch.stack(z), torch.tensor(quality)) for z, quality in groups]


def _window(picture: NDArray[np.uint8], random: np.random.Generator) -> Tensor:
    """A window of a picture ``(H, W, 3)``, as ``(3, h, w)`` in [0, 1], reduced and turned as it comes."""
    size = picture.shape[:2]
    # A picture's own size is the likeliest.
    scales = [1.0, *(scale for scale in _REDUCTIONS if scale * min(size) >= _REDUCED_TO)]
    scale = random.choice(scales)
    sides = [_PIXELS_OF_Z * max(n for n in LENGTHS if n * _PIXELS_OF_Z <= scale * side) for side in size]
    whole = [min(most, round(side / scale)) for side, most in zip(sides, size, strict=True)]
    top, left = (int(random.integers(most - side + 1)) for side, most in zip(whole, size, strict=True))
    pixels = torch.from_numpy(picture[top : top + whole[0], left : left + whole[1]].copy())
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    if scale < 1:
        pixels = functional.interpolate(pixels, tuple(sides), mode="bicubic", antialias=True).clamp(0, 1)
    if random.random() < 0.5:
        pixels = pixels.transpose(2, 3)
    if random.random() < 0.5:
        pixels = pixels.flip(3)
    return pixels[0].contiguous()


def bits_of(prior: HyperPrior, groups: Iterable[SideInformation]) -> Tensor:
    """Bits of every window, with true rounding."""
    with torch.no_grad():
        found = []
        for group in groups:
            for z, quality in zip(*(x.split(_BATCH) for x in group), strict=True):
                side = prior.quantise(z, quality, to_nearest)
                bits = gaussian_bits(torch.round(z - side.mean), scale_from_raw(side.raw_scale))
                found.append(bits.sum(dim=(1, 2, 3)))
        return torch.cat(found)


def fit(
    prior: ContextualHyperPrior,
    groups: Sequence[SideInformation],
    steps: int,
    seed: int = 1,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Trains a context model of z in place and leaves it with its averaged weights.

    The loss weighs every bit by what a picture of its quality has of them, as training of the whole codec
    does.

    Args:
        prior: On the CPU.
        groups: To train on, at least one window.
        steps: How many, of 16 windows each.
        seed: Of batches and noise.
        progress: Called now and then with the steps made and the loss.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = MuonAdam(parameter_groups(prior), lr=_LR, weight_decay=_WEIGHT_DECAY)
    average = [p.detach().clone() for p in prior.parameters()]
    windows = torch.tensor([float(len(group.z)) for group in groups])
    for step in range(1, steps + 1):
        factor = learning_rate_factor(step / steps, _CONSTANT_UNTIL, 0.01) * min(1.0, step / _WARM_UP)
        for options in optimizer.param_groups:
            options["lr"] = _LR * factor
        group = groups[int(torch.multinomial(windows, 1, generator=generator))]
        chosen = torch.randint(len(group.z), (_BATCH,), generator=generator)
        loss = _loss(prior, SideInformation(*(x[chosen] for x in group)), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            keep = min(_AVERAGE_DECAY, step / (step + 10))
            torch._foreach_lerp_(average, list(prior.parameters()), 1 - keep)
        if progress is not None and step % 50 == 0:
            progress(step, float(loss.detach()))
    with torch.no_grad():
        for parameter, mean in zip(prior.parameters(), average, strict=True):
            parameter.copy_(mean)


def _loss(prior: ContextualHyperPrior, batch: SideInformation, generator: torch.Generator) -> Tensor:
    side = prior.quantise(*batch, to_nearest_with_gradient)
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
    torch.manual_seed(1)
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
    parser.add_argument("--steps", type=int, default=3000, help="of training (default: 3000)")
    parser.add_argument("--channels", type=int, default=64, help="width (default: 64)")
    parser.add_argument("--depth", type=int, default=1, help="blocks (default: 1)")
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
        card = refreshed(_changed(card, result, options), options.out)
        print(f"written: {write_card(card, options.out)}, without the old figures")


def _changed(card: ModelCard, weights: WeightFile, options: argparse.Namespace) -> ModelCard:
    """A card that says what was done; its figures are for `refreshed`."""
    network = build_from_config(weights.family, weights.config)
    how = f"of {Path(options.like).stem}" if options.like else f"{options.steps} steps of {_BATCH} windows"
    return dataclasses.replace(
        card,
        config=dict(weights.config),
        parameters=sum(p.numel() for p in network.parameters()),
        training=f"{card.training} Context model of the side information: {how}.",
    )


def _fitted(weights: WeightFile, options: argparse.Namespace) -> ContextualHyperPrior:
    """Collects z, trains, and says what that saves."""
    paths = find_images(options.data)[: options.limit]
    prior = contextual_prior(options.weights, SideInformationDesign(options.channels, options.depth))
    codec = ImageCodec(weights)
    held_out = collect(codec, paths[::_HOLD_OUT_EVERY])
    fitted = collect(
        codec,
        [path for number, path in enumerate(paths) if number % _HOLD_OUT_EVERY],
        progress=lambda done: print(f"\r{done}/{len(paths)}", end="", flush=True),
    )
    if not fitted or not held_out:
        raise ValueError(f"{options.data} has too few pictures of at least 128x128 pixels")
    before = bits_of(prior, held_out)
    fit(
        prior,
        fitted,
        options.steps,
        progress=lambda step, loss: print(f"\rstep {step}, loss {loss:.4f}", end="", flush=True),
    )
    saved = 100 * (1 - bits_of(prior, held_out) / before)
    print(f"\nsaves {saved.mean():.1f} % of z in {len(saved)} windows held out")
    return prior


if __name__ == "__main__":
    main()
