"""The loss, and a short real training."""

import json
import math

import lightning
import pytest
import torch
from safetensors.torch import save_file

from latentpress.models.image.network import ImageNetworkOutput, build_image_network
from latentpress.train.data.images import ImageDataModule
from latentpress.train.image_module import ImageTraining, rate_distortion_loss


def output(image: torch.Tensor, y_bits: float, z_bits: float) -> ImageNetworkOutput:
    count = len(image)
    return ImageNetworkOutput(image, torch.full((count,), y_bits), torch.full((count,), z_bits))


def test_loss_by_hand() -> None:
    target = torch.zeros(2, 16, 16, 3)
    quality = torch.tensor([0.0, 100.0])
    terms = rate_distortion_loss(output(target + 2 / 255, 200, 56), target, quality, 0.01, 0.04)
    # 1 bit a pixel, a squared error of 4, lambdas 0.01 and 0.04.
    balance = (0.01 * 0.04) ** 0.25
    expected = [balance * (1 + weight * 4) / math.sqrt(weight) for weight in (0.01, 0.04)]
    assert float(terms.loss) == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert float(terms.bpp) == pytest.approx(1)
    assert float(terms.squared_error) == pytest.approx(4, rel=1e-5)


def test_lambda_is_geometric_in_the_quality() -> None:
    target = torch.zeros(1, 16, 16, 3)

    def loss(quality: float) -> float:
        quality = torch.tensor([quality])
        return float(rate_distortion_loss(output(target + 1, 0, 0), target, quality, 0.001, 0.1).loss)

    # Without a rate the loss goes with the square root of lambda.
    assert loss(50) ** 2 == pytest.approx(loss(0) * loss(100), rel=1e-5)
    assert loss(100) / loss(0) == pytest.approx(10, rel=1e-5)


def training(tiny_config, **options) -> ImageTraining:
    torch.manual_seed(0)
    return ImageTraining(build_image_network(**tiny_config), val_qualities=(0, 50, 100), **options)


@pytest.mark.parametrize("matrices_with_muon", [True, False])
def test_short_training(tiny_config, photographs, make_trainer, tmp_path, matrices_with_muon) -> None:
    module = training(tiny_config, matrices_with_muon=matrices_with_muon, lr=3e-3)
    data = ImageDataModule(str(photographs), str(photographs), crop_size=64, batch_size=4, workers=1)
    losses = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
            with torch.no_grad():
                losses.append(float(module.loss_of_batch(*batch).loss))

    trainer = make_trainer(callbacks=[Watch()], max_steps=30, val_check_interval=30)
    trainer.fit(module, data)
    assert trainer.global_step == 30
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    (line,) = (tmp_path / "rd_points.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["step"] == 30
    assert record["qualities"] == [0, 50, 100]
    assert len(record["bpp"]) == len(record["psnr"]) == 3
    assert all(0 < value < 24 for value in record["bpp"])


def test_validation_measures_8_bit_pixels(tiny_config, photographs, make_trainer, tmp_path) -> None:
    module = training(tiny_config)
    data = ImageDataModule(str(photographs), str(photographs), crop_size=64)
    make_trainer().validate(module, data, verbose=False)
    record = json.loads((tmp_path / "rd_points.jsonl").read_text())
    module.eval()
    expected = []
    for image in data.val_dataloader():
        with torch.no_grad():
            found = module.network(image[None].float() / 255, torch.tensor([50.0]))
        decoded = (found.image[0].clamp(0, 1) * 255).round().to(torch.uint8)
        error = (decoded.double() - image.double()).square().mean()
        bpp = (found.y_bits + found.z_bits).item() / (image.shape[0] * image.shape[1])
        expected.append((bpp, 10 * math.log10(255**2 / float(error))))
    assert record["bpp"][1] == pytest.approx(sum(e[0] for e in expected) / 2, abs=1e-4)
    assert record["psnr"][1] == pytest.approx(sum(e[1] for e in expected) / 2, abs=1e-3)


def test_start_from_weights(tiny_config, tiny_state, tmp_path) -> None:
    path = tmp_path / "start.safetensors"
    save_file({k: v.contiguous() for k, v in tiny_state.items()}, path)
    module = training(tiny_config, init_from=str(path))
    for name, tensor in module.network.state_dict().items():
        assert torch.equal(tensor, tiny_state[name])
