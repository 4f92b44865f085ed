"""A tiny network, pictures for it, and a trainer without ceremony."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# What Lightning and jsonargparse say about themselves, and what is a matter of taste in a test.
LIGHTNING_WARNINGS = (
    r"ignore:(?s).*(JsonargparseDeprecationWarning|was deprecated in v4)",
    r"ignore:LightningCLI's args parameter is intended:UserWarning",
    r"ignore:Starting from v1.9.0, `tensorboardX` has been removed:UserWarning",
    r"ignore:Precision bf16-mixed is not supported by the model summary:UserWarning",
    r"ignore:Total length of `list` across ranks is zero:UserWarning",
    r"ignore:You defined a `validation_step` but have no `val_dataloader`:UserWarning",
    r"ignore:You're resuming from a checkpoint that ended before the epoch ended:UserWarning",
    r"ignore:Checkpoint directory .* exists and is not empty:UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in LIGHTNING_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small only wait for each other on several threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, int]:
    return {
        "channels": 16,
        "deep_channels": 16,
        "latent_channels": 8,
        "depth": 1,
        "deep_depth": 1,
        "hyper_channels": 4,
        "hyper_width": 8,
        "context_channels": 8,
        "context_depth": 1,
    }


@pytest.fixture
def tiny_state(tiny_config) -> dict[str, Any]:
    """Weights away from their start, so that context and quality matter."""
    import torch

    from latentpress.models.image.network import build_image_network

    with torch.random.fork_rng():
        torch.manual_seed(7)
        state = build_image_network(**tiny_config).state_dict()
        for name, tensor in state.items():
            tensor += torch.randn_like(tensor) * (0.1 if name.endswith("knots") else 0.05)
    return state


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder of two pictures that are larger than a crop of 64."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(3)
    for number, size in enumerate([(96, 80), (72, 112)]):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"p{number}.png")
    return folder


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., Any]:
    """Makes a trainer on the CPU that writes nothing of its own accord."""
    import lightning

    def make(**options: Any) -> lightning.Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": -1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
        }
        return lightning.Trainer(**(defaults | options))

    return make
