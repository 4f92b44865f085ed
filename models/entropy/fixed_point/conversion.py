"""Whole entropy networks to integers and back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from latentpress.models.entropy.blocks import LeakyRectifier, RectifiedProduct
from latentpress.models.entropy.fixed_point.convolutions import FixedPointDepthwise, FixedPointNeighbourConv
from latentpress.models.entropy.fixed_point.layers import (
    FixedPointChannelScale,
    FixedPointEmbedding,
    FixedPointLinear,
    FixedPointProduct,
    FixedPointQualityVector,
    FixedPointRectifier,
)
from latentpress.models.entropy.fixed_point.weights import InexactLayer
from latentpress.models.entropy.volume import ChannelScale
from latentpress.models.layers import DepthwiseConv
from latentpress.models.quality import QualityVector
from latentpress.models.volume import NeighbourConv


def convert(module: nn.Module) -> nn.Module:
    """Copies an entropy network with every layer replaced by its integer counterpart.

    Args:
        module: Made of 1x1 and depthwise convolutions, leaky rectifiers, rectified products, embeddings,
            quality vectors, and modules whose method ``integer_counterpart()`` returns what stands for them.

    Returns:
        A network on integers, in evaluation mode, on the CPU.

    Raises:
        InexactLayer: The weights of a layer would allow inexact sums.
        TypeError: The module holds trained parameters that have no integer counterpart.

    Example:
        >>> from latentpress.models.entropy.blocks import ContextBlock
        >>> from latentpress.models.entropy.fixed_point import to_fixed_point
        >>> block = convert(ContextBlock(4))
        >>> x = to_fixed_point(torch.randn(1, 3, 3, 4))
        >>> bool((block(x) == block(x).round()).all())
        True
    """
    converted = _convert_layer(copy.deepcopy(module).cpu())
    for name, layer in converted.named_modules():
        prove: Any = getattr(layer, "prove_exact", None)
        if prove is not None:
            try:
                prove()
            except InexactLayer as error:
                raise InexactLayer(f"{name}: {error}") from None
    remaining = [name for name, _ in converted.named_parameters()]
    if remaining:
        raise TypeError(f"no integer counterpart for {', '.join(remaining)}")
    return converted.eval()


def _convert_layer(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Linear):
        return FixedPointLinear.from_float(module)
    if isinstance(module, DepthwiseConv):
        return FixedPointDepthwise.from_float(module)
    if isinstance(module, NeighbourConv):
        return FixedPointNeighbourConv.from_float(module)
    if isinstance(module, ChannelScale):
        return FixedPointChannelScale.from_float(module)
    if isinstance(module, nn.Embedding):
        return FixedPointEmbedding.from_float(module)
    if isinstance(module, LeakyRectifier):
        return FixedPointRectifier()
    if isinstance(module, RectifiedProduct):
        return FixedPointProduct()
    if isinstance(module, QualityVector):
        return FixedPointQualityVector.from_float(module)
    counterpart: Any = getattr(module, "integer_counterpart", None)
    if counterpart is not None:
        return counterpart()
    for name, child in module.named_children():
        setattr(module, name, _convert_layer(child))
    return module


def to_float(module: nn.Module) -> nn.Module:
    """Copies an integer network with every layer replaced by its counterpart on real numbers.

    The inverse of :func:`convert`, for what has to be differentiated: the weights are those of the integers,
    but activations are neither rounded nor limited, and are numbers instead of multiples of ``1 / UNIT``.

    Args:
        module: What :func:`convert` returns: its layers have a method ``to_float()``.

    Returns:
        A network on float32, in evaluation mode, without gradients of its weights, on the module's device.

    Example:
        >>> from latentpress.models.entropy.blocks import ContextBlock
        >>> from latentpress.models.entropy.fixed_point import UNIT, to_fixed_point
        >>> integers = convert(ContextBlock(4))
        >>> x = torch.randn(1, 3, 3, 4)
        >>> bool((to_float(integers)(x) - integers(to_fixed_point(x)) / UNIT).abs().max() < 0.01)
        True
    """
    # Layers are made with random weights before they get theirs; nobody's random numbers shall notice.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return _float_layer(module).eval()


def _float_layer(module: nn.Module) -> nn.Module:
    counterpart: Any = getattr(module, "to_float", None)
    if counterpart is not None:
        result: nn.Module = counterpart()
        return result
    # A shallow copy with children of its own: apart from its layers, a network is its code.
    copied = copy.copy(module)
    copied._modules = {
        name: None if child is None else _float_layer(child) for name, child in module._modules.items()
    }
    return copied
