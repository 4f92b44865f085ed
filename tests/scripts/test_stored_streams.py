"""Streams in a folder are only taken for what they are."""

from pathlib import Path

import pytest

from latentpress.codecs.bitstream import StreamError
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.weights import read_weight_file
from latentpress.scripts.stored_streams import read_stream, stream_path, write_stream

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
DATA = (FOLDER / "index_rgb_80x112_q60.lpz").read_bytes()
SIZE = (80, 112)
RATE = len(DATA) * 8 / (80 * 112)


def codec(name: str = "index_tiny") -> IndexCodec:
    return IndexCodec(read_weight_file(FOLDER / f"{name}.safetensors"))


@pytest.mark.parametrize("over", [1.0, 1.015])
def test_what_is_written_is_read(tmp_path, over) -> None:
    write_stream(DATA, tmp_path / "new", "p.1", over * RATE)
    assert read_stream(tmp_path / "new", "p.1", over * RATE, SIZE, codec()) == DATA


def test_streams_with_residual_indices_are_of_the_same_weights(tmp_path) -> None:
    data = (FOLDER / "index_rgb_64x96_q93_residual.lpz").read_bytes()
    rate = len(data) * 8 / (64 * 96)
    write_stream(data, tmp_path, "p", rate)
    assert read_stream(tmp_path, "p", rate, (64, 96), codec("index_tiny_residual")) == data


@pytest.mark.parametrize(("rate", "size"), [(0.97 * RATE, SIZE), (1.03 * RATE, SIZE), (RATE, (112, 80))])
def test_another_rate_or_size_is_refused(tmp_path, rate, size) -> None:
    write_stream(DATA, tmp_path, "p", rate)
    with pytest.raises(ValueError, match=r"p-.*\.lpz"):
        read_stream(tmp_path, "p", rate, size, codec())


def test_other_weights_are_refused(tmp_path) -> None:
    write_stream(DATA, tmp_path, "p", RATE)
    other = codec()
    other.fingerprint = other.extended_fingerprint = bytes(8)
    with pytest.raises(ValueError, match="of the weights"):
        read_stream(tmp_path, "p", RATE, SIZE, other)


def test_no_stream(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no stream"):
        read_stream(tmp_path, "p", 1.0, SIZE, codec())
    stream_path(tmp_path, "p", 1.0).write_bytes(DATA[:-5])
    with pytest.raises(StreamError):
        read_stream(tmp_path, "p", 1.0, SIZE, codec())
