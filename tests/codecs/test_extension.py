"""Codecs of other packages: found by entry points, and told apart in streams by name."""

import importlib.metadata
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs import extension, testing
from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    TruncatedStream,
    UnknownModel,
    write_container,
)
from latentpress.codecs.extension import Family, extension_families, read_extension, write_extension
from latentpress.codecs.registry import available, inspect, load, read_metadata, weights_for
from latentpress.codecs.weights import WeightFile, shipped_weights

FAMILY = Family(CodecId.EXTENSION, "harp_codec:HarpCodec", "harp_codec:describe", "harp_codec_weights")


@pytest.fixture
def harp(tmp_path, monkeypatch):
    """A package ``harp_codec`` with weights, and whatever entry points a test adds to it."""
    module = types.ModuleType("harp_codec")
    module.FAMILY = FAMILY
    module.NOT_A_FAMILY = 3
    module.describe = lambda payload, limits: {"tones": len(payload)}
    module.HarpCodec = lambda weights, device: (weights.family, str(device))
    monkeypatch.setitem(sys.modules, "harp_codec", module)
    folder = tmp_path / "harp_codec_weights"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, family in (("harp", "harp"), ("image", "harp"), ("lute", "lute")):
        (folder / f"{name}.safetensors").write_bytes(WeightFile(family, {}, {}).to_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    points = {"harp": "harp_codec:FAMILY"}
    monkeypatch.setattr(
        extension,
        "entry_points",
        lambda group: [importlib.metadata.EntryPoint(n, v, group) for n, v in points.items()],
    )
    return points


class TestRegistry:
    def test_loaded_by_name(self, harp):
        assert load("harp") == ("harp", "cpu")

    def test_own_weights_come_first(self, harp):
        shipped = tuple(shipped_weights())
        assert "image" in shipped
        assert available() == (*shipped, "harp", "lute")

    def test_a_family_that_is_not_there(self, harp):
        with pytest.raises(ValueError, match="no codec for weights of the family 'lute'"):
            load("lute")

    def test_header(self, harp):
        header = inspect(write_extension("harp", b"8 bytes.", b"tones", [(SectionType.ICC, b"abc")]))
        assert (header.codec, header.codec_id, header.parameters) == ("harp", 255, {"tones": 5})
        assert header.fingerprint == b"8 bytes.".hex()
        assert read_metadata(write_extension("harp", bytes(8), b"", [(SectionType.ICC, b"abc")])) == {
            "icc": b"abc"
        }
        assert weights_for(header) == "harp"

    def test_header_of_a_codec_that_is_not_installed(self, harp):
        header = inspect(write_extension("lute", bytes(8), b"tones"))
        assert (header.codec, header.parameters) == ("lute", {})

    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("lute", "no_such_package:FAMILY", "cannot be imported"),
            ("lute", "harp_codec:absent", "cannot be imported"),
            ("lute", "harp_codec:NOT_A_FAMILY", "is no Family"),
            ("Lute!", "harp_codec:FAMILY", "is no name of a codec"),
        ],
    )
    def test_a_broken_one_does_not_break_the_others(self, harp, name, value, reason):
        harp[name] = value
        with pytest.warns(UserWarning, match=reason):
            assert list(extension_families()) == ["harp"]
        # What does not need it does not even look.
        assert load("image").name == "image"
        assert list(extension_families("harp")) == ["harp"]

    def test_built_in_families_cannot_be_replaced(self, harp):
        harp["image"] = "harp_codec:FAMILY"
        assert load("image").name == "image"

    def test_none_installed(self):
        assert extension_families() == {}


class TestStreams:
    @given(
        st.from_regex(r"[a-z][a-z0-9-]{0,63}", fullmatch=True),
        st.binary(min_size=8, max_size=8),
        st.binary(max_size=20),
    )
    def test_round_trip(self, name, fingerprint, payload):
        stream = write_extension(name, fingerprint, payload)
        assert read_extension(stream, name, fingerprint) == payload
        assert inspect(stream).codec == name

    @pytest.mark.parametrize("name", ["", "Harp", "1st", "a_b", "harp\n", "ä", "a" * 65])
    def test_names(self, name):
        with pytest.raises(ValueError, match="name"):
            write_extension(name, bytes(8), b"")

    @pytest.mark.parametrize(
        "payload", [b"", b"\5harp", b"\0", b"\4Harp", b"\4\xff\xff\xff\xff", b"\x41" + b"a" * 65]
    )
    def test_payloads_without_a_name(self, payload):
        stream = write_container(CodecId.EXTENSION, bytes(8), [(SectionType.PAYLOAD, payload)])
        with pytest.raises((CorruptStream, TruncatedStream)):
            inspect(stream)
        with pytest.raises(StreamError):
            read_extension(stream, "harp")

    def test_of_another_codec(self):
        with pytest.raises(CorruptStream, match="the codec lute, not harp"):
            read_extension(write_extension("lute", bytes(8), b""), "harp")
        other = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"\4harp")])
        with pytest.raises(CorruptStream, match="the codec image, not harp"):
            read_extension(other, "harp")

    def test_of_other_weights(self):
        stream = write_extension("harp", b"8 bytes.", b"")
        assert read_extension(stream, "harp") == b""
        with pytest.raises(UnknownModel, match=b"8 bytes.".hex()):
            read_extension(stream, "harp", bytes(8))

    def test_limits(self):
        with pytest.raises(LimitExceeded):
            read_extension(
                write_extension("harp", bytes(8), bytes(100)), "harp", limits=Limits(max_section_bytes=99)
            )

    @given(testing.hostile(write_extension("harp", bytes(8), b"tones")))
    def test_hostile_streams(self, data):
        testing.check_decoding(lambda data: read_extension(data, "harp", bytes(8)), data)
        testing.check_decoding(inspect, data)
