"""What the documentation says an effort gains is what its reports say."""

import json
import re
from collections.abc import Mapping
from statistics import fmean

import pytest

from latentpress.train.metrics.anchors import RatePoints, kodak_anchors
from latentpress.train.metrics.bd_rate import bd_rate

ROW = re.compile(r"\| (kodim\d\d) \| (-[\d.]+) % \| ([\d.]+) -> ([\d.]+) \| ([\d.]+) -> ([\d.]+) dB \|")

Rows = Mapping[tuple[str, float], Mapping[str, float]]
"""What was measured, by picture and quality."""


def rows_of(report) -> Rows:
    return {(row["picture"], row["quality"]): row for row in report["rows"]}


def curve(rows: Rows) -> RatePoints:
    """Means over pictures."""
    qualities = sorted({quality for _, quality in rows})
    means = [
        [fmean(row[key] for (_, other), row in rows.items() if other == quality) for quality in qualities]
        for key in ("bpp", "psnr")
    ]
    return RatePoints(*map(tuple, means))


def of_picture(rows: Rows, picture: str) -> Rows:
    return {key: row for key, row in rows.items() if key[0] == picture}


@pytest.fixture
def reports_of(repository):
    def read(name):
        return json.loads((repository / f"docs/figures/{name}.json").read_text("utf-8"))

    return read


def test_pictures_of_image_max(repository, reports_of) -> None:
    plain, _, refined = map(rows_of, reports_of("image_max_kodak_effort"))
    table = ROW.findall((repository / "docs/image.md").read_text("utf-8"))
    assert [f"{row[0]}.png" for row in table] == sorted({picture for picture, _ in refined})
    for picture, gain, *of_quality_45 in table:
        before, after = (of_picture(rows, f"{picture}.png") for rows in (plain, refined))
        assert gain == f"{bd_rate(*curve(before), *curve(after)):.1f}"
        pair = [rows[f"{picture}.png", 45] for rows in (before, after)]
        assert of_quality_45 == [f"{row['bpp']:.3f}" for row in pair] + [f"{row['psnr']:.2f}" for row in pair]


def with_effort(reports, effort: int) -> Rows:
    """Pictures that were not measured with an effort count with the next lower one."""
    found: Rows = {}
    for report in reports:
        if report["effort"] <= effort:
            found = {**found, **rows_of(report)}
    return found


def against(anchor: str, rows: Rows) -> str:
    return f"{bd_rate(*kodak_anchors()[anchor], *curve(rows)):.1f} %"


@pytest.mark.parametrize(("name", "efforts"), [("image", [0, 5]), ("image_max", [0, 5, 10])])
def test_table_of_kodak(repository, reports_of, name, efforts) -> None:
    text = (repository / "docs/image.md").read_text("utf-8")
    reports = reports_of(f"{name}_kodak_effort")
    assert [report["effort"] for report in reports] == efforts
    plain = rows_of(reports[0])
    assert len(plain) == 24 * 4
    for report in reports:
        rows = with_effort(reports, report["effort"])
        gain = f"{bd_rate(*curve(plain), *curve(rows)):.1f} % " if report["effort"] else ""
        seconds = fmean(point["encode_seconds"] for point in report["means"])
        head = f"| {report['codec']} | {report['effort']} | {seconds:.1f} | {gain}| "
        assert head + " | ".join(against(anchor, rows) for anchor in ("vtm", "elic", "mlic++")) + " |" in text


def test_readme(repository, reports_of) -> None:
    text = (repository / "README.md").read_text("utf-8")
    saved = [
        against("vtm", with_effort(reports_of(f"{name}_kodak_effort"), effort)).removeprefix("-")
        for name, effort in (("image", 5), ("image_max", 5), ("image_max", 10))
    ]
    assert f"it is {saved[0]} fewer than H.266, and with `image-max` {saved[1]};\n" in text
    assert f"`image-max` with `effort=10`, three quarters of a minute a picture, {saved[2]} (" in text
