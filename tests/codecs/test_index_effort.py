"""An encoder that measures what finer indices do, and weights that have a pattern to take away."""

import pytest
import torch

from latentpress.codecs.bitstream import DEFAULT_LIMITS
from latentpress.codecs.index import TEXTURE_PATTERN, IndexCodec
from latentpress.codecs.weights import ADDITION
from latentpress.models.index.granularity import CELL
from latentpress.models.wasserstein import wasserstein_distortion
from latentpress.train.index_texture import common_pattern, with_pattern


@pytest.mark.parametrize("packets", [1, 3])
def test_a_target_is_met_with_effort_too(tiny_index_codec, picture, packets) -> None:
    x = picture(96, 80)
    data = tiny_index_codec.compress(x, target_bytes=400, packets=packets, effort=1)
    assert 250 < len(data) <= 400
    assert tiny_index_codec.decompress(data).shape == x.shape


def test_shares_of_the_area_are_kept(tiny_index_codec, picture) -> None:
    data = tiny_index_codec.compress(picture(64, 64), granularity=(0.5, 0.25, 0.25), effort=4)
    grains = tiny_index_codec._receive(data, DEFAULT_LIMITS).grains
    cells = (64 // CELL) ** 2
    assert int(grains.split.sum()) == cells // 2
    assert int(grains.fine.sum()) == cells


def test_small_books_need_no_effort(tiny_index_codec, picture) -> None:
    x = picture(48, 48)
    streams = [tiny_index_codec.compress(x, quality=5, effort=effort) for effort in (0, 1)]
    assert streams[0] == streams[1]


@pytest.mark.parametrize(("effort", "error"), [(-1, ValueError), (11, ValueError), (0.5, TypeError)])
def test_what_is_no_effort_is_refused(tiny_index_codec, picture, effort, error) -> None:
    with pytest.raises(error, match="effort"):
        tiny_index_codec.compress(picture(16, 16), effort=effort)


def test_shipped_weights_put_detail_where_it_helps() -> None:
    from skimage import data

    from latentpress import load

    codec = load("index")
    image = torch.from_numpy(data.astronaut()[:256, 128:384].copy()).permute(2, 0, 1)
    distortions = []
    for effort in (0, 1):
        found = codec.decompress(codec.compress(image, target_bpp=0.15, effort=effort))
        x, y = (part[None].float() / 255 for part in (image, found))
        distortions.append(float(wasserstein_distortion(x, y)))
    assert distortions[1] < 0.9 * distortions[0]


def test_a_pattern_is_an_addition(tiny_index_weights, tiny_index_codec, picture) -> None:
    """Streams and fingerprint stay, coarse cells change and finer ones do not."""
    pictures = [picture(64, 64).permute(1, 2, 0), picture(48, 96).permute(1, 2, 0)]
    found = common_pattern(tiny_index_codec.model, pictures)
    assert found.decoded > found.true
    weights = with_pattern(tiny_index_weights, found.pattern)
    assert ADDITION + TEXTURE_PATTERN in weights.tensors
    codec = IndexCodec(weights)
    assert codec.fingerprint == tiny_index_codec.fingerprint
    x = picture(64, 64)
    for quality, same in ((14, False), (100, True)):
        data = codec.compress(x, quality=quality)
        assert data == tiny_index_codec.compress(x, quality=quality)
        assert torch.equal(codec.decompress(data), tiny_index_codec.decompress(data)) == same
