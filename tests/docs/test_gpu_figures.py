"""The frames a second that the documentation has are those of the reports."""

import json

import pytest

from latentpress.scripts.gpu_speed import Speed, table


@pytest.mark.parametrize("name", ["image", "image-max"])
def test_frames(repository, name) -> None:
    report = json.loads((repository / "docs/figures/gpu_frames.json").read_text("utf-8"))[name]
    text = (repository / "docs/benchmarks.md").read_text("utf-8")
    rows = [Speed(**{key: row[key] for key in Speed._fields}) for row in report["rows"]]
    assert f"\n{name}\n\n{table(rows)}\n" in text
    assert f"`{name}` (`{report['fingerprint']}`" in text
