"""Perceptual measures of pictures: without trained weights, and with them where they are at hand.

A measure bears its name only when it is the real thing: LPIPS and DISTS run if the weights that their authors
trained are in torch's cache already, and are otherwise reported as skipped. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpress.models.wasserstein import wasserstein_distortion
from latentpress.train.metrics.structural_similarity import MultiScaleSimilarity

Measure = Callable[[Tensor, Tensor], float]
"""Original and decoded picture, ``(1, 3, H, W)`` in [0, 1], to a number."""

_PIQ = ("haarpsi", "gmsd", "mdsi")

_WITH_WEIGHTS = {
    "lpips": ("LPIPS", ("vgg16-397923af.pth", "lpips_weights.pt")),
    "dists": ("DISTS", ("vgg16-397923af.pth", "dists_weights.pt")),
}


def measures() -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures that can be computed here, and why others cannot.

    Returns:
        Functions by name, and reasons by name of what is skipped.

    Example:
        >>> found, skipped = measures()
        >>> {"psnr", "ms_ssim", "wasserstein"} <= set(found)
        True
    """
    similarity = MultiScaleSimilarity()
    found: dict[str, Measure] = {
        "psnr": lambda x, y: float(-10 * torch.log10((x - y).square().mean().clamp(min=1e-12))),
        "ms_ssim": lambda x, y: float(similarity(x, y)),
        "wasserstein": lambda x, y: float(wasserstein_distortion(x, y)) * 255**2,
    }
    skipped: dict[str, str] = {}
    for name in _PIQ:
        if not _installed("piq"):
            skipped[name] = "piq is not installed"
        else:
            found[name] = _of_piq(getattr(_piq_module(name), name))
    for name, (class_name, files) in _WITH_WEIGHTS.items():
        reason = _missing(files)
        if reason is None:
            found[name] = _of_piq(getattr(import_module("piq"), class_name)())
        else:
            skipped[name] = reason
    skipped["fid"] = "compares sets of thousands of pictures"
    return found, skipped


def _of_piq(function: Callable[..., Tensor]) -> Measure:
    return lambda x, y: float(function(y.clamp(0, 1), x))


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # an empty stand-in, as other parts of a program may make
        return False


def _missing(files: tuple[str, ...]) -> str | None:
    """Why a measure with trained weights cannot run; None if it can."""
    for package in ("piq", "torchvision"):
        if not _installed(package):
            return f"{package} is not installed"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    absent = [name for name in files if not (folder / name).is_file()]
    return f"no weights: {', '.join(absent)} not in torch's cache" if absent else None


def _piq_module(name: str) -> Any:
    """A module of piq, also beside a build of torch for which there is no torchvision.

    Only piq's measures with trained weights use torchvision, but its package imports them all.
    """
    if "piq" not in sys.modules and not _installed("torchvision"):
        spec = importlib.util.find_spec("piq")
        assert spec is not None
        package = types.ModuleType("piq")
        package.__path__ = list(spec.submodule_search_locations or [])
        package.__spec__ = spec
        sys.modules["piq"] = package
    return import_module(f"piq.{name}")
