"""CompressAI as a peer to measure against. Nothing in the library needs it."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import torch

# What its trained mbt2018-mean of quality 8 needs on Kodak is in assets/data/kodak_anchors.json.
PEER_MODEL = "mbt2018-mean"
PEER_QUALITY = 8
SERIAL_QUALITY = 6
# Standard deviations of latent channels spread over this many octaves, as trained models' do.
OCTAVES = 9.0
SEED = 7


def import_compressai() -> None:
    """Makes CompressAI importable beside a build of torch for which there is no torchvision.

    All that CompressAI 1.2.8 uses of torchvision when it is imported are the names in
    `torchvision.transforms`, so an empty module does.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    if importlib.util.find_spec("compressai") is None:
        raise ModuleNotFoundError("No module named 'compressai'", name="compressai")
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        standin = types.ModuleType("torchvision")
        transforms = types.ModuleType("torchvision.transforms")
        standin.__dict__["transforms"] = transforms
        sys.modules.update({"torchvision": standin, "torchvision.transforms": transforms})


def scale_table() -> list[float]:
    """The 64 standard deviations that CompressAI's models code with."""
    import_compressai()
    from compressai.models.google import get_scale_table

    table: list[float] = get_scale_table().tolist()
    return table


def gaussian_conditional() -> Any:
    """CompressAI's coder of Gaussian symbols, with its tables made."""
    import_compressai()
    from compressai.entropy_models import GaussianConditional

    coder = GaussianConditional(scale_table())
    coder.update()
    return coder.eval()


def realistic_model(pixels: torch.Tensor, bpp: float) -> Any:
    """A network of CompressAI's with random weights that writes as many bits as the trained one.

    Trained weights cannot be had without a network. Speed does not depend on what weights say, except through
    the symbols: random weights give latents near zero, which code in no time. So the last layer of the
    analysis is scaled channel by channel until the latents of this picture have standard deviations spread
    over several octaves, and the last layer of the hyper synthesis says just these. One common factor then
    sets the number of bits. Only the side information, whose tables are untrained too, has more bits than it
    would need, and the latents that many less.

    Args:
        pixels: float in [0, 1], shape (1, 3, H, W), sides that 64 divides.
        bpp: Bits a pixel that a file shall have, nearly.

    Returns:
        The model, ready to compress.
    """
    import_compressai()
    from compressai.zoo import mbt2018_mean

    torch.manual_seed(SEED)
    model = mbt2018_mean(PEER_QUALITY, pretrained=False).eval()
    with torch.inference_mode():
        latents = model.g_a(pixels)
        model.update()
        side_bits = 8 * len(model.entropy_bottleneck.compress(model.h_a(latents))[0])
        spread = latents.std((0, 2, 3)).clamp_min(1e-6)
        centre = latents.mean((0, 2, 3))
        shape = torch.exp2(torch.linspace(-OCTAVES / 2, OCTAVES / 2, len(spread)))
        unit = (latents - centre[:, None, None]) / spread[:, None, None]
        gain = _gain_for(unit, shape, bpp * pixels.shape[-2] * pixels.shape[-1] - side_bits)
        deviations = shape * gain
        last, hyper = model.g_a[-1], model.h_s[-1]
        factor = deviations / spread
        last.weight.mul_(factor[:, None, None, None])
        last.bias.copy_((last.bias - centre) * factor)
        hyper.weight.zero_()
        hyper.bias.copy_(torch.cat([deviations, torch.zeros_like(deviations)]))
    return model


def serial_model() -> Any:
    """CompressAI's Cheng2020 network with random weights, which decodes position after position.

    Returns:
        The model, ready to compress. What its weights say makes no difference to how often its context model
        runs, which is what takes the time.
    """
    import_compressai()
    from compressai.zoo import cheng2020_attn

    torch.manual_seed(SEED)
    model = cheng2020_attn(SERIAL_QUALITY, pretrained=False).eval()
    model.update()
    return model


def _gain_for(unit: torch.Tensor, shape: torch.Tensor, bits: float) -> float:
    """The common factor with which latents of these deviations need so many bits."""
    low, high = 1e-3, 1e3
    for _ in range(40):
        middle = (low * high) ** 0.5
        if _bits(unit, shape * middle) < bits:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _bits(unit: torch.Tensor, deviations: torch.Tensor) -> float:
    wide = deviations[:, None, None]
    symbols = torch.round(unit * wide)
    normal = torch.distributions.Normal(0.0, wide)
    mass = normal.cdf(symbols.abs() * -1 + 0.5) - normal.cdf(symbols.abs() * -1 - 0.5)
    return float(-torch.log2(mass.clamp_min(2.0**-16)).sum())
