"""The transforms of the image codec in both arithmetics: what they decide and what they do not."""

import pytest
import torch
from skimage import data as samples

import latentpress
from latentpress.codecs import image_transforms
from latentpress.codecs.image_transforms import has_bfloat16_instructions


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_either_kind_of_instruction_is_enough(monkeypatch, amx, avx512) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert has_bfloat16_instructions() == (amx or avx512)


def test_a_torch_that_cannot_tell(monkeypatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not has_bfloat16_instructions()


@pytest.mark.parametrize("quality", [5, 60, 100])
def test_streams_of_either_arithmetic_decode_in_the_other(monkeypatch, quality) -> None:
    codec = latentpress.load("image")
    photo = torch.from_numpy(samples.astronaut()[:160, 128:320].copy()).permute(2, 0, 1)

    def use(lower: bool) -> None:
        monkeypatch.setattr(image_transforms, "has_bfloat16_instructions", lambda: lower)

    for encoder in (False, True):
        use(encoder)
        data = codec.compress(photo, quality=quality)
        decoded = []
        for decoder in (False, True):
            use(decoder)
            decoded.append(codec.decompress(data).int())
        apart = (decoded[0] - decoded[1]).abs()
        assert 0 < (apart != 0).float().mean() < 0.15
        assert (apart > 1).float().mean() < 1e-3
        assert apart.max() <= 3
