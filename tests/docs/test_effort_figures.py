"""What the documentation says an effort gains is what its reports say."""

import json
import re

import pytest

from latentpress.train.metrics.bd_rate import bd_rate

ROW = re.compile(r"\| (kodim\d\d) \| (-[\d.]+) % \| ([\d.]+) -> ([\d.]+) \| ([\d.]+) -> ([\d.]+) dB \|")


def test_table_of_image_max(repository) -> None:
    reports = json.loads((repository / "docs/figures/image_max_effort.json").read_text("utf-8"))
    curves = {(r["rows"][0]["picture"].removesuffix(".png"), r["effort"]): r["means"] for r in reports}
    rows = ROW.findall((repository / "docs/image.md").read_text("utf-8"))
    assert {row[0] for row in rows} == {picture for picture, _ in curves}
    for picture, gain, *of_quality_45 in rows:
        plain, refined = (curves[picture, effort] for effort in (0, 10))
        points = [[point[key] for point in curve] for curve in (plain, refined) for key in ("bpp", "psnr")]
        assert gain == f"{bd_rate(*points):.1f}"
        found = [f"{curve[1]['bpp']:.3f}" for curve in (plain, refined)]
        found += [f"{curve[1]['psnr']:.2f}" for curve in (plain, refined)]
        assert of_quality_45 == found


@pytest.mark.parametrize("name", ["image_kodak_effort", "image_max_kodak_effort"])
def test_table_of_kodak(repository, name) -> None:
    reports = json.loads((repository / f"docs/figures/{name}.json").read_text("utf-8"))
    text = (repository / "docs/image.md").read_text("utf-8")
    plain = reports[0]["means"]
    for report in reports:
        curves = [
            [point[key] for point in curve] for curve in (plain, report["means"]) for key in ("bpp", "psnr")
        ]
        gain = f"{bd_rate(*curves):.1f} % " if report["effort"] else ""
        seconds = sum(point["encode_seconds"] for point in report["means"]) / len(report["means"])
        rates = {entry["anchor"]: entry["percent"] for entry in report["bd_rate"]}
        against = " | ".join(f"{rates[name]:.1f} %" for name in ("vtm", "elic", "mlic++"))
        head = f"| {report['codec']} | {report['effort']} |"
        assert f"{head} {seconds:.1f} | {gain}| {against} |" in text


def test_readme(repository) -> None:
    def against_vtm(name: str) -> str:
        refined = json.loads((repository / f"docs/figures/{name}.json").read_text("utf-8"))[1]
        assert refined["effort"] == 5
        return f"{-refined['bd_rate'][0]['percent']:.1f}"

    expected = f"it is {against_vtm('image_kodak_effort')} % fewer than H.266, and with `image-max` "
    text = (repository / "README.md").read_text("utf-8")
    assert expected + f"{against_vtm('image_max_kodak_effort')} %" in text
