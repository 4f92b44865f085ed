"""Training of a whole codec by parts: the same loss and gradients, whatever is compiled."""

import pytest
import torch

from latentpress.models.image.families import build_image_max_network
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.train.image_module import ImageTraining
from latentpress.train.image_partwise_module import ImagePartwiseTraining


def made(kind):
    torch.manual_seed(1)
    network = build_image_max_network(
        16, 16, 16, 1, 1, 4, 8, 8, context=SliceContextDesign(width=8, channel_context=8, shared_blocks=1)
    )
    return kind(network, lr=1e-2)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    return torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.tensor([10.0, 90.0])


def test_loss_and_gradients_are_those_of_the_whole(batch) -> None:
    found = []
    for kind in (ImageTraining, ImagePartwiseTraining):
        module = made(kind)
        torch.manual_seed(3)
        loss = module.loss_of_batch(*batch).loss
        loss.backward()
        gradients = {n: p.grad for n, p in module.network.named_parameters() if p.grad is not None}
        found.append((loss.detach(), gradients))
    torch.testing.assert_close(*found)
    assert any(name.startswith("analysis.") for name in found[1][1])
    assert any(name.startswith("context.") for name in found[1][1])


def test_parts_are_compiled_on_a_gpu_alone_and_once(batch, monkeypatch) -> None:
    module = made(ImagePartwiseTraining)
    asked = []
    parts = dict(module.network.named_modules())
    for name in ("analysis", "hyper_analysis", "hyper_synthesis", "synthesis", "context", "context.blocks.0"):
        monkeypatch.setattr(parts[name], "compile", lambda name=name: asked.append(name))
    module.loss_of_batch(*batch)
    assert asked == []

    class OnGpu:
        is_cuda = True

        def float(self):
            return batch[0].float()

    for _ in range(2):
        module.loss_of_batch(OnGpu(), batch[1])
    assert asked == ["analysis", "hyper_analysis", "hyper_synthesis", "synthesis", "context.blocks.0"]
