"""Keeps of a training checkpoint what other stages and the export read: a sixth of its size.

Usage: ``python -m latentpress.train.slim_checkpoint runs/shape/prior/checkpoints/last.ckpt prior.ckpt``. A
checkpoint also holds the last weights and the optimiser's state, which only its own training goes on from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from latentpress.train.checkpoint import network_from_checkpoint

# Prices are of the shape codec's bridge, which the export asks for.
_ALSO_KEPT = ("network_family", "lambda_range", "prices")


def slim_checkpoint(path: str | Path, out: str | Path) -> None:
    """Writes a checkpoint's network alone, averaged weights in float16.

    Args:
        path: A checkpoint of ``latentpress train``; it is unpickled, so it must be one's own.
        out: The smaller checkpoint, for :func:`latentpress.train.checkpoint.network_from_checkpoint`.

    Raises:
        ValueError: A weight is not finite in float16.
    """
    config, state = network_from_checkpoint(path)
    whole = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    half = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    for name, value in half.items():
        if value.dtype == torch.float16 and not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that float16 cannot hold")
    checkpoint = {
        "state_dict": {f"network.{name}": value for name, value in half.items()},
        "network_config": config,
        **{name: whole[name] for name in _ALSO_KEPT if name in whole},
    }
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, out)


def main(args: Sequence[str] | None = None) -> None:
    """Makes one checkpoint smaller.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.slim_checkpoint",
        description="Keeps the network of a training checkpoint, averaged and in float16.",
    )
    parser.add_argument("checkpoint", metavar="FILE", help="checkpoint of latentpress train")
    parser.add_argument("out", metavar="OUT", help="file to write")
    options = parser.parse_args(args)
    try:
        slim_checkpoint(options.checkpoint, options.out)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{options.checkpoint}: {error}")
    print(f"{Path(options.checkpoint).stat().st_size} -> {Path(options.out).stat().st_size} bytes")


if __name__ == "__main__":
    main()
