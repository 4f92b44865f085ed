"""The field codec in zarr stores of both formats, and in arrays that a cluster writes."""

import numpy as np
import pytest

pytest.importorskip("zarr", minversion="3")

import numcodecs
import zarr
from zarr.registry import register_codec

from latentpress.codecs.zarr_codec import CODEC_NAME, FieldCompressor, FieldSerializer

register_codec(CODEC_NAME, FieldSerializer)
numcodecs.register_codec(FieldCompressor)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*not in the Zarr.*specification"),
]


def smooth(*shape: int) -> np.ndarray:
    grids = np.meshgrid(*(np.linspace(0, 4, n) for n in shape), indexing="ij")
    return np.sin(sum((i + 1) * g for i, g in enumerate(grids))).astype(np.float32)


def test_round_trip_with_parts_of_chunks(tmp_path) -> None:
    x = smooth(3, 20, 17, 9)
    x[0, :5, :5] = np.nan
    array = zarr.create_array(
        tmp_path / "flow.zarr",
        shape=x.shape,
        chunks=(3, 8, 8, 8),
        dtype="float32",
        serializer=FieldSerializer(max_error=1e-3),
        compressors=None,
        fill_value=0.0,
    )
    array[:] = x
    again = zarr.open_array(tmp_path / "flow.zarr", mode="r")
    assert np.array_equal(np.isnan(again[:]), np.isnan(x))
    assert np.nanmax(np.abs(again[:].astype(np.float64) - x)) <= 1e-3
    assert np.nanmax(np.abs(again[1, 3:12, ::2, 8] - x[1, 3:12, ::2, 8])) <= 1e-3
    names = [codec["name"] for codec in again.metadata.to_dict()["codecs"]]
    assert CODEC_NAME in names
    stored = sum(f.stat().st_size for f in (tmp_path / "flow.zarr").rglob("*") if f.is_file())
    assert stored < 0.6 * x.nbytes


def test_numcodecs_configuration_and_round_trip() -> None:
    codec = numcodecs.get_codec({"id": CODEC_NAME, "relative_error": 0.01})
    x = smooth(7, 8, 9).astype(np.float64)
    decoded = codec.decode(codec.encode(x)).reshape(x.shape)
    assert decoded.dtype == np.float64
    assert np.abs(decoded - x).max() <= 0.01 * (x.max() - x.min())
    out = np.empty_like(x)
    codec.decode(codec.encode(x), out=out)
    assert np.array_equal(out, decoded)
    assert numcodecs.get_codec(codec.get_config()).settings == codec.settings


def test_settings_must_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="max_error or ratio"):
        FieldSerializer()
    with pytest.raises(ValueError, match="needs weights"):
        FieldSerializer(ratio=64)


def test_dask_writes_and_reads_chunks(tmp_path) -> None:
    dask_array = pytest.importorskip("dask.array")
    x = smooth(32, 24, 16)
    store = zarr.create_array(
        tmp_path / "t.zarr",
        shape=x.shape,
        chunks=(8, 24, 16),
        dtype="float32",
        serializer=FieldSerializer(relative_error=1e-2),
        compressors=None,
        fill_value=0.0,
    )
    dask_array.store(dask_array.from_array(x, chunks=(8, 24, 16)), store, lock=False, scheduler="synchronous")
    mean = dask_array.from_zarr(tmp_path / "t.zarr").mean(axis=0).compute(scheduler="synchronous")
    assert np.abs(mean - x.mean(axis=0)).max() < 0.02


def test_settings_come_back_from_metadata() -> None:
    """A bound of zero and an effort are kept, defaults are not written."""
    for settings in ({"max_error": 0.0}, {"relative_error": 0.01, "effort": 3}):
        codec = FieldCompressor(**settings)
        assert codec.get_config() == {"id": CODEC_NAME, **settings}
        assert numcodecs.get_codec(codec.get_config()).settings == codec.settings
    with pytest.raises(ValueError, match="effort"):
        FieldCompressor(relative_error=0.01, effort=11)
