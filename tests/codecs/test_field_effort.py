"""Effort for fields: a better balance of bytes and error, in streams that any decoder reads."""

import io

import numpy as np
import pytest
import torch

from latentpress.codecs import inspect
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_effort import Effort, Subject, _Trials, refined_bytes


@pytest.fixture(scope="module")
def waves(field_helper):
    return field_helper.waves


def squared_error(codec: FieldCodec, data: bytes, x: np.ndarray) -> float:
    """Over what is finite, in units of the field's variance."""
    finite = np.isfinite(x)
    error = codec.decompress(data).numpy()[finite] - x[finite]
    return float(np.square(error).mean() / x[finite].var())


@pytest.mark.parametrize("ratio", [8, 64])
def test_the_objective_goes_down(field_codec, waves, ratio):
    """The bytes that are chosen have less ``bits + lambda * error`` than those without effort."""
    values = waves(5, 24, 17, 32).astype(np.float64)
    values /= values.std()
    subject = Subject(values, np.ones(values.shape, np.bool_), (False,) * 3, (False,) * 3)
    refiner = field_codec.refiner(ratio)
    trials = _Trials(refiner, subject)
    plain, _, scene = trials.plain(400)
    multiplier = trials.slope(400)
    data = refined_bytes(refiner, subject, 400, Effort(3))
    model = field_codec.model(ratio)
    y_hat = model.latents(data, (3, 3, 4), 400, (False,) * 3) * model.network.gain(torch.tensor([40.0]))
    refined = 8 * len(data) + multiplier * refiner.squared_error(y_hat, scene, 400)
    assert refined < 0.99 * (plain.bits + multiplier * plain.squared_error)


def test_any_decoder_reads_it(field_codec, field_helper, waves):
    x = waves(6, 24, 16, 16)
    plain, data = (field_codec.compress(x, ratio=8, quality=50, effort=effort) for effort in (0, 3))
    assert data != plain
    other = FieldCodec(field_helper.field_weights())
    assert torch.equal(other.decompress(data), field_codec.decompress(data))
    assert inspect(data).parameters == inspect(plain).parameters
    assert squared_error(other, data, x) < squared_error(other, plain, x)


def test_no_effort_is_what_it_always_was(field_codec, waves):
    x = waves(7, 16, 24, 16)
    for options in ({"quality": 40}, {"target_bytes": 900}, {"max_error": 0.5}):
        assert field_codec.compress(x, effort=0, **options) == field_codec.compress(x, **options)


def test_equal_calls_give_equal_bytes(field_codec, waves):
    x = waves(8, 16, 16, 16)
    streams = {field_codec.compress(x, quality=50, effort=1) for _ in range(2)}
    assert len(streams) == 1


@pytest.mark.parametrize("components", [1, 4])
def test_flat_fields_with_gaps_and_lone_components(field_codec, waves, components):
    x = waves(9, 40, 32, components=components)
    x[0, 3:9] = np.nan
    options = {"ratio": 8, "quality": 50, "periodic": (False, True, False)}
    plain, data = (field_codec.compress(x, effort=effort, **options) for effort in (0, 2))
    decoded = field_codec.decompress(data).numpy()
    assert np.array_equal(np.isnan(decoded), np.isnan(x))
    assert squared_error(field_codec, data, x) < squared_error(field_codec, plain, x)
    assert len(data) < 1.05 * len(plain)


def test_a_target_is_kept(field_codec, waves):
    x = waves(10, 24, 24, 24)
    plain, data = (field_codec.compress(x, target_bytes=1500, effort=effort) for effort in (0, 2))
    assert len(data) <= 1500
    assert squared_error(field_codec, data, x) <= squared_error(field_codec, plain, x)


def test_a_bound_is_kept(field_codec, waves):
    x = waves(11, 24, 24, 24)
    options = {"max_error": 0.3, "ratio": 8, "quality": 60}
    plain, data = (field_codec.compress(x, effort=effort, **options) for effort in (0, 1))
    assert np.abs(field_codec.decompress(data).numpy() - x).max() <= 0.3
    assert len(data) <= len(plain)


@pytest.mark.parametrize("periodic", [False, True])
def test_blocks(field_codec, waves, periodic):
    x = waves(12, 32, 24, 20)
    x[0, 5] = np.nan
    streams = []
    for effort in (0, 2):
        file = io.BytesIO()
        field_codec.compress_blocks(x, file, block=16, ratio=8, quality=50, periodic=periodic, effort=effort)
        streams.append(file.getvalue())
    errors = [squared_error(field_codec, data, x) for data in streams]
    assert errors[1] < errors[0]
    assert len(streams[1]) < 1.02 * len(streams[0])


def test_progress_rises_and_can_stop_it(field_codec, waves):
    x = waves(13, 16, 16, 16)
    fractions = []
    field_codec.compress(x, quality=50, effort=1, progress=lambda fraction, _: fractions.append(fraction))
    assert fractions == sorted(fractions)
    assert len(fractions) > 20

    def stop(fraction: float, stage: str) -> None:
        if stage.startswith("refining"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        field_codec.compress(x, quality=50, effort=1, progress=stop)


def test_wrong_efforts(field_codec, waves):
    x = waves(14, 16, 16, 16)
    for effort, error in ((11, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="effort"):
            field_codec.compress(x, quality=50, effort=effort)
        with pytest.raises(error, match="effort"):
            field_codec.compress_blocks(x, io.BytesIO(), quality=50, effort=effort)


def test_the_command_line_passes_it(tmp_path, monkeypatch, field_codec, waves):
    import argparse

    from latentpress.scripts import field_files
    from latentpress.scripts.file_io import Task

    np.save(tmp_path / "flow.npy", waves(15, 16, 16, 16))
    args = argparse.Namespace(
        quality=50.0, bytes=None, max_error=None, relative_error=None, ratio=8, periodic=False, block=None,
        variable=None, index=(), effort=1, force=False,
    )  # fmt: skip
    task = Task(str(tmp_path / "flow.npy"), str(tmp_path / "flow.lpz"))
    field_files.encode_field(task, field_codec, args)
    expected = field_codec.compress(waves(15, 16, 16, 16), ratio=8, quality=50, effort=1)
    assert (tmp_path / "flow.lpz").read_bytes() == expected
