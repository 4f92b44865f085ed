"""Meshes through the command line."""

from pathlib import Path

import pytest

trimesh = pytest.importorskip("trimesh")

from latentpress.scripts.cli import main  # noqa: E402


@pytest.fixture(scope="module")
def folder(shape_helper, tmp_path_factory) -> Path:
    """A folder with tiny weights and a mesh."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "tiny.safetensors").write_bytes(shape_helper.make_weights().to_bytes())
    trimesh.creation.icosphere(2).export(folder / "ball.glb")
    return folder


def test_there_and_back(folder, capsys) -> None:
    weights = str(folder / "tiny.safetensors")
    assert main(["encode", str(folder / "ball.glb"), "--codec", weights, "--bytes", "150"]) == 0
    assert "Chamfer" in capsys.readouterr().out
    stream = folder / "ball.lpz"
    assert stream.stat().st_size <= 150
    assert main(["info", str(stream)]) == 0
    assert "mesh" in capsys.readouterr().out
    assert main(["decode", str(stream), "--codec", weights]) == 0
    assert len(trimesh.load_mesh(folder / "ball.ply").faces)
    assert main(["decode", str(stream), "--codec", weights, "-o", str(folder / "ball.stl")]) == 0
    assert len(trimesh.load_mesh(folder / "ball.stl").faces)
    assert main(["decode", str(stream), "--codec", weights]) != 0  # ball.ply is there already


@pytest.mark.parametrize("wrong", [["--psnr", "30"], ["--codec", "image"]])
def test_what_shapes_do_not_have(folder, wrong, capsys) -> None:
    command = ["encode", str(folder / "ball.glb"), "-o", str(folder / "x.lpz")]
    weights = [] if "--codec" in wrong else ["--codec", str(folder / "tiny.safetensors")]
    assert main([*command, *wrong, *weights]) != 0
    assert "shape" in capsys.readouterr().err
    assert not (folder / "x.lpz").exists()
