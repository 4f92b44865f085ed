"""Fields in blocks: no seams, any part alone, from any kind of array, in bounded memory, damage noticed."""

import importlib.util
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs import inspect
from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    LimitExceeded,
    Limits,
    SectionType,
    StreamError,
    UnknownModel,
    read_container,
    write_container,
)
from latentpress.codecs.bitstream.container_file import find_payload
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_description import inspect_blocks
from latentpress.codecs.field_file import FieldFile


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


def in_blocks(codec: FieldCodec, x: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    count = codec.compress_blocks(x, file, **options)
    data = file.getvalue()
    assert len(data) == count
    return data


@pytest.mark.parametrize("periodic", [False, True, (True, False, True)])
@pytest.mark.parametrize("block", [8, 16, (16, 24, 8)])
def test_joint_blocks_have_no_seams(codec, periodic, block) -> None:
    """What blocks decode to is what their latents, put together, decode to."""
    x = waves(1, 32, 24, 40)
    data = in_blocks(codec, x, block=block, ratio=8, quality=70, periodic=periodic)
    with codec.open(io.BytesIO(data)) as field:
        model = codec.model(8)
        everything = tuple(np.arange(size // 8) for size in x.shape[1:])
        latent = field._gather(everything, 0)
        flags = (periodic,) * 3 if isinstance(periodic, bool) else periodic
        whole = model.synthesise(latent, 700, flags, "faithful").numpy() * field.header.scales[0]
        whole += np.array(field.header.offsets, np.float32)[:, None, None, None]
        found = field[...]
    np.testing.assert_allclose(found, whole, atol=1e-4 * float(np.abs(x).max()))
    at_once = codec.decompress(codec.compress(x, ratio=8, quality=70, periodic=periodic)).numpy()
    errors = [float(np.sqrt(np.square(y - x).mean())) for y in (found, at_once)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_halo_is_needed(codec) -> None:
    """The test above could not fail if blocks did not depend on their surroundings."""
    model = codec.model(8)
    latent = torch.randn(1, 2, 2, 4, model.latent_channels)
    whole = model.synthesise(latent, 500, (False,) * 3, "faithful").numpy()
    half = model.synthesise(latent[:, :, :, :2], 500, (False,) * 3, "faithful").numpy()
    assert np.abs(whole[..., :16] - half).max() > 0.01 * np.abs(whole).max()
    reach = 8 * model.synthesis_halo
    np.testing.assert_allclose(whole[..., : 16 - reach], half[..., : 16 - reach], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "block"),
    [
        ((3, 20, 33, 18), np.float32, 16),
        ((4, 9, 8, 30), np.float64, 8),
        ((2, 40, 27), np.float32, 16),
        ((1, 5, 5), np.float64, 8),
        ((1, 1, 1, 1), np.float32, None),
    ],
)
@pytest.mark.parametrize("options", [{"ratio": 8, "quality": 90}, {"max_error": 0.01}, {"max_error": 0}])
def test_shapes_types_and_regions(codec, shape, dtype, block, options) -> None:
    x = waves(2, *shape[1:], components=shape[0]).astype(dtype)
    data = in_blocks(codec, x, block=block, **options)
    decoded = codec.decompress(data)
    assert decoded.shape == shape
    assert decoded.numpy().dtype == dtype
    if "max_error" in options:
        assert np.abs(decoded.numpy().astype(np.float64) - x).max() <= options["max_error"]
    with codec.open(io.BytesIO(data)) as field:
        assert field.shape == shape
        assert field.ndim == len(shape)
        random = np.random.default_rng(0)
        for _ in range(6):
            key = []
            for size in shape:
                a, b = sorted(random.integers(0, size + 1, 2))
                step = int(random.choice([1, 1, 2, -1]))
                key.append(
                    [slice(a, b, step) if step > 0 else slice(b, a, step), int(random.integers(size))][
                        int(random.random() < 0.2)
                    ]
                )
            np.testing.assert_allclose(field[tuple(key)], decoded.numpy()[tuple(key)], atol=1e-5)
        np.testing.assert_allclose(field[..., -1], decoded.numpy()[..., -1], atol=1e-5)
        np.testing.assert_allclose(field[0], decoded.numpy()[0], atol=1e-5)


def test_regions_outside(codec) -> None:
    data = in_blocks(codec, waves(3, 16, 16, 16), block=8, max_error=0.1)
    with codec.open(io.BytesIO(data)) as field:
        assert field[:, 4:4].shape == (3, 0, 16, 16)
        for key in ((0, 0, 0, 0, 0), (3,), (0, "a")):
            with pytest.raises(IndexError):
                field[key]
        with pytest.raises(IndexError):
            field.read((0, 0, 0, 0), (3, 17, 16, 16))


def test_other_decoder_and_divergence(codec) -> None:
    x = waves(4, 16, 16, 32)
    data = in_blocks(codec, x, block=16, ratio=64, periodic=True)
    realistic = codec.decompress(data, decoder="realistic")
    assert not torch.allclose(realistic, codec.decompress(data))
    with codec.open(io.BytesIO(data), decoder="realistic") as field:
        np.testing.assert_allclose(field[...], realistic.numpy())
    free = codec.decompress(data, divergence_free=True)
    assert not torch.allclose(free, codec.decompress(data))
    assert codec.coarse(data, 8).shape == (3, 2, 2, 4)
    assert codec.interpolate(data, data, 0.5).shape == x.shape


def test_gaps_are_kept_in_both_kinds(codec) -> None:
    x = waves(5, 24, 24, 24) + 300
    x[:, :9, 3:, :] = np.nan
    x[0, 20, 20, 20] = np.inf
    x[2, 23, 0, 0] = -np.inf
    for options in ({"ratio": 8, "quality": 90}, {"relative_error": 1e-3}):
        decoded = codec.decompress(in_blocks(codec, x, block=8, **options)).numpy()
        finite = np.isfinite(x)
        assert np.array_equal(decoded[~finite], x[~finite], equal_nan=True)
        assert np.sqrt(np.square(decoded[finite] - x[finite]).mean()) < 0.3 * x[finite].std()
    extent = float(x[finite].max() - x[finite].min())
    assert np.abs(decoded[finite] - x[finite]).max() <= 1e-3 * extent


def test_range_is_that_of_the_whole_field(codec) -> None:
    x = np.zeros((1, 8, 16), np.float32)
    x[0, :, :8] = np.random.default_rng(0).random((8, 8))
    x[0, 0, 0] = 0
    x[0, :, 8:] = 1000
    data = in_blocks(codec, x, block=8, relative_error=1e-3)
    assert inspect(data).parameters["max_error"] == pytest.approx(1.0)


class Counted:
    """An array that notes the largest part that was asked of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.largest = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def __getitem__(self, key):
        part = self.array[key]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("options", [{"ratio": 64}, {"max_error": 0.05}])
def test_memory_does_not_grow_with_the_field(codec, tmp_path, options) -> None:
    peaks = []
    for length in (64, 512):
        path = tmp_path / f"{length}.npy"
        np.save(path, waves(6, 16, 16, length))
        source = Counted(np.load(path, mmap_mode="r"))
        tracemalloc.start()
        codec.compress_blocks(source, tmp_path / "flow.lpz", block=16, **options)
        target = np.lib.format.open_memmap(tmp_path / "again.npy", "w+", np.float32, (3, 16, 16, length))
        with codec.open(tmp_path / "flow.lpz") as field:
            field.copy_to(target)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert source.largest <= 3 * 16 * 16 * (16 + 2 * 8)
    # What is kept for every block is its entry in the table.
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize("kind", ["memmap", "tensor", "big-endian", "zarr", "hdf5", "dask", "xarray"])
def test_sources(codec, tmp_path, kind) -> None:
    x = waves(7, 24, 16, 20)
    if kind == "memmap":
        np.save(tmp_path / "x.npy", x)
        source = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "tensor":
        source = torch.from_numpy(x)
    elif kind == "big-endian":
        source = x.astype(">f4")
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr", minversion="3")
        source = zarr.create_array(
            tmp_path / "x.zarr", shape=x.shape, dtype="float32", chunks=(1, 10, 10, 10)
        )
        source[:] = x
    elif kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        source = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=x)
    elif kind == "dask":
        source = pytest.importorskip("dask.array").from_array(x, chunks=(3, 7, 9, 11))
    else:
        source = pytest.importorskip("xarray").DataArray(x)
    expected = in_blocks(codec, x, block=16, ratio=8)
    assert in_blocks(codec, source, block=16, ratio=8) == expected


def test_file_as_a_dask_array(codec, tmp_path) -> None:
    dask_array = pytest.importorskip("dask.array")
    x = waves(8, 32, 16, 16)
    codec.compress_blocks(x, tmp_path / "flow.lpz", block=16, max_error=0.01)
    with codec.open(tmp_path / "flow.lpz") as field:
        lazy = dask_array.from_array(field, chunks=(3, 16, 16, 16))
        mean = lazy.mean(axis=1).compute(scheduler="threads", num_workers=2)
    assert np.abs(mean - x.mean(axis=1)).max() <= 0.011


def test_nothing_is_left_of_a_stream_that_was_not_finished(codec, tmp_path) -> None:
    class Failing(Counted):
        def __getitem__(self, key):
            if key[1].start:
                raise OSError("the disk is gone")
            return super().__getitem__(key)

    (tmp_path / "flow.lpz").write_bytes(b"old")
    with pytest.raises(OSError, match="disk"):
        codec.compress_blocks(Failing(waves(9, 16, 8, 8)), tmp_path / "flow.lpz", block=8, max_error=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["flow.lpz"]
    assert (tmp_path / "flow.lpz").read_bytes() == b"old"


def test_inspect(codec, tmp_path) -> None:
    data = in_blocks(codec, waves(10, 16, 24, 8), block=16, ratio=64, quality=12.3)
    expected = {"components": 3, "depth": 16, "height": 24, "width": 8, "dtype": "float32"}
    expected |= {"mode": "joint blocks", "blocks": 2, "block": "16 x 16 x 8", "ratio": 64, "quality": 12.3}
    assert inspect(data).parameters == expected
    (tmp_path / "flow.lpz").write_bytes(data)
    assert inspect_blocks(tmp_path / "flow.lpz") == inspect(data)
    (tmp_path / "other.lpz").write_bytes(codec.compress(waves(10, 8, 8), max_error=0.1))
    assert inspect_blocks(tmp_path / "other.lpz") is None
    (tmp_path / "noise").write_bytes(b"noise")
    assert inspect_blocks(tmp_path / "noise") is None


def test_bounded_blocks_fit_any_weights(codec) -> None:
    data = in_blocks(codec, waves(11, 8, 8), block=8, max_error=0.01)
    assert torch.equal(FieldCodec().decompress(data), codec.decompress(data))
    with pytest.raises(UnknownModel):
        FieldCodec().decompress(in_blocks(codec, waves(11, 16, 16, 16), ratio=8))


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({}, ValueError, "bound is needed"),
        ({"max_error": 1, "quality": 3}, TypeError, "bound, or a ratio"),
        ({"max_error": 1, "relative_error": 1}, TypeError, "not both"),
        ({"max_error": 1, "block": 12}, ValueError, "multiples of 8"),
        ({"max_error": 1, "block": (8, 8)}, ValueError, "as many sides"),
        ({"max_error": -1}, ValueError, "max_error"),
        ({"relative_error": np.nan}, ValueError, "relative_error"),
    ],
)
def test_wrong_arguments(options, kind, text) -> None:
    with pytest.raises(kind, match=text):
        in_blocks(FieldCodec(), waves(12, 16, 16, 16), **options)


def test_wrong_sources(codec) -> None:
    with pytest.raises(TypeError, match="int16"):
        in_blocks(codec, np.zeros((1, 8, 8), np.int16), max_error=1)
    with pytest.raises(ValueError, match="shape"):
        in_blocks(codec, np.zeros((8, 8), np.float32), max_error=1)
    with pytest.raises(ValueError, match="too large"):
        in_blocks(codec, np.array([[[1e308, -1e308]]]), ratio=8)


def test_damage_is_noticed_where_it_is(codec) -> None:
    x = waves(13, 16, 16, 16)
    for options in ({"ratio": 8}, {"max_error": 0.01}):
        data = in_blocks(codec, x, block=8, **options)
        place = find_payload(io.BytesIO(data))
        damaged = bytearray(data)
        damaged[place.start + place.length - 3] ^= 1
        with codec.open(io.BytesIO(damaged)) as field:
            # Of joint blocks those beside the damaged one need its latents.
            assert np.isfinite(field[:, :8, :8, :8]).all() if "max_error" in options else True
            with pytest.raises(CorruptStream, match="block 7"):
                field[:, 15, 15, 15]
            with pytest.raises(CorruptStream):
                field.verify()
        with pytest.raises(CorruptStream):
            codec.decompress(bytes(damaged))
        codec.verify(data)


@pytest.mark.parametrize("options", [{"ratio": 8}, {"max_error": 0.02}, {"max_error": 0}])
def test_hostile_heads_raise_stream_errors_only(codec, options) -> None:
    """Right checksums everywhere, wrong numbers: what a hostile sender could make."""
    from latentpress.codecs.bitstream import crc32c
    from latentpress.codecs.field_blocks import read_blocks_header, table_extent

    container = read_container(in_blocks(codec, waves(14, 16, 16, 8), block=8, **options))
    payload = container.payload
    header, offset = read_blocks_header(payload, Limits())
    _, behind = table_extent(payload, offset, header, len(payload))
    random = np.random.default_rng(1)
    decoded = 0
    for _ in range(300):
        head = bytearray(payload[:behind])
        for _ in range(random.integers(1, 4)):
            head[random.integers(len(head))] = random.integers(256)
        changed = bytes(head) + struct.pack("<I", crc32c(bytes(head))) + payload[behind + 4 :]
        data = write_container(CodecId.FIELD, container.fingerprint, [(SectionType.PAYLOAD, changed)])
        try:
            found = codec.decompress(data, limits=Limits(max_voxels=10**5))
        except StreamError:
            continue
        decoded += 1
        assert found.numel() <= 10**5
    assert decoded < 200


@pytest.mark.parametrize("size", [2**11, 2**22, 2**40])
def test_more_blocks_than_a_machine_can_count(size) -> None:
    """A field may be of any size; one of 2^33 blocks and more is no field."""
    from latentpress.codecs.bitstream import crc32c
    from latentpress.codecs.field_blocks import BlockKind, BlocksHeader, pack_head

    header = BlocksHeader(
        BlockKind.SEPARATE, (1, size, size, size), (1, 1, 1), flat=False, double=False, bound=0.1
    )
    payload = pack_head(header, [1], [crc32c(b"a")]) + b"a"
    data = write_container(CodecId.FIELD, bytes(8), [(SectionType.PAYLOAD, payload)])
    for read in (inspect, FieldCodec().decompress, FieldCodec().verify):
        with pytest.raises(CorruptStream, match="cannot have blocks"):
            read(data)
    with pytest.raises(CorruptStream, match="cannot have blocks"):
        FieldCodec().open(io.BytesIO(data))


def test_blocks_cannot_be_divided_again(codec) -> None:
    from latentpress.codecs.bitstream import crc32c
    from latentpress.codecs.field_blocks import BlockKind, BlocksHeader, pack_head

    inner = read_container(in_blocks(codec, waves(15, 8, 8), block=8, max_error=0.1)).payload
    header = BlocksHeader(BlockKind.SEPARATE, (3, 1, 8, 8), (1, 8, 8), flat=True, double=False, bound=0.1)
    payload = pack_head(header, [len(inner)], [crc32c(inner)]) + inner
    data = write_container(CodecId.FIELD, bytes(8), [(SectionType.PAYLOAD, payload)])
    with pytest.raises(CorruptStream, match="divided again"):
        codec.decompress(data)
    other = read_container(codec.compress(waves(15, 8, 9), max_error=0.1)).payload
    payload = pack_head(header, [len(other)], [crc32c(other)]) + other
    data = write_container(CodecId.FIELD, bytes(8), [(SectionType.PAYLOAD, payload)])
    with pytest.raises(CorruptStream, match="not of this field"):
        codec.decompress(data)


def test_limits_are_those_of_what_is_decoded(codec) -> None:
    data = in_blocks(codec, waves(16, 16, 16, 16), block=8, max_error=0.1)
    limits = Limits(max_voxels=3 * 8**3)
    with FieldFile(codec, io.BytesIO(data), limits=limits) as field:
        assert field[:, :8, 8:, :8].shape == (3, 8, 8, 8)
        with pytest.raises(LimitExceeded):
            field[:, :9, 8:, :8]
    with pytest.raises(LimitExceeded):
        codec.open(io.BytesIO(data), limits=Limits(max_voxels=3 * 8**3 - 1))


def test_streams_of_other_kinds_are_not_opened(codec) -> None:
    whole = codec.compress(waves(17, 8, 8), max_error=0.1)
    with pytest.raises(CorruptStream, match="not in blocks"):
        codec.open(io.BytesIO(whole))
    image = write_container(CodecId.IMAGE, bytes(8), [(SectionType.PAYLOAD, b"")])
    with pytest.raises(CorruptStream, match="image"):
        codec.open(io.BytesIO(image))
    data = in_blocks(codec, waves(17, 8, 8), block=8, max_error=0.1)
    for length in range(0, len(data), 7):
        with pytest.raises(StreamError):
            codec.open(io.BytesIO(data[:length]))
    with pytest.raises(CorruptStream, match="follow"):
        codec.open(io.BytesIO(data + b"x"))


def test_progress_rises_to_the_end(codec) -> None:
    seen: list[float] = []
    in_blocks(
        codec, waves(18, 16, 16, 8), block=8, ratio=8, progress=lambda fraction, stage: seen.append(fraction)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
