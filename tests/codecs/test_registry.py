"""Finding codecs, and reading headers without decoding."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import latentpress
from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    write_container,
)
from latentpress.codecs.card import ModelCard
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import available, inspect, load, read_metadata, weights_for
from latentpress.codecs.weights import WeightFile, shipped_weights


@pytest.fixture
def weight_path(tiny_weights, tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(tiny_weights.to_bytes())
    return path


class TestLoad:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_path(self, weight_path, tiny_codec, kind):
        codec = load(kind(weight_path))
        assert isinstance(codec, ImageCodec)
        assert codec.fingerprint == tiny_codec.fingerprint

    @pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "auto"])
    def test_device(self, weight_path, picture, device):
        codec = load(weight_path, device=device)
        restored = codec.decompress(codec.compress(picture(20, 20)))
        assert restored.device.type == codec.device.type

    def test_name_of_shipped_weights(self, weight_path, tiny_codec, monkeypatch):
        monkeypatch.setattr("latentpress.codecs.registry.shipped_weights", lambda: {"tiny": weight_path})
        assert available() == ("tiny",)
        assert load("tiny").fingerprint == tiny_codec.fingerprint
        with pytest.raises(ValueError, match="unknown codec 'image': available are tiny"):
            load("image")

    def test_available_is_what_ships(self):
        assert available() == tuple(shipped_weights())

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="unknown codec 'no such codec'"):
            load("no such codec")

    def test_absent_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent"):
            load(tmp_path / "absent.safetensors")

    def test_unknown_device(self, weight_path):
        with pytest.raises(ValueError, match="unknown device 'abacus'"):
            load(weight_path, device="abacus")

    def test_absent_device(self, weight_path):
        with pytest.raises(ValueError, match="'cuda:99' was asked for"):
            load(weight_path, device="cuda:99")

    def test_other_family(self, tiny_weights, tmp_path):
        path = tmp_path / "other.safetensors"
        path.write_bytes(WeightFile("harp", tiny_weights.config, tiny_weights.tensors).to_bytes())
        with pytest.raises(ValueError, match="'harp'"):
            load(path)


class TestWeightsFor:
    @pytest.fixture
    def shelf(self, weight_path, tiny_weights, monkeypatch):
        """Two shipped models of one family, and only the second makes the stream."""
        other = weight_path.with_name("other.safetensors")
        for path, fingerprint in ((other, "00" * 8), (weight_path, tiny_weights.fingerprint().hex())):
            card = ModelCard(
                path.stem, "image", {}, fingerprint, 1, 1, "2025-01-01", "Apache-2.0", "", "", (0.1, 1)
            )
            path.with_suffix(".json").write_text(card.to_json())
        shipped = {"other": other, "tiny": weight_path}
        monkeypatch.setattr("latentpress.codecs.registry.shipped_weights", lambda: shipped)

    @pytest.mark.usefixtures("shelf")
    def test_by_fingerprint(self, tiny_codec, picture):
        assert weights_for(inspect(tiny_codec.compress(picture(20, 20)))) == "tiny"

    @pytest.mark.usefixtures("shelf")
    def test_unknown_model_gives_the_codec(self, tiny_codec, picture):
        header = inspect(tiny_codec.compress(picture(20, 20)))
        assert weights_for(dataclasses.replace(header, fingerprint="12" * 8)) == "image"

    def test_shipped_card_names_its_weights(self, tiny_codec, picture):
        header = inspect(tiny_codec.compress(picture(20, 20)))
        image = load("image")
        assert weights_for(dataclasses.replace(header, fingerprint=image.fingerprint.hex())) == "image"


class TestInspect:
    def test_everything_it_says(self, tiny_codec, picture):
        data = tiny_codec.compress(picture(21, 34, 1), quality=12.5, metadata={"icc": b"abc"})
        header = inspect(data)
        assert (header.codec, header.codec_id, header.version) == ("image", 1, 1)
        assert header.fingerprint == tiny_codec.fingerprint.hex()
        assert header.total_bytes == len(data)
        assert [section.name for section in header.sections] == ["icc", "payload"]
        assert header.sections[0].bytes == 3
        assert sum(section.bytes for section in header.sections) + header.overhead_bytes == len(data)
        assert header.parameters == {"width": 34, "height": 21, "channels": 1, "quality": 12.5, "bits": 8}

    def test_overhead_is_small(self, tiny_codec, picture):
        assert inspect(tiny_codec.compress(picture())).overhead_bytes <= 24

    def test_header_travels(self, tiny_codec, picture):
        header = inspect(tiny_codec.compress(picture(5, 5)))
        assert pickle.loads(pickle.dumps(header)) == header
        with pytest.raises(dataclasses.FrozenInstanceError):
            header.codec = "other"

    def test_unknown_ancillary_section(self, tiny_codec, picture):
        data = write_container(
            CodecId.IMAGE,
            tiny_codec.fingerprint,
            [(200, b"note"), (SectionType.PAYLOAD, self.payload(tiny_codec, picture))],
        )
        assert [section.name for section in inspect(data).sections] == ["unknown 200", "payload"]
        assert read_metadata(data) == {}
        assert tiny_codec.decompress(data).shape == (3, 5, 5)

    @staticmethod
    def payload(codec, picture) -> bytes:
        return codec.encode_payload(picture(5, 5).float() / 255, 500).payload

    def test_limits(self, tiny_codec, picture):
        data = tiny_codec.compress(picture(10, 10))
        inspect(data, Limits(max_pixels=100))
        with pytest.raises(LimitExceeded):
            inspect(data, Limits(max_pixels=99))

    def test_wrong_bytes(self, tiny_codec, picture):
        data = tiny_codec.compress(picture(10, 10))
        for wrong in (b"", b"PNG", data[:-1], data + b"\0", data[:30] + b"\0" + data[31:]):
            for read in (inspect, read_metadata):
                with pytest.raises(StreamError):
                    read(wrong)

    def test_payload_without_a_picture(self, tiny_codec):
        for payload in (b"", b"\0" * 20, b"\xff" * 20):
            with pytest.raises(StreamError):
                inspect(write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, payload)]))

    def test_other_types(self):
        with pytest.raises(TypeError):
            inspect("text")

    def test_needs_no_torch(self, tiny_codec, picture, tmp_path):
        path = tmp_path / "a.lpz"
        path.write_bytes(tiny_codec.compress(picture(), metadata={"xmp": b"x"}))
        program = (
            "import sys, latentpress; from latentpress.codecs import read_metadata; "
            "data = open(sys.argv[1], 'rb').read(); read_metadata(data); latentpress.available(); "
            "sys.exit(latentpress.inspect(data).codec != 'image' or 'torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0


def test_public_names_are_these():
    assert latentpress.load is load
    assert latentpress.inspect is inspect
    assert latentpress.available is available
    assert issubclass(latentpress.CorruptStream, latentpress.StreamError)
    assert latentpress.CorruptStream is CorruptStream


def test_shipped_weights_are_in_the_order_of_their_names() -> None:
    names = list(shipped_weights())
    assert names == sorted(names)
    assert names.index("image") + 1 == names.index("image-max")
