"""An encoder of posed images: features of every picture, told where each ray comes from, gathered by tokens.

For radiance fields without silhouettes, from which nothing can be carved. The backbone is a stack of
convolutions, or any model of timm's with or without its weights. The library ships no weights of it: a
bridge is trained from its tokens like from any others.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.shape.generator import TOKEN_GRID
from latentpress.models.shape.layers import TransformerBlock, fourier_features, grid_anchors
from latentpress.models.shape.radiance import camera_rays

STRIDE = 16
"""Pixels a feature, each way."""


class ConvBackbone(nn.Module):
    """Four halvings of a picture, ``(B, 3, H, W) -> (B, C, H/16, W/16)``.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (3, channels // 4, channels // 2, channels, channels)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures in [0, 1]."""
        x = images
        for layer in self.layers:
            x = F.silu(layer(x))
        return x


def timm_backbone(name: str, pretrained: bool = False) -> tuple[nn.Module, int]:
    """A model of timm's as a backbone, and its channels.

    Args:
        name: Such as ``resnet18``; it must have features at 1/16 of the resolution.
        pretrained: Load its weights, which timm fetches from the network.

    Raises:
        ImportError: timm is not installed.
    """
    import timm

    model: Any = timm.create_model(name, pretrained=pretrained, features_only=True)
    level = model.feature_info.reduction().index(STRIDE)
    return _OneLevel(model, level), model.feature_info.channels()[level]


class _OneLevel(nn.Module):
    """One of the feature maps of a model."""

    def __init__(self, model: nn.Module, level: int) -> None:
        super().__init__()
        self.model = model
        self.level = level

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.model(images)[self.level]
        return found


class ViewEncoder(nn.Module):
    """Posed images to 64 tokens.

    ::

        images (B,V,3,H,W) -> backbone -> features ++ rays (origin, direction) -> one set over all views
        tokens at 4^3 anchors -> cross-attention to the set, self-attention, x depth -> (B,64,D)

    Args:
        channels: D.
        depth: Pairs of cross- and self-attention.
        backbone: Maps ``(B, 3, H, W)`` to ``(B, C, H/16, W/16)``; None for :class:`ConvBackbone`.
        backbone_channels: C.

    Attributes:
        latent_shape: ``(64, D)``.

    Example:
        >>> encoder = ViewEncoder(32, depth=1, backbone_channels=16)
        >>> cameras, intrinsics = torch.eye(4).expand(2, 3, 4, 4), torch.eye(3).expand(2, 3, 3, 3)
        >>> encoder(torch.rand(2, 3, 3, 32, 48), cameras, intrinsics).shape
        torch.Size([2, 64, 32])
    """

    def __init__(
        self, channels: int, depth: int, backbone: nn.Module | None = None, backbone_channels: int = 128
    ) -> None:
        super().__init__()
        self.latent_shape = (TOKEN_GRID**3, channels)
        self.backbone = ConvBackbone(backbone_channels) if backbone is None else backbone
        embedded = fourier_features(torch.zeros(1, 3)).shape[-1]
        self.stem = nn.Linear(backbone_channels + 2 * embedded, channels)
        self.anchor_stem = nn.Linear(embedded, channels)
        self.register_buffer("anchors", fourier_features(grid_anchors(TOKEN_GRID)), persistent=False)
        self.cross = nn.ModuleList(TransformerBlock(channels, channels) for _ in range(depth))
        self.blocks = nn.ModuleList(TransformerBlock(channels) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor, camera_to_world: Tensor, intrinsics: Tensor) -> Tensor:
        """Maps pictures to tokens.

        Args:
            images: ``(B, V, 3, H, W)`` RGB in [0, 1], sides multiples of 16; the object about in [-1, 1]^3.
            camera_to_world: ``(B, V, 4, 4)``, see ``radiance.camera_rays``.
            intrinsics: ``(B, V, 3, 3)`` in pixels.
        """
        batch, views = images.shape[:2]
        features = self.backbone(images.flatten(0, 1))
        height, width = features.shape[-2:]
        # Intrinsics of a picture of which a feature is a pixel.
        scaled = intrinsics.flatten(0, 1) / intrinsics.new_tensor([[STRIDE], [STRIDE], [1.0]])
        rays = []
        for camera, matrix in zip(camera_to_world.flatten(0, 1), scaled, strict=True):
            origins, directions = camera_rays(camera, matrix, height, width)
            rays.append(torch.cat((fourier_features(origins / 4), fourier_features(directions)), dim=-1))
        seen = torch.cat((features.permute(0, 2, 3, 1), torch.stack(rays)), dim=-1)
        seen = self.stem(seen.unflatten(0, (batch, views)).flatten(1, 3))
        tokens = self.anchor_stem(self.anchors).expand(batch, -1, -1)
        for cross, block in zip(self.cross, self.blocks, strict=True):
            tokens = block(cross(tokens, seen))
        return self.norm(tokens)
