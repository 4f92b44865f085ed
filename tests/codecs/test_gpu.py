"""What a GPU decodes is what the CPU decodes. Needs a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import read_container
from latentpress.codecs.registry import load
from latentpress.codecs.weights import read_weight_file

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
WEIGHTS = {read_weight_file(path).fingerprint(): path for path in FOLDER.glob("*.safetensors")}
STREAMS = [
    path.name
    for path in sorted(FOLDER.glob("*.lpz"))
    if read_container(path.read_bytes()).fingerprint in WEIGHTS
]

SHAPES = [name for name in STREAMS if name.startswith(("shape", "polygons"))]


def decoded_by_both(name: str) -> tuple[Any, Any]:
    data = (FOLDER / name).read_bytes()
    weights = WEIGHTS[read_container(data).fingerprint]
    return load(weights, "cpu").decompress(data), load(weights, "cuda").decompress(data)


@pytest.mark.parametrize("name", sorted({*STREAMS} - {*SHAPES}))
def test_golden_arrays(name) -> None:
    expected, found = (np.asarray(torch.as_tensor(array).cpu()) for array in decoded_by_both(name))
    if expected.dtype.kind == "u":
        assert np.abs(expected.astype(int) - found.astype(int)).max() <= 1
    else:
        largest = np.abs(expected[np.isfinite(expected)]).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * largest)


@pytest.mark.parametrize("name", SHAPES)
def test_golden_shapes(name) -> None:
    """Where the surface just touches a cell, one of the two has a triangle more."""
    pytest.importorskip("skimage")
    from scipy.spatial import cKDTree

    expected, found = decoded_by_both(name)
    assert len(found.vertices) == pytest.approx(len(expected.vertices), rel=1e-3)
    distances, nearest = cKDTree(expected.vertices).query(found.vertices)
    assert np.quantile(distances, 0.999) < 1e-4 * expected.extents.max()
    if hasattr(expected.visual, "vertex_colors"):
        colours = (shape.visual.vertex_colors.astype(int) for shape in (expected, found))
        difference = np.abs(next(colours)[nearest] - next(colours))
        assert np.quantile(difference, 0.999) <= 1


@pytest.mark.parametrize("name", ["image_tiny", "image-max_tiny"])
class TestPictures:
    @pytest.fixture
    def on_gpu(self, name):
        return load(FOLDER / f"{name}.safetensors", "cuda")

    def test_a_refined_stream_decodes_on_the_cpu(self, name, on_gpu, picture) -> None:
        data = on_gpu.compress(picture(64, 96), quality=60, effort=1)
        on_cpu = load(FOLDER / f"{name}.safetensors").decompress(data)
        assert int((on_gpu.decompress(data).cpu().int() - on_cpu.int()).abs().max()) <= 1

    def test_a_batch_takes_autocast_over(self, on_gpu, picture) -> None:
        streams = [on_gpu.compress(picture(64, 96, seed=seed), quality=95) for seed in range(4)]
        exact = on_gpu.decompress_batch(streams, processes=2)
        with torch.autocast("cuda", torch.bfloat16):
            alone = [on_gpu.decompress(data) for data in streams]
            batch = on_gpu.decompress_batch(streams, processes=2)
        assert not all(map(torch.equal, exact, alone))
        for one, same in zip(alone, batch, strict=True):
            assert int((one.int() - same.int()).abs().max()) <= 1
