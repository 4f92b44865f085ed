"""Pictures in tiles: any region alone, no more decoded than it needs, damage only where it is."""

import pytest
import torch

from latentpress.codecs.bitstream import CorruptStream, LimitExceeded, Limits, StreamError
from latentpress.codecs.image_tiles import Region, TileGrid
from latentpress.codecs.registry import inspect

HEIGHT, WIDTH = 200, 270

REGIONS = [
    (0, 0, HEIGHT, WIDTH),
    (0, 0, 1, 1),
    (HEIGHT - 1, WIDTH - 1, 1, 1),
    (64, 64, 64, 64),
    (63, 127, 2, 2),
    (10, 100, 150, 33),
    (190, 0, 10, WIDTH),
]


def layers(x: torch.Tensor, channels: int, bits: int) -> torch.Tensor:
    """RGB as grey or RGB, with alpha if the number of channels is even."""
    planes = x[: 1 if channels < 3 else 3].clone()
    if channels % 2 == 0:
        slope = torch.arange(x.shape[2]).clamp(max=255).expand(1, x.shape[1], -1)
        planes = torch.cat([planes, slope.to(torch.uint8)])
    return planes if bits == 8 else (planes.int() * 257).to(torch.uint16)


@pytest.fixture(scope="module")
def stream(tiny_codec, picture) -> bytes:
    return tiny_codec.compress(picture(HEIGHT, WIDTH), quality=80, tile_size=64)


def as_integers(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.int32)


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_is_that_of_the_whole(tiny_codec, stream, region):
    whole = tiny_codec.decompress(stream)
    top, left, height, width = region
    expected = whole[:, top : top + height, left : left + width]
    found = tiny_codec.decompress(stream, region=region)
    assert found.shape == expected.shape
    assert (as_integers(found) - as_integers(expected)).abs().max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_alpha_and_depth(tiny_codec, picture, channels, bits):
    x = layers(picture(100, 140), channels, bits)
    data = tiny_codec.compress(x, quality=90, tile_size=64)
    whole = tiny_codec.decompress(data)
    assert (whole.shape, whole.dtype) == (x.shape, x.dtype)
    step = 1 if bits == 8 else 257
    if channels % 2 == 0:
        assert (as_integers(whole[-1]) - as_integers(x[-1])).abs().max() <= 2 * step
    part = tiny_codec.decompress(data, region=(50, 60, 40, 70))
    assert part.dtype == x.dtype
    assert (as_integers(part) - as_integers(whole[:, 50:90, 60:130])).abs().max() <= step


def test_tiles_are_as_good_as_the_whole(tiny_codec, picture, stream):
    x = picture(HEIGHT, WIDTH)
    assert inspect(stream).parameters["tiles"] == 4 * 5
    errors = [
        (tiny_codec.decompress(data).double() - x).square().mean()
        for data in (stream, tiny_codec.compress(x, quality=80, tile_size=0))
    ]
    assert errors[0] < 1.2 * errors[1]


def test_what_fits_into_a_tile_has_none(tiny_codec, picture):
    x = picture(60, 64)
    assert tiny_codec.compress(x, tile_size=64) == tiny_codec.compress(x, tile_size=0)


@pytest.mark.parametrize("target", [{"target_bytes": 6000}, {"target_bpp": 1.2}])
def test_targets_hold(tiny_codec, picture, target):
    data = tiny_codec.compress(picture(HEIGHT, WIDTH), tile_size=64, **target)
    limit = target.get("target_bytes") or target["target_bpp"] * HEIGHT * WIDTH / 8
    assert 0.8 * limit < len(data) <= limit


def test_bands_are_the_picture(tiny_codec, stream):
    bands = tiny_codec.decompress_bands(stream)
    assert bands.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(torch.cat(list(bands), dim=1), tiny_codec.decompress(stream))


def test_limits_are_those_of_what_is_decoded(tiny_codec, stream):
    limits = Limits(max_pixels=HEIGHT * WIDTH - 1)
    with pytest.raises(LimitExceeded):
        tiny_codec.decompress(stream, limits=limits)
    assert tiny_codec.decompress(stream, region=(0, 0, 20, 20), limits=limits).shape == (3, 20, 20)


def test_damage_stays_where_it_is(tiny_codec, stream):
    """In the last tile, whose payload is the last in the stream."""
    from latentpress.codecs.testing import with_right_checksums

    damaged = bytearray(stream)
    damaged[-8] ^= 1
    data = with_right_checksums(bytes(damaged))
    far = (0, 0, 32, 32)
    assert torch.equal(tiny_codec.decompress(data, region=far), tiny_codec.decompress(stream, region=far))
    for region in (None, (HEIGHT - 8, WIDTH - 8, 8, 8)):
        with pytest.raises(CorruptStream):
            tiny_codec.decompress(data, region=region)
    with pytest.raises(StreamError):
        tiny_codec.decompress(bytes(damaged), region=far)  # the container's checksum is of all


@pytest.mark.parametrize("size", [-64, 1, 100, 64.0])
def test_wrong_sizes_of_tiles(tiny_codec, picture, size):
    with pytest.raises((TypeError, ValueError), match=r"tile"):
        tiny_codec.compress(picture(100, 100), tile_size=size)


@pytest.mark.parametrize(
    ("region", "error"),
    [
        ((0, 0, HEIGHT + 1, 1), ValueError),
        ((-1, 0, 5, 5), ValueError),
        ((0, WIDTH, 1, 1), ValueError),
        ((0, 0, 0, 5), ValueError),
        ((0, 0, 5), TypeError),
        ((0.0, 0, 5, 5), TypeError),
    ],
)
def test_wrong_regions(tiny_codec, stream, region, error):
    with pytest.raises(error):
        tiny_codec.decompress(stream, region=region)


def test_grid():
    grid = TileGrid(HEIGHT, WIDTH, 64)
    assert (grid.rows, grid.columns, grid.count) == (4, 5, 20)
    tiles = [grid.tile(number) for number in range(grid.count)]
    assert sum(tile.height * tile.width for tile in tiles) == HEIGHT * WIDTH
    assert tiles[0] == Region(0, 0, 64, 64)
    assert tiles[-1] == Region(192, 256, 8, 14)
