"""The field codec: shapes and types restored, bounds kept at every point, damage noticed."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from latentpress.codecs import inspect
from latentpress.codecs.bitstream import CorruptStream, LimitExceeded, Limits, StreamError, UnknownModel
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_payload import ANY_MODEL
from latentpress.models.field.projection import solenoidal


def _load_helper():
    path = Path(__file__).with_name("field_weights.py")
    spec = importlib.util.spec_from_file_location("field_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HELPER = _load_helper()
waves = HELPER.waves


@pytest.fixture(scope="module")
def codec(field_codec) -> FieldCodec:
    return field_codec


def error(x: np.ndarray, y: torch.Tensor) -> float:
    return float(np.sqrt(np.square(y.numpy() - x).mean() / np.square(x).mean()))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 16, 24, 17), np.float32), ((3, 20, 33), np.float64), ((5, 9, 8, 8), np.float32)]
)
def test_shape_and_type_come_back(codec, shape, dtype) -> None:
    x = waves(1, *shape[1:], components=shape[0]).astype(dtype)
    for source in (x, torch.from_numpy(x)):
        decoded = codec.decompress(codec.compress(source, ratio=8, quality=80))
        assert decoded.shape == shape
        assert decoded.numpy().dtype == dtype
        assert error(x, decoded) < 1


def test_quality_buys_precision(codec) -> None:
    x = waves(2, 16, 32, 16) * 1e-6 + 5e-3
    streams = [codec.compress(x, ratio=8, quality=q) for q in (0, 50, 100)]
    errors = [error(x - 5e-3, codec.decompress(s) - 5e-3) for s in streams]
    assert errors[0] > errors[1] > errors[2]
    assert len(streams[0]) < len(streams[1]) < len(streams[2])
    assert errors[2] < 0.3


def test_periodic_stream_and_divergence(codec) -> None:
    x = waves(3, 16, 16, 16)
    data = codec.compress(x, ratio=64, periodic=True)
    plain, free = codec.decompress(data), codec.decompress(data, divergence_free=True)
    assert not torch.allclose(plain, free)
    modes = torch.fft.fftn(free.double(), dim=(1, 2, 3))
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(16, 1 / 16, dtype=torch.float64)] * 3, indexing="ij"))
    k[k.abs() == 8] = 0
    assert float((k * modes).sum(0).abs().max()) < 1e-4 * float(modes.abs().max())


def test_divergence_of_a_field_that_is_not_periodic(codec) -> None:
    data = codec.compress(waves(3, 16, 16, 16), ratio=64)
    free = codec.decompress(data, divergence_free=True)
    assert torch.allclose(solenoidal(free, (False,) * 3), free, atol=1e-5)
    assert not torch.allclose(codec.decompress(data), free)
    with pytest.raises(ValueError, match="divergence-free"):
        codec.decompress(codec.compress(waves(3, 16, 16, 16)[:2], ratio=64), divergence_free=True)


def test_two_decoders_one_stream(codec) -> None:
    data = codec.compress(waves(4, 16, 16, 16), ratio=64)
    faithful, realistic = codec.decompress(data), codec.decompress(data, decoder="realistic")
    assert not torch.allclose(faithful, realistic)
    with pytest.raises(ValueError, match="faithful or realistic"):
        codec.decompress(data, decoder="pretty")


def test_target_bytes(codec) -> None:
    x = waves(5, 16, 16, 16)
    data = codec.compress(x, target_bytes=700)
    assert 350 < len(data) <= 700
    with pytest.raises(ValueError, match="cannot be met"):
        codec.compress(x, target_bytes=40)


def test_inspect(codec) -> None:
    data = codec.compress(waves(6, 16, 16, 8), ratio=64, quality=12.3)
    header = inspect(data)
    assert header.codec == "field"
    expected = {"components": 3, "depth": 16, "height": 16, "width": 8, "dtype": "float32", "mode": "network"}
    assert header.parameters == expected | {"ratio": 64, "quality": 12.3}
    flat = inspect(codec.compress(waves(6, 16, 8), max_error=0.1)).parameters
    assert "depth" not in flat
    assert flat["max_error"] == 0.1


def test_coarse_field_is_the_box_filter_of_the_decoded_one(codec) -> None:
    data = codec.compress(waves(7, 16, 16, 8), ratio=64)
    coarse = codec.coarse(data, 4)
    assert coarse.shape == (3, 4, 4, 2)
    assert float(coarse[1, 0, 0, 1]) == pytest.approx(
        float(codec.decompress(data)[1, :4, :4, 4:].mean()), abs=1e-6
    )


@pytest.mark.parametrize("periodic", [False, True, (True, False, True)])
@pytest.mark.parametrize("relative", [0.2, 0.05, 1e-3])
def test_bound_with_networks_tried(codec, relative, periodic) -> None:
    x = waves(8, 16, 24, 16)
    bound = relative * float(x.max() - x.min())
    decoded = codec.decompress(codec.compress(x, relative_error=relative, periodic=periodic)).numpy()
    assert np.abs(decoded.astype(np.float64) - x).max() <= bound


def test_network_with_residual_keeps_the_bound(codec) -> None:
    from latentpress.codecs.field_encoding import FieldJob, packed

    x = waves(9, 16, 16, 16)
    job = FieldJob(codec, x, False, (False, False, False))
    for bound in (0.5, 0.05):
        data = packed(job._corrected(bound, 8, 500))
        assert inspect(data).parameters["mode"] == "network"
        decoded = codec.decompress(data).numpy()
        assert np.abs(decoded.astype(np.float64) - x).max() <= bound


finite32 = npst.from_dtype(np.dtype(np.float32), allow_nan=True, allow_infinity=True)
finite64 = npst.from_dtype(np.dtype(np.float64), allow_nan=True, allow_infinity=True)
shapes = npst.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=6)
anything = st.one_of(
    npst.arrays(np.float32, shapes, elements=finite32), npst.arrays(np.float64, shapes, elements=finite64)
)


def assert_kept(x: np.ndarray, decoded: np.ndarray, bound: float) -> None:
    assert decoded.dtype == x.dtype
    assert decoded.shape == x.shape
    known = np.isfinite(x)
    assert np.array_equal(decoded[~known], x[~known], equal_nan=True)
    with np.errstate(over="ignore"):
        assert (np.abs(decoded[known].astype(np.longdouble) - x[known].astype(np.longdouble)) <= bound).all()


@given(anything, st.one_of(st.just(0.0), st.floats(1e-300, 1e300), st.floats(1e-6, 10)))
def test_bound_is_kept_on_anything(codec, x, bound) -> None:
    data = codec.compress(x, max_error=bound)
    assert_kept(x, codec.decompress(data).numpy(), bound)


@given(st.integers(0, 10**6), st.floats(1e-5, 0.5), st.booleans())
def test_relative_bound_is_kept_on_smooth_fields(codec, seed, relative, double) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 20, random.integers(2, 4))
    x = waves(seed, *sizes, components=int(random.integers(1, 4))) * 10.0 ** random.integers(-20, 20)
    x = x.astype(np.float64 if double else np.float32)
    if random.random() < 0.4:
        x[random.random(x.shape) < 0.3] = np.nan
    known = x[np.isfinite(x)].astype(np.float64)
    bound = relative * float(known.max() - known.min()) if known.size else 0.0
    decoded = codec.decompress(codec.compress(x, relative_error=relative)).numpy()
    assert_kept(x, decoded, bound)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((1, 1, 1), np.float32),
        lambda: np.full((2, 3, 4, 5), 7.25),
        lambda: np.full((1, 2, 2), np.nan, np.float32),
        lambda: np.array([[[1e38, -1e38]]], np.float32),
        lambda: np.array([[[1e308, -1e308, 1e-308]]]),
    ],
)
@pytest.mark.parametrize("bound", [0.0, 1e-3, 1.0])
def test_bound_on_odd_fields(codec, make: Callable[[], np.ndarray], bound) -> None:
    x = make()
    assert_kept(x, codec.decompress(codec.compress(x, max_error=bound)).numpy(), bound)


def test_masked_fields_with_a_network(codec) -> None:
    x = waves(10, 16, 16, 16)
    x[:, 3:9, 4:, :5] = np.nan
    x[1, 15, 15, 15] = -np.inf
    decoded = codec.decompress(codec.compress(x, ratio=8, quality=90)).numpy()
    assert np.array_equal(np.isnan(decoded), np.isnan(x))
    assert decoded[1, 15, 15, 15] == -np.inf
    known = np.isfinite(x)
    assert np.abs(decoded[known] - x[known]).mean() < 0.5 * np.abs(x[known]).mean()


def test_streams_without_a_network_fit_any_weights(codec) -> None:
    data = codec.compress(waves(11, 9, 9), max_error=0.01)
    assert inspect(data).fingerprint == ANY_MODEL.hex()
    other = FieldCodec()
    assert torch.equal(other.decompress(data), codec.decompress(data))
    with pytest.raises(UnknownModel):
        other.decompress(codec.compress(waves(11, 16, 16, 16), ratio=8))


@pytest.mark.parametrize("options", [{"max_error": 0.02}, {"ratio": 64}, {"max_error": 0}])
def test_damage_is_noticed(codec, options) -> None:
    data = codec.compress(waves(12, 8, 8, 8), **options)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        with pytest.raises(StreamError):
            codec.decompress(bytes(damaged))
    for length in range(0, len(data), max(1, len(data) // 40)):
        with pytest.raises(StreamError):
            codec.decompress(data[:length])


@pytest.mark.parametrize(
    "options", [{"max_error": 0.02}, {"ratio": 64}, {"max_error": 0}, {"relative_error": 0.3}]
)
def test_damage_with_right_checksums_raises_stream_errors_only(codec, options) -> None:
    """What a hostile sender could make: the container is right, the payload is not."""
    from latentpress.codecs.bitstream import CodecId, SectionType, read_container, write_container

    container = read_container(codec.compress(waves(12, 8, 8, 8), **options))
    random = np.random.default_rng(1)
    for _ in range(80):
        payload = bytearray(container.payload)
        for _ in range(random.integers(1, 4)):
            payload[random.integers(min(len(payload), 200))] = random.integers(256)
        data = write_container(CodecId.FIELD, container.fingerprint, [(SectionType.PAYLOAD, bytes(payload))])
        try:
            found = codec.decompress(data, limits=Limits(max_voxels=10**5))
        except StreamError:
            continue
        assert found.numel() <= 10**5


def test_limits(codec) -> None:
    data = codec.compress(waves(13, 8, 8, 8), max_error=0.1)
    with pytest.raises(LimitExceeded):
        codec.decompress(data, limits=Limits(max_voxels=1000))


def test_stream_of_another_codec(codec) -> None:
    from latentpress.codecs.bitstream import CodecId, SectionType, write_container

    data = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"")])
    with pytest.raises(CorruptStream, match="image"):
        codec.decompress(data)


@pytest.mark.parametrize(
    ("x", "options", "kind", "text"),
    [
        ([1.0], {}, TypeError, "list"),
        (np.zeros((1, 4, 4), np.int32), {}, TypeError, "int32"),
        (np.zeros((4, 4), np.float32), {}, ValueError, "shape"),
        (np.zeros((1, 0, 4), np.float32), {}, ValueError, "shape"),
        (np.zeros((1, 4, 4), np.float32), {"ratio": 9}, ValueError, "ratio"),
        (np.zeros((1, 4, 4), np.float32), {"quality": 101}, ValueError, "quality"),
        (np.zeros((1, 4, 4), np.float32), {"max_error": -1}, ValueError, "max_error"),
        (np.zeros((1, 4, 4), np.float32), {"max_error": math.nan}, ValueError, "max_error"),
        (np.zeros((1, 4, 4), np.float32), {"max_error": 1, "relative_error": 1}, TypeError, "not both"),
        (np.zeros((1, 4, 4), np.float32), {"max_error": 1, "target_bytes": 1}, TypeError, "target_bytes"),
    ],
)
def test_wrong_arguments(codec, x, options, kind, text) -> None:
    with pytest.raises(kind, match=text):
        codec.compress(x, **options)


def test_interpolation_between_streams(codec) -> None:
    x = waves(14, 16, 16, 16)
    streams = [codec.compress(field, max_error=0.01) for field in (x, -x)]
    assert torch.allclose(codec.interpolate(*streams, 0.0), codec.decompress(streams[0]))
    assert codec.interpolate(*streams, 0.5).shape == x.shape
