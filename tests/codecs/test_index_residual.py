"""Residual indices: rates beyond fine indices, old streams as they were, packets, and damage."""

import dataclasses

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    StreamError,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.card import read_card
from latentpress.codecs.hub import from_pretrained, save_pretrained
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_payload import split_packets
from latentpress.codecs.index_residual import CLASSES, PATCH, ResidualBook, fine_cells
from latentpress.codecs.index_trials import setting_of_quality
from latentpress.codecs.registry import inspect, weights_for
from latentpress.codecs.symbol_channel import Receiver, Sender
from latentpress.codecs.weights import ADDITION, WeightFile, read_weight_file, shipped_weights
from latentpress.models.index.prior import UNKNOWN
from latentpress.train.index_residual import fit_patches, tables_of_counts


@pytest.fixture(scope="module")
def codec(tiny_residual_codec) -> IndexCodec:
    return tiny_residual_codec


def squared_error(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x.float() - y.float()).square().mean())


@pytest.mark.parametrize(("height", "width", "channels"), [(1, 1, 3), (37, 83, 3), (75, 50, 1)])
@pytest.mark.parametrize("quality", [91, 95, 100])
@pytest.mark.parametrize("packets", [1, 4])
def test_any_size_comes_back(codec, picture, height, width, channels, quality, packets) -> None:
    x = picture(height, width, channels)
    data = codec.compress(x, quality=quality, packets=packets)
    codec.verify(data)
    y = codec.decompress(data)
    assert y.shape == x.shape
    assert squared_error(x, y) <= squared_error(x, codec.decompress(codec.compress(x, quality=90)))
    header = inspect(data)
    marked = header.parameters.get("residual_level")
    expected = codec.extended_fingerprint if marked else codec.fingerprint
    assert header.fingerprint == expected.hex()
    assert quality < 100 or marked == 15


@pytest.mark.parametrize("packets", [1, 3])
def test_streams_without_them_are_what_they_were(codec, tiny_index_codec, picture, packets) -> None:
    """Byte for byte, and weights without the addition decode them."""
    x = picture(96, 80)
    assert codec.fingerprint == tiny_index_codec.fingerprint != codec.extended_fingerprint
    for options in ({"quality": 0}, {"quality": 50}, {"quality": 80}, {"target_bytes": 200}):
        data = tiny_index_codec.compress(x, packets=packets, **options)
        assert codec.compress(x, packets=packets, **options) == data
        assert torch.equal(codec.decompress(data), tiny_index_codec.decompress(data))
    finest = tiny_index_codec.compress(x, packets=packets, quality=100)
    assert codec.compress(x, packets=packets, quality=90) == finest
    with pytest.raises(UnknownModel):
        tiny_index_codec.decompress(codec.compress(x, quality=100, packets=packets))


def test_qualities_rise(codec, picture) -> None:
    x = picture(128, 128)
    sizes = [len(codec.compress(x, quality=q)) for q in (80, 85, 90, 92, 94, 96, 98, 100)]
    assert sizes == sorted(set(sizes))
    settings = [setting_of_quality(q, 3, True) for q in np.linspace(0, 100, 401)]
    assert settings == sorted(settings)


@pytest.mark.parametrize("packets", [1, 5])
def test_targets_beyond_fine_indices(codec, picture, packets) -> None:
    x = picture(160, 160)
    fine, most = (len(codec.compress(x, quality=q, packets=packets)) for q in (90, 100))
    assert most > 1.3 * fine
    for target in (fine, round(0.6 * fine + 0.4 * most), most, 2 * most):
        size = len(codec.compress(x, target_bytes=target, packets=packets))
        assert 0.98 * min(target, most) <= size <= target


def test_lost_packets_add_nothing(codec, picture) -> None:
    """Patches of packets that came are there, others are not, and no packet needs another."""
    x = picture(80, 112)
    data = codec.compress(x, quality=96, packets=5)
    whole = codec._receive(data, Limits()).residuals
    left = b"".join(packet for n, packet in enumerate(split_packets(data)) if n != 3)
    found = codec._receive_remains(left, Limits())
    assert found.lost_packets == (3,)
    assert np.array_equal(found.residuals.marked, whole.marked)
    known = found.residuals.indexes != UNKNOWN
    sent = whole.indexes != UNKNOWN
    assert 0.6 < known.sum() / sent.sum() < 0.95
    assert np.array_equal(found.residuals.indexes[known], whole.indexes[known])
    repaired = codec.decompress(left, repair=True)
    assert repaired.report.lost_packets == (3,)
    added = codec.residual_book.picture(found.residuals.indexes)
    lost = torch.from_numpy(sent & ~known).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert not added[0][lost].any()


def test_coding_is_its_own_inverse(codec) -> None:
    book, random = codec.residual_book, np.random.default_rng(0)
    marked = random.random((5, 7)) < 0.5
    indexes = random.integers(0, len(book.patches), (20, 28))
    for packet in (None, (1, 3)):
        sender = Sender()
        sent = book.code(sender, marked, indexes, packet)
        receiver = Receiver(sender.finish())
        assert np.array_equal(book.code(receiver, marked, None, packet), sent)
        receiver.finish(sender.checksum)
        assert np.array_equal(sent[sent != UNKNOWN], indexes[sent != UNKNOWN])
        assert not (sent != UNKNOWN)[~marked.repeat(4, 0).repeat(4, 1)].any()


def test_the_best_patches_are_chosen(codec) -> None:
    """A picture that misses just its patches is made whole."""
    book = codec.residual_book
    indexes = np.random.default_rng(0).integers(0, len(book.patches), (8, 12))
    choice = book.choose(book.picture(indexes))
    assert np.array_equal(choice.indexes, indexes)
    half = choice.best(0.5)
    assert half.marked.sum() == 3
    assert choice.merit[half.marked].min() >= choice.merit[~half.marked].max()


def test_bits_without_tables(codec, picture) -> None:
    x = picture(64, 64)
    fine, both = (codec.index_bits(codec.compress(x, quality=q)) for q in (90, 100))
    assert both.raw_indexes - fine.raw_indexes == 16 * 16 * 4
    assert both.indexes > fine.indexes


@pytest.mark.parametrize("packets", [1, 6])
@pytest.mark.parametrize("repair", [False, True])
def test_mutations(codec, picture, packets, repair) -> None:
    data = codec.compress(picture(40, 56), quality=95, packets=packets)
    random = np.random.default_rng(packets)
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(int(random.integers(1, 4))):
            mutant[int(random.integers(len(mutant)))] = int(random.integers(256))
        try:
            codec.decompress(bytes(mutant), repair=repair, limits=Limits(max_pixels=10_000))
        except StreamError:
            continue
        assert repair or bytes(mutant) == data


def test_the_fingerprint_says_whether_there_are_any(codec, tiny_index_codec, picture) -> None:
    for quality, wrong in ((100, codec.fingerprint), (50, codec.extended_fingerprint)):
        payload = read_container(codec.compress(picture(), quality=quality)).payload
        stream = write_container(CodecId.INDEX, wrong, [(SectionType.PAYLOAD, payload)])
        with pytest.raises(CorruptStream, match="another model"):
            codec.decompress(stream)
    payload = read_container(codec.compress(picture(), quality=100)).payload
    for repair in (False, True):
        with pytest.raises(CorruptStream, match="no residual"):
            tiny_index_codec.decompress(tiny_index_codec.pack(payload, []), repair=repair)


def test_cells_that_are_fine_throughout(codec, picture) -> None:
    found = codec._receive(codec.compress(picture(64, 64), granularity=(0.25, 0.25, 0.5)), Limits())
    cells = fine_cells(found.grains)
    assert 0 < cells.sum() < 16
    assert not cells[~found.grains.split[0].numpy()].any()


def test_books_that_are_none() -> None:
    tables = tables_of_counts(np.zeros((CLASSES, 4)))
    ResidualBook(torch.zeros(4, PATCH), tables)
    for patches in (torch.zeros(5, PATCH), torch.zeros(4, 3), torch.full((4, PATCH), torch.nan)):
        with pytest.raises(ValueError, match="patches"):
            ResidualBook(patches, tables)


def test_half_a_book_is_refused(tiny_residual_weights) -> None:
    kept = {k: v for k, v in tiny_residual_weights.tensors.items() if k != f"{ADDITION}residual.patches"}
    with pytest.raises(ValueError, match="no patches"):
        IndexCodec(WeightFile("index", tiny_residual_weights.config, kept))


def test_patches_of_clusters_are_found() -> None:
    centres = torch.eye(3, PATCH)
    points = centres.repeat_interleave(100, 0) + 0.01 * torch.randn(300, PATCH)
    book = fit_patches(torch.cat((points, torch.zeros(50, PATCH))), 8)
    assert not book[0].any()
    assert float(torch.cdist(centres, book).amin(dim=1).max()) < 0.05
    assert book.square().sum(dim=1).tolist() == sorted(book.square().sum(dim=1).tolist())


def test_a_folder_of_a_model_keeps_them(tiny_residual_weights, tmp_path) -> None:
    folder = save_pretrained(tiny_residual_weights, tmp_path)
    codec = from_pretrained(folder)
    assert codec.extended_fingerprint == tiny_residual_weights.extended_fingerprint()
    path = folder / "model.safetensors"
    tensors = dict(tiny_residual_weights.tensors)
    tensors[f"{ADDITION}residual.patches"] = tensors[f"{ADDITION}residual.patches"] * np.float16(0.5)
    path.write_bytes(WeightFile("index", tiny_residual_weights.config, tensors).to_bytes())
    with pytest.raises(ValueError, match="the weights are"):
        from_pretrained(folder)


def test_the_card_of_shipped_weights_names_both_models(codec, picture) -> None:
    path = shipped_weights()["index"]
    weights, card = read_weight_file(path), read_card(path)
    assert (card.fingerprint, card.extended_fingerprint) == (
        weights.fingerprint().hex(),
        weights.extended_fingerprint().hex(),
    )
    assert card.fingerprint == "7e23c17068ea9433"
    assert path.stat().st_size < 16_000_000
    header = inspect(codec.compress(picture(), quality=100))
    assert weights_for(dataclasses.replace(header, fingerprint=card.extended_fingerprint)) == "index"
