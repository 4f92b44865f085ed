"""Steps of one size in what layers put out."""

from types import SimpleNamespace

import torch
from torch import nn

from latentpress.models.image.network import build_image_network
from latentpress.train.data.images import CropBatch
from latentpress.train.image_module import ImageTraining
from latentpress.train.preconditioning import Preconditioning, SecondMoments, preconditioner


def test_strong_directions_become_as_strong_as_the_middle_one() -> None:
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.randn(5, 5)).Q
    deviation = torch.tensor([0.1, 0.5, 2.0, 7.0, 100.0])
    moment = turn * deviation.square() @ turn.mT
    factor = preconditioner(moment)
    after = torch.linalg.eigvalsh(factor @ moment @ factor).sqrt()
    torch.testing.assert_close(after, torch.tensor([0.1, 0.5, 2.0, 2.0, 2.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(factor, factor.mT)


def test_an_input_that_is_always_zero_has_one() -> None:
    assert torch.isfinite(preconditioner(torch.zeros(3, 3))).all()


def test_moments_are_means_over_all_that_was_seen() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    seen = torch.randn(3, 4, 5, 2)
    with SecondMoments(layer) as moments:
        layer(seen[:1])
        layer(seen[1:])
    flat = seen.reshape(-1, 2)
    torch.testing.assert_close(moments.mean()["0.weight"], flat.mT @ flat / len(flat))
    layer(seen)
    torch.testing.assert_close(moments.mean()["0.weight"], flat.mT @ flat / len(flat))


def test_callback_tells_the_optimiser_of_its_matrices() -> None:
    torch.manual_seed(2)
    module = ImageTraining(build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1))
    optimizer = module.configure_optimizers()
    batch = CropBatch(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.tensor([20.0, 80.0]))
    reduced = []

    def reduce(value: torch.Tensor, reduce_op: str) -> torch.Tensor:
        reduced.append(reduce_op)
        return value

    trainer = SimpleNamespace(
        train_dataloader=[batch, batch, batch],
        optimizers=[optimizer],
        strategy=SimpleNamespace(reduce=reduce),
    )
    Preconditioning(batches=2).on_train_start(trainer, module)
    matrices = optimizer.param_groups[0]["params"]
    names = {p: n for n, p in module.network.named_parameters()}
    without = {names[p] for p in matrices if p not in optimizer._preconditioners}
    assert not without
    assert set(reduced) == {"mean"}
    weight = module.network.analysis.blocks[0].value.weight
    assert optimizer._preconditioners[weight].shape == (16, 16)
    assert all(p.grad is None for p in module.network.parameters())
