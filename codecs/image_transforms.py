"""The transforms of the image codec, applied to windows of a picture of any size.

::

    window of a picture -> pad to 16 -> analysis -> y of the window -> crop to the tile -> hyper analysis -> z
    y_hat of a window -> synthesis -> pixels of the window -> crop

Analysis and synthesis look at a limited neighbourhood, whose size follows from their layers. What is cropped
off a window is what did not see all of its own, so tiles of windows are the same as tiles of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.codecs.byte_weights import from_bytes
from latentpress.codecs.image_tiles import Region
from latentpress.codecs.latent_refinement import Latents
from latentpress.codecs.network_loading import build_network, fill_network
from latentpress.codecs.tamed_analysis import tamed_analysis
from latentpress.codecs.weights import WeightFile
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.image.families import build_from_config
from latentpress.models.image.network import ImageNetwork
from latentpress.models.image.transforms import STRIDE, AnalysisTransform, SynthesisTransform
from latentpress.models.layers import DepthwiseConv

INTEGER_PARTS = ("hyper_prior", "hyper_synthesis", "context")
"""Parts of the network that decide probability tables, and so run in integers."""

_PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**23}
"""How much goes through the transforms together: enough to keep a GPU busy, and no more than helps a CPU."""

# No public names of torch, so a release may be without them.
_BFLOAT16_PROBES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies matrices of bfloat16 faster than those of float32.

    AMX does it four times as fast, AVX-512 with BF16 twice as fast. Then the branches of the
    transforms' blocks run so. That decides no symbol: an encoder's latents change by about a hundredth of a
    step, and of decoded values one in ten is one of 255 steps away, seldom more.
    """
    probes = (getattr(torch.cpu, name, None) for name in _BFLOAT16_PROBES)
    return any(probe() for probe in probes if probe is not None)


def branches_in_bfloat16(device: torch.device) -> torch.autocast:
    """Transforms run so in this context where it is faster, which is on some processors.

    Args:
        device: Of the network.
    """
    lower = device.type == "cpu" and has_bfloat16_instructions()
    return torch.autocast("cpu", torch.bfloat16, enabled=lower)


class ImageTransforms:
    """Analysis and synthesis of one network.

    Args:
        network: In evaluation mode, on its device.

    Attributes:
        network: As given.
        reach: How far the transforms see, in positions of the latent.
    """

    def __init__(self, network: ImageNetwork) -> None:
        self.network = network
        self.reach = max(_reach(network.analysis), _reach(network.synthesis))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.gain.knots.device

    def windows_at_once(self, window: Region) -> int:
        """How many windows of a size, in pixels, should go through the transforms together, at least one."""
        budget = _PIXELS_AT_ONCE.get(self.device.type, _PIXELS_AT_ONCE["cuda"])
        return max(1, budget // (window.height * window.width))

    def quality(self, tenths: Iterable[int]) -> Tensor:
        """Qualities as the networks take them, from tenths."""
        return torch.tensor([number / 10 for number in tenths], dtype=torch.float32, device=self.device)

    @torch.inference_mode()
    def analyse(self, pictures: Tensor, quality: Tensor) -> Tensor:
        """Transforms pictures, or windows of pictures, to y.

        Args:
            pictures: ``(B, 3, H, W)`` or ``(B, 1, H, W)`` in [0, 1], on the network's device.
            quality: ``(B,)``.

        Returns:
            ``(B, ceil(H/16), ceil(W/16), M)`` in quantisation steps.
        """
        height, width = pictures.shape[2:]
        padded = F.pad(pictures, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        gain: Tensor = self.network.gain(quality)[:, None, None, :]
        y = tamed_analysis(
            padded.expand(-1, 3, -1, -1),
            lambda x: self._transformed(self.network.analysis, x.permute(0, 2, 3, 1).contiguous(), quality),
            lambda y: self._apply(self.network.hyper_analysis, y * gain, quality),
            lambda y, shift: self.synthesise(_quantised(y * gain, shift), quality),
        )
        return y * gain

    @torch.inference_mode()
    def with_side_information(self, y: Tensor, quality: Tensor) -> Latents:
        """Adds z to y ``(B, h, w, M)``, which may be a tile of a larger one."""
        return Latents(y, self._apply(self.network.hyper_analysis, y, quality))

    @torch.inference_mode()
    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Transforms decoded latents.

        Args:
            y_hat: ``(B, h, w, M)``.
            quality: ``(B,)``.

        Returns:
            Pictures ``(B, 3, 16h, 16w)`` around [0, 1], not clamped.
        """
        scaled = y_hat * self.network.inverse_gain(quality)[:, None, None, :]
        return self._transformed(self.network.synthesis, scaled, quality).permute(0, 3, 1, 2)

    def _transformed(self, transform: nn.Module, items: Tensor, quality: Tensor) -> Tensor:
        """Analysis or synthesis, in the arithmetic that suits the machine."""
        with branches_in_bfloat16(self.device):
            return self._apply(transform, items, quality)

    def _apply(self, transform: nn.Module, items: Tensor, quality: Tensor) -> Tensor:
        """Transforms a batch; on a CPU one by one, which is as fast, so that each is what it is alone."""
        if self.device.type != "cpu" or len(items) == 1:
            whole: Tensor = transform(items, quality)
            return whole
        return torch.cat([transform(items[k : k + 1], quality[k : k + 1]) for k in range(len(items))])


def _quantised(y: Tensor, shift: float) -> Tensor:
    """Latents rounded to steps that are shifted by a share of one; small ones to zero, wherever steps are."""
    return torch.where(y.abs() < 0.5, 0.0, torch.round(y + shift) - shift)


def with_channels(pictures: Tensor, channels: int) -> Tensor:
    """Pictures ``(..., 3, H, W)`` as they are, or grey as the mean of the three if there is one channel."""
    return pictures.mean(dim=-3, keepdim=True) if channels == 1 else pictures


# Weights that were made in inference mode would let no gradients pass, and refinement needs some.
@torch.inference_mode(False)
def load_image_network(weights: WeightFile, device: torch.device) -> ImageNetwork:
    """Builds the network of a weight file; its entropy parts become integer networks.

    Args:
        weights: Of one of the families of image networks.
        device: Where to.

    Raises:
        ValueError: The arrays do not fit the network, or it would be far larger than they are.
    """
    tensors = from_bytes({k: v for k, v in weights.tensors.items() if not k.startswith("tables.")})
    network = build_network(
        lambda: build_from_config(weights.family, weights.config), weights.config, tensors
    )
    _fill(network, tensors)
    return network.eval().requires_grad_(False).to(device)


def _fill(network: ImageNetwork, tensors: Mapping[str, Any]) -> None:
    for part in INTEGER_PARTS:
        setattr(network, part, convert(getattr(network, part)))
    fill_network(network, tensors)


def _reach(transform: AnalysisTransform | SynthesisTransform) -> int:
    """How far a transform sees, in positions of the latent: every depthwise kernel adds half its size."""
    fine = _half_kernels(transform.blocks) + _half_kernels(transform.mixers)
    deep = _half_kernels(transform.deep_blocks) + _half_kernels(transform.deep_mixers)
    return deep + -(-fine // 2)


def _half_kernels(blocks: nn.Module) -> int:
    layers = [layer for layer in blocks.modules() if isinstance(layer, DepthwiseConv)]
    return sum(layer.weight.shape[-1] // 2 for layer in layers)
