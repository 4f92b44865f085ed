"""``latentpress encode``, ``decode``, ``info``, ``verify`` with fields in blocks, of every kind of file."""

import json

import numpy as np
import pytest

from latentpress.scripts.cli import main


def flow() -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (17, 12, 20)), indexing="ij")
    return np.stack([np.sin(x + y), np.cos(z * y)]).astype(np.float32)


def write(path, kind: str) -> str:
    """Writes the flow as a file of this kind and returns its path."""
    file = path / f"flow.{kind}"
    if kind == "npy":
        np.save(file, flow())
    elif kind == "h5":
        with pytest.importorskip("h5py").File(file, "w") as store:
            store["run/velocity"] = flow()
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr", minversion="3")
        array = zarr.create_array(file, shape=flow().shape, dtype="float32", chunks=(1, 8, 8, 8))
        array[:] = flow()
    else:
        pytest.importorskip("h5netcdf")
        data = pytest.importorskip("xarray").DataArray(flow(), dims=list("czyx"), name="velocity")
        data.to_netcdf(file, engine="h5netcdf")
    return str(file)


@pytest.mark.parametrize("kind", ["npy", "h5", "zarr", "nc"])
def test_every_kind_of_file_in_blocks(tmp_path, capsys, kind) -> None:
    source = write(tmp_path, kind)
    assert main(["encode", source, "--max-error", "0.01", "--block", "8"]) == 0
    packed = str(tmp_path / "flow.lpz")
    restored = tmp_path / "again.npy"
    assert main(["decode", packed, "-o", str(restored)]) == 0
    assert "2 x 17 x 12 x 20 float32" in capsys.readouterr().out
    assert np.abs(np.load(restored).astype(np.float64) - flow()).max() <= 0.01
    assert main(["info", "--json", packed]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["blocks"] == 3 * 2 * 3
    assert main(["verify", packed]) == 0
    assert main(["verify", "--quick", packed]) == 0


def test_part_and_zarr_target(tmp_path, capsys) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    source = write(tmp_path, "npy")
    packed = str(tmp_path / "flow.lpz")
    assert main(["encode", source, "--max-error", "0.01", "--block", "8"]) == 0
    assert main(["decode", packed, "-o", str(tmp_path / "whole.zarr")]) == 0
    whole = zarr.open_array(tmp_path / "whole.zarr", mode="r")
    assert whole.chunks == (2, 8, 8, 8)
    assert main(["decode", packed, "-o", str(tmp_path / "part.npy"), "--part", "1:,3:9,:,-4:"]) == 0
    assert np.array_equal(np.load(tmp_path / "part.npy"), whole[1:, 3:9, :, -4:])
    # What is not in blocks is not taken apart.
    assert main(["encode", source, "--max-error", "0.01", "--block", "0", "--force"]) == 0
    capsys.readouterr()
    assert main(["decode", packed, "-o", str(tmp_path / "x.npy"), "--part", "1:"]) != 0
    assert "fields in blocks" in capsys.readouterr().err


def test_damaged_blocks_are_refused(tmp_path, capsys) -> None:
    source = write(tmp_path, "npy")
    packed = tmp_path / "flow.lpz"
    assert main(["encode", source, "--max-error", "0.01", "--block", "8"]) == 0
    data = bytearray(packed.read_bytes())
    data[-9] ^= 1
    packed.write_bytes(data)
    for command in (["verify"], ["verify", "--quick"], ["decode", "-o", str(tmp_path / "x.npy")]):
        assert main([*command, str(packed)]) == 1
    assert not (tmp_path / "x.npy").exists()
    assert "damaged" in capsys.readouterr().err


def test_blocks_without_a_place(tmp_path, capsys) -> None:
    source = write(tmp_path, "npy")
    assert main(["encode", source, "--bytes", "900", "--block", "8"]) != 0
    assert "--block 0" in capsys.readouterr().err
    assert main(["encode", source, "--max-error", "0.01", "--block", "8", "-o", "-"]) != 0
    assert "--block 0" in capsys.readouterr().err
