"""Tables of training runs."""

from __future__ import annotations

from pathlib import Path

from latentpress.scripts.training_tables import blocks, main, read_curve, transfer_line

ROOT = Path(__file__).parents[2]


def test_page_shows_the_curves(tmp_path) -> None:
    """Writing the tables anew changes nothing."""
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    (tmp_path / "docs" / "curves").mkdir(parents=True)
    for path in (ROOT / "docs" / "curves").glob("*.jsonl"):
        (tmp_path / "docs" / "curves" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "docs" / "training.md").write_text(page, "utf-8")
    assert main(["--root", str(tmp_path)]) == 0
    assert (tmp_path / "docs" / "training.md").read_text("utf-8") == page


def test_transfer_that_never_gets_there() -> None:
    def run(*errors: float) -> list[dict[str, object]]:
        return [
            {"step": 100 * (i + 1), "flow": "box", "nrmse_at": {"2048": error}}
            for i, error in enumerate(errors)
        ]

    curves = {"field-512-scratch": run(0.3, 0.2), "field-512": run(0.4, 0.25)}
    assert "never reached" in transfer_line(curves)
    curves["field-512"] = run(0.19, 0.1)
    assert "0.1900 after 100, 50 % of them" in transfer_line(curves)


def test_every_run_is_shown() -> None:
    curves = {path.stem: read_curve(path) for path in (ROOT / "docs" / "curves").glob("*.jsonl")}
    text = "\n".join(blocks(curves).values())
    for run in ("field-8", "field-64", "field-512", "field-512-scratch", "field-8-realistic", "index-2"):
        assert run.removesuffix("-realistic") in text
    assert "nan" not in text
