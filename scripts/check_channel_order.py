"""Holds the saliency of latent channels, made from parameters alone, against brute force on pictures.

    python -m latentpress.scripts.check_channel_order --weights image --data kodak --pictures 3

Brute force takes one channel at a time out of the coded latent of every picture and measures how much the
squared error of the decoded picture rises. Printed is the rank correlation (Spearman) of each score with it.
``--copy FILE`` does so for a network of CompressAI from :mod:`latentpress.scripts.compressai_copy`.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentpress.codecs import load
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.rate_control import quality_to_tenths
from latentpress.models.channel_order.made_up import made_up_score
from latentpress.models.channel_order.ports import ports_of
from latentpress.models.channel_order.saliency import (
    ChannelStatistics,
    channel_statistics,
    energy_score,
    group_channels,
    plain_score,
    variance_score,
)
from latentpress.scripts.compressai_copy import load_copy
from latentpress.scripts.pictures import PICTURE_SUFFIXES, read_flat_picture
from latentpress.scripts.text_table import format_table

ORDERING_SCORE = "weight variance"

REPLACEMENTS = ("zero", "mean")


def ablation(
    synthesise: Callable[[Tensor], Tensor], latent: Tensor, target: Tensor, replacement: str = "zero"
) -> Tensor:
    """How much the squared error rises when one channel of a latent is taken out.

    Args:
        synthesise: Maps a latent ``(1, h, w, M)`` to a picture of the shape of ``target``, or larger at the
            bottom and on the right.
        latent: The complete latent.
        target: What the picture should be, ``(3, H, W)`` in [0, 1].
        replacement: What stands for the channel: ``zero``, or its ``mean`` over the picture.

    Returns:
        Rise of the mean squared error for each channel, in units of 8-bit values, ``(M,)`` float64.
    """

    def error(changed: Tensor) -> Tensor:
        decoded = synthesise(changed)[:, : target.shape[1], : target.shape[2]].clamp(0, 1)
        return ((decoded - target).double() * 255).square().mean()

    complete = error(latent)
    rises = []
    for channel in range(latent.shape[-1]):
        without = latent.clone()
        kept = without[..., channel].mean() if replacement == "mean" else 0.0
        without[..., channel] = kept
        rises.append(error(without) - complete)
    return torch.stack(rises)


def ablation_of_codec(
    codec: ImageCodec, pictures: Iterator[Tensor], quality: float, replacement: str = "zero"
) -> Tensor:
    """Mean of :func:`ablation` over pictures, with the latents that a codec really codes.

    Args:
        codec: Encoder and decoder.
        pictures: uint8 ``(3, H, W)`` each.
        quality: 0 to 100.
        replacement: What stands for a channel that is taken out.

    Returns:
        ``(M,)`` float64.
    """
    total, count = torch.zeros(codec.network.latent_channels, dtype=torch.float64), 0
    for pixels in pictures:
        target = pixels.expand(3, -1, -1).float() / 255
        trial = codec.encode_payload(target, quality_to_tenths(quality))
        rises = ablation(
            lambda latent, at=trial.quality: codec.synthesise(latent, at),  # type: ignore[misc]
            trial.y_hat,
            target.to(trial.y_hat.device),
            replacement,
        )
        total += rises.cpu()
        count += 1
    return total / count


@torch.no_grad()
def ablation_of_copy(model: Any, pictures: Iterator[Tensor], replacement: str = "zero") -> Tensor:
    """The same with a network of CompressAI's and the latents that it decodes from.

    Args:
        model: In evaluation mode, with one rate.
        pictures: uint8 ``(3, H, W)`` each; what is beyond multiples of 64 is cut off.
        replacement: What stands for a channel that is taken out.

    Returns:
        ``(M,)`` float64.
    """
    seen: list[Tensor] = []
    hook = model.g_s.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rises = []
    for pixels in pictures:
        target = pixels.expand(3, -1, -1)[:, : pixels.shape[1] // 64 * 64, : pixels.shape[2] // 64 * 64] / 255
        seen.clear()
        model(target[None])
        latent = seen[0].permute(0, 2, 3, 1)
        rises.append(ablation(lambda y: model.g_s(y.permute(0, 3, 1, 2))[0], latent, target, replacement))
    hook.remove()
    return torch.stack(rises).mean(0)


def candidate_scores(statistics: ChannelStatistics, made_up: Tensor) -> dict[str, Tensor]:
    """The scores by name, and what they are made of.

    Args:
        statistics: Of the model.
        made_up: Its :func:`~latentpress.models.channel_order.made_up.made_up_score`.
    """
    prior = statistics.prior
    return {
        ORDERING_SCORE: variance_score(statistics),
        "made-up latents": made_up,
        "energy score": energy_score(statistics),
        "plain score": plain_score(statistics),
        "bias magnitude": statistics.bias,
        "column energy": statistics.column_energy,
        "prior energy": prior.mean_square + prior.variance,
        "prior variance": prior.variance,
        "row and column energy": statistics.weight_variance * statistics.column_energy,
        "prior variance and column energy": prior.variance * statistics.column_energy,
    }


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two vectors.

    Example:
        >>> rank_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 10, 100]))
        1.0
    """
    from scipy.stats import spearmanr

    if len(first.unique()) == 1 or len(second.unique()) == 1:
        return 0.0  # a constant ranks nothing
    return round(float(spearmanr(first.numpy(), second.numpy()).statistic), 12)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if the score that orders reaches the bar, else 1."""
    parser = argparse.ArgumentParser(prog="check_channel_order", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="image", help="shipped name or path of a weight file")
    parser.add_argument("--copy", type=Path, help="a trained copy of a CompressAI network instead")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--pictures", type=int, default=3, help="how many, evenly spaced by name")
    parser.add_argument("--qualities", type=float, nargs="+", default=[50.0])
    parser.add_argument("--replacement", choices=REPLACEMENTS, default="zero", help="for a channel taken out")
    parser.add_argument("--bar", type=float, default=0.8, help="least correlation of the score")
    parser.add_argument("--score", default=ORDERING_SCORE, help="that is held against the bar and orders")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    files = _evenly_spaced(options.data, options.pictures)
    if not files:
        parser.error(f"no pictures in {options.data}")
    if options.copy is not None:
        subject = _copy(options.copy)
    else:
        codec = load(options.weights, device=options.device)
        if not isinstance(codec, ImageCodec):
            parser.error(f"{options.weights} are not the weights of an image codec")
        subject = _codec(codec)
    ports = ports_of(subject.network)
    # Latents are made up on the CPU.
    on_cpu = subject.network if options.device == "cpu" else copy.deepcopy(subject.network).cpu()
    print(f"{subject.name}, {ports.latent_channels} latent channels")
    print(f"pictures: {', '.join(path.name for path in files)}; channels replaced by {options.replacement}")
    columns, reached = [], True
    qualities = options.qualities if options.copy is None else [0.0]
    for quality in qualities:
        pictures = (read_flat_picture(path.read_bytes()).pixels for path in files)
        rises = subject.ablation(pictures, quality, options.replacement)
        statistics = channel_statistics(ports, quality)
        made_up = made_up_score(on_cpu, quality)
        scores = {name: score.cpu() for name, score in candidate_scores(statistics, made_up).items()}
        columns.append({name: rank_correlation(score, rises) for name, score in scores.items()})
        reached &= columns[-1][options.score] >= options.bar
        core = round(len(rises) / 4)
        groups = group_channels(scores[options.score], statistics.correlation.cpu(), core)
        share = float(rises[groups.core].sum() / rises.sum())
        best = float(rises.sort(descending=True).values[:core].sum() / rises.sum())
        print(
            f"quality {quality:g}: a core of {core} channels has {share:.1%} of all rises, at best {best:.1%}"
        )
    print()
    rows = [[name, *(f"{column[name]:+.3f}" for column in columns)] for name in columns[0]]
    print(format_table(["Spearman with the rise", *(f"quality {q:g}" for q in qualities)], rows))
    return int(not reached)


class _Subject(NamedTuple):
    """A network that is held against brute force.

    Attributes:
        name: What is printed of it.
        network: Where the parameters are.
        ablation: From pictures, quality and replacement to the rises.
    """

    name: str
    network: torch.nn.Module
    ablation: Callable[[Iterator[Tensor], float, str], Tensor]


def _codec(codec: ImageCodec) -> _Subject:
    return _Subject(f"weights {codec.fingerprint.hex()}", codec.network, partial(ablation_of_codec, codec))


def _copy(path: Path) -> _Subject:
    model = load_copy(path)
    return _Subject(
        f"a copy of {type(model).__name__}",
        model,
        lambda pictures, _, replacement: ablation_of_copy(model, pictures, replacement),
    )


def _evenly_spaced(folder: Path, count: int) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    if count >= len(files):
        return files
    return [files[(2 * k + 1) * len(files) // (2 * count)] for k in range(count)]


if __name__ == "__main__":
    sys.exit(main())
