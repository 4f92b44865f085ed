"""The index codec: pictures, targets, packets, repair, and damaged streams."""

import math

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_payload import needed_packets, read_body, split_packets
from latentpress.codecs.index_repair import RepairedPicture
from latentpress.codecs.index_trials import setting_of_quality
from latentpress.codecs.registry import inspect, read_metadata
from latentpress.codecs.weights import WeightFile
from latentpress.models.index.granularity import route, routing_scores


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def codec(tiny_index_codec) -> IndexCodec:
    return tiny_index_codec


@pytest.fixture(scope="module")
def packed(codec, picture) -> bytes:
    return codec.compress(picture(80, 112), quality=70, packets=6)


SIZES = [(16, 16, 3), (1, 1, 3), (37, 83, 3), (75, 50, 1), (130, 1, 1)]


@pytest.mark.parametrize(("height", "width", "channels"), SIZES)
@pytest.mark.parametrize("quality", [0, 50, 100])
@pytest.mark.parametrize("packets", [1, 4])
def test_any_size_comes_back(codec, picture, height, width, channels, quality, packets) -> None:
    x = picture(height, width, channels)
    data = codec.compress(x, quality=quality, packets=packets)
    y = codec.decompress(data)
    assert y.dtype == torch.uint8
    assert y.shape == x.shape
    codec.verify(data)
    header = inspect(data)
    assert header.codec == "index"
    expected = {"height": height, "width": width, "channels": channels, "packets": packets}
    assert expected.items() <= header.parameters.items()


@pytest.mark.parametrize("packets", [1, 3])
@pytest.mark.parametrize("quality", [0, 40, 100])
def test_the_decoder_has_the_encoders_indices(codec, picture, quality, packets) -> None:
    """The decoded picture is what the network makes of the indices that the encoder chose."""
    x = picture(48, 80)
    setting = setting_of_quality(quality, codec.model.books.full)
    image = (x.float() / 255).permute(1, 2, 0)[None].contiguous()
    grains = route(routing_scores(image), torch.tensor([setting.split]), torch.tensor([setting.fine]))
    book = torch.tensor([setting.book])
    with torch.inference_mode():
        expected = codec.model.synthesise(codec.model.analyse(image, book), grains, book)[0]
    expected = (expected.permute(2, 0, 1).clamp(0, 1) * 255).round().to(torch.uint8)
    assert torch.equal(codec.decompress(codec.compress(x, quality=quality, packets=packets)), expected)


def test_floating_point_and_grey(codec, picture) -> None:
    x = picture(40, 40)
    assert codec.compress(x.float() / 255, quality=60) == codec.compress(x, quality=60)
    grey = picture(40, 40, 1)
    assert codec.decompress(codec.compress(grey)).shape == grey.shape


def test_small_books_make_small_streams(codec, picture) -> None:
    x = picture(256, 256)
    assert len(codec.compress(x, quality=0)) < len(codec.compress(x, quality=14))
    assert [inspect(codec.compress(x, quality=q)).parameters["codes"] for q in (0, 5, 14)] == [8, 16, 64]


def test_targets(codec, picture) -> None:
    x = picture(160, 160)
    smallest, largest = (len(codec.compress(x, quality=q)) for q in (0, 100))
    for fraction in (0.0, 0.2, 0.6, 1.0):
        target = round(smallest + fraction * (largest - smallest))
        size = len(codec.compress(x, target_bytes=target))
        assert 0.97 * target <= size <= target
    assert codec.compress(x, target_bpp=target * 8 / 160**2) == codec.compress(x, target_bytes=target)
    with pytest.raises(ValueError, match="cannot be met"):
        codec.compress(x, target_bytes=20)


def test_shares_of_the_area(codec, picture) -> None:
    x = picture(128, 128)
    found = codec._receive(codec.compress(x, granularity=(0.5, 0.25, 0.25)), Limits())
    assert int(found.grains.split.sum()) == 32
    assert int(found.grains.fine.sum()) == 64
    for wrong in ((0.5, 0.5, 0.5), (1.5, -0.5, 0.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match="shares"):
            codec.compress(x, granularity=wrong)


def test_wrong_arguments(codec, picture) -> None:
    x = picture()
    with pytest.raises(TypeError, match="not quality and target_bpp"):
        codec.compress(x, quality=3, target_bpp=0.1)
    for wrong in ({"quality": -1}, {"quality": 100.5}, {"target_bpp": 0}, {"packets": 0}, {"packets": 256}):
        with pytest.raises(ValueError, match="must be"):
            codec.compress(x, **wrong)
    with pytest.raises(TypeError, match="tensor"):
        codec.compress(x.tolist())
    with pytest.raises(ValueError, match="shape"):
        codec.compress(x[None])
    with pytest.raises(TypeError, match="int64"):
        codec.compress(x.long())
    with pytest.raises(ValueError, match="within"):
        codec.compress(x.float())


def test_metadata(codec, picture) -> None:
    data = codec.compress(picture(), metadata={"icc": b"profile"}, packets=2)
    assert read_metadata(data) == {"icc": b"profile"}
    with pytest.raises(ValueError, match="metadata"):
        codec.compress(picture(), metadata={"iptc": b""})


def test_progress_rises(codec, picture) -> None:
    seen = []
    data = codec.compress(picture(64, 64), target_bpp=1.0, progress=lambda f, _: seen.append(f))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    seen.clear()
    codec.decompress(data, progress=lambda f, _: seen.append(f))
    assert (seen[0], seen[-1]) == (0, 1)


def test_without_loss_repair_changes_nothing(codec, packed) -> None:
    found = codec.decompress(packed, repair=True)
    assert isinstance(found, RepairedPicture)
    assert torch.equal(found.picture, codec.decompress(packed))
    assert found.report.lost_packets == ()
    assert found.report.lost_indexes == 0
    assert not found.report.region.any()


@pytest.mark.parametrize("lost", [(0,), (3,), (5,), (1, 4)])
def test_missing_packets_are_repaired_and_reported(codec, packed, lost) -> None:
    packets = split_packets(packed)
    left = b"".join(packet for number, packet in enumerate(packets) if number not in lost)
    with pytest.raises(StreamError):
        codec.decompress(left)
    found = codec.decompress(left, repair=True)
    assert found.picture.shape == (3, 80, 112)
    assert found.report.lost_packets == lost
    assert 0 < found.report.lost_indexes < found.report.indexes
    share = float(found.report.region.float().mean())
    assert 0.3 * len(lost) / 6 < share < 2 * len(lost) / 6
    # Order and repetition do not matter.
    again = codec.decompress(b"".join(reversed(split_packets(packed))), repair=True)
    assert again.report.lost_packets == ()


def test_damaged_packets_are_repaired_inside_their_container(codec, packed) -> None:
    start = packed.index(split_packets(packed)[2])
    damaged = bytearray(packed)
    damaged[start + 20] ^= 1
    with pytest.raises(CorruptStream):
        codec.decompress(bytes(damaged))
    found = codec.decompress(bytes(damaged), repair=True)
    assert found.report.lost_packets == (2,)
    intact = codec.decompress(packed)
    # Far from the lost indices nothing has changed.
    assert (found.picture == intact).float().mean() > 0.1


def test_every_lost_index_is_in_the_region(codec, packed) -> None:
    packets = split_packets(packed)
    found = codec.decompress(b"".join(packets[1:]), repair=True)
    received = codec._receive_remains(b"".join(packets[1:]), Limits())
    coarse = (received.indexes.coarse[0] == -1) & received.grains.coarse_mask()[0]
    for row, column in coarse.nonzero().tolist():
        assert found.report.region[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].all()
    assert found.report.lost_indexes >= int(coarse.sum())


def test_a_fifth_of_any_packets_may_be_lost(codec, picture) -> None:
    random = np.random.default_rng(0)
    x = picture(64, 64)
    for count in (5, 7, 10, 15):
        packets = split_packets(codec.compress(x, quality=60, packets=count))
        assert len(packets) == count
        assert needed_packets(count) <= count - count // 5
        for lost in (set(range(count // 5)), set(random.choice(count, count // 5, replace=False).tolist())):
            left = b"".join(packet for n, packet in enumerate(packets) if n not in lost)
            assert codec.decompress(left, repair=True).report.lost_packets == tuple(sorted(lost))


def test_any_half_of_the_packets_shows_the_whole_picture(codec, packed) -> None:
    """Coarse indices, which whole cells depend on, are not lost before more than half of the packets are."""
    packets = split_packets(packed)
    for kept in ((0, 1, 2), (3, 4, 5), (5, 0, 3)):
        left = b"".join(packets[number] for number in kept)
        found = codec._receive_remains(left, Limits())
        assert not ((found.indexes.coarse == -1) & found.grains.coarse_mask()).any()
        assert codec.decompress(left, repair=True).report.lost_packets == tuple(sorted({*range(6)} - {*kept}))


def test_without_a_map_there_is_nothing_to_repair(codec, packed) -> None:
    with pytest.raises(CorruptStream, match="map needs 3 of 6"):
        codec.decompress(b"".join(split_packets(packed)[4:]), repair=True)
    with pytest.raises(StreamError):
        codec.decompress(b"\xb5" * 100, repair=True)
    with pytest.raises(StreamError):
        codec.decompress(b"", repair=True)


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("packets", [1, 6])
def test_two_thousand_mutations(codec, picture, packets, repair) -> None:
    """Nothing but a StreamError escapes, and without repair nothing damaged is decoded."""
    data = codec.compress(picture(40, 56), quality=60, packets=packets)
    random = np.random.default_rng(packets)
    refused = 0
    # Those that are refused at once cost little.
    count = 200 if repair else 2000
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(mutant)))
            kind = random.integers(3)
            if kind == 0:
                mutant[place] = int(random.integers(256))
            elif kind == 1:
                del mutant[place : place + int(random.integers(1, 9))]
            else:
                mutant[place:place] = random.bytes(int(random.integers(1, 9)))
            if not mutant:
                break
        try:
            found = codec.decompress(bytes(mutant), repair=repair, limits=Limits(max_pixels=10_000))
        except StreamError:
            refused += 1
            continue
        if repair:
            assert found.picture.shape == (3, 40, 56)
            assert found.report.lost_packets or bytes(mutant) == data or packets > 1
        else:
            assert bytes(mutant) == data
    assert refused > (0.8 * count if packets == 1 or not repair else 0)


@pytest.mark.parametrize("packets", [1, 6])
def test_damage_under_right_checksums(codec, picture, packets) -> None:
    """Payloads that no encoder wrote, in a container whose checksums are right."""
    data = codec.compress(picture(40, 56), quality=60, packets=packets)
    payload = read_container(data).payload
    random = np.random.default_rng(7)
    for _ in range(300):
        mutant = bytearray(payload)
        place = int(random.integers(len(mutant)))
        mutant[place] ^= 1 << int(random.integers(8))
        stream = codec.pack(bytes(mutant), [])
        try:
            decoded = codec.decompress(stream, limits=Limits(max_pixels=10_000))
        except StreamError:
            continue
        # Without a checksum over the header of an undivided payload, its crop and colour can be forged.
        assert packets == 1
        assert place < len(read_body(payload, Limits()).header.to_bytes())
        assert -(-decoded.shape[1] // 16) == 3
        assert -(-decoded.shape[2] // 16) == 4


def test_truncation(codec, packed) -> None:
    for end in range(0, len(packed), 7):
        with pytest.raises(StreamError):
            codec.decompress(packed[:end])


def test_other_models_and_codecs(codec, packed, tiny_index_weights, picture) -> None:
    container = read_container(packed)
    with pytest.raises(UnknownModel):
        codec.decompress(write_container(CodecId.INDEX, bytes(8), [(SectionType.PAYLOAD, container.payload)]))
    with pytest.raises(CorruptStream, match="codec image"):
        codec.decompress(
            write_container(CodecId.IMAGE, codec.fingerprint, [(SectionType.PAYLOAD, container.payload)])
        )
    with pytest.raises(ValueError, match="family"):
        ImageCodec(tiny_index_weights)
    with pytest.raises(ValueError, match="family"):
        IndexCodec(WeightFile("image", {}, {}))


def test_limits(codec, packed) -> None:
    for repair in (False, True):
        with pytest.raises(LimitExceeded):
            codec.decompress(packed, limits=Limits(max_pixels=1000), repair=repair)
    with pytest.raises(LimitExceeded):
        codec.verify(packed, limits=Limits(max_pixels=1000))


def test_empty_stream(codec) -> None:
    with pytest.raises(TruncatedStream):
        codec.decompress(b"")
    with pytest.raises(StreamError):
        codec.decompress(codec.pack(b"", []))


def test_settings_cover_the_range() -> None:
    settings = [setting_of_quality(q, 7) for q in np.linspace(0, 100, 201)]
    assert [s.book for s in settings] == sorted(s.book for s in settings)
    assert all(s.split == 0 for s in settings if s.book < 7)
    assert math.isclose(settings[-1].split * settings[-1].fine, 1.0)


def test_bits_add_up(codec, picture) -> None:
    data = codec.compress(picture(80, 112), quality=70)
    bits = codec.index_bits(data)
    cells = 5 * 7
    assert bits.map > 0
    assert 8 * len(data) > bits.map + bits.indexes > 8 * len(data) - 8 * 120
    full = math.log2(codec.model.books.books[-1].size)
    assert cells * full < bits.raw_indexes < 16 * cells * full
    coarse = codec.index_bits(codec.compress(picture(80, 112), quality=0))
    assert coarse.raw_indexes == cells * 3


def test_certain_beliefs_are_codes(codec, picture) -> None:
    """The mean of codes of which one is certain is its vector, and beliefs are probabilities."""
    data = codec.compress(picture(80, 112), quality=70, packets=6)
    received = codec._receive_remains(b"".join(split_packets(data)[1:]), Limits())
    indexes, grains, number = received.indexes, received.grains, received.header.book
    beliefs = codec.coder.predict(grains, number, indexes)
    certain = []
    filled = []
    for belief, index in zip(beliefs, indexes, strict=True):
        torch.testing.assert_close(belief.probabilities.sum(1), torch.ones(int(belief.lost.sum())))
        best = belief.probabilities.argmax(1)
        codes = belief.probabilities.shape[1]
        certain.append(belief._replace(probabilities=torch.eye(codes)[best]))
        index = index.clone()
        index[0][belief.lost] = best
        filled.append(index)
    book = torch.tensor([number])
    found = codec.model.expected_vectors(indexes, type(beliefs)(*certain), grains, book)
    expected = codec.model.vectors(type(indexes)(*filled), grains, book)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
