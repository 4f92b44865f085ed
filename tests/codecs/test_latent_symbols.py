"""Symbols that are sorted on the networks' device are those that are sorted beside the range coder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import CorruptStream, StreamError
from latentpress.codecs.latent_symbols import DeviceReceiving
from latentpress.codecs.symbol_coders import CodedPart, PartReader, SymbolGroup, write_part

QUALITY = torch.tensor([50.0])


@pytest.fixture(scope="module", params=["tiny_codec", "tiny_max_codec"])
def coder(request):
    return request.getfixturevalue(request.param)._coder


@pytest.fixture(scope="module")
def coded(coder):
    generator = torch.Generator().manual_seed(0)
    y = 30 * torch.randn((1, 12, 10, coder.latent_channels), generator=generator)
    z = torch.randn((1, 3, 3, coder.hyper_prior.raw_scale.knots.shape[1]), generator=generator)
    return coder.encode(y, z, QUALITY, prefix=b"before")


def received(coder, parts, prefix: bytes = b"before"):
    readers = [PartReader(part, coder.tables, prefix) for part in parts]
    return coder._received(DeviceReceiving(readers, len(coder.tables)), (12, 10), QUALITY)


def test_is_the_latent(coder, coded) -> None:
    assert torch.equal(received(coder, coded.parts), coded.y_hat)


def test_first_parts_alone(coder, coded) -> None:
    expected = coder.decode_parts(coded.parts[:1], (12, 10), QUALITY, b"before")
    assert torch.equal(received(coder, coded.parts[:1]), expected)


def test_damage_is_found(coder, coded) -> None:
    data, checksum = coded.parts[0]
    others = coded.parts[1:]
    with pytest.raises(CorruptStream, match="checksum"):
        received(coder, coded.parts, b"behind")
    with pytest.raises(CorruptStream, match="checksum"):
        received(coder, [CodedPart(data, checksum ^ 1), *others])
    for wrong in (b"", data[:-4], data[: len(data) // 8 * 4], data + b"\1\0\0\0"):
        with pytest.raises(StreamError):
            received(coder, [CodedPart(wrong, checksum), *others])


def test_nothing_but_counts_and_symbols_is_moved(coder, coded, monkeypatch) -> None:
    """One transfer each way for a group; those of all symbols at the end are for the checksums."""
    moved: dict[str, list[int]] = {"cpu": [], "to": []}
    for name, seen in moved.items():
        plain = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, plain=plain, seen=seen, **options):
            if not arguments or isinstance(arguments[0], torch.device):
                seen.append(tensor.numel())
            return plain(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    received(coder, coded.parts)
    brought, sent = moved["cpu"], moved["to"]
    groups = len(brought) - len(coded.parts)
    assert brought[:groups] == [len(coder.tables)] * groups
    assert len(sent) == groups
    assert sum(sent) == sum(brought[groups:])


def test_groups_are_read_table_by_table(coder) -> None:
    rng = np.random.default_rng(1)
    indexes = rng.integers(0, len(coder.tables), 3000).astype(np.uint8)
    symbols = rng.integers(-40, 40, 3000).astype(np.int16)
    part = write_part([SymbolGroup(symbols, indexes)], coder.tables, b"")
    reader = PartReader(part, coder.tables, b"")
    sizes = np.bincount(indexes, minlength=len(coder.tables))
    assert np.array_equal(reader.get_grouped(sizes), symbols[np.argsort(indexes, kind="stable")])
    reader.cover(symbols)
    reader.finish()
