"""The ablation: every variant is what it says, and a run writes what it found."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.scripts import ablation
from latentpress.scripts.ablation import PARTS, build_variant, main
from latentpress.scripts.ablation_report import COMPLETE


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for number, size in enumerate([(96, 80), (72, 112)]):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"p{number}.png")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def names(network) -> set[str]:
    return {part for name, _ in network.named_parameters() for part in name.split(".")}


@pytest.mark.parametrize(
    ("variant", "gone"),
    [
        ("no token mixing", {"deep_mixers"}),
        ("no local attention", {"local_attention", "log_base"}),
        ("bias instead of rotations", {"log_base"}),
        ("no channel reweighting", {"reweighting"}),
        ("no hyper correlation", {"hyper_correlation"}),
        ("no global contexts", {"inter_slice", "intra_slice"}),
        ("no residual prediction", {"residual_prediction"}),
    ],
)
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_variants_lack_what_they_say(variant, gone, size) -> None:
    with torch.device("meta"):
        complete, without = names(build_variant(COMPLETE, size)), names(build_variant(variant, size))
    assert gone <= complete
    assert not gone & without


def test_skipping_is_added() -> None:
    complete, added = (names(build_variant(n, "tiny")) for n in (COMPLETE, "with selective compression"))
    assert "selective" in added - complete


def test_grouping_is_a_matter_of_the_schedule() -> None:
    serial = build_variant("no grouping: all slices serial", "tiny").context.schedule
    assert (len(serial.stages), serial.parts) == (8, 1)
    assert len(build_variant(COMPLETE, "tiny").context.schedule.stages) == 5
    assert build_variant("four-step context model", "tiny").family == "image"


def test_run(pictures, tmp_path, capsys) -> None:
    variants = ["with selective compression", COMPLETE, "four-step context model"]
    arguments = ["--data", str(pictures), "--val", str(pictures), "--out", str(tmp_path / "out")]
    arguments += ["--minutes", "5", "--steps", "6", "--size", "tiny", "--device", "cpu", "--repeats", "1"]
    arguments += ["--batch-size", "2", "--crop-size", "64", "--variants", *variants]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [r["variant"] for r in found["variants"]] == [COMPLETE, variants[0], variants[2]]
    assert found["steps"] == 6
    for record in found["variants"]:
        assert record["steps"] == 6
        assert record["parameters"] > 0
        assert len(record["points"]) == len(ablation.QUALITIES)
        assert record["speed"]["bytes"] > 0
        assert record["speed"]["decode"] > 0
    assert found["variants"][0]["bd_rate"] in (0, None)
    text = (tmp_path / "out" / "ablation.txt").read_text()
    assert all(name in text for name in variants)
    assert (tmp_path / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert text.strip() in capsys.readouterr().out


def test_effort(pictures, tmp_path) -> None:
    """Refined streams of the complete model are held against its streams as they are."""
    arguments = ["--data", str(pictures), "--val", str(pictures), "--out", str(tmp_path), "--size", "tiny"]
    arguments += ["--minutes", "5", "--steps", "4", "--device", "cpu", "--repeats", "1", "--batch-size", "2"]
    arguments += ["--crop-size", "64", "--variants", COMPLETE, "--effort", "1", "--effort-pictures", "1"]
    assert main(arguments) == 0
    complete, refined = json.loads((tmp_path / "ablation.json").read_text())["variants"]
    assert (complete["variant"], refined["variant"]) == (COMPLETE, "effort 1")
    assert len(refined["points"]) == len(refined["reference"]) == len(ablation.QUALITIES)
    assert refined["points"] != refined["reference"]
    assert all(point["bpp"] > 0 and point["psnr"] > 5 for point in refined["points"])


def test_one_variant_that_fails_leaves_the_others(pictures, tmp_path, monkeypatch, capsys) -> None:
    build = ablation.build_variant

    def fail(name: str, size: str):
        if name == COMPLETE:
            raise RuntimeError("out of memory")
        return build(name, size)

    monkeypatch.setattr(ablation, "build_variant", fail)
    arguments = ["--data", str(pictures), "--val", str(pictures), "--out", str(tmp_path)]
    arguments += ["--minutes", "5", "--steps", "2", "--size", "tiny", "--device", "cpu", "--repeats", "1"]
    arguments += ["--batch-size", "2", "--crop-size", "64", "--variants", COMPLETE, "no token mixing"]
    assert main(arguments) == 1
    first, second = json.loads((tmp_path / "ablation.json").read_text())["variants"]
    assert first["error"] == "RuntimeError: out of memory"
    assert "points" in second
    assert second["bd_rate"] is None


def test_no_time_left(pictures, tmp_path) -> None:
    arguments = ["--data", str(pictures), "--val", str(pictures), "--out", str(tmp_path), "--size", "tiny"]
    arguments += ["--device", "cpu", "--crop-size", "64", "--minutes", "5", "--budget", "1"]
    assert main(arguments) == 1
    records = json.loads((tmp_path / "ablation.json").read_text())["variants"]
    assert [r["error"] for r in records] == ["no time left"] * len(PARTS)
