"""Muon for matrices and Adam for everything else, as one optimiser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic Newton-Schulz iteration (Jordan et al., "Muon", 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5

# Scales an orthogonal update to the root mean square of a typical Adam update, so that one learning rate
# serves both parts (Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2).
_RMS_MATCH = 0.2

# Steps before one is recorded: libraries allocate their workspaces in the first.
_EAGER_STEPS = 3


def orthogonalise(matrices: Tensor) -> Tensor:
    """Replaces the singular values of a batch of matrices by values close to one.

    Args:
        matrices: ``(N, rows, columns)``, float32.

    Returns:
        Same shape, bfloat16; singular values between about 0.7 and 1.2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> s = torch.linalg.svdvals(orthogonalise(torch.randn(2, 8, 16)).float())
        >>> bool(((s > 0.5) & (s < 1.5)).all())
        True
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    transposed = x.shape[-2] > x.shape[-1]
    if transposed:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if transposed else x


class MuonAdam(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz for matrices, Adam for all other parameters.

    Matrices of one shape are orthogonalised together, in a handful of batched products.

    Args:
        groups: Parameter groups; ``group["matrices"]`` says whether Muon (True) or Adam (False) moves them,
            ``group["lr_factor"]`` scales the learning rate for the group.
        lr: Learning rate of both parts.
        momentum: Of Muon, with Nesterov's look-ahead.
        betas: Of Adam.
        eps: Of Adam.
        weight_decay: Decoupled; applied to matrices only.
        max_norm: Gradients are scaled down to this Euclidean norm, over all parameters.

    Attributes:
        capture: Record a step as a CUDA graph and replay it from then on. Only for parameters on a GPU whose
            gradients stay where they are, as :class:`~latentpress.train.cuda_graph.GraphedBackward` leaves
            them.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float = 1.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "matrices": False,
            "lr_factor": 1.0,
        }
        super().__init__(groups, defaults)
        self.max_norm = max_norm
        self.capture = False
        self._rates: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0
        self._preconditioners: dict[Tensor, Tensor] = {}

    def precondition(self, preconditioners: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Lets Muon move matrices in other coordinates, see :mod:`latentpress.train.preconditioning`.

        A matrix W that multiplies x is moved as ``W P^-1`` would be, which multiplies ``P x``. To be called
        before the first step that is recorded.

        Args:
            preconditioners: Matrices ``(rows, columns)`` of this optimiser with P, ``(columns, columns)``
                and symmetric; those of others are ignored.
        """
        own = {p for group in self.param_groups if group["matrices"] for p in group["params"]}
        self._preconditioners = {weight: found for weight, found in preconditioners if weight in own}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns the closure's result."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._share_rates()
        self._steps += 1
        if self._graph is not None:
            self._graph.replay()
        elif self.capture and self._steps > _EAGER_STEPS:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as the one that watches over NCCL, may use the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._update()
            self._graph.replay()
        else:
            self._update()
        return loss

    def _share_rates(self) -> None:
        """Copies the learning rates to the device, where a recorded step reads them."""
        if not self._rates:
            device = self.param_groups[0]["params"][0].device
            self._rates = [torch.zeros((), device=device) for _ in self.param_groups]
        for rate, group in zip(self._rates, self.param_groups, strict=True):
            rate.fill_(group["lr"] * group["lr_factor"])

    def _update(self) -> None:
        parameters = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        gradients = [p.grad for members in parameters for p in members]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        # A recorded step cannot look; there, the gradients come checked.
        if not self.capture and not torch.isfinite(norm):
            return
        torch._foreach_mul_(gradients, (self.max_norm / (norm + 1e-6)).clamp(max=1.0))
        for group, members, rate in zip(self.param_groups, parameters, self._rates, strict=True):
            if members and group["matrices"]:
                self._step_matrices(members, group, rate)
            elif members:
                self._step_adam(members, group, rate)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any], rate: Tensor) -> None:
        alike: dict[tuple[torch.Size, bool], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            alike[parameter.shape, parameter in self._preconditioners].append(parameter)
        for (shape, preconditioned), members in alike.items():
            gradients = [p.grad for p in members]
            momenta = [self.state[p]["momentum"] for p in members]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
            stacked = torch.stack(ahead)
            if preconditioned:
                factors = torch.stack([self._preconditioners[p] for p in members])
                moved = orthogonalise(stacked @ factors).to(members[0].dtype) @ factors
            else:
                moved = orthogonalise(stacked).to(members[0].dtype)
            updates = moved.unbind()
            if group["weight_decay"]:
                torch._foreach_mul_(members, 1 - rate * group["weight_decay"])
            scaled = torch._foreach_mul(updates, rate * (_RMS_MATCH * max(shape) ** 0.5))
            torch._foreach_sub_(members, scaled)

    def _step_adam(self, parameters: list[Tensor], group: dict[str, Any], rate: Tensor) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if "average" not in state:
                state["average"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
                state["count"] = torch.zeros((), device=parameter.device)
        # The parameters of a group always step together, so the first one's counter serves all.
        counts = [self.state[p]["count"] for p in parameters]
        torch._foreach_add_(counts, 1.0)
        gradients = [p.grad for p in parameters]
        averages = [self.state[p]["average"] for p in parameters]
        squares = [self.state[p]["square"] for p in parameters]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_mul_(denominators, (1 - beta2 ** counts[0]).rsqrt())
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(averages, denominators)
        torch._foreach_mul_(updates, rate / (1 - beta1 ** counts[0]))
        torch._foreach_sub_(parameters, updates)


def parameter_groups(
    network: nn.Module, adam_names: Iterable[str] = ("stem", "head", "heads"), adam_lr_factor: float = 0.5
) -> list[dict[str, Any]]:
    """Splits a network's parameters for :class:`MuonAdam`.

    Args:
        network: Any module.
        adam_names: Modules by these names keep Adam for their matrices too: the layers that meet pixels,
            latents or probabilities, whose rows are not interchangeable.
        adam_lr_factor: Learning rate of Adam's part, as a fraction of Muon's.

    Returns:
        Two groups: matrices of hidden layers, and the rest.

    Example:
        >>> [len(g["params"]) for g in parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))]
        [2, 2]
    """
    adam_names = set(adam_names)
    matrices, others = [], []
    for name, parameter in network.named_parameters():
        path = name.split(".")
        hidden = parameter.ndim == 2 and path[-1] == "weight" and not adam_names.intersection(path)
        (matrices if hidden else others).append(parameter)
    return [
        {"params": matrices, "matrices": True},
        {"params": others, "matrices": False, "lr_factor": adam_lr_factor},
    ]
