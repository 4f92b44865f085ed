"""Adapters of public generators: Shap-E as diffusers has it, and triplane models such as TripoSR.

They are written against the models' public interfaces and hold no weights; whoever has these hands the loaded
model over, or has it loaded from a folder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentpress.models.shape.plugins import ColouredMesh, register_generator

SHAP_E_LATENT = (1024, 1024)
"""Shap-E's latent: 1024 vectors that become rows of an implicit function's weights (arXiv 2305.02463)."""

TRIPO_LATENT = (3, 40, 64, 64)
"""TripoSR's scene code: three planes of 40 channels (arXiv 2403.02151, table 1)."""


class ShapEGenerator:
    """Shap-E through diffusers' ``ShapEPipeline``.

    Args:
        pipeline: A loaded pipeline, of which ``shap_e_renderer.decode_to_mesh`` is used; None to load one.
        path: Folder or name that ``ShapEPipeline.from_pretrained`` loads.
        device: Where it runs.
        grid_size: Cells each way of the mesh's grid.
    """

    latent_shape: tuple[int, ...] = SHAP_E_LATENT

    def __init__(
        self,
        pipeline: Any = None,
        path: str = "openai/shap-e",
        device: str = "cpu",
        grid_size: int = 128,
    ) -> None:
        if pipeline is None:
            from diffusers import ShapEPipeline

            pipeline = ShapEPipeline.from_pretrained(path).to(device)
        self.pipeline = pipeline
        self.device = torch.device(device)
        self.grid_size = grid_size

    def sample(self, prompts: list[str], **options: Any) -> Tensor:
        """Latents ``(B, 1024, 1024)`` for texts; options are the pipeline's."""
        latents: Tensor = self.pipeline(prompts, output_type="latent", **options).images
        return latents.reshape(len(latents), *self.latent_shape)

    def mesh(self, latent: Tensor) -> ColouredMesh:
        """The mesh of one latent ``(1024, 1024)``."""
        _check(latent, self.latent_shape)
        given = latent[None].to(self.device)
        found = self.pipeline.shap_e_renderer.decode_to_mesh(given, self.device, grid_size=self.grid_size)
        colours = [found.vertex_channels[name] for name in "RGB"]
        return ColouredMesh(
            _array(found.verts, np.float32),
            _array(found.faces, np.int64),
            np.stack([_array(channel, np.float32) for channel in colours], axis=1).clip(0, 1),
        )


class TriplaneGenerator:
    """A triplane model whose ``extract_mesh`` makes meshes of scene codes, as TripoSR's does.

    Args:
        model: The loaded model.
        latent_shape: Of a scene code: planes, channels, rows, columns.
        resolution: Cells each way of the mesh's grid.
        vertex_colours: Ask for vertex colours; newer releases have an argument for it, older none.
    """

    def __init__(
        self,
        model: Any,
        latent_shape: tuple[int, ...] = TRIPO_LATENT,
        resolution: int = 128,
        vertex_colours: bool = False,
    ) -> None:
        self.model = model
        self.latent_shape = tuple(latent_shape)
        self.resolution = resolution
        self.options = {"has_vertex_color": True} if vertex_colours else {}

    def sample(self, images: list[Any], device: str = "cpu") -> Tensor:
        """Scene codes ``(B, *latent_shape)`` for images of objects."""
        codes: Tensor = self.model(images, device)
        return codes

    def mesh(self, latent: Tensor) -> ColouredMesh:
        """The mesh of one scene code."""
        _check(latent, self.latent_shape)
        (found,) = self.model.extract_mesh(latent[None], resolution=self.resolution, **self.options)
        colours = getattr(found.visual, "vertex_colors", None)
        rgb = None if colours is None else np.asarray(colours)[:, :3].astype(np.float32) / 255
        return ColouredMesh(np.asarray(found.vertices, np.float32), np.asarray(found.faces, np.int64), rgb)


def _check(latent: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(latent.shape) != shape:
        raise ValueError(f"expected a latent of shape {shape}, got {tuple(latent.shape)}")


def _array(values: Any, dtype: Any) -> Any:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values).astype(dtype)


register_generator("shap-e", ShapEGenerator)
register_generator("triplane", TriplaneGenerator)
