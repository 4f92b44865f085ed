"""Trains a small copy of one of CompressAI's networks, where its own weights cannot be had.

Good enough to tell which of its latent channels matter, see
:mod:`latentpress.scripts.check_channel_order`, and for nothing else: minutes on a processor, not days.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentpress.scripts.compressai_peer import import_compressai
from latentpress.train.data.images import ImagePool, find_images, read_rgb
from latentpress.train.schedule import learning_rate_factor

NETWORKS = ("mean-scale-hyperprior", "cheng2020-anchor")


class CopyConfig(NamedTuple):
    """What a copy is.

    Attributes:
        network: One of :data:`NETWORKS`.
        channels: N.
        latent_channels: M; Cheng2020 has as many as N.
    """

    network: str
    channels: int
    latent_channels: int


def build_copy(config: CopyConfig) -> nn.Module:
    """An untrained copy.

    Raises:
        ValueError: There is no such network, or its sizes do not go together.

    Example:
        >>> build_copy(CopyConfig("cheng2020-anchor", 8, 12))
        Traceback (most recent call last):
        ValueError: cheng2020-anchor has as many latent channels as others, got 12 and 8
    """
    if config.network not in NETWORKS:
        raise ValueError(f"no such network: {config.network}; there are {', '.join(NETWORKS)}")
    if config.network == "cheng2020-anchor" and config.channels != config.latent_channels:
        raise ValueError(
            f"{config.network} has as many latent channels as others, "
            f"got {config.latent_channels} and {config.channels}"
        )
    import_compressai()
    with warnings.catch_warnings():
        # What it says of its own use of torch.
        warnings.simplefilter("ignore")
        from compressai.models import Cheng2020Anchor, MeanScaleHyperprior
    if config.network == "cheng2020-anchor":
        anchor: nn.Module = Cheng2020Anchor(config.channels)
        return anchor
    hyperprior: nn.Module = MeanScaleHyperprior(config.channels, config.latent_channels)
    return hyperprior


def load_copy(path: str | Path) -> nn.Module:
    """A trained copy, in evaluation mode.

    Args:
        path: What :func:`main` wrote. It holds arrays and numbers only, and is read as such.
    """
    stored: dict[str, Any] = torch.load(path, weights_only=True)
    network = build_copy(CopyConfig(*stored["config"]))
    network.load_state_dict(stored["state"])
    return network.eval()


def rate_distortion(network: nn.Module, image: Tensor, weight: float) -> Tensor:
    """``bpp + weight 255^2 MSE`` of a batch.

    Args:
        network: One of CompressAI's, in training mode.
        image: ``(B, 3, S, S)`` in [0, 1].
        weight: Lambda.
    """
    output = network(image)
    bits = sum(-torch.log2(p).sum() for p in output["likelihoods"].values())
    error = (output["x_hat"] - image).square().mean()
    return bits / image[:, 0].numel() + weight * 255**2 * error


def train_copy(
    network: Any, pool: ImagePool, minutes: float, batch: int, weight: float, lr: float, seed: int = 1
) -> tuple[int, float]:
    """Trains for a time.

    Args:
        network: Changed in place.
        pool: Of training pictures.
        minutes: How long.
        batch: Crops a step.
        weight: Lambda.
        lr: Peak learning rate, of Adam.
        seed: Of the crops.

    Returns:
        Steps, and the mean loss of the last tenth of them.
    """
    generator = torch.Generator(pool.device).manual_seed(seed)
    main_part = [p for name, p in network.named_parameters() if not name.endswith("quantiles")]
    optimizer = torch.optim.Adam(main_part, lr=lr)
    # Medians of z, which the rate does not see.
    quantiles = torch.optim.Adam([p for n, p in network.named_parameters() if n.endswith("quantiles")], lr=lr)
    losses: list[float] = []
    start = time.monotonic()
    network.train()
    while (spent := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * learning_rate_factor(spent, 0.4, 0.02) * min(1.0, (len(losses) + 1) / 50)
        # With channels last, the gradients of Cheng2020 corrupt memory on CPUs (torch 2.13).
        image = pool.crops(batch, generator).permute(0, 3, 1, 2).contiguous().float() / 255
        loss = rate_distortion(network, image, weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(main_part, 1.0)
        optimizer.step()
        quantiles.zero_grad()
        network.aux_loss().backward()
        quantiles.step()
        losses.append(float(loss.detach()))
    last = losses[-max(1, len(losses) // 10) :]
    return len(losses), math.fsum(last) / len(last)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a copy and writes it.

    Args:
        arguments: None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.compressai_copy", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="training pictures")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--channels", type=int, default=64, metavar="N")
    parser.add_argument("--latent-channels", type=int, default=64, metavar="M")
    parser.add_argument("--pictures", type=int, default=100, metavar="COUNT", help="of the folder, evenly")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=8, metavar="CROPS")
    parser.add_argument("--crop", type=int, default=128, metavar="PIXELS")
    parser.add_argument("--lambda", dest="weight", type=float, default=0.013)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    try:
        files = find_images(options.data)
        pool = ImagePool("cpu", options.crop)
        for path in files[:: max(1, len(files) // options.pictures)][: options.pictures]:
            pool.add(read_rgb(path))
        config = CopyConfig(options.network, options.channels, options.latent_channels)
        network = build_copy(config)
        steps, loss = train_copy(
            network, pool.finish(), options.minutes, options.batch, options.weight, options.lr
        )
        torch.save({"config": list(config), "state": network.state_dict()}, options.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{steps} steps, loss {loss:.3f}; written: {options.out}")


if __name__ == "__main__":
    main()
