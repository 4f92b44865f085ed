"""``latentpress encode`` and ``decode`` with fields."""

import numpy as np
import pytest

from latentpress.scripts.cli import main
from latentpress.scripts.fields import read_field


def flow() -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (6, 7, 8)), indexing="ij")
    return np.stack([np.sin(x + y), np.cos(z * y), x * z]).astype(np.float32)


def test_round_trip_of_a_numpy_file(tmp_path, capsys) -> None:
    np.save(tmp_path / "flow.npy", flow())
    assert main(["encode", str(tmp_path / "flow.npy"), "--max-error", "0.01"]) == 0
    packed = tmp_path / "flow.lpz"
    assert f"{packed}  {packed.stat().st_size} bytes  ratio " in capsys.readouterr().out
    restored = tmp_path / "again.npy"
    assert main(["decode", str(packed), "-o", str(restored)]) == 0
    assert "3 x 6 x 7 x 8 float32" in capsys.readouterr().out
    assert np.abs(np.load(restored) - flow()).max() <= 0.01
    # Without -o it goes beside the stream, where a field is already.
    assert main(["decode", str(packed)]) != 0
    assert main(["info", str(packed)]) == 0
    assert "interpolation" in capsys.readouterr().out


def test_a_plane_has_one_component(tmp_path) -> None:
    np.save(tmp_path / "plane.npy", flow()[0, 0].astype(np.float64))
    assert read_field(str(tmp_path / "plane.npy")).shape == (1, 7, 8)


@pytest.mark.parametrize("values", [np.zeros((2, 3), np.int16), np.zeros(4), np.zeros((1,) * 5)])
def test_other_arrays_are_refused(tmp_path, values) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(ValueError, match=r"x\.npy"):
        read_field(str(tmp_path / "x.npy"))


def test_zarr_stores(tmp_path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    group = zarr.open_group(tmp_path / "run.zarr", mode="w")
    for name in ("u", "p"):
        group.create_array(name, shape=(6, 7, 8), dtype="float32", chunks=(6, 7, 8))[:] = flow()[0]
    with pytest.raises(ValueError, match="p, u"):
        read_field(str(tmp_path / "run.zarr"))
    assert np.array_equal(read_field(str(tmp_path / "run.zarr"), "u"), flow()[0])
