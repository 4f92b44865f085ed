"""The ONNX graphs see and make the same pictures as the codec."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latentpress.codecs.registry import load
from latentpress.train import export_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

WEIGHTS = Path(__file__).resolve().parent.parent / "golden" / "v1" / "image_tiny.safetensors"


@pytest.fixture(scope="module")
def codec():
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> Path:
    """The folder that the command writes."""
    folder = tmp_path_factory.mktemp("onnx") / "new"
    export_onnx.main(["--weights", str(WEIGHTS), "--out", str(folder)])
    return folder


def run(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def photo(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    planes = [128 + 100 * torch.sin(x / (5 + k)) * torch.cos(y / (9 - k)) for k in range(3)]
    return torch.stack(planes).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (16, 16), (33, 70)])
@pytest.mark.parametrize("quality", [0.0, 62.5, 100.0])
def test_same_latents_and_same_picture(codec, graphs, monkeypatch, height, width, quality):
    # Graphs run in float32 everywhere, the codec only where a processor has no units for bfloat16.
    monkeypatch.setattr("latentpress.codecs.image_transforms.has_bfloat16_instructions", lambda: False)
    picture = photo(height, width)
    asked = torch.tensor([quality])
    padded = F.pad(picture[None].float() / 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    y, z = run(graphs / "encoder.onnx", image=padded, quality=asked)
    expected_y, expected_z = codec.analyse(picture.float() / 255, asked)
    np.testing.assert_allclose(y, expected_y.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(z, expected_z.numpy(), rtol=1e-3, atol=1e-3)

    data = codec.compress(picture, quality=quality)
    _, y_hat = codec._decode_latent(data, export_limits())
    (image,) = run(graphs / "decoder.onnx", y_hat=y_hat, quality=asked)
    assert image.shape == (1, 3, *padded.shape[2:])
    assert 0 <= image.min() <= image.max() <= 1
    made = np.round(image[0, :, :height, :width] * 255).astype(int)
    assert np.abs(made - codec.decompress(data).numpy()).max() <= 1


def export_limits():
    from latentpress.codecs.bitstream import Limits

    return Limits()


def test_batches(graphs):
    pictures = torch.stack([photo(32, 48), photo(32, 48).flip(1)]).float() / 255
    quality = torch.tensor([10.0, 90.0])
    together = run(graphs / "encoder.onnx", image=pictures, quality=quality)[0]
    for k in range(2):
        alone = run(graphs / "encoder.onnx", image=pictures[k : k + 1], quality=quality[k : k + 1])[0]
        np.testing.assert_allclose(together[k], alone[0], rtol=1e-4, atol=1e-4)


def test_graphs_name_their_weights(codec, graphs):
    for name in ("encoder.onnx", "decoder.onnx"):
        model = onnx.load(graphs / name)
        assert [(entry.key, entry.value) for entry in model.metadata_props] == [
            ("latentpress.fingerprint", codec.fingerprint.hex())
        ]
        assert model.opset_import[0].version == export_onnx.OPSET


def test_wrong_weights(tmp_path, capsys):
    with pytest.raises(SystemExit):
        export_onnx.main(["--weights", "cello", "--out", str(tmp_path)])
    assert "unknown codec 'cello'" in capsys.readouterr().err
