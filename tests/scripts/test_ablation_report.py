"""The report of ablations: differences to the complete model of the same seed, and means over seeds."""

import json

import pytest

from latentpress.scripts.ablation_report import COMPLETE, add_bd_rates, join, main, table

POINTS = [{"quality": float(q), "bpp": 0.1 * 2**q, "psnr": 30.0 + q} for q in range(4)]


def dearer(factor: float) -> list[dict[str, float]]:
    return [{**point, "bpp": point["bpp"] * factor} for point in POINTS]


def run(seed: int, **variants: list[dict[str, float]]) -> dict:
    records = [{"variant": name, "points": points, "loss": 1.0 + seed} for name, points in variants.items()]
    settings = {"size": "tiny", "steps": 6, "batch_size": 2, "lr": 1e-3, "pictures": 2, "device": "the CPU"}
    return {**settings, "seed": seed, "variants": records}


def test_bd_rates_and_table() -> None:
    flat = [{**point, "psnr": 30.0} for point in POINTS]
    records = [{"variant": "a", "points": dearer(1.1)}, {"variant": COMPLETE, "points": POINTS}]
    records += [{"variant": "b", "points": flat}, {"variant": "c", "error": "RuntimeError: no"}]
    add_bd_rates(records)
    assert records[0]["bd_rate"] == pytest.approx(10)
    assert records[1]["bd_rate"] == pytest.approx(0)
    assert records[2]["bd_rate"] is records[3]["bd_rate"] is None
    text = table(records)
    assert "+10.00" in text
    assert "must have at least two points" in text
    assert "RuntimeError: no" in text
    assert "of seeds" not in text


def test_a_reference_of_its_own() -> None:
    records = [{"variant": COMPLETE, "points": POINTS}]
    records.append({"variant": "effort 3", "points": dearer(1.8), "reference": dearer(2.0)})
    add_bd_rates(records)
    assert records[1]["bd_rate"] == pytest.approx(-10)


def test_nothing_to_be_held_against() -> None:
    records = [{"variant": "a", "points": POINTS}]
    add_bd_rates(records)
    assert records[0]["bd_rate"] is None


def test_seeds_are_compared_with_their_own() -> None:
    runs = [run(1, complete=POINTS, a=dearer(1.1)), run(2, complete=dearer(3.0)), run(2, a=dearer(3.6))]
    report = join(runs)
    assert report["seeds"] == [1, 2]
    complete, a = report["variants"]
    assert complete["variant"] == COMPLETE
    assert complete["bd_rates"] == pytest.approx([0, 0])
    assert a["bd_rates"] == pytest.approx([10, 20])
    assert a["bd_rate"] == pytest.approx(15)
    assert a["loss"] == 2.5
    assert "+10.00 to +20.00" in table(report["variants"])


def test_fastest_of_the_runs() -> None:
    runs = [run(seed, complete=POINTS) for seed in (1, 2)]
    for number, r in enumerate(runs):
        r["variants"][0]["speed"] = {"encode": 1.0 + number, "decode": 3.0 - number}
    assert join(runs)["variants"][0]["speed"] == {"encode": 1.0, "decode": 2.0}


def test_runs_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="runs differ in steps: 6, 7"):
        join([run(1, complete=POINTS), {**run(2, complete=POINTS), "steps": 7}])
    with pytest.raises(ValueError, match="'complete' is there twice for the seed 1"):
        join([run(1, complete=POINTS), run(1, complete=POINTS)])


def test_command(tmp_path, capsys) -> None:
    files = []
    for seed in (1, 2):
        files.append(tmp_path / f"{seed}.json")
        files[-1].write_text(json.dumps(run(seed, complete=POINTS, a=dearer(1 + seed / 10))))
    assert main([*map(str, files), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [r["bd_rate"] for r in report["variants"]] == pytest.approx([0, 15])
    assert (tmp_path / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "ablation.txt").read_text().strip() in capsys.readouterr().out


def test_command_without_such_a_file(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.json"), "--out", str(tmp_path)])
    assert "none.json" in capsys.readouterr().err
