"""Field streams of format version 1 decode to the same fields for ever.

Imports only core dependencies: this also runs where nothing else is installed. second_field_decoder.py is a
second decoder, written from docs/bitstream.md.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from latentpress.codecs.bitstream import CodecId, SectionType, StreamError, read_container, write_container
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_encoding import FieldJob
from latentpress.codecs.registry import inspect, load
from latentpress.codecs.volume_coder import VolumeCoder
from latentpress.codecs.weights import WeightFile, read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "field.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]

EXACT = [name for name in STREAMS if "sha256" in STREAMS[name]]
NETWORK = [name for name in STREAMS if "sha256" not in STREAMS[name]]

names = pytest.mark.parametrize("name", STREAMS)


def stream(name: str) -> bytes:
    return (FOLDER / f"field_{name}.lpz").read_bytes()


@pytest.fixture(scope="module")
def codec():
    return load(FOLDER / "field_tiny.safetensors")


def payload(name: str) -> bytes:
    return read_container(stream(name)).payload


@pytest.fixture(scope="module")
def weights() -> WeightFile:
    return read_weight_file(FOLDER / "field_tiny.safetensors")


def check(name: str, values: np.ndarray) -> None:
    expected = STREAMS[name]
    assert list(values.shape) == expected["shape"]
    assert str(values.dtype) == expected["dtype"]
    if "sha256" in expected:
        assert hashlib.sha256(values.tobytes()).hexdigest() == expected["sha256"]
        return
    kept = np.load(FOLDER / f"field_{name}.npy")
    finite = np.isfinite(kept)
    assert np.array_equal(values[~finite], kept[~finite], equal_nan=True)
    np.testing.assert_allclose(values[finite], kept[finite], atol=1e-4 * float(np.ptp(kept[finite])), rtol=0)


def test_weights_are_those_of_the_streams(codec) -> None:
    assert codec.fingerprint.hex() == EXPECTED["fingerprint"]


@names
def test_values(codec, name) -> None:
    data = stream(name)
    assert len(data) == STREAMS[name]["bytes"]
    assert inspect(data).parameters == STREAMS[name]["parameters"]
    check(name, codec.decompress(data).numpy())
    codec.verify(data)


@names
def test_bounds_need_no_weights(name) -> None:
    if "sha256" not in STREAMS[name]:
        pytest.skip("a stream with a network")
    check(name, FieldCodec().decompress(stream(name)).numpy())


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith("blocks")])
def test_blocks_one_by_one(codec, name) -> None:
    with codec.open(io.BytesIO(stream(name))) as field:
        values = np.empty(field.shape, field.dtype)
        field.copy_to(values)
    check(name, values)


@names
def test_mutations_raise_stream_errors_only(codec, name) -> None:
    """Of the payload, under checksums that are right again, so that everything behind them is reached."""
    container = read_container(stream(name))
    random = np.random.default_rng(len(name))
    refused = 0
    for _ in range(40):
        payload = bytearray(container.payload)
        for _ in range(random.integers(1, 4)):
            kind = random.integers(3)
            at = int(random.integers(len(payload)))
            if kind == 0:
                payload[at] ^= 1 << random.integers(8)
            elif kind == 1:
                del payload[at : at + int(random.integers(1, 9))]
            else:
                payload[at:at] = random.bytes(int(random.integers(1, 9)))
        data = write_container(CodecId.FIELD, container.fingerprint, [(SectionType.PAYLOAD, bytes(payload))])
        try:
            codec.decompress(data)
        except StreamError:
            refused += 1
    assert refused > 10


@names
def test_every_flipped_bit_of_a_file_is_noticed(codec, name) -> None:
    data = stream(name)
    random = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        with pytest.raises(StreamError):
            codec.decompress(bytes(damaged))
    for length in random.integers(0, len(data), 20):
        with pytest.raises(StreamError):
            codec.decompress(data[:length])


def without_dimension(values: np.ndarray, flat: bool) -> np.ndarray:
    return values[:, 0] if flat else values


def all_latents(found) -> list[np.ndarray]:
    return found.latents + [latent for _, block in found.blocks for latent in block.latents]


def library_latents(monkeypatch, codec, data: bytes) -> list[np.ndarray]:
    """Everything that the library's coder of latents returns, in units of 2**-10."""
    found = []
    decode = VolumeCoder.decode_parts

    def recorded(self, *arguments):
        found.append(decode(self, *arguments))
        return found[-1]

    monkeypatch.setattr(VolumeCoder, "decode_parts", recorded)
    codec.verify(data)
    return [y_hat[0].double().numpy() * 1024 for y_hat in found]


@names
def test_a_second_decoder_finds_the_same_values(second_field, weights, name) -> None:
    """To the bit where no network has a part in them; else as near as sums of floating point come."""
    found = second_field.decode_payload(payload(name), {} if name in EXACT else weights.tensors)
    values = without_dimension(found.values, found.flat)
    check(name, values)
    if name in NETWORK:
        kept = np.load(FOLDER / f"field_{name}.npy")
        finite = np.isfinite(kept)
        assert np.abs(values[finite] - kept[finite]).max() < 1e-5 * np.ptp(kept[finite])


@pytest.mark.parametrize("name", [name for name in NETWORK if name != "bound_network"])
def test_a_second_decoder_restores_small_scales_alike(second_field, codec, weights, name) -> None:
    found = second_field.decode_payload(payload(name), weights.tensors)
    values = second_field.finished(found, second_field.network_part(found, weights.tensors, "realistic"))
    restored = codec.decompress(stream(name), decoder="realistic").numpy()
    finite = np.isfinite(restored)
    restored, values, faithful = restored[finite], values[finite], found.values[finite]
    assert np.abs(values - restored).max() < 1e-5 * np.ptp(restored)
    assert np.abs(values - faithful).max() > 1e-3 * np.ptp(restored)


@pytest.mark.parametrize("name", NETWORK)
def test_a_second_decoder_finds_the_same_latents(second_field, codec, weights, name, monkeypatch) -> None:
    found = second_field.decode_payload(payload(name), weights.tensors)
    ours, theirs = all_latents(found), library_latents(monkeypatch, codec, stream(name))
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b)
    assert [found.ratio, found.tenths / 10] == [STREAMS[name]["parameters"][k] for k in ("ratio", "quality")]


@pytest.mark.parametrize("name", [n for n in STREAMS if n not in ("lossless", "blocks_separate_2d")])
def test_the_second_decoder_notices_a_changed_symbol(second_field, weights, name, monkeypatch) -> None:
    """The last one, on which nothing else depends: in the checksum of latents, or in one value."""
    state = {"batches": 0, "changed": 0}

    class Changed(second_field.parts.SymbolDecoder):
        def get(self, indexes, tables):
            symbols = super().get(indexes, tables)
            state["batches"] += 1
            symbols[-1] += state["batches"] == state["changed"]
            return symbols

    monkeypatch.setattr(second_field.parts, "SymbolDecoder", Changed)
    original = second_field.decode_payload(payload(name), weights.tensors)
    state.update(changed=state["batches"], batches=0)
    if name in NETWORK and name != "bound_network":
        with pytest.raises(AssertionError, match="checksum"):
            second_field.decode_payload(payload(name), weights.tensors)
        return
    changed = second_field.decode_payload(payload(name), weights.tensors)
    different = (original.values != changed.values) & ~np.isnan(original.values)
    assert different.sum() == 1


def bounded_cases() -> dict[str, tuple[np.ndarray, float]]:
    """Fields in which a residual meets what the golden streams lack: short axes, exceptions, many levels."""
    random = np.random.default_rng(5)
    rough = random.normal(size=(2, 5, 7, 3)).cumsum(1).cumsum(2)
    spikes = rough.copy()
    spikes[0, 2, 3, 1] = 1e12
    spikes[1, 4, 6, 2] = -3e11
    spikes[1, 0, 0, 0] = np.nan
    line = random.normal(size=(1, 1, 1, 700)).cumsum(3)
    return {
        "point": (np.full((3, 1, 1, 1), 2.5), 0.1),
        "rough": (rough, 0.05),
        "rough32": (rough.astype(np.float32), 0.05),
        "spikes": (spikes, 0.05),
        "line": (line, 1e-3),
        "fine": (line[:, :, :, :40].reshape(1, 4, 5, 2), 1e-7),
        "tall": (random.normal(size=(1, 65, 1, 4)).cumsum(1), 0.3),
        "slices": (np.repeat(random.normal(size=(1, 9, 1, 1)), 99, 3).reshape(1, 9, 9, 11), 1e-2),
    }


@pytest.mark.parametrize("case", bounded_cases())
def test_bounds_of_new_streams(second_field, case) -> None:
    values, bound = bounded_cases()[case]
    job = FieldJob(FieldCodec(), values, False, (False, False, False))
    candidate = job._interpolated(bound)
    found = second_field.decode_payload(candidate.payload, {})
    data = write_container(CodecId.FIELD, candidate.fingerprint, [(SectionType.PAYLOAD, candidate.payload)])
    decoded = FieldCodec().decompress(data).numpy()
    assert found.values.dtype == decoded.dtype == values.dtype
    assert found.values.tobytes() == decoded.tobytes()
    finite = np.isfinite(values)
    assert np.abs(decoded - values)[finite].max() <= bound
    assert (len(found.exceptions[0]) > 0) == (case == "spikes")


@pytest.fixture(scope="module")
def random_weights(weights) -> WeightFile:
    """The golden weights with numbers where those have zeros: in biases, and in what follows the quality."""
    random = np.random.default_rng(3)
    tensors = dict(weights.tensors)
    for name, array in weights.tensors.items():
        integer = any(part in name for part in (".hyper_prior.", ".hyper_synthesis.", ".context."))
        if integer and name.endswith((".bias", ".knots")):
            tensors[name] = (array + random.integers(-400, 400, array.shape)).astype(array.dtype)
    return WeightFile(weights.family, weights.config, tensors)


@pytest.mark.parametrize(
    ("ratio", "sides", "periodic", "quality"),
    [
        (8, (24, 9, 40), (True, False, False), 12.3),
        (64, (16, 40, 56), (False, True, True), 100),
        (8, (16, 40, 8), (True, True, True), 99.9),
        (64, (1, 50, 33), (False, False, False), 0),
    ],
)
def test_latents_of_other_weights(
    second_field, random_weights, ratio, sides, periodic, quality, monkeypatch
) -> None:
    random = np.random.default_rng(7)
    values = random.normal(size=(3, *sides)).cumsum(2).astype(np.float32)
    other = FieldCodec(random_weights)
    other.refuses = False
    data = other.compress(values, ratio=ratio, quality=quality, periodic=periodic)
    found = second_field.decode_payload(read_container(data).payload, random_weights.tensors)
    (latent,) = library_latents(monkeypatch, other, data)
    assert found.periodic == periodic
    assert np.array_equal(found.latents[0], latent)
