"""Exports the transforms of an image codec to ONNX: one graph that encodes, one that decodes.

::

    encoder.onnx   image (B,3,H,W), quality (B) -> y (B,H/16,W/16,M), z (B,H/64,W/64,Z)
    decoder.onnx   y_hat (B,h,w,M), quality (B) -> image (B,3,16h,16w)

What is between them, rounding and entropy coding in integers, stays with this library: other arithmetic would
make other streams. So the graphs serve to run the expensive part elsewhere. They make the picture of PyTorch
but for the last bits of a float, which is under 1/255 of a pixel.

``python -m latentpress.train.export_onnx --weights image --out FOLDER``
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import load
from latentpress.codecs.whole_files import write_whole
from latentpress.models.image.network import ImageNetwork
from latentpress.models.image.transforms import STRIDE

OPSET = 17
ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"

# A graph is traced once, for a size whose latent has to be padded, and then has to fit all.
_TRACED_LATENT = (3, 5)


class EncoderGraph(nn.Module):
    """Picture to latents, in quantisation steps and not rounded.

    Args:
        network: Of the codec.
    """

    def __init__(self, network: ImageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, 3, H, W)`` in [0, 1], H and W multiples of 16, and ``(B,)`` to y and z."""
        y = self.network.analysis(image.permute(0, 2, 3, 1), quality)
        y = y * self.network.gain(quality)[:, None, None, :]
        return y, self.network.hyper_analysis(y, quality)


class DecoderGraph(nn.Module):
    """Decoded latent to picture.

    Args:
        network: Of the codec.
    """

    def __init__(self, network: ImageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Maps ``(B, h, w, M)`` and ``(B,)`` to ``(B, 3, 16h, 16w)`` in [0, 1]."""
        scaled = y_hat * self.network.inverse_gain(quality)[:, None, None, :]
        return self.network.synthesis(scaled, quality).permute(0, 3, 1, 2).clamp(0, 1)


def export_onnx(codec: ImageCodec, folder: str | Path) -> tuple[Path, Path]:
    """Writes both graphs.

    Args:
        codec: On the CPU.
        folder: Where; it is made if it is not there.

    Returns:
        Paths of the encoder and the decoder. Their metadata name the weights by fingerprint.

    Raises:
        ModuleNotFoundError: The extra ``onnx`` is not installed.
    """
    network = codec.network
    height, width = _TRACED_LATENT
    quality = torch.tensor([50.0])
    image = torch.zeros(1, 3, height * STRIDE, width * STRIDE)
    y_hat = torch.zeros(1, height, width, network.latent_channels)
    folder = Path(folder)
    encoder = _graph(
        EncoderGraph(network),
        (image, quality),
        {"image": {0: "batch", 2: "height", 3: "width"}, "quality": {0: "batch"}},
        {"y": {0: "batch", 1: "rows", 2: "columns"}, "z": {0: "batch", 1: "hyper_rows", 2: "hyper_columns"}},
        codec.fingerprint,
    )
    decoder = _graph(
        DecoderGraph(network),
        (y_hat, quality),
        {"y_hat": {0: "batch", 1: "rows", 2: "columns"}, "quality": {0: "batch"}},
        {"image": {0: "batch", 2: "height", 3: "width"}},
        codec.fingerprint,
    )
    write_whole(folder / ENCODER, encoder)
    write_whole(folder / DECODER, decoder)
    return folder / ENCODER, folder / DECODER


def main(args: Sequence[str] | None = None) -> None:
    """Exports a codec.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.train.export_onnx", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--weights", default="image", metavar="NAME", help="shipped name or path of a weight file"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER")
    options = parser.parse_args(args)
    try:
        codec = load(options.weights)
        if not isinstance(codec, ImageCodec):
            parser.error(f"{options.weights} is no image codec")
        paths = export_onnx(codec, options.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        parser.error(f"this needs {error.name}: pip install 'latentpress[onnx]'")
    for path in paths:
        print(f"written: {path} ({path.stat().st_size} bytes)")


def _graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: dict[str, dict[int, str]],
    outputs: dict[str, dict[int, str]],
    fingerprint: bytes,
) -> bytes:
    """One checked graph as bytes."""
    import onnx

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # The exporter by tracing: the newer one needs another package, and these networks do not need it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        options: dict[str, Any] = {"dynamo": False, "opset_version": OPSET, "do_constant_folding": True}
        torch.onnx.export(
            module.eval(),
            example,
            buffer,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=inputs | outputs,
            **options,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {"latentpress.fingerprint": fingerprint.hex()})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
