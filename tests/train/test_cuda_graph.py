"""Recorded steps do what eager ones do. Needs a GPU."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from latentpress.train.cuda_graph import GraphedBackward
from latentpress.train.optimizer import MuonAdam, parameter_groups

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Terms(NamedTuple):
    loss: Tensor
    largest: Tensor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16), nn.Linear(16, 4)).cuda()


def loss_of(model: nn.Module):
    def loss(x: Tensor, y: Tensor) -> Terms:
        difference = model(x) - y
        return Terms(difference.square().mean(), difference.abs().max().detach())

    return loss


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    return tuple(torch.randn(32, width, generator=generator, device="cuda") for width in (8, 4))


def test_gradients_are_those_of_the_batch() -> None:
    model = network()
    eager = copy.deepcopy(model)
    graph = GraphedBackward(loss_of(model), model.parameters(), batch(0))
    for seed in (1, 2, 1):
        terms = graph(*batch(seed))
        expected = loss_of(eager)(*batch(seed))
        eager.zero_grad()
        expected.loss.backward()
        torch.testing.assert_close(terms.loss, expected.loss)
        torch.testing.assert_close(terms.largest, expected.largest)
        for a, b in zip(model.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


def test_frozen_parameters_are_left_alone() -> None:
    model = network()
    model[0].requires_grad_(False)
    GraphedBackward(loss_of(model), model.parameters(), batch(0))(*batch(1))
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None


def test_recorded_optimiser_does_what_the_eager_one_does() -> None:
    """Twelve steps, the recorded ones under a learning rate that changes."""
    results = []
    for recorded in (False, True):
        model = network()
        optimizer = MuonAdam(parameter_groups(model), lr=0.01)
        optimizer.capture = recorded
        graph = GraphedBackward(loss_of(model), model.parameters(), batch(0))
        for step in range(12):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + step)
            graph(*batch(step))
            optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
