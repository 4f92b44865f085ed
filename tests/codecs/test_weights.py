"""Weight files and fingerprints."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save

from latentpress.codecs.image import ImageCodec
from latentpress.codecs.registry import load
from latentpress.codecs.weights import (
    ADDITION,
    APPEARANCE,
    FORMAT,
    WeightFile,
    read_weight_file,
    shipped_weights,
)


@pytest.fixture
def small():
    return WeightFile(
        "image",
        {"width": 3, "depth": 1},
        {
            "b.weight": np.arange(6, dtype=np.float16).reshape(2, 3),
            "a.bias": np.array([1, -2], np.int32),
            "shift": np.array(7, np.int8),
        },
    )


def test_round_trip(small, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(small.to_bytes())
    found = read_weight_file(path)
    assert (found.family, found.config) == ("image", {"width": 3, "depth": 1})
    assert set(found.tensors) == set(small.tensors)
    for name, array in small.tensors.items():
        assert found.tensors[name].dtype == array.dtype
        assert np.array_equal(found.tensors[name].reshape(array.shape), array)
    assert found.fingerprint() == small.fingerprint()
    assert read_weight_file(str(path)).fingerprint() == small.fingerprint()


def test_fingerprint_byte_by_byte(small):
    """As docs/bitstream.md specifies it."""
    hashed = (
        b'["latentpress-weights-1", "image", {"depth": 1, "width": 3}]'
        + b"a.bias:<i4:(2,);"
        + b"\x01\x00\x00\x00\xfe\xff\xff\xff"
        + b"b.weight:<f2:(2, 3);"
        + np.arange(6, dtype="<f2").tobytes()
        + b"shift:|i1:(1,);\x07"
    )
    assert small.fingerprint() == hashlib.sha256(hashed).digest()[:8]


def test_fingerprint_does_not_depend_on_how_arrays_are_stored(small):
    tensors = {name: small.tensors[name] for name in reversed(sorted(small.tensors))}
    tensors["b.weight"] = np.asfortranarray(tensors["b.weight"])
    tensors["a.bias"] = tensors["a.bias"].astype(">i4")
    config = {"depth": 1, "width": 3}
    assert WeightFile("image", config, tensors).fingerprint() == small.fingerprint()


def test_fingerprint_notices_every_change(small):
    def changed(**tensors):
        return WeightFile(small.family, small.config, {**small.tensors, **tensors})

    weight = small.tensors["b.weight"]
    one_bit = weight.copy()
    one_bit.view(np.uint8)[0, 0] ^= 1
    variants = [
        small,
        WeightFile("field", small.config, small.tensors),
        WeightFile(small.family, {**small.config, "depth": 2}, small.tensors),
        changed(**{"b.weight": one_bit}),
        changed(**{"b.weight": weight.reshape(3, 2)}),
        changed(**{"b.weight": weight.view(np.int16)}),
        changed(more=np.zeros(1, np.int8)),
        WeightFile(small.family, small.config, {k: v for k, v in small.tensors.items() if k != "shift"}),
    ]
    assert len({weights.fingerprint() for weights in variants}) == len(variants)


def test_every_tensor_of_a_codec_counts(tiny_weights):
    before = tiny_weights.fingerprint()
    for name, array in tiny_weights.tensors.items():
        altered = array.copy()
        altered.reshape(-1)[-1] += 1
        weights = WeightFile("image", tiny_weights.config, {**tiny_weights.tensors, name: altered})
        assert weights.fingerprint() != before, name


def test_additions_leave_the_fingerprint_and_have_one_of_their_own(small):
    assert small.extended_fingerprint() == small.fingerprint()
    assert small.added() == {}
    more = {f"{ADDITION}patches": np.arange(3, dtype=np.int8)}
    extended = WeightFile(small.family, small.config, {**small.tensors, **more})
    assert extended.fingerprint() == small.fingerprint()
    assert extended.extended_fingerprint() != small.fingerprint()
    assert extended.added()["patches"].tolist() == [0, 1, 2]
    more = {f"{ADDITION}patches": np.array([0, 7, 2], np.int8)}
    other = WeightFile(small.family, small.config, {**small.tensors, **more})
    assert other.extended_fingerprint() != extended.extended_fingerprint()


def test_the_appearance_leaves_both_fingerprints(small):
    extended = {**small.tensors, f"{ADDITION}patches": np.arange(3, dtype=np.int8)}
    before = WeightFile(small.family, small.config, extended)
    after = WeightFile(small.family, small.config, {**extended, f"{APPEARANCE}lattice": np.zeros(5)})
    assert after.fingerprint() == before.fingerprint()
    assert after.extended_fingerprint() == before.extended_fingerprint()
    assert after.appearance()["lattice"].shape == (5,)
    assert before.appearance() == {}
    assert after.added().keys() == before.added().keys()


def test_codec_survives_the_file(tiny_weights, tiny_codec, picture, tmp_path):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(tiny_weights.to_bytes())
    codec = ImageCodec(read_weight_file(path))
    assert codec.fingerprint == tiny_codec.fingerprint == tiny_weights.fingerprint()
    codec.verify(tiny_codec.compress(picture()))


class TestWrongFiles:
    def test_absent(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
            read_weight_file(tmp_path / "absent.safetensors")
        with pytest.raises(FileNotFoundError):
            read_weight_file(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 100, b"no safetensors at all"])
    def test_no_safetensors(self, tmp_path, content):
        path = tmp_path / "wrong.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.safetensors"):
            read_weight_file(path)

    def test_cut_short(self, small, tmp_path):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(small.to_bytes()[:-1])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            read_weight_file(path)

    @pytest.mark.parametrize(
        "metadata",
        [
            None,
            {"format": "latentpress-weights-2", "family": "image", "config": "{}"},
            {"format": FORMAT},
            {"format": FORMAT, "family": "image"},
            {"format": FORMAT, "family": "image", "config": "{"},
        ],
    )
    def test_foreign_metadata(self, tmp_path, metadata):
        path = tmp_path / "foreign.safetensors"
        path.write_bytes(save({"a": np.zeros(1, np.float32)}, metadata))
        with pytest.raises(ValueError, match=r"foreign\.safetensors"):
            read_weight_file(path)

    def test_other_family(self, tiny_weights):
        with pytest.raises(ValueError, match=r"'field'.*'image'"):
            ImageCodec(WeightFile("field", tiny_weights.config, tiny_weights.tensors))

    @pytest.mark.parametrize("name", ["context.heads.0.bias", "analysis.stem.weight", "tables.lengths"])
    def test_tensor_missing(self, tiny_weights, name):
        tensors = {key: value for key, value in tiny_weights.tensors.items() if key != name}
        with pytest.raises(ValueError, match=name.removeprefix("tables.")):
            ImageCodec(WeightFile("image", tiny_weights.config, tensors))

    def test_tensor_of_another_shape(self, tiny_weights):
        config = {**tiny_weights.config, "hyper_channels": 8}
        with pytest.raises(ValueError, match="do not fit"):
            ImageCodec(WeightFile("image", config, tiny_weights.tensors))

    def test_weights_that_are_not_exact(self, tiny_weights):
        name = "context.blocks.0.depthwise.weight"
        tensors = {**tiny_weights.tensors, name: np.full_like(tiny_weights.tensors[name], 32767)}
        with pytest.raises(ValueError, match=r"2\^24"):
            ImageCodec(WeightFile("image", tiny_weights.config, tensors))


def test_what_is_in_the_file(tiny_weights):
    """Transforms in float16 or float32; whatever decides a table in integers."""
    for name, array in tiny_weights.tensors.items():
        exact = name.startswith(("hyper_prior.", "hyper_synthesis.", "context.", "tables."))
        assert (array.dtype.kind == "i") == exact, name
    assert json.loads(json.dumps(dict(tiny_weights.config))) == dict(tiny_weights.config)


def test_shipped_weights_are_files():
    for name, path in shipped_weights().items():
        assert path.is_file()
        assert path.stem == name


class TestHostileFiles:
    """What is no weight file says so, whatever it is."""

    @staticmethod
    def stored(path, config: str = "{}", kind: str = "U8", size: int = 1):
        metadata = {"format": FORMAT, "family": "image", "config": config}
        head = {"__metadata__": metadata, "a": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}
        text = json.dumps(head).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
        return path

    def test_the_file_is_otherwise_right(self, tmp_path):
        assert read_weight_file(self.stored(tmp_path / "a.safetensors")).tensors["a"].tolist() == [0]

    @pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)])
    def test_numbers_that_numpy_does_not_have(self, tmp_path, kind, size):
        with pytest.raises(ValueError, match="numpy does not have"):
            read_weight_file(self.stored(tmp_path / "a.safetensors", kind=kind, size=size))

    @pytest.mark.parametrize("config", ["[]", "3", "null", "{", "[" * 5000])
    def test_config_is_no_object(self, tmp_path, config):
        with pytest.raises(ValueError, match="which network"):
            read_weight_file(self.stored(tmp_path / "a.safetensors", config))

    @pytest.mark.parametrize(
        "config", [{"chanels": 8}, {"channels": -8}, {"channels": 2.5}, {"channels": "8"}, {"depth": None}]
    )
    def test_config_does_not_fit(self, tmp_path, config):
        with pytest.raises(ValueError, match=r"does not fit|do not fit"):
            load(self.stored(tmp_path / "a.safetensors", json.dumps(config)))
