"""``latentpress train``: Lightning's command line over the YAML files in ``configs/``."""

from __future__ import annotations

import os
from collections.abc import Sequence

# Before torch is imported. Inductor of torch 2.11 merges reductions of different orders into kernels that use
# names of other kernels, in the first stage of the index codec for one; without merging all is well.
os.environ.setdefault("TORCHINDUCTOR_MIX_ORDER_REDUCTION", "0")

import lightning
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from latentpress.train.divergence import DivergenceGuard
from latentpress.train.schedule import AveragedWeights, TimeBudget, TimedCheckpoint


class TrainingCLI(LightningCLI):
    """Lightning's command line with a time budget, averages, checkpoints and a guard in every run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``--budget.minutes``, ``--average.decay``, ``--checkpoint.minutes``, ``--guard.factor``..."""
        parser.add_lightning_class_args(TimeBudget, "budget")
        parser.add_lightning_class_args(AveragedWeights, "average")
        parser.add_lightning_class_args(TimedCheckpoint, "checkpoint")
        parser.add_lightning_class_args(DivergenceGuard, "guard")


def main(args: Sequence[str] | None = None) -> None:
    """Runs the Lightning command line.

    Args:
        args: Arguments, such as ``["fit", "--config", "configs/image/image.yaml"]``; None for ``sys.argv``.
    """
    # Matrix products outside autocast may use TF32 while training; coding never does.
    torch.set_float32_matmul_precision("high")
    TrainingCLI(
        lightning.LightningModule,
        lightning.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "latentpress train"},
        args=list(args) if args is not None else None,
    )


if __name__ == "__main__":
    main()
