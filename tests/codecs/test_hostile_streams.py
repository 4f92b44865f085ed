"""Every codec of the library against what `latentpress.codecs.testing` makes of its streams."""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentpress.codecs import testing
from latentpress.codecs.bitstream import Limits
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.registry import inspect, load, read_metadata

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "v1"
LIMITS = Limits(max_pixels=2**12, max_voxels=2**12, max_vertices=2**13, max_faces=2**13, max_sections=16)
SECONDS = 5.0
"""Far more than any takes, so that a busy machine is no failure, and far less than for ever."""


class Attacked(NamedTuple):
    """A codec and streams that decode, without which there would be nothing to damage.

    Attributes:
        ways: To read a stream.
        streams: To start from.
    """

    ways: tuple[Callable[[bytes], Any], ...]
    streams: tuple[bytes, ...]


def field_weights() -> Any:
    path = Path(__file__).with_name("tiny_field.py")
    spec = importlib.util.spec_from_file_location("tiny_field", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(codec: Any, **options: Any) -> Attacked:
    slope = torch.arange(3 * 20 * 33).reshape(3, 20, 33).remainder(256).to(torch.uint8)
    streams = (codec.compress(slope, quality=60, metadata={"icc": b"profile"}), codec.compress(slope[:1]))
    plain = partial(codec.decompress, limits=LIMITS)
    verify = partial(codec.verify, limits=LIMITS)
    return Attacked(
        (plain, verify, *(partial(plain, **{name: value}) for name, value in options.items())), streams
    )


def fields() -> Attacked:
    module = field_weights()
    codec = FieldCodec(module.make_weights())
    waves = module.waves(1, 8, 9, 10)
    streams = (
        codec.compress(waves, ratio=64),
        codec.compress(waves, relative_error=0.01),
        codec.compress(waves[:1, 0], max_error=0),
    )
    realistic = partial(codec.decompress, limits=LIMITS, decoder="realistic")
    return Attacked(
        (partial(codec.decompress, limits=LIMITS), partial(codec.verify, limits=LIMITS), realistic), streams
    )


def shapes() -> Attacked:
    codec: Any = load(GOLDEN / "shape_tiny.safetensors")
    names = ("shape_mesh_q0", "shape_coloured_mesh_q60", "polygons_coloured", "polygons_tangle")
    streams = tuple((GOLDEN / f"{name}.lpz").read_bytes() for name in names)
    coarse = partial(codec.decompress, limits=LIMITS, resolution=8)
    return Attacked(
        (coarse, partial(codec.verify, limits=LIMITS), partial(codec.decompress, as_="field")), streams
    )


MAKERS: dict[str, Callable[..., Attacked]] = {
    "image": lambda _: pictures(load(GOLDEN / "image_tiny.safetensors")),
    "image-max": lambda request: pictures(request.getfixturevalue("tiny_max_codec"), partial=True),
    "index": lambda _: pictures(load(GOLDEN / "index_tiny.safetensors"), repair=True),
    "field": lambda _: fields(),
    "shape": lambda _: shapes(),
}


@pytest.fixture(scope="module", params=MAKERS)
def attacked(request) -> Attacked:
    return MAKERS[request.param](request)


def test_streams_decode(attacked) -> None:
    for stream in attacked.streams:
        for way in attacked.ways:
            if "repair" not in getattr(way, "keywords", {}):
                assert testing.check_decoding(way, stream)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_hostile_streams(attacked, data) -> None:
    stream = data.draw(st.sampled_from(attacked.streams).flatmap(testing.hostile))
    for way in attacked.ways:
        testing.check_decoding(way, stream, SECONDS)
    for read in (inspect, read_metadata):
        testing.check_decoding(read, stream, SECONDS)
