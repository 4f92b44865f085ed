"""The COLOUR section of index streams: when there is one, what it says, and what is wrong with it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latentpress.codecs.bitstream import (
    CorruptStream,
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    read_container,
    write_container,
)
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_colour_section import CellColours, read_colours, write_colours
from latentpress.codecs.index_colours import ColourChoice, _quantised
from latentpress.codecs.index_payload import split_packets

BLUE = torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None]


def blue_and_white(height: int = 80, width: int = 112) -> torch.Tensor:
    x = torch.full((3, height, width), 255, dtype=torch.uint8)
    x[:, :, : width // 2] = BLUE
    return x


@pytest.fixture(scope="module")
def codec(tiny_residual_codec) -> IndexCodec:
    return tiny_residual_codec


@pytest.fixture(scope="module")
def packed(codec) -> bytes:
    return codec.compress(blue_and_white(), quality=70, packets=6)


def with_colours(data: bytes, content: bytes | None) -> bytes:
    """The stream with another COLOUR section."""
    container = read_container(data)
    kept = [section for section in container.sections if section.type != SectionType.COLOUR]
    added = [] if content is None else [(int(SectionType.COLOUR), content)]
    return write_container(container.codec_id, container.fingerprint, [*added, *kept])


@pytest.mark.parametrize("options", [{"quality": 0}, {"quality": 60}, {"quality": 96}, {"packets": 3}])
@pytest.mark.parametrize("size", [(64, 64), (37, 83), (5, 3)])
def test_plain_colours_come_back(codec, options, size) -> None:
    x = BLUE.expand(3, *size).contiguous()
    data = codec.compress(x, **options)
    assert read_container(data).get(SectionType.COLOUR) is not None
    assert torch.equal(codec.decompress(data), x)
    codec.verify(data)


def test_edges_come_closer_and_white_stays(codec, packed) -> None:
    x = blue_and_white().float()
    without = codec.decompress(with_colours(packed, None)).float()
    found = codec.decompress(packed).float()
    assert (found - x).square().mean() < 0.7 * (without - x).square().mean()
    assert torch.equal(found[:, :, 80:], without[:, :, 80:])


def test_other_pictures_have_no_section(codec, picture) -> None:
    for x in (picture(40, 56), picture(40, 56, 1), torch.full((3, 40, 40), 255, dtype=torch.uint8)):
        assert read_container(codec.compress(x)).get(SectionType.COLOUR) is None
    alternating = BLUE.expand(3, 64, 64).contiguous()
    alternating[:, ::2] = 255
    assert not ColourChoice(alternating.float() / 255).possible


@pytest.mark.parametrize("packets", [1, 4])
def test_targets_count_the_section(codec, packets) -> None:
    x = blue_and_white()
    smallest = len(codec.compress(x, quality=0, packets=packets))
    for target in (smallest + 20, 2 * smallest, 6 * smallest, 20 * smallest):
        assert len(codec.compress(x, target_bytes=target, packets=packets)) <= target


def test_a_target_may_leave_no_room_for_colours(codec) -> None:
    x = blue_and_white()
    bare = len(with_colours(codec.compress(x, quality=0), None))
    data = codec.compress(x, target_bytes=bare)
    assert len(data) <= bare
    assert read_container(data).get(SectionType.COLOUR) is None
    with pytest.raises(ValueError, match="cannot be met"):
        codec.compress(x, target_bytes=bare - 5)


def test_lost_packets_keep_their_colours(codec, packed) -> None:
    damaged = bytearray(packed)
    damaged[-20] ^= 1
    found = codec.decompress(bytes(damaged), repair=True)
    assert found.report.lost_packets == (5,)
    assert not found.report.lost_sections
    assert torch.equal(found.picture[:, :32, :32], BLUE.expand(3, 32, 32))


def test_damaged_colours_are_left_out_and_reported(codec, packed) -> None:
    bare = codec.decompress(with_colours(packed, None))
    for place in (13, 16, 20):
        damaged = bytearray(packed)
        damaged[place] ^= 0x10
        with pytest.raises(StreamError):
            codec.decompress(bytes(damaged))
        found = codec.decompress(bytes(damaged), repair=True)
        assert found.report.lost_sections
        assert found.report.lost_packets == ()
        assert torch.equal(found.picture, bare)
    alone = codec.decompress(b"".join(split_packets(packed)), repair=True)
    assert alone.report.lost_sections
    assert not codec.decompress(packed, repair=True).report.lost_sections


WRONG = {
    "empty": b"",
    "no colour": bytes([0, 1, 1]),
    "a colour too short": bytes([1, 0, 0]),
    "no run": bytes([1, 0, 0, 0]),
    "an empty run": bytes([1, 0, 0, 0, 0, 0]),
    "half a run": bytes([1, 0, 0, 0, 0]),
    "too many cells": bytes([1, 0, 0, 0, 0, 36]),
    "too many passed over": bytes([1, 0, 0, 0, 35, 1]),
    "a run without a colour": bytes([2, *range(6), 0, 1]),
    "a colour that there is not": bytes([2, *range(6), 0, 1, 2]),
    "a huge run": bytes([1, 0, 0, 0, 0]) + b"\xff" * 9 + b"\x01",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sections(codec, packed, name) -> None:
    data = with_colours(packed, WRONG[name])
    for read in (codec.decompress, codec.verify):
        with pytest.raises((CorruptStream, TruncatedStream)):
            read(data)
    found = codec.decompress(data, repair=True)
    assert found.report.lost_sections
    assert torch.equal(found.picture, codec.decompress(with_colours(packed, None)))


def test_grey_pictures_cannot_have_one(codec, picture) -> None:
    data = with_colours(codec.compress(picture(20, 20, 1)), bytes([1, 0, 0, 0, 0, 1]))
    for read in (codec.decompress, codec.verify):
        with pytest.raises(CorruptStream, match="grey"):
            read(data)


def test_mutations_under_right_checksums(codec) -> None:
    data = codec.compress(blue_and_white(40, 56), quality=30)
    section = read_container(data).get(SectionType.COLOUR)
    random = np.random.default_rng(4)
    for _ in range(300):
        mutant = bytearray(section)
        place = int(random.integers(len(mutant)))
        if random.integers(3):
            mutant[place] = int(random.integers(256))
        else:
            del mutant[place:]
        try:
            found = codec.decompress(with_colours(data, bytes(mutant)), limits=Limits(max_pixels=10_000))
        except StreamError:
            continue
        assert found.shape == (3, 40, 56)


@given(
    arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=st.integers(-1, 3)),
    arrays(np.int64, (4, 4), elements=st.integers(0, 7)),
)
def test_sections_round_trip(numbers, colours) -> None:
    numbers[0, 0] = 3
    found = read_colours(write_colours(CellColours(numbers, colours * [18, 18, 18, 1])), *numbers.shape)
    assert (found.numbers == numbers).all()
    assert (found.colours == colours * [18, 18, 18, 1]).all()


def test_many_colours_become_fewer() -> None:
    means = torch.rand((40, 50, 3), generator=torch.Generator().manual_seed(3))
    cells = _quantised(means, torch.zeros(40, 50), torch.ones(40, 50, dtype=torch.bool))
    assert 30 < len(cells.colours) <= 255
    assert np.abs(cells.colours[cells.numbers][..., :3] / 127 - means.numpy()).max() < 0.2
