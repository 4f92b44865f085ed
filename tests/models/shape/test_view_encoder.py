"""Posed images to tokens."""

import pytest
import torch

from latentpress.models.shape.view_encoder import ViewEncoder, timm_backbone


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ViewEncoder(32, depth=1, backbone_channels=16).eval()


def cameras(count: int) -> torch.Tensor:
    found = torch.eye(4).repeat(1, count, 1, 1)
    found[0, :, 0, 3] = torch.arange(count).float()
    return found


INTRINSICS = torch.tensor([[40.0, 0, 16], [0, 40, 16], [0, 0, 1]])


@torch.inference_mode()
def test_order_of_views_does_not_matter_but_their_places_do(encoder) -> None:
    images, poses = torch.rand(1, 3, 3, 32, 32), cameras(3)
    intrinsics = INTRINSICS.expand(1, 3, 3, 3)
    tokens = encoder(images, poses, intrinsics)
    assert tokens.shape == (1, *encoder.latent_shape)
    order = [2, 0, 1]
    torch.testing.assert_close(encoder(images[:, order], poses[:, order], intrinsics), tokens)
    elsewhere = encoder(images, poses[:, order], intrinsics)
    assert float((elsewhere - tokens).abs().max()) > 3e-5


def test_timm_is_asked_for_when_it_is_needed() -> None:
    pytest.importorskip("timm")
    backbone, channels = timm_backbone("resnet10t")
    assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, channels, 2, 2)
