"""``latentpress eval``: figures come from files, and say so when there are none."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.scripts import rate_distortion
from latentpress.scripts.cli import main
from latentpress.scripts.measures import compare
from latentpress.scripts.rate_distortion import Mean, Row
from latentpress.train.metrics.anchors import RatePoints, kodak_anchors


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(2):
        image = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        image.resize((200, 170), Image.Resampling.BICUBIC).save(folder / f"p{k}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(pictures: Path, out: Path, *more: str) -> dict:
    assert main(["eval", "--data", str(pictures), "--out", str(out), *more]) == 0
    return json.loads((out / "image.json").read_text())


def test_report(codec, pictures, tmp_path, capsys) -> None:
    found = run(pictures, tmp_path / "out", "--qualities", "20,60")
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["20", "60"]
    assert "no anchors for these pictures" in out
    assert found["fingerprint"] == "0001020304050607"
    assert found["command"].startswith("latentpress eval --data ")
    assert found["pictures"] == 2
    assert [(row["picture"], row["quality"]) for row in found["rows"]] == [
        (name, quality) for name in ("p0.png", "p1.png") for quality in (20.0, 60.0)
    ]
    row = found["rows"][0]
    data = codec.compress(
        torch.from_numpy(np.array(Image.open(pictures / "p0.png"))).permute(2, 0, 1), quality=20.0
    )
    assert row["bytes"] == len(data)
    assert row["bpp"] == pytest.approx(len(data) * 8 / (200 * 170))
    mean = found["means"][0]
    both = [row["psnr"] for row in found["rows"] if row["quality"] == 20]
    assert mean["psnr"] == pytest.approx(sum(both) / 2)
    assert mean["estimated_bpp"] is None
    assert 0 < mean["ms_ssim"] < 1
    with Image.open(tmp_path / "out" / "image.png") as plot:
        assert plot.format == "PNG"
        assert plot.width > 800


def test_anchors_from_a_file(codec, pictures, tmp_path, capsys) -> None:
    own = run(pictures, tmp_path / "a", "--qualities", "0,20,40,60")
    anchor = {
        "bpp": [2 * mean["bpp"] for mean in own["means"]],
        "psnr": [mean["psnr"] for mean in own["means"]],
    }
    file = tmp_path / "anchors.json"
    file.write_text(json.dumps({"codecs": {"twice": anchor, "far": {"bpp": [1, 2], "psnr": [90, 95]}}}))
    capsys.readouterr()
    found = run(pictures, tmp_path / "b", "--qualities", "0,20,40,60", "--anchors", str(file))
    twice, far = found["bd_rate"]
    assert twice["percent"] == pytest.approx(-50.0, abs=1e-6)
    assert far["percent"] is None
    out = capsys.readouterr().out
    assert "BD-rate to twice: -50.00 % over " in out
    assert "BD-rate to far: none (the curves share no quality" in out
    assert found["monotone"] is True


def test_effort_and_an_earlier_evaluation(codec, pictures, tmp_path, capsys, monkeypatch) -> None:
    """A report serves as the anchor of the next, so what effort gains comes from two evaluations."""
    monkeypatch.setattr(codec, "information_bits", lambda *_: 800.0, raising=False)
    plain = run(pictures, tmp_path / "a", "--qualities", "0,20,40,60")
    assert (plain["effort"], plain["means"][0]["estimated_bpp"]) == (0, 800 / (200 * 170))
    assert all("effort" not in call for call in codec.calls)
    codec.calls.clear()
    anchor = str(tmp_path / "a" / "image.json")
    found = run(pictures, tmp_path / "b", "--qualities", "0,20,40,60", "--effort", "3", "--anchors", anchor)
    assert (found["effort"], found["means"][0]["estimated_bpp"]) == (3, None)
    assert [call["effort"] for call in codec.calls[1:]] == [3] * 8
    assert found["bd_rate"][0]["anchor"] == "image with effort 0"
    assert found["bd_rate"][0]["percent"] == pytest.approx(0.0, abs=1e-9)
    assert "effort 3" in capsys.readouterr().out


def test_quality_that_does_not_matter_is_told(codec, pictures, tmp_path, capsys) -> None:
    assert run(pictures, tmp_path / "a", "--qualities", "50,51", "--limit", "1")["monotone"] is False
    assert "NOT monotone" in capsys.readouterr().out


def test_lossless_is_null_in_json(codec, pictures, tmp_path, capsys) -> None:
    found = run(pictures, tmp_path / "a", "--qualities", "100")
    assert found["means"][0]["psnr"] is None
    assert "inf" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "{}", "nothing", '{"codecs": {"a": {"bpp": [1], "psnr": []}}}'])
def test_bad_anchors(codec, pictures, tmp_path, capsys, content) -> None:
    file = tmp_path / "anchors.json"
    file.write_text(content)
    assert main(["eval", "--data", str(pictures), "--anchors", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"latentpress: error: {file}: ")


def test_a_folder_that_cannot_be_written_is_found_before_measuring(
    codec, pictures, tmp_path, capsys, monkeypatch
) -> None:
    def measured(*arguments: object) -> None:
        pytest.fail("it measured first")

    monkeypatch.setattr(rate_distortion, "measure", measured)
    (tmp_path / "out").write_text("a file")
    assert main(["eval", "--data", str(pictures), "--out", str(tmp_path / "out")]) == 1
    assert "out" in capsys.readouterr().err


def test_no_data(codec, tmp_path, capsys) -> None:
    assert main(["eval", "--data", str(tmp_path / "absent")]) == 1
    assert "is no folder" in capsys.readouterr().err
    assert main(["eval", "--data", str(tmp_path)]) == 1
    assert "holds no pictures" in capsys.readouterr().err
    assert main(["eval"]) == 2


def test_kodak_is_known_by_its_names() -> None:
    names = [Path(f"kodim{k:02}.png") for k in range(1, 25)]
    assert rate_distortion.is_kodak(names)
    assert not rate_distortion.is_kodak(names[:-1])


def test_shipped_anchors_against_themselves() -> None:
    anchors = kodak_anchors()
    assert len(anchors) >= 5
    for name, points in anchors.items():
        curve = [Mean(0.0, r, None, q, None, 0.0, 0.0) for r, q in zip(*points, strict=True)]
        difference = rate_distortion.rate_difference(name, points, curve)
        assert difference.percent == pytest.approx(0.0, abs=1e-9)
        assert difference.low_psnr == min(points.psnr)


def test_measures() -> None:
    black = torch.zeros(3, 170, 180, dtype=torch.uint8)
    assert compare(black, black) == (math.inf, 1.0)
    assert compare(black, black + 1).psnr == pytest.approx(48.1308, abs=1e-4)
    assert compare(black[:, :100], black[:, :100]).ms_ssim is None
    with pytest.raises(ValueError, match=r"\(3, 170, 180\).*\(3, 170, 1\)"):
        compare(black, black[..., :1])


def test_steps_of_single_pictures() -> None:
    def row(name: str, quality: float, size: int, psnr: float) -> Row:
        return Row(name, 1, 1, quality, size, 8.0 * size, None, psnr, None, 0.0, 0.0)

    rows = [
        row("a", 1, 10, 30),
        row("a", 2, 9, 31),
        row("a", 3, 12, 30),
        row("b", 1, 10, 30),
        row("b", 2, 10, 30),
    ]
    assert rate_distortion.falling_steps(rows) == 2


def test_a_curve_without_points() -> None:
    difference = rate_distortion.rate_difference("a", RatePoints((1.0, 2.0), (30.0, 35.0)), [])
    assert difference.percent is None
