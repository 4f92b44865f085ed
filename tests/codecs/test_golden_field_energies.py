"""Field streams with energies of small scales decode to the same fields for ever.

Imports only core dependencies, like test_golden_field.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    CodecId,
    SectionType,
    StreamError,
    read_container,
    write_container,
)
from latentpress.codecs.field_energies import pack_energies, unpack_energies
from latentpress.codecs.field_payload import read_field_header
from latentpress.codecs.registry import inspect, load
from latentpress.codecs.weights import read_weight_file

FOLDER = Path(__file__).parents[1] / "golden" / "v1"
EXPECTED = json.loads((FOLDER / "field_energies.json").read_text(encoding="utf-8"))
STREAMS = EXPECTED["streams"]

names = pytest.mark.parametrize("name", STREAMS)


def stream(name: str) -> bytes:
    return (FOLDER / f"field_{name}.lpz").read_bytes()


def with_section(name: str, section: bytes | None) -> bytes:
    """The stream with another section of energies, or none."""
    container = read_container(stream(name))
    sections = [(SectionType.PAYLOAD, container.payload)]
    if section is not None:
        sections.append((SectionType.ENERGIES, section))
    return write_container(CodecId.FIELD, container.fingerprint, sections)


@pytest.fixture(scope="module")
def codec():
    return load(FOLDER / "field_tiny.safetensors")


def check(name: str, decoder: str, values: np.ndarray) -> None:
    kept = np.load(FOLDER / f"field_{name}_{decoder}.npy")
    assert values.dtype == kept.dtype
    np.testing.assert_allclose(values[:, ::4, ::4, ::4], kept, atol=1e-4 * float(np.ptp(kept)), rtol=0)


@names
@pytest.mark.parametrize("decoder", ["faithful", "realistic"])
def test_values(codec, name, decoder) -> None:
    data = stream(name)
    assert codec.fingerprint.hex() == EXPECTED["fingerprint"]
    assert len(data) == STREAMS[name]["bytes"]
    assert inspect(data).parameters == STREAMS[name]["parameters"]
    assert [section.name for section in inspect(data).sections] == ["energies", "payload"]
    assert read_container(data).get(SectionType.ENERGIES).hex() == STREAMS[name]["section"]
    check(name, decoder, codec.decompress(data, decoder=decoder).numpy())
    codec.verify(data)


@names
def test_a_second_decoder_restores_small_scales_alike(second_field, codec, name) -> None:
    weights = read_weight_file(FOLDER / "field_tiny.safetensors")
    container = read_container(stream(name))
    found = second_field.decode_payload(container.payload, weights.tensors)
    section = container.get(SectionType.ENERGIES)
    values = second_field.finished(
        found, second_field.network_part(found, weights.tensors, "realistic", section)
    )
    check(name, "realistic", values)
    restored = codec.decompress(stream(name), decoder="realistic").numpy()
    assert np.abs(values - restored).max() < 1e-5 * np.ptp(restored)
    plain = second_field.finished(found, second_field.network_part(found, weights.tensors, "realistic"))
    assert np.abs(values - plain).max() > 1e-2 * np.ptp(restored)


@names
def test_the_faithful_decoder_has_no_use_for_them(codec, name) -> None:
    faithful = codec.decompress(stream(name))
    assert np.array_equal(faithful, codec.decompress(with_section(name, None)))


@names
def test_ruined_sections_raise_stream_errors_only(codec, name) -> None:
    """Under checksums that are right; what is refused is refused by either decoder."""
    container = read_container(stream(name))
    header, _ = read_field_header(container.payload, DEFAULT_LIMITS)
    section = container.get(SectionType.ENERGIES)
    assert pack_energies(unpack_energies(section, header)) == section
    random = np.random.default_rng(len(section))
    cases = [b"", section[:-1], section + b"\0", bytes(len(section)), b"\x7f" * len(section)]
    for _ in range(60):
        ruined = bytearray(section)
        for _ in range(random.integers(1, 4)):
            ruined[random.integers(len(ruined))] = random.integers(256)
        cases.append(bytes(ruined))
    refused = 0
    for number, case in enumerate(cases):
        try:
            assert all(np.isfinite(group).all() for group in unpack_energies(case, header))
        except StreamError:
            refused += 1
            if refused < 6:
                for decoder in ("faithful", "realistic"):
                    with pytest.raises(StreamError):
                        codec.decompress(with_section(name, case), decoder=decoder)
            continue
        if number % 8 == 3:
            assert codec.decompress(with_section(name, case), decoder="realistic").isfinite().all()
    assert 5 < refused < len(cases)


@names
def test_every_flipped_bit_of_a_file_is_noticed(codec, name) -> None:
    data = stream(name)
    for place in range(13, 13 + len(STREAMS[name]["section"]) // 2 + 6):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(StreamError):
            codec.decompress(bytes(damaged))


@pytest.mark.parametrize("name", ["bound_2d", "bound_network", "lossless", "ratio64_gaps", "blocks_joint"])
def test_beside_other_payloads_they_are_ignored(codec, name) -> None:
    """Also where nobody would ever have written them."""
    data = stream(name)
    container = read_container(data)
    sections = [(SectionType.ENERGIES, b"\xff"), (SectionType.PAYLOAD, container.payload)]
    other = write_container(CodecId.FIELD, container.fingerprint, sections)
    for decoder in ("faithful", "realistic"):
        values = [codec.decompress(x, decoder=decoder).numpy() for x in (data, other)]
        assert np.array_equal(*values, equal_nan=True)
