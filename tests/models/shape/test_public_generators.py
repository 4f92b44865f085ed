"""Adapters of public generators, with stand-ins that have the models' interfaces and shapes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latentpress.models.shape.plugins import (
    ColouredMesh,
    Generator3D,
    make_encoder,
    make_generator,
    register_encoder,
    register_generator,
)
from latentpress.models.shape.public_generators import ShapEGenerator, TriplaneGenerator

VERTICES = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
FACES = torch.tensor([[0, 1, 2]])


class ShapEStandIn:
    """What of diffusers' ShapEPipeline the adapter uses."""

    def __init__(self):
        self.shap_e_renderer = self

    def __call__(self, prompts, output_type):
        assert output_type == "latent"
        return SimpleNamespace(images=torch.zeros(len(prompts), 1024 * 1024))

    def decode_to_mesh(self, latents, device, grid_size=128):
        assert latents.shape == (1, 1024, 1024)
        channels = {name: torch.full((3,), 0.5 + k) for k, name in enumerate("RGB")}
        return SimpleNamespace(verts=VERTICES, faces=FACES, vertex_channels=channels)


class TriplaneStandIn:
    """What of TripoSR's TSR the adapter uses."""

    def __call__(self, images, device):
        return torch.zeros(len(images), 3, 40, 64, 64)

    def extract_mesh(self, scene_codes, resolution=256, threshold=25.0):
        assert resolution == 128
        colours = np.full((3, 4), 255, np.uint8)
        mesh = SimpleNamespace(vertices=VERTICES.numpy(), faces=FACES.numpy())
        mesh.visual = SimpleNamespace(vertex_colors=colours)
        return [mesh] * len(scene_codes)


@pytest.mark.parametrize(
    ("generator", "inputs"),
    [
        (ShapEGenerator(ShapEStandIn()), ["a chair", "a dog"]),
        (make_generator("triplane", model=TriplaneStandIn()), [object(), object()]),
    ],
)
def test_latents_and_meshes(generator, inputs) -> None:
    assert isinstance(generator, Generator3D)
    latents = generator.sample(inputs)
    assert latents.shape == (2, *generator.latent_shape)
    mesh = generator.mesh(latents[0])
    assert isinstance(mesh, ColouredMesh)
    assert mesh.vertices.dtype == np.float32
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.colours.shape == (3, 3)
    assert mesh.colours.max() <= 1
    with pytest.raises(ValueError, match="expected a latent of shape"):
        generator.mesh(latents)


def test_names() -> None:
    register_encoder(
        "means of a test", lambda: SimpleNamespace(latent_shape=(9,), encode=lambda p: p.mean(1))
    )
    assert make_encoder("means of a test").encode(torch.ones(2, 5, 9)).shape == (2, 9)
    with pytest.raises(ValueError, match="registered already"):
        register_generator("shap-e", TriplaneGenerator)
    with pytest.raises(ValueError, match="no encoder 'nothing': registered are means of a test"):
        make_encoder("nothing")
