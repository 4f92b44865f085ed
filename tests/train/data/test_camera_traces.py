"""Traces of cameras are as strong as asked for, and where they are asked for."""

import pytest
import torch
from torch import Tensor

from latentpress.train.data.camera_traces import CameraTraces


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(count: int, side: int = 32) -> Tensor:
    return torch.full((count, side, side, 3), 120, dtype=torch.uint8)


def chequered_colour() -> Tensor:
    """Columns that are red and cyan in turn, all equally bright."""
    crops = torch.zeros(64, 16, 16, 3)
    crops[:, :, ::2] = torch.tensor([180.0, 90.0, 90.0])
    crops[:, :, 1::2] = torch.tensor([60.0, 130.0, 130.0])
    return crops.to(torch.uint8)


def test_nothing_asked_for_changes_nothing() -> None:
    crops = torch.randint(0, 256, (4, 16, 16, 3), generator=generator(), dtype=torch.uint8)
    nothing = CameraTraces(grain=0, coarse_chroma_share=0, tone=0)
    assert torch.equal(nothing(crops, generator()), crops)


def test_grain_is_as_strong_as_asked_for_and_mostly_of_the_brightness() -> None:
    crops = CameraTraces(grain=4, grainy_share=1, coarse_chroma_share=0, tone=0)(grey(400), generator())
    values = crops.float()
    luma = values @ torch.tensor([0.25, 0.5, 0.25])
    assert float((luma - 120).square().mean().sqrt()) == pytest.approx(4.1, abs=0.4)
    red_to_blue = values[..., 0] - values[..., 2]
    assert float(red_to_blue.square().mean().sqrt()) < 2.2


def test_only_a_share_is_grainy() -> None:
    crops = CameraTraces(grain=8, grainy_share=0.25, coarse_chroma_share=0, tone=0)(grey(400), generator())
    changed = (crops != 120).flatten(1).any(1).float().mean()
    assert float(changed) == pytest.approx(0.25, abs=0.06)


def test_half_of_the_grain_is_soft() -> None:
    crops = CameraTraces(grain=8, grainy_share=1, coarse_chroma_share=0, tone=0)(grey(200), generator())
    noise = crops.float().mean(-1) - 120
    strong = noise[noise.square().mean((1, 2)) > 16]
    correlation = (strong[:, :, 1:] * strong[:, :, :-1]).mean((1, 2)) / strong.square().mean((1, 2))
    soft = correlation > 0.3
    assert 0.35 < float(soft.float().mean()) < 0.65
    assert float(correlation[~soft].abs().max()) < 0.2


def test_coarse_chroma_keeps_the_brightness() -> None:
    crops = chequered_colour()
    traces = CameraTraces(grain=0, coarse_chroma_share=1, tone=0)
    changed = traces(crops, generator()).float()
    weights = torch.tensor([0.25, 0.5, 0.25])
    assert float((changed @ weights - crops.float() @ weights).abs().max()) <= 1
    red_to_blue = changed[..., 0] - changed[..., 2]
    assert float((red_to_blue[:, :, ::2] - red_to_blue[:, :, 1::2]).abs().max()) <= 1
    some = CameraTraces(grain=0, coarse_chroma_share=0.5, tone=0)(crops, generator())
    untouched = (some == crops).flatten(1).all(1).float().mean()
    assert 0.3 < float(untouched) < 0.7


def test_tone_curves_keep_black_and_white() -> None:
    crops = grey(64, 4)
    crops[:, 0], crops[:, 1] = 0, 255
    changed = CameraTraces(grain=0, coarse_chroma_share=0, tone=0.3)(crops, generator())
    assert torch.equal(changed[:, 0], crops[:, 0])
    assert torch.equal(changed[:, 1], crops[:, 1])
    assert float(changed[:, 2].float().std()) > 10


def test_same_generator_same_traces() -> None:
    crops = grey(3)
    traces = CameraTraces()
    assert torch.equal(traces(crops, generator(1)), traces(crops, generator(1)))
    assert not torch.equal(traces(crops, generator(1)), traces(crops, generator(2)))
