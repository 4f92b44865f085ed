"""Coloured meshes: the painted rivals, ratios against source files, and all promises in one script."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

trimesh = pytest.importorskip("trimesh")
for package in ("DracoPy", "xatlas", "embreex", "pytorch_msssim"):
    pytest.importorskip(package)

from latentpress.codecs.polygon_decimation import decimated, welded  # noqa: E402
from latentpress.scripts import shape_acceptance, shape_comparison, shape_ratios  # noqa: E402
from latentpress.scripts.coloured_rivals import ColouredRivals, smallest_error_webp  # noqa: E402
from latentpress.scripts.coloured_shape_comparison import ColouredResult, lead, picture_judge  # noqa: E402
from latentpress.scripts.mesh_rendering import cameras_around, render, render_from  # noqa: E402
from latentpress.scripts.shape_comparison import Result  # noqa: E402


def painted_ball():
    """A ball that is red on one side and blue on the other."""
    ball = trimesh.creation.icosphere(2)
    colours = np.full((len(ball.vertices), 4), 255, np.uint8)
    colours[:, :3] = np.where(ball.vertices[:, :1] > 0, (220, 40, 30), (20, 60, 200))
    return trimesh.Trimesh(ball.vertices, ball.faces, vertex_colors=colours, process=False)


@pytest.fixture(scope="module")
def ball():
    return painted_ball()


@pytest.fixture(scope="module")
def weights(shape_helper, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    path.write_bytes(shape_helper.make_weights().to_bytes())
    return path


@pytest.mark.parametrize("way", ["with_vertex_colours", "textured"])
def test_rivals_keep_shape_and_colours_within_the_size(ball, way) -> None:
    original = render(ball, views=4, size=96)
    rival = getattr(ColouredRivals(ball), way)(
        700, lambda mesh: -np.square(render(mesh, 4, 96) - original).mean()
    )
    assert rival.bytes <= 700
    # Half of the pixels are the ball; where it is, red and blue must be where they were.
    assert rival.score > -0.02
    grey = trimesh.Trimesh(rival.mesh.vertices, rival.mesh.faces, process=False)
    assert np.square(render(grey, 4, 96) - original).mean() > 2 * -rival.score


def test_nothing_fits_into_nothing(ball) -> None:
    assert ColouredRivals(ball).best(60, picture_judge(render(ball, 2, 64))) is None
    with pytest.raises(ValueError, match="no colours"):
        ColouredRivals(trimesh.creation.icosphere(1))


def test_textures_get_better_with_their_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    texture = np.asarray(Image.fromarray(noise).resize((64, 64), Image.Resampling.BILINEAR))
    errors = []
    for limit in (120, 400, 2000):
        data = smallest_error_webp(texture, limit)
        assert len(data) <= limit
        shown = Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        errors.append(np.square(np.asarray(shown, float) - texture).mean())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_decimation_goes_on_where_collapses_get_stuck() -> None:
    # A comb of slivers: hardly any collapse leaves all normals as they were.
    comb = trimesh.creation.box((2, 2, 0.01)).subdivide_loop(0)
    ridges = comb.subdivide().subdivide().subdivide().subdivide()
    ridges.vertices[:, 2] += 0.02 * np.random.default_rng(0).random(len(ridges.vertices))
    points, faces = welded(ridges)
    fewer, kept = decimated(points, faces, 60)
    assert 0 < len(kept) <= 100
    assert np.ptp(fewer[np.unique(kept)], axis=0)[:2].min() > 1.5


def test_cameras_see_what_they_look_at(ball) -> None:
    cameras = cameras_around(3, 64)
    pictures = render_from(ball, cameras, lit=False)
    # Plain colours: whatever is seen is one of the two, or a blend along the seam.
    seen = pictures[..., 3] > 0
    assert 0.3 < seen.mean() < 0.7
    assert pictures[seen][:, 0].max() == pytest.approx(220 / 255, abs=1e-3)
    # The middle of the cube is projected to the middle of every picture.
    for matrix in cameras.camera_to_world:
        local = np.linalg.inv(matrix) @ (0, 0, 0, 1)
        u, v, w = cameras.intrinsics @ local[:3]
        assert (u / w, v / w) == pytest.approx((32, 32))
    empty = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), int))
    assert render(empty, 1, 16).min() == 1


def test_source_bytes_count_textures(tmp_path) -> None:
    (tmp_path / "skin.png").write_bytes(bytes(1000))
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd skin.png\nmap_Ks missing.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\n")
    expected = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert shape_ratios.source_bytes(tmp_path / "a.obj") == expected


def test_ratios_of_a_mesh(ball, weights, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(shape_ratios, "_VIEW_SIZE", 48)
    monkeypatch.setattr(shape_ratios, "_VIEWS", 8)
    monkeypatch.setattr(shape_ratios, "_RAY_SAMPLES", 16)
    ball.export(tmp_path / "ball.ply")
    out = tmp_path / "ratios.json"
    arguments = [str(tmp_path / "ball.ply"), "--bytes", "300", "--codec", str(weights), "--json", str(out)]
    shape_ratios.main(arguments)
    results = {r["kind"]: r for r in json.loads(out.read_text())["results"]}
    assert results.keys() == shape_ratios.PAPER.keys()
    assert results["textured mesh"]["source"] == (tmp_path / "ball.ply").stat().st_size
    assert results["point cloud"]["source"] == 2048 * 12
    for result in results.values():
        assert 0 < result["bytes"] <= 300
        assert 0 < result["chamfer"] < 1
    # The tiny model makes some body in the middle: better than a blank picture, worse than the ball.
    assert 4 < results["radiance field"]["psnr"] < 40
    ratio = 2048 * 12 / results["point cloud"]["bytes"]
    assert f"{ratio:.0f}" in capsys.readouterr().out


def geometry(name: str, codec: str, target: int, chamfer: float) -> Result:
    return Result(name, codec, target, target, chamfer, 0.5, 0.9, 1.0)


def test_bars_of_geometry() -> None:
    ours = {"a": {100: 0.02, 200: 0.015, 500: 0.01}, "b": {100: 0.03, 200: 0.019, 500: 0.0115}}
    results = [geometry(m, "latentpress", t, c) for m, found in ours.items() for t, c in found.items()]
    results += [
        geometry("a", "decimation + Draco", 200, 0.03),
        geometry("b", "decimation + Draco", 200, 0.018),
    ]
    bars = {bar.what: bar for bar in shape_acceptance.geometry_bars(results)}
    assert [bar.holds for bar in bars.values()] == [True, False, True, False, True]
    assert bars["... below the rival's at 200 B"].wanted == "mean below 0.0240"
    assert bars["... lower than the rival's"].found == "50 %"


def test_bars_of_colour_and_control() -> None:
    psnr = {"a": (25, 23.5, 22), "b": (20, 19.4, 18)}
    codecs = ("latentpress", "x", "y")
    results = [
        ColouredResult(m, c, 9, 9, v, 1) for m, row in psnr.items() for c, v in zip(codecs, row, strict=True)
    ]
    assert lead(results) == pytest.approx({"a": 1.5, "b": 0.6})
    (bar,) = shape_acceptance.coloured_bars(results)
    assert bar.holds
    controlled = [
        shape_acceptance.Controlled("a", 100, 0.013, 0.01),
        shape_acceptance.Controlled("a", 200, 0.011, 0.01),
    ]
    assert [bar.holds for bar in shape_acceptance.control_bars(controlled)] == [False, True]


def test_acceptance_goes_on_where_it_ended(ball, weights, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(shape_acceptance, "EFFORTS", {100: 0, 200: 0, 500: 0})
    monkeypatch.setattr(shape_comparison, "FACES", (30, 60, 120))
    # One promise that no weights keep, whatever the meshes become.
    monkeypatch.setattr(shape_acceptance, "WEIGHT_BYTES", 1)
    folder, out = tmp_path / "meshes", tmp_path / "results.json"
    folder.mkdir()
    ball.export(folder / "ball.ply")
    arguments = ["--codec", str(weights), "--meshes", str(folder), "--json", str(out)]
    arguments += ["--parts", "geometry", "decoding"]
    assert shape_acceptance.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "weight file" in printed
    row = next(line for line in printed.splitlines() if line.startswith("decoding in a fresh process"))
    assert row.endswith("yes")
    written = json.loads(out.read_text())
    assert {r["mesh"] for r in written["geometry"]} == {"ball"}

    def again(*_: object) -> None:
        raise AssertionError("measured a second time")

    monkeypatch.setattr(shape_acceptance, "measure", again)
    shape_acceptance.main([*arguments[:-1]])
    out.write_text(out.read_text().replace(written["fingerprint"], "0" * 16))
    with pytest.raises(AssertionError, match="second time"):
        shape_acceptance.main([*arguments[:-1]])
