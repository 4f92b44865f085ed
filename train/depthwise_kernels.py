"""A depthwise 3x3 convolution for training on NVIDIA GPUs, written in Triton for the channels-last layout.

The libraries' depthwise kernels, their gradients above all, run far below memory speed in bfloat16 and
channels-last; these read each operand about once. Used in training only: decoding never needs Triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.library import triton_op, wrap_triton

from latentpress.models.layers import DepthwiseConv

_ROWS_PER_PROGRAM = 16
_BLOCK_CHANNELS = 32
_TAPS = 9


@triton.jit
def _convolve(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    height,
    width,
    channels,
    FLIP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(0)
    h = row % height
    columns = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_inside = c < channels
    total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    if HAS_BIAS:
        total += tl.load(bias_ptr + c, mask=c_inside, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(9):
        dy = tap // 3 - 1
        dx = tap % 3 - 1
        w = columns + dx
        above = h + dy + tl.zeros((BLOCK_W,), tl.int32)
        inside = (above >= 0) & (above < height) & (w >= 0) & (w < width)
        offset = ((row + dy) * width + w).to(tl.int64)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offset, mask=inside[:, None] & c_inside[None, :], other=0.0).to(tl.float32)
        weight_tap = 8 - tap if FLIP else tap
        weight = tl.load(weight_ptr + c * 9 + weight_tap, mask=c_inside, other=0.0).to(tl.float32)
        total += x * weight[None, :]
    offset = (row * width + columns).to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(y_ptr + offset, total.to(y_ptr.dtype.element_ty), mask=(columns < width)[:, None] & c_inside[None, :])


@triton.jit
def _weight_gradient(
    x_ptr,
    gradient_ptr,
    partial_ptr,
    rows,
    height,
    width,
    channels,
    ROWS: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Each program sums over a strip of rows; partial_ptr is (strips, 10, channels), the tenth row the bias.
    strip = tl.program_id(0)
    tap = tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_inside = c < channels
    dy = tl.where(tap < 9, tap // 3 - 1, 0)
    dx = tl.where(tap < 9, tap % 3 - 1, 0)
    total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    for index in range(ROWS):
        row = strip * ROWS + index
        h = row % height
        above = h + dy + tl.zeros((BLOCK_W,), tl.int32)
        row_inside = (row + tl.zeros((BLOCK_W,), tl.int32) < rows) & (above >= 0) & (above < height)
        for start in range(0, width, BLOCK_W):
            columns = start + tl.arange(0, BLOCK_W)
            w = columns + dx
            inside = row_inside & (columns < width) & (w >= 0) & (w < width)
            mask = inside[:, None] & c_inside[None, :]
            at = (row * width + columns).to(tl.int64)[:, None] * channels + c[None, :]
            gradient = tl.load(gradient_ptr + at, mask=mask, other=0.0).to(tl.float32)
            shifted = ((row + dy) * width + w).to(tl.int64)[:, None] * channels + c[None, :]
            x = tl.load(x_ptr + shifted, mask=mask, other=0.0).to(tl.float32)
            total += gradient * tl.where(tap < 9, x, 1.0)
    tl.store(partial_ptr + (strip * 10 + tap) * channels + c, tl.sum(total, axis=0), mask=c_inside)


def _convolve_grid(x: Tensor, block_w: int) -> tuple[int, int, int]:
    batch, height, width, channels = x.shape
    return batch * height, triton.cdiv(width, block_w), triton.cdiv(channels, _BLOCK_CHANNELS)


def _block_width(width: int) -> int:
    return max(8, min(32, triton.next_power_of_2(width)))


@triton_op("latentpress::depthwise", mutates_args={})
def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 depthwise convolution, zero padded.

    Args:
        x: ``(B, H, W, C)`` on a GPU, float32 or bfloat16.
        weight: ``(C, 1, 3, 3)``.
        bias: ``(C,)``.

    Returns:
        ``(B, H, W, C)`` of x's type, contiguous.
    """
    x = x.contiguous()
    y = torch.empty_like(x)
    _, height, width, channels = x.shape
    block_w = _block_width(width)
    wrap_triton(_convolve)[_convolve_grid(x, block_w)](
        x, weight, bias, y, height, width, channels, False, True, block_w, _BLOCK_CHANNELS
    )
    return y


@triton_op("latentpress::depthwise_input_gradient", mutates_args={})
def _depthwise_input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    gradient = gradient.contiguous()
    result = torch.empty_like(gradient)
    _, height, width, channels = gradient.shape
    block_w = _block_width(width)
    wrap_triton(_convolve)[_convolve_grid(gradient, block_w)](
        gradient, weight, weight, result, height, width, channels, True, False, block_w, _BLOCK_CHANNELS
    )
    return result


@triton_op("latentpress::depthwise_weight_gradient", mutates_args={})
def _depthwise_weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    x, gradient = x.contiguous(), gradient.contiguous()
    batch, height, width, channels = x.shape
    rows = batch * height
    strips = triton.cdiv(rows, _ROWS_PER_PROGRAM)
    partial = torch.empty((strips, _TAPS + 1, channels), device=x.device, dtype=torch.float32)
    grid = (strips, triton.cdiv(channels, _BLOCK_CHANNELS), _TAPS + 1)
    wrap_triton(_weight_gradient)[grid](
        x, gradient, partial, rows, height, width, channels, _ROWS_PER_PROGRAM, _block_width(width), _BLOCK_CHANNELS
    )
    return partial.sum(0)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = ctx.saved_tensors
    sums = _depthwise_weight_gradient(x, gradient)
    weight_gradient = sums[:_TAPS].T.reshape(weight.shape).to(weight.dtype)
    return _depthwise_input_gradient(gradient, weight), weight_gradient, sums[_TAPS].to(weight.dtype)


depthwise.register_autograd(_backward, setup_context=_setup_context)


def use_triton_kernels(network: nn.Module) -> None:
    """Lets every :class:`DepthwiseConv` of a network on an NVIDIA GPU run these kernels."""
    for module in network.modules():
        if isinstance(module, DepthwiseConv):
            module.convolve = depthwise
