"""``latentpress train``: everything after the verb goes to Lightning's command line."""

from __future__ import annotations

import argparse
import warnings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: Lightning's parser knows the arguments.

    Args:
        parser: The verb's parser, which only lists it.
    """


def run_arguments(arguments: list[str]) -> int:
    """Trains.

    Args:
        arguments: What came after the verb, such as ``fit --config configs/image/image.yaml``.

    Returns:
        The exit code.

    Raises:
        ModuleNotFoundError: The extra ``train`` is not installed.
    """
    from latentpress.train.cli import main

    # The process keeps its own arguments: with several GPUs Lightning starts it again with them, once a GPU.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    try:
        main(arguments)
    except SystemExit as stop:  # --help, or arguments that Lightning refuses
        return stop.code if isinstance(stop.code, int) else 1
    return 0
