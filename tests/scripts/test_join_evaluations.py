"""Parts of an evaluation become the report that one evaluation would have written."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from latentpress.scripts.commands import evaluate
from latentpress.scripts.join_evaluations import main
from latentpress.scripts.rate_distortion import Row
from latentpress.train.metrics.anchors import RatePoints

PICTURES = ("a.png", "b.png", "c.png")
QUALITIES = (0.0, 30.0, 60.0, 100.0)
ANCHORS = {
    "one": RatePoints((0.5, 1.0, 2.0, 4.0), (29.0, 32.0, 36.0, 39.0)),
    "far": RatePoints((1, 2), (90, 95)),
}


def row(picture: str, quality: float) -> Row:
    """Of a picture of its own size; one of them is lossless at the top, and one gets worse on the way."""
    number = PICTURES.index(picture)
    size = 1000 + 137 * number + round(40 * quality)
    psnr = math.inf if (number, quality) == (1, 100.0) else 30.1 + 0.07 * quality + number / 3
    if (number, quality) == (2, 60.0):
        psnr = 31.0
    estimate = None if number == 2 else size * 7.9 / 9600
    return Row(
        picture, 120, 80, quality, size, size * 8 / 9600, estimate, psnr, 0.9 + quality / 1e4, 0.1, 0.2
    )


ROWS = [row(picture, quality) for picture in PICTURES for quality in QUALITIES]


def report(rows: list[Row], anchors: dict[str, RatePoints] | None = None, **changes: object) -> dict:
    """What ``latentpress eval`` writes of such rows, as it is read again."""
    args = argparse.Namespace(
        command="latentpress eval --data /far/away", codec="image", effort=3, device="cuda"
    )
    found = evaluate._report(args, evaluate.evaluation_of(rows, anchors or {}, "0001020304050607"))
    return json.loads(json.dumps({**found, **changes}))


@pytest.fixture
def join(tmp_path) -> Callable[..., int]:
    """Joins reports into ``out/whole.json``; returns the exit code."""

    def run(*parts: dict, more: tuple[str, ...] = ()) -> int:
        paths = [tmp_path / f"part {k}.json" for k in range(len(parts))]
        for path, part in zip(paths, parts, strict=True):
            path.write_text(json.dumps(part))
        return main([*map(str, paths), "--out", str(tmp_path / "out" / "whole.json"), *more])

    return run


def joined(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "whole.json").read_text())


def by_picture() -> list[list[Row]]:
    return [[r for r in ROWS if r.picture == "c.png"], [r for r in ROWS if r.picture != "c.png"]]


def by_quality() -> list[list[Row]]:
    return [[r for r in ROWS if r.quality in some] for some in ((60.0,), (100.0, 0.0), (30.0,))]


@pytest.mark.parametrize("split", [by_picture, by_quality])
def test_the_whole_again(join, tmp_path, capsys, split) -> None:
    whole = report(ROWS)
    dates = ["2025-03-01T10:00:00+00:00", "2025-03-02T09:00:00+00:00", "2025-03-01T23:00:00+00:00"]
    parts = [report(rows, date=date) for rows, date in zip(split(), dates, strict=False)]
    assert join(*parts) == 0
    found = joined(tmp_path)
    assert list(found) == list(whole)
    assert (whole["falling_steps"], whole["monotone"], whole["bd_rate"]) == (1, True, [])
    names = " ".join(f"'part {k}.json'" for k in range(len(parts)))
    command = f"python -m latentpress.scripts.join_evaluations {names} --out whole.json"
    assert found == {**whole, "command": command, "date": dates[1]}
    assert capsys.readouterr().out.endswith("whole.json, 3 pictures at 4 qualities\n")


def test_infinite_psnr_stays_so(join, tmp_path) -> None:
    assert join(*(report(rows) for rows in by_quality())) == 0
    found = joined(tmp_path)
    assert [r["picture"] for r in found["rows"] if r["psnr"] is None] == ["b.png"]
    assert [mean["psnr"] is None for mean in found["means"]] == [False, False, False, True]


def test_differences_to_anchors_are_those_of_eval(join, tmp_path) -> None:
    anchors = tmp_path / "anchors.json"
    anchors.write_text(json.dumps({"codecs": {name: points._asdict() for name, points in ANCHORS.items()}}))
    # The parts' own differences are of parts of the pictures and must not be kept.
    parts = [report(rows, ANCHORS) for rows in by_picture()]
    assert join(*parts, more=("--anchors", str(anchors))) == 0
    found, whole = joined(tmp_path), report(ROWS, ANCHORS)
    assert found["bd_rate"] == whole["bd_rate"] != parts[0]["bd_rate"]
    assert isinstance(found["bd_rate"][0]["percent"], float)
    assert "share no quality" in found["bd_rate"][1]["reason"]
    assert found["command"].endswith("--out whole.json --anchors anchors.json")
    assert join(*parts) == 0
    assert joined(tmp_path)["bd_rate"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codec", "image-max"),
        ("effort", 10),
        ("fingerprint", "ff01020304050607"),
        ("device", "cpu"),
        ("versions", {"torch": "1.0"}),
    ],
)
def test_parts_that_do_not_belong_together(join, tmp_path, capsys, name, value) -> None:
    first, second = (report(rows) for rows in by_picture())
    assert join(first, {**second, name: value}) == 2
    expected = f"latentpress: error: the parts differ in {name}: {first[name]} and {value}\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "out").exists()


def test_rows_that_are_there_twice(join, capsys) -> None:
    first, second = by_picture()
    assert join(report(first), report([*second, first[1]])) == 2
    assert capsys.readouterr().err == "latentpress: error: c.png at quality 30 is there twice\n"


def test_a_hole(join, capsys) -> None:
    first, second = by_picture()
    assert (
        join(report(first), report([r for r in second if r[:4:3] not in {("b.png", 0.0), ("b.png", 60.0)}]))
        == 2
    )
    expected = "latentpress: error: b.png lacks quality 0, 60, which other pictures have\n"
    assert capsys.readouterr().err == expected


def test_machines_may_differ(join, tmp_path) -> None:
    first, second = (report(rows) for rows in by_picture())
    assert join(first, {**second, "threads": -1}) == 0
    found = joined(tmp_path)
    assert (found["threads"], found["python"]) == (None, first["python"])


def test_files_that_are_no_reports(join, tmp_path, capsys) -> None:
    whole = report(ROWS)
    for bad in ([], {**whole, "rows": [{"picture": "a.png"}]}, {"rows": []}):
        assert join(whole, bad) == 1
        assert capsys.readouterr().err.startswith(
            f"latentpress: error: {tmp_path / 'part 1.json'}: no report of "
        )
    assert main([str(tmp_path / "absent.json"), "--out", str(tmp_path / "whole.json")]) == 1
    assert "absent.json: No such file" in capsys.readouterr().err
    assert join(whole, more=("--anchors", str(tmp_path / "part 0.json.absent"))) == 1
    with pytest.raises(SystemExit, match="2"):
        main([])
