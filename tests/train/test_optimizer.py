"""Muon and Adam as one optimiser."""

import copy

import pytest
import torch
from torch import nn

from latentpress.models.image.network import build_image_network
from latentpress.train.optimizer import MuonAdam, orthogonalise, parameter_groups
from latentpress.train.preconditioning import preconditioner

NO_CLIPPING = 1e30


def leaves(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def give_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("shape", [(8, 8), (4, 32), (32, 4), (1, 5)])
def test_orthogonalise_keeps_directions_and_evens_singular_values(shape) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    result = orthogonalise(matrices).float()
    assert result.shape == matrices.shape
    for before, after in zip(matrices, result, strict=True):
        u, s, v = torch.linalg.svd(before, full_matrices=False)
        inner = u.mT @ after @ v.mT
        kept = s > 0.05 * s.max()
        diagonal = inner.diagonal()[kept]
        assert bool((diagonal > 0.6).all())
        assert bool((diagonal < 1.3).all())
        assert float((inner - inner.diagonal().diag()).abs().max()) < 0.1


def test_orthogonalise_does_not_depend_on_scale_or_batch() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 6, 10)
    result = orthogonalise(matrices).float()
    torch.testing.assert_close(orthogonalise(matrices * 1024).float(), result, rtol=0, atol=0.02)
    torch.testing.assert_close(orthogonalise(matrices[1:]).float(), result[1:], rtol=0, atol=0.02)
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 3)).float(), torch.zeros(1, 3, 3))


def test_adam_part_is_adam() -> None:
    ours = leaves((3, 4), (5,), (2, 1, 3, 3))
    theirs = copy.deepcopy(ours)
    first = MuonAdam([{"params": ours, "matrices": False}], lr=0.01, max_norm=NO_CLIPPING)
    second = torch.optim.Adam(theirs, lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    for step in range(20):
        for parameters, optimizer in ((ours, first), (theirs, second)):
            give_gradients(parameters, step)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_learning_rate_factor_scales_a_group() -> None:
    full, half = leaves((4,), (4,))
    half.data.copy_(full.data)
    start = full.detach().clone()
    groups = [
        {"params": [full], "matrices": False},
        {"params": [half], "matrices": False, "lr_factor": 0.5},
    ]
    optimizer = MuonAdam(groups, lr=0.01, max_norm=NO_CLIPPING)
    full.grad = torch.ones(4)
    half.grad = torch.ones(4)
    optimizer.step()
    torch.testing.assert_close(half - start, (full - start) / 2)


def test_matrix_step_has_the_size_of_an_adam_step() -> None:
    (matrix,) = leaves((48, 32))
    before = matrix.detach().clone()
    optimizer = MuonAdam([{"params": [matrix], "matrices": True}], lr=0.01)
    give_gradients([matrix], 0)
    optimizer.step()
    step = (matrix.detach() - before).square().mean().sqrt()
    assert 0.001 < float(step) < 0.004  # 0.2 to 0.4 of Adam's 0.01, as Muon's authors aim for


def test_matrices_of_one_shape_do_not_mix() -> None:
    together, alone = leaves((4, 6), (4, 6)), leaves((4, 6), (4, 6))
    both = MuonAdam([{"params": together, "matrices": True}], max_norm=NO_CLIPPING)
    single = [MuonAdam([{"params": [p], "matrices": True}], max_norm=NO_CLIPPING) for p in alone]
    for step in range(3):
        give_gradients(together, step)
        give_gradients(alone, step)
        both.step()
        for optimizer in single:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_weight_decay_is_decoupled_and_for_matrices_only() -> None:
    matrix, vector = leaves((3, 3), (3,))
    before = matrix.detach().clone(), vector.detach().clone()
    groups = [{"params": [matrix], "matrices": True}, {"params": [vector], "matrices": False}]
    optimizer = MuonAdam(groups, lr=0.1, weight_decay=0.5)
    matrix.grad, vector.grad = torch.zeros(3, 3), torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), before[0] * 0.95)
    assert torch.equal(vector.detach(), before[1])


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_clipping_is_over_all_parameters(scale) -> None:
    parameters = leaves((3, 4), (5,))
    optimizer = MuonAdam([{"params": parameters, "matrices": False}], max_norm=1.0)
    give_gradients(parameters, 0)
    norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
    for p in parameters:
        p.grad *= scale / norm
    before = [p.grad.clone() for p in parameters]
    optimizer.step()
    for p, grad in zip(parameters, before, strict=True):
        torch.testing.assert_close(p.grad, grad * min(1.0, 1 / scale), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_batches_with_infinite_gradients_are_skipped(bad) -> None:
    matrix, vector = leaves((3, 4), (5,))
    before = matrix.detach().clone(), vector.detach().clone()
    groups = [{"params": [matrix], "matrices": True}, {"params": [vector], "matrices": False}]
    optimizer = MuonAdam(groups)
    give_gradients([matrix, vector], 0)
    vector.grad[2] = bad
    optimizer.step()
    assert torch.equal(matrix.detach(), before[0])
    assert torch.equal(vector.detach(), before[1])
    give_gradients([matrix, vector], 1)
    optimizer.step()
    assert bool(torch.isfinite(matrix).all())
    assert not torch.equal(vector.detach(), before[1])


def test_parameters_without_gradient_stay() -> None:
    moved, unused = leaves((2, 2), (2, 2))
    before = unused.detach().clone()
    optimizer = MuonAdam([{"params": [moved, unused], "matrices": True}])
    give_gradients([moved], 0)
    optimizer.step()
    assert torch.equal(unused.detach(), before)


def test_closure() -> None:
    (p,) = leaves((3,))
    optimizer = MuonAdam([{"params": [p], "matrices": False}])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) > float(p.detach().square().sum())


def regression(optimizer_of, steps: int) -> tuple[float, float]:
    """First and last loss of a two-layer network learning a linear map."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    x = torch.randn(256, 8)
    y = x @ torch.randn(8, 4) * 0.3
    optimizer = optimizer_of(network)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps)
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


def test_converges() -> None:
    first, last = regression(lambda network: MuonAdam(parameter_groups(network), lr=0.02), 80)
    assert last < first / 5


def test_state_survives_a_round_trip() -> None:
    """Ten steps in one go, and five, a round trip through a file's form, five more."""

    def make() -> tuple[list[nn.Parameter], MuonAdam]:
        parameters = leaves((4, 6), (4, 6), (5,))
        groups = [
            {"params": parameters[:2], "matrices": True},
            {"params": parameters[2:], "matrices": False, "lr_factor": 0.5},
        ]
        return parameters, MuonAdam(groups, lr=0.01)

    straight, optimizer = make()
    for step in range(10):
        give_gradients(straight, step)
        optimizer.step()
    broken, optimizer = make()
    for step in range(10):
        if step == 5:
            saved = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in broken]
            broken, optimizer = make()
            optimizer.load_state_dict(saved[0])
            for p, value in zip(broken, saved[1], strict=True):
                p.data.copy_(value)
        give_gradients(broken, step)
        optimizer.step()
    for a, b in zip(straight, broken, strict=True):
        assert torch.equal(a, b)


def test_groups_of_the_image_network() -> None:
    network = build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1)
    names = {id(p): name for name, p in network.named_parameters()}
    muon, adam = parameter_groups(network)
    muon_names = {names[id(p)] for p in muon["params"]}
    adam_names = {names[id(p)] for p in adam["params"]}
    assert muon["matrices"] is True
    assert adam["matrices"] is False
    assert muon_names | adam_names == set(names.values())
    assert not muon_names & adam_names
    assert "analysis.blocks.0.expand.weight" in muon_names
    assert "context.adaptors.0.weight" in muon_names
    for name in ("analysis.stem.weight", "synthesis.head.weight", "context.heads.2.weight", "gain.knots"):
        assert name in adam_names
    assert all(p.ndim == 2 for p in muon["params"])


def test_preconditioning_is_muon_in_other_coordinates() -> None:
    torch.manual_seed(4)
    weights = [nn.Parameter(torch.randn(6, 4)) for _ in range(3)]
    moment = torch.randn(4, 4)
    factor = preconditioner(moment @ moment.mT)
    plain = [nn.Parameter(p.detach() @ factor.inverse()) for p in weights[:2]]
    plain.append(nn.Parameter(weights[2].detach().clone()))  # one that nothing is known of
    settings = {"lr": 0.01, "weight_decay": 0.1, "max_norm": NO_CLIPPING}
    optimizer = MuonAdam([{"params": weights, "matrices": True}], **settings)
    optimizer.precondition([*((p, factor) for p in weights[:2]), (torch.zeros(6, 4), factor)])
    other = MuonAdam([{"params": plain, "matrices": True}], **settings)
    for step in range(3):
        give_gradients(weights, step)
        for p, q in zip(weights, plain, strict=True):
            q.grad = p.grad @ factor if p is not weights[2] else p.grad.clone()
        optimizer.step()
        other.step()
    for p, q in zip(weights, plain, strict=True):
        expected = q if p is weights[2] else q @ factor
        torch.testing.assert_close(p.detach(), expected.detach(), rtol=0, atol=2e-4)


def test_vectors_are_not_preconditioned() -> None:
    (vector,) = leaves((5,))
    optimizer = MuonAdam([{"params": [vector], "matrices": False}])
    optimizer.precondition([(vector, torch.eye(5))])
    assert not optimizer._preconditioners
