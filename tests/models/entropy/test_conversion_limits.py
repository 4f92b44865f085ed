"""Weights that integers cannot hold are refused, never wrapped around or dropped."""

import math

import pytest
import torch
from torch import nn

from latentpress.models.entropy.fixed_point import InexactLayer, convert
from latentpress.models.layers import DepthwiseConv
from latentpress.models.quality import QualityVector


def layer_with(kind: str, name: str, value: float) -> nn.Module:
    layer = {
        "linear": lambda: nn.Linear(3, 2),
        "depthwise": lambda: DepthwiseConv(3),
        "quality": lambda: QualityVector(3),
    }[kind]()
    with torch.no_grad():
        getattr(layer, name).view(-1)[1] = value
    return nn.Sequential(layer)


@pytest.mark.parametrize("value", [1e6, -1e6, 20000.0, math.inf, math.nan])
@pytest.mark.parametrize("kind", ["linear", "depthwise"])
def test_weights(kind, value) -> None:
    with pytest.raises(InexactLayer):
        convert(layer_with(kind, "weight", value))


@pytest.mark.parametrize("value", [3e6, -3e6, math.inf, math.nan])
@pytest.mark.parametrize(("kind", "name"), [("linear", "bias"), ("depthwise", "bias"), ("quality", "knots")])
def test_biases_and_knots(kind, name, value) -> None:
    with pytest.raises(InexactLayer):
        convert(layer_with(kind, name, value))


@pytest.mark.parametrize(("kind", "value"), [("linear", 16000.0), ("depthwise", 1000.0)])
def test_large_weights_that_fit_are_kept(kind, value) -> None:
    (converted,) = convert(layer_with(kind, "weight", value))
    found = converted.weight.double() * 2.0 ** -int(converted.shift)
    assert float(found.view(-1)[1]) == value
