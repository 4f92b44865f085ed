"""The gain of the realistic decoder's small scales: where it is applied, and that old weights do without."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import SectionType, read_container, write_container
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.weights import ADDITION, WeightFile
from latentpress.models.field.spectral_gain import BANDS, SpectralGain

NAMES = [f"{ADDITION}ratio64.realistic.gain.{part}" for part in ("rows", "spread")]
OPEN_NAMES = [f"{ADDITION}ratio64.realistic.open_gain.{part}" for part in ("rows", "spread")]


def without_energies(data: bytes) -> bytes:
    """The stream as it would be if it said nothing of its small scales."""
    container = read_container(data)
    return write_container(
        container.codec_id, container.fingerprint, [(SectionType.PAYLOAD, container.payload)]
    )


@pytest.fixture(scope="module")
def plain(field_helper) -> WeightFile:
    return field_helper.field_weights()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """A gain for the ratio 64 alone, from none at quality 0 on."""
    rows = np.zeros((2, BANDS, 3), np.float32)
    rows[1, 8:, 0] = np.linspace(0, 0.8, BANDS - 8)
    return dict(zip(NAMES, (rows, np.zeros((2, 2, 3), np.float32)), strict=True))


@pytest.fixture(scope="module")
def weights(plain, arrays) -> WeightFile:
    return dataclasses.replace(plain, tensors={**plain.tensors, **arrays})


@pytest.fixture(scope="module")
def codecs(plain, weights) -> tuple[FieldCodec, FieldCodec]:
    return FieldCodec(plain), FieldCodec(weights)


@pytest.fixture(scope="module")
def flow(field_helper) -> np.ndarray:
    return (field_helper.waves(7, 40, 32, 48) * 3 + 20).astype(np.float32)


def test_streams_stay(codecs, flow) -> None:
    """Old streams decode with weights that got a gain, new ones with weights that have none."""
    before, after = codecs
    assert before.fingerprint == after.fingerprint
    data = after.compress(flow, ratio=64)
    assert data == before.compress(flow, ratio=64)
    assert torch.equal(before.decompress(data), after.decompress(data))
    assert before.decompress(data, decoder="realistic").shape == flow.shape


@pytest.mark.parametrize("periodic", [False, True, (True, False, True)])
def test_whole_fields_and_those_in_blocks(codecs, flow, arrays, periodic) -> None:
    before, after = codecs
    axes = (periodic,) * 3 if isinstance(periodic, bool) else periodic
    gain = SpectralGain(*(torch.from_numpy(arrays[name]) for name in NAMES))
    file = io.BytesIO()
    after.compress_blocks(flow, file, block=16, ratio=64, quality=60, periodic=periodic)
    for data in (after.compress(flow, ratio=64, quality=60, periodic=periodic), file.getvalue()):
        without, found = (c.decompress(data, decoder="realistic") for c in (before, after))
        mean = torch.from_numpy(flow.mean((1, 2, 3), keepdims=True))
        expected = gain(without - mean, 60.0, axes) + mean
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
        assert not torch.allclose(found, without, atol=1e-2)
    with after.open(file, decoder="realistic") as field:
        part = field[:, 3:20, :, 5:9]
    np.testing.assert_allclose(part, without[:, 3:20, :, 5:9], atol=1e-4)


def test_open_fields_have_a_gain_of_their_own(codecs, weights, arrays, flow) -> None:
    """One open axis is enough; without it, and for periodic fields with it, the other gain is taken."""
    old = codecs[1]
    opened = {name: 0.5 * arrays[other] for name, other in zip(OPEN_NAMES, NAMES, strict=True)}
    both = FieldCodec(dataclasses.replace(weights, tensors={**weights.tensors, **opened}))
    assert both.fingerprint == old.fingerprint
    half = SpectralGain(*(torch.from_numpy(opened[name]) for name in OPEN_NAMES))
    mean = torch.from_numpy(flow.mean((1, 2, 3), keepdims=True))
    for periodic in (True, (True, False, True), False):
        file = io.BytesIO()
        both.compress_blocks(flow, file, block=16, ratio=64, quality=60, periodic=periodic)
        for data in (both.compress(flow, ratio=64, quality=60, periodic=periodic), file.getvalue()):
            found = both.decompress(data, decoder="realistic")
            if periodic is True:
                assert torch.equal(found, old.decompress(data, decoder="realistic"))
                continue
            axes = periodic if periodic else (False,) * 3
            without = codecs[0].decompress(data, decoder="realistic")
            expected = half(without - mean, 60.0, axes) + mean
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    alone = {name: array for name, array in {**weights.tensors, **opened}.items() if name not in NAMES}
    open_only = FieldCodec(dataclasses.replace(weights, tensors=alone))
    for periodic, same in ((True, codecs[0]), (False, both)):
        data = both.compress(flow, ratio=64, quality=60, periodic=periodic)
        decoded = (codec.decompress(data, decoder="realistic") for codec in (open_only, same))
        assert torch.equal(*decoded)


def test_where_there_is_none(codecs, flow) -> None:
    """At other ratios, of components that make no velocity, of planes and of small fields."""
    before, after = codecs
    for x, options in (
        (flow, {"ratio": 8}),
        (flow, {"ratio": 64, "quality": 0}),
        (flow[:2], {"ratio": 64}),
        (flow[:, 0], {"ratio": 64}),
        (flow[:, :24], {"ratio": 64}),
    ):
        data = after.compress(x, **options)
        assert torch.equal(*(c.decompress(data, decoder="realistic") for c in (before, after)))


def test_further_components_and_gaps(codecs, flow) -> None:
    """Three of four components are a velocity; gaps stay gaps."""
    before, after = codecs
    x = np.concatenate((flow, flow[:1]))
    x[:, 5:9, 3, 3] = np.nan
    data = without_energies(after.compress(x, ratio=64))
    without, found = (c.decompress(data, decoder="realistic") for c in (before, after))
    assert np.array_equal(found.isnan().numpy(), np.isnan(x))
    finite = ~np.isnan(x)
    assert torch.equal(found[3].nan_to_num(), without[3].nan_to_num())
    assert not np.allclose(found.numpy()[finite], without.numpy()[finite], atol=1e-3)
    file = io.BytesIO()
    after.compress_blocks(x, file, block=16, ratio=64)
    without, found = (c.decompress(file.getvalue(), decoder="realistic") for c in (before, after))
    assert torch.equal(found.nan_to_num(), without.nan_to_num())


def test_divergence_is_removed_behind_it(codecs, flow) -> None:
    data = codecs[1].compress(flow, ratio=64, quality=80, periodic=True)
    free = codecs[1].decompress(data, decoder="realistic", divergence_free=True).double()
    axes = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in free.shape[1:]]
    k = torch.stack(torch.meshgrid(*[a / len(a) for a in axes], indexing="ij"))
    k[k.abs() == 0.5] = 0
    modes = torch.fft.fftn(free - free.mean((1, 2, 3), keepdim=True), dim=(1, 2, 3))
    assert float((k * modes).sum(0).abs().max()) < 1e-4 * float(modes.abs().max())


def test_damaged_gains_are_refused(weights) -> None:
    wrong = {**weights.tensors, NAMES[0]: weights.tensors[NAMES[0]][:, 1:]}
    with pytest.raises(ValueError, match="gains have finite rows"):
        FieldCodec(dataclasses.replace(weights, tensors=wrong))
