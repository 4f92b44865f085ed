"""Colour anchors: pixels as the specification says, means that are sent, and edges that stay clean."""

import numpy as np
import torch

from latentpress.models.index import colour_anchors
from latentpress.models.index.colour_anchors import ColourAnchors, cell_means, with_anchors


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.clip((56 - 255 * np.abs(first - second).max()) / 40, 0, 1))


def corrected(picture: np.ndarray, anchors: ColourAnchors) -> np.ndarray:
    """Pixel after pixel, as docs/bitstream.md has it."""
    picture = picture.clip(0, 1)
    height, width = picture.shape[1:]
    present, colours, gains = (x.double().numpy() for x in anchors)
    rows, columns = present.shape
    means = {
        (i, j): picture[:, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].mean(axis=(1, 2))
        for i in range(rows)
        for j in range(columns)
    }
    found = picture.copy()
    for y in range(height):
        for x in range(width):
            pixel, own = picture[:, y, x], (y // 16, x // 16)
            total, weights = np.zeros(3), 0.0
            for i in range(max(0, own[0] - 1), min(rows, own[0] + 2)):
                for j in range(max(0, own[1] - 1), min(columns, own[1] + 2)):
                    if not present[i, j]:
                        continue
                    down, right = abs((y + 0.5) / 16 - i - 0.5), abs((x + 0.5) / 16 - j - 0.5)
                    weight = (max(0, 1.5 - down) * max(0, 1.5 - right)) ** 4
                    if present[own]:
                        alike = similarity(colours[i, j], colours[own])
                        weights += weight * alike
                    else:
                        alike = similarity(pixel, means[i, j])
                        weights += weight
                    target = colours[i, j] + gains[i, j] * (pixel - means[i, j])
                    total += weight * alike * (target - pixel)
            if weights > 0:
                found[:, y, x] = (pixel + total / weights).clip(0, 1)
    return found


def test_pixels_are_those_of_the_specification(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(2)
    picture = torch.rand((3, 6, 4), generator=generator).repeat_interleave(12, 1).repeat_interleave(14, 2)
    picture = (0.4 * picture + 0.2 * torch.rand(picture.shape, generator=generator))[:, :70, :50]
    anchors = ColourAnchors(
        torch.rand((5, 4), generator=generator) < 0.5,
        0.5 + 0.2 * torch.rand((5, 4, 3), generator=generator),
        torch.rand((5, 4), generator=generator),
    )
    expected = corrected(picture.double().numpy(), anchors)
    assert np.abs(with_anchors(picture, anchors).numpy() - expected).max() < 1e-4
    monkeypatch.setattr(colour_anchors, "_BAND", 2)
    assert np.abs(with_anchors(picture, anchors).numpy() - expected).max() < 1e-4


def test_an_edge_gets_no_halo() -> None:
    """Blue that decoded too light on white: all of it becomes blue, and white stays."""
    picture = torch.ones(3, 64, 96)
    picture[:, :, :43] = torch.tensor([0.1, 0.3, 0.8])[:, None, None]
    present = torch.zeros(4, 6, dtype=torch.bool)
    present[:, :2] = True
    blue = torch.tensor([0.0, 0.0, 1.0])
    found = with_anchors(picture, ColourAnchors(present, blue.expand(4, 6, 3), torch.zeros(4, 6)))
    assert (found[:, :, :43] - blue[:, None, None]).abs().max() < 1e-5
    assert (found[:, :, 43:] == 1).all()


def test_different_colours_do_not_mix() -> None:
    colours = torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]])
    anchors = ColourAnchors(torch.ones(1, 2, dtype=torch.bool), colours, torch.ones(1, 2))
    texture = 0.5 + 0.02 * torch.randn((3, 16, 32), generator=torch.Generator().manual_seed(1))
    found = with_anchors(texture, anchors)
    assert (cell_means(found) - colours).abs().max() < 0.02
    assert float(found[0, :, :16].min()) > 0.9
    assert float(found[0, :, 16:].max()) < 0.1


def test_without_anchors_nothing_changes() -> None:
    picture = torch.rand((3, 20, 40), generator=torch.Generator().manual_seed(1))
    anchors = ColourAnchors(torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, 3), torch.zeros(2, 3))
    assert torch.equal(with_anchors(picture, anchors), picture)
