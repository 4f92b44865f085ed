"""Stochastic Gumbel annealing: descent to the latents that suit one picture best.

An analysis transform is trained for pictures in general; for the one at hand, other latents are better. They
are found by gradient descent through the frozen decoder. Rounding has no gradient, so each value goes up or
down at random, likelier to the nearer integer, as a mixture of both that hardens while the temperature falls:

::

    y, z -> stochastic rounding (temperature falls) -> objective: bits + lambda * squared error
     ^                                                     |
     '------------------ Adam <- gradient -----------------'

Method: Yang, Bamler, Mandt, "Improving Inference for Neural Image Compression" (arXiv 2006.04240), which
MLICv2+ uses too (arXiv 2504.19119). The odds of rounding are the sigmoid scaled logit of "Robustly
overfitting latents for flexible neural image compression" (arXiv 2401.17789), which did a little better than
the paper's own with few iterations. Nothing here knows which network decodes, or what is in a stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.codecs.effort import check_effort
from latentpress.models.entropy.latent_model import Rounding

ITERATIONS = (0, 20, 40, 70, 120, 200, 320, 500, 800, 1250, 2000)
"""Steps of descent by effort. The papers take 2000."""

HIGHEST_TEMPERATURE = 0.5
LOWEST_TEMPERATURE = 0.13
HOLD = 0.35
"""Fraction of the iterations before the temperature falls. All three as in MLICv2+ at 2000 iterations."""

LEARNING_RATE = 0.01
"""Of Adam, in quantisation steps."""

SEED = 0

# Recording takes about as long as some tens of steps save.
_WORTH_RECORDING = 40
_LAUNCHED_STEPS = 3

_MEAN_DECAY = 0.9
_SQUARE_DECAY = 0.999
_TINY = 1e-8

# Keeps the odds finite for values on an integer.
_NEAREST = 1e-5

# Where latents are unlike any that a decoder was trained on, it can answer with gradients a billion times as
# large as before. Unlimited, their squares would hold every later step still, right where it went wrong.
_LARGEST_GROWTH = 10.0
_NORM_DECAY = 0.95

# There it can also be lost for good: where everything is black or white, nothing says which way leads back.
# Chance alone does not make an objective half as large again, but for that of a few samples.
_LARGEST_RISE = 1.5
_RISE_BY_CHANCE = 1.15
_FEW_BITS = 1000.0
_KEEP_EVERY = 20

# At low rates, the noise of a hot rounding leads astray again and again.
_COOLING = 0.8

Objective = Callable[[Tensor, Tensor, Rounding], Tensor]
"""From y, z and a rounding to the scalar to minimise, in bits."""


class Latents(NamedTuple):
    """Latents of a picture.

    Attributes:
        y: ``(1, h, w, M)`` in quantisation steps.
        z: ``(1, ceil(h/4), ceil(w/4), Z)`` in quantisation steps.
    """

    y: Tensor
    z: Tensor


def iterations_of(effort: int) -> int:
    """Steps of descent for an effort.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is outside [0, 10].

    Example:
        >>> iterations_of(0), iterations_of(10)
        (0, 2000)
    """
    return ITERATIONS[check_effort(effort)]


def temperature(step: int, steps: int) -> float:
    """The temperature of a step: held at first, then falling geometrically.

    Example:
        >>> temperature(0, 100), temperature(35, 100), round(temperature(99, 100), 2)
        (0.5, 0.5, 0.13)
    """
    progress = max(0.0, (step / steps - HOLD) / (1 - HOLD))
    return HIGHEST_TEMPERATURE * math.exp(progress * math.log(LOWEST_TEMPERATURE / HIGHEST_TEMPERATURE))


def stochastic_rounding(temperature: float | Tensor, generator: torch.Generator | None) -> Rounding:
    """Rounds up or down at random, softly, so that the result has a gradient.

    A value ``n + f`` goes up with odds ``(f / (1 - f)) ^ (1 / temperature)``: even half-way, none close to
    ``n``. The result is ``n + w``, where ``w`` is a binary concrete variable (a Gumbel-softmax of two) of
    the same temperature: within (0, 1), and close to one of the ends when it is cold.

    Args:
        temperature: Positive; a tensor, without axes, if it will change in a recorded step.
        generator: Of random numbers, on the device of what will be rounded; None for torch's own.

    Example:
        >>> cold = stochastic_rounding(0.01, torch.Generator().manual_seed(0))
        >>> cold(torch.tensor([1.0, 1.1, 1.9]), torch.zeros(3)).round(decimals=3)
        tensor([1., 1., 2.])
    """

    def rounding(x: Tensor, raw_scale: Tensor) -> Tensor:
        below = torch.floor(x.detach())
        odds = torch.logit(x - below, eps=_NEAREST)
        uniform = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        noise = torch.logit(uniform, eps=1e-6)
        return below + torch.sigmoid((odds / temperature + noise) / temperature)

    return rounding


class _Schedule:
    """Numbers that change from step to step, where a recorded step finds them: on the latents' device.

    Args:
        steps: All there are.
        device: Of the latents.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        rows = [
            (
                temperature(step, steps),
                -LEARNING_RATE / (1 - _MEAN_DECAY ** (step + 1)),
                1 / (1 - _SQUARE_DECAY ** (step + 1)),
            )
            for step in range(steps)
        ]
        self._rows = torch.tensor(rows, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Temperature, step size and correction of squares for a step; goes on to the next."""
        row = self._rows.index_select(0, self._step)[0]
        self._step += 1
        return row[0], row[1], row[2]


class _Adam:
    """Adam for one tensor, in place. Torch's own imports a compiler first, which takes seconds.

    Gradients are scaled down to :data:`_LARGEST_GROWTH` times what their norms have been on average.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._mean = torch.zeros_like(x)
        self._square = torch.zeros_like(x)
        self._norm = torch.full((), math.inf, device=x.device)

    def state(self) -> tuple[Tensor, ...]:
        """All that steps change, the tensor itself among it."""
        return self._x, self._mean, self._square, self._norm

    @torch.no_grad()
    def step(self, gradient: Tensor, size: Tensor, correction: Tensor) -> None:
        gradient = self._limited(gradient)
        self._mean.lerp_(gradient, 1 - _MEAN_DECAY)
        self._square.mul_(_SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - _SQUARE_DECAY)
        spread = (self._square * correction).sqrt_().add_(_TINY)
        self._x.add_(self._mean / spread * size)

    def _limited(self, gradient: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(gradient)
        limit = self._norm * _LARGEST_GROWTH
        unknown = torch.isinf(self._norm)
        usual = norm <= limit
        updated = torch.where(unknown, norm, torch.lerp(norm, self._norm, _NORM_DECAY))
        # Nothing can be measured against nothing.
        updated = torch.where(norm > 0, updated, self._norm)
        self._norm.copy_(torch.where(usual, updated, self._norm))
        # What has no finite norm says nothing about where to go.
        scaled = torch.where(torch.isfinite(norm), gradient * (limit / norm), 0.0)
        return torch.where(usual, gradient, scaled)


class _Descent:
    """Latents on their way down, and how far they have come.

    Attributes:
        value: The objective before the step taken last, a scalar on the latents' device.
        hottest: No step is to be hotter; a scalar there, too.

    Args:
        latents: Where to start; they are copied.
    """

    def __init__(self, latents: Latents) -> None:
        self.y, self.z = (x.detach().clone().requires_grad_() for x in latents)
        self.value = torch.zeros((), device=self.y.device)
        self.hottest = torch.full((), HIGHEST_TEMPERATURE, device=self.y.device)
        self._ways = (_Adam(self.y), _Adam(self.z))

    def step(self, value: Tensor, size: Tensor, correction: Tensor) -> None:
        """Goes one step down from where the objective has a value."""
        self.value.copy_(value.detach())
        for way, gradient in zip(self._ways, torch.autograd.grad(value, (self.y, self.z)), strict=True):
            way.step(gradient, size, correction)

    @torch.no_grad()
    def state(self) -> list[Tensor]:
        """Copies of all that steps change."""
        return [x.clone() for way in self._ways for x in way.state()]

    @torch.no_grad()
    def restore(self, state: list[Tensor]) -> None:
        """Goes back, in place: a recorded step knows tensors by where they are."""
        present = [x for way in self._ways for x in way.state()]
        for now, before in zip(present, state, strict=True):
            now.copy_(before)


class _Safeguard:
    """Takes a descent that has gone astray back to where it was well, to go on with less noise."""

    def __init__(self, descent: _Descent) -> None:
        self._descent = descent
        self._lowest = math.inf
        self._well = self._unproven = descent.state()
        self._steps = 0

    def before_step(self) -> None:
        """Every now and then remembers where the descent is."""
        if self._steps % _KEEP_EVERY == 0:
            self._unproven = self._descent.state()
        self._steps += 1

    def after_step(self) -> None:
        """The objective of where it was is known now."""
        value = float(self._descent.value)
        # Written so that it holds for what is no number.
        if not value <= self._lowest * _LARGEST_RISE + _FEW_BITS:
            self._descent.restore(self._well)
            self._descent.hottest.mul_(_COOLING).clamp_(min=LOWEST_TEMPERATURE)
        elif value <= self._lowest * _RISE_BY_CHANCE + _FEW_BITS and self._steps % _KEEP_EVERY == 1:
            self._well = self._unproven
        self._lowest = min(self._lowest, value)


class _Recorded:
    """A step on a GPU: some are launched kernel by kernel, then one is recorded and replayed from then on.

    A step through a decoder is thousands of short kernels, and launching them takes longer than they do.

    Args:
        step: Does all that a step does; it must read nothing back from the GPU.
        generator: Of its random numbers.
    """

    def __init__(self, step: Callable[[], None], generator: torch.Generator) -> None:
        self._step = step
        self._generator = generator
        self._graph: torch.cuda.CUDAGraph | None = None
        self._launched = 0

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif self._launched < _LAUNCHED_STEPS:
            # Libraries allocate their workspaces in the first steps, which a recording must not see.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step()
            torch.cuda.current_stream().wait_stream(side)
            self._launched += 1
        else:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step()
            self._graph = graph
            self._graph.replay()
        # Whoever watches the steps wants to see those that are done, and may end them.
        torch.cuda.current_stream().synchronize()


def refine_latents(
    latents: Latents,
    objective: Objective,
    iterations: int,
    notify: Callable[[int], None] | None = None,
    seed: int = SEED,
) -> Latents:
    """Descends from given latents to better ones.

    Args:
        latents: Where to start; they are left as they are.
        objective: Scalar to minimise, in bits, differentiable by y and z. On a GPU it is recorded as a CUDA
            graph, so it must not wait for the GPU.
        iterations: Steps; each evaluates the objective once, with its gradient.
        notify: Called before every step with its number. What it raises ends the descent.
        seed: Of the random numbers, which are apart from torch's own. Equal calls on one machine give equal
            results, on a GPU as far as the objective's operations do.

    Returns:
        New latents, not rounded; rounding to the nearest is what the descent has settled on.
    """
    # The caller may be in inference mode, in which nothing can be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        descent = _Descent(latents)
        device = descent.y.device
        generator = torch.Generator(device).manual_seed(seed)
        schedule = _Schedule(iterations, device)

        def go_down() -> None:
            heat, size, correction = schedule.next()
            rounding = stochastic_rounding(torch.minimum(heat, descent.hottest), generator)
            value = objective(descent.y, descent.z, rounding)
            descent.step(value, size, correction)

        recorded = device.type == "cuda" and iterations > _WORTH_RECORDING
        take = _Recorded(go_down, generator) if recorded else go_down
        safeguard = _Safeguard(descent)
        for step in range(iterations):
            if notify is not None:
                notify(step)
            safeguard.before_step()
            take()
            safeguard.after_step()
        return Latents(descent.y.detach(), descent.z.detach())
