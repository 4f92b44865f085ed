"""Energies of small scales in a stream: when they are there, and that the realistic decoder keeps to them."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import CorruptStream, SectionType, TruncatedStream, read_container
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_energies import pack_energies, unpack_energies, whole_groups
from latentpress.codecs.field_payload import FieldHeader, Mode
from latentpress.codecs.weights import ADDITION
from latentpress.models.field.projection import solenoidal
from latentpress.models.field.spectral_gain import BANDS, TRANSMITTED, band_densities

NETWORK = FieldHeader(Mode.NETWORK, (6, 32, 32, 32), flat=False, double=False)
SPECTRA = [np.geomspace(60, 1e-4, 18), np.geomspace(1e-9, 5, 18)]


@pytest.fixture(scope="module")
def codec(field_helper) -> FieldCodec:
    """With gains that change nothing, so that what changes is due to energies; at ratio 8 alone."""
    weights = field_helper.field_weights()
    arrays = {"rows": np.zeros((2, BANDS, 3), np.float32), "spread": np.zeros((2, 2, 3), np.float32)}
    added = {f"{ADDITION}ratio8.realistic.gain.{name}": array for name, array in arrays.items()}
    found = FieldCodec(dataclasses.replace(weights, tensors={**weights.tensors, **added}))
    found.refuses = False
    return found


@pytest.fixture(scope="module")
def flow() -> np.ndarray:
    """Velocities of a falling spectrum, some of whose waves the tiny codec loses, without divergence."""
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 1 / 40) for n in (40, 32, 48)), indexing="ij"))
    noise = np.random.default_rng(2).normal(size=(3, *k.shape[1:]))
    potential = np.fft.fftn(noise, axes=(1, 2, 3)) / (1 + (k**2).sum(0)) ** 1.6
    field = np.fft.ifftn(np.cross(1j * k, potential, axis=0), axes=(1, 2, 3)).real
    return (3 * field / field.std() + 5).astype(np.float32)


def section(data: bytes) -> bytes | None:
    return read_container(data).get(SectionType.ENERGIES)


def unit(x: np.ndarray | torch.Tensor, like: np.ndarray) -> torch.Tensor:
    """As a stream's energies see it."""
    mean = like.mean((1, 2, 3), keepdims=True, dtype=np.float64)
    return torch.from_numpy((np.asarray(x) - mean) / np.sqrt(np.square(like - mean).mean())).float()


@pytest.mark.parametrize("periodic", [True, False, (False, True, True)])
@pytest.mark.parametrize("divergence_free", [True, False])
def test_decoded_energies_are_the_true_ones(codec, flow, periodic, divergence_free) -> None:
    axes = (periodic,) * 3 if isinstance(periodic, bool) else periodic
    data = codec.compress(flow, ratio=8, quality=60, periodic=periodic)
    assert len(section(data)) < 30
    plain = codec.decompress(data, divergence_free=divergence_free)
    found = codec.decompress(data, decoder="realistic", divergence_free=divergence_free)
    true = band_densities(unit(flow, flow), axes)[TRANSMITTED].log()
    off = [(band_densities(unit(x, flow), axes)[TRANSMITTED].log() - true).abs() for x in (plain, found)]
    assert off[0].max() > 0.5
    # Beside ends, and between bands, a factor is not quite what it is in its band.
    assert off[1].max() < (0.15 if periodic is True else 0.4)
    assert off[1].mean() < 0.3 * off[0].mean()


def test_divergence_is_removed_up_to_the_ends(codec, flow) -> None:
    """Where the stream has energies; what other decoders make stays as it was."""
    data = codec.compress(flow, ratio=8, quality=60)
    found = codec.decompress(data, decoder="realistic", divergence_free=True)
    assert torch.allclose(solenoidal(found, (False,) * 3, to_ends=True), found, atol=1e-4)
    faithful = codec.decompress(data)
    expected = solenoidal(faithful, (False,) * 3)
    assert torch.equal(codec.decompress(data, divergence_free=True), expected)


def test_where_there_are_none(codec, flow) -> None:
    """Where weights have no gain, under a bound, of planes, pairs, small fields and few bytes; in blocks."""
    for x, options in (
        (flow, {"ratio": 64, "quality": 90}),
        (flow, {"max_error": 1.0}),
        (flow[:, 0], {"ratio": 8, "quality": 90}),
        (flow[:2], {"ratio": 8, "quality": 90}),
        (flow[:, :24], {"ratio": 8, "quality": 90}),
        (flow[:, :32, :32, :32], {"ratio": 8, "quality": 0}),
    ):
        assert section(codec.compress(x, **options)) is None
    file = io.BytesIO()
    codec.compress_blocks(flow, file, block=16, ratio=8, quality=90)
    assert section(file.getvalue()) is None


def test_they_do_not_depend_on_quality_and_count_as_bytes(codec, flow) -> None:
    high, low = (codec.compress(flow, ratio=8, quality=q) for q in (90, 60))
    assert section(high) == section(low)
    limit = len(low)
    data = codec.compress(flow, ratio=8, target_bytes=limit)
    assert section(data) == section(low)
    assert 0.98 * limit < len(data) <= limit
    assert len(section(data)) <= 0.005 * limit


def test_further_components_and_gaps(codec, flow) -> None:
    """Each whole group has energies of its own; gaps stay gaps."""
    x = np.concatenate((flow, 100 * flow[::-1, ::-1], flow[:1]))
    x[:, 5:9, 3, 3] = np.nan
    data = codec.compress(x, ratio=8, quality=70)
    first, second = unpack_energies(section(data), dataclasses.replace(NETWORK, shape=x.shape))
    np.testing.assert_allclose(first, second, rtol=0.1)
    found = codec.decompress(data, decoder="realistic").numpy()
    faithful = codec.decompress(data).numpy()
    assert np.array_equal(np.isnan(found), np.isnan(x))
    finite = ~np.isnan(x[0])
    assert all(np.abs(found[c] - faithful[c])[finite].max() > 0.05 * x[c][finite].std() for c in range(6))


def test_fields_without_small_scales(codec) -> None:
    """A constant, and one with a single long wave: nothing is made up."""
    wave = np.sin(np.arange(40) * (2 * np.pi / 40)).astype(np.float32)
    for x in (np.full((3, 40, 40, 40), 2.0, np.float32), np.broadcast_to(wave, (3, 40, 40, 40)).copy()):
        data = codec.compress(x, ratio=8, quality=100, periodic=True)
        faithful, found = (codec.decompress(data, decoder=d) for d in ("faithful", "realistic"))
        assert (found - torch.from_numpy(x)).square().mean() <= 1.5 * (
            faithful - torch.from_numpy(x)
        ).square().mean() + 1e-4


def test_a_section_is_read_as_it_was_written() -> None:
    packed = pack_energies(SPECTRA)
    found = unpack_energies(packed, NETWORK)
    np.testing.assert_allclose(found, SPECTRA, rtol=0.008)
    assert pack_energies(found) == packed
    gaps = pack_energies([np.where(np.arange(18) == 3, np.nan, SPECTRA[0]), np.zeros(18)])
    assert unpack_energies(gaps, NETWORK)[1].max() < 1.1e-12


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda s: s[:-1], TruncatedStream),
        (lambda s: b"", TruncatedStream),
        (lambda s: s + b"\0", CorruptStream),
        (lambda s: b"\xff" * 9 + b"\x01" + s[1:], CorruptStream),
        (lambda s: b"\x7f" * len(s), CorruptStream),
    ],
)
def test_damaged_sections_are_refused(damage, error) -> None:
    with pytest.raises(error):
        unpack_energies(damage(pack_energies(SPECTRA)), NETWORK)


def test_fields_that_have_none() -> None:
    assert whole_groups((3, 1, 400, 300)) == whole_groups((2, 40, 40, 40)) == 0
    for other in (
        dataclasses.replace(NETWORK, bound=0.1),
        dataclasses.replace(NETWORK, mode=Mode.INTERPOLATION, bound=0.1),
        dataclasses.replace(NETWORK, shape=(3, 1, 400, 300), flat=True),
    ):
        assert unpack_energies(b"anything", other) == []
