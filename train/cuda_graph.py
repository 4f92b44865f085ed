"""Forward and backward pass as one CUDA graph.

A step of a compact network is some thousand short kernels; launching them one by one keeps a fast GPU waiting
for the processor half of the time. A recorded step is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

Terms = TypeVar("Terms", bound=tuple)

_WARM_UP_PASSES = 3


class GraphedBackward(Generic[Terms]):
    """Evaluates a loss and its gradients by replaying a CUDA graph; averages gradients over all devices.

    ::

        batch -> static inputs -> [graph: loss, gradients -> one flat buffer] -> all-reduce -> parameter.grad

    Args:
        loss: Maps the batch to a named tuple whose first entry is the scalar to minimise.
        parameters: What to differentiate by; their ``grad`` becomes a view of the flat buffer for good.
        batch: An example on the GPU; all further batches must have its shapes.
    """

    def __init__(
        self, loss: Callable[..., Terms], parameters: Iterable[nn.Parameter], batch: tuple[Tensor, ...]
    ) -> None:
        self._inputs = [x.clone() for x in batch]
        parameters = [p for p in parameters if p.requires_grad]
        self._flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
        views = [
            part.view_as(p)
            for part, p in zip(self._flat.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_PASSES):
                loss(*self._inputs)[0].backward()
                for p in parameters:
                    p.grad = None
        torch.cuda.current_stream().wait_stream(side)
        # Weights that autocast rounded in the passes before would be those of every replay.
        torch.clear_autocast_cache()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._terms = loss(*self._inputs)
            self._terms[0].backward()
            torch._foreach_copy_(views, [p.grad for p in parameters])
        for p, view in zip(parameters, views, strict=True):
            p.grad = view

    def __call__(self, *batch: Tensor) -> Terms:
        """Puts a batch's gradients into ``parameter.grad``; the next call overwrites the terms."""
        for static, x in zip(self._inputs, batch, strict=True):
            static.copy_(x)
        self._graph.replay()
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(self._flat, op=torch.distributed.ReduceOp.AVG)
        # One overflow in one batch must not end a run: such a batch counts for nothing, on all devices alike.
        self._flat.copy_(torch.where(torch.isfinite(self._flat).all(), self._flat, 0.0))
        return self._terms
