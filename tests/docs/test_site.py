"""The documentation builds into a site without a warning, which fetches nothing and shows what there is."""

import doctest
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from latentpress.scripts.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location(
        "generated_pages", ROOT / "docs" / "hooks" / "generated_pages.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built as `make docs` does, with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site):
    made = {path.name for path in site.glob("*.html")}
    written = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert {"index.html", "security.html", "models.html", "benchmarks.html", "license.html"} | written <= made


def test_nothing_is_fetched_from_elsewhere(site):
    loading = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:)?//[^"]+"')
    for path in site.glob("*.html"):
        found = [
            tag[0] for tag in loading.finditer(path.read_text("utf-8")) if 'rel="canonical"' not in tag[0]
        ]
        assert found == [], path.name


def test_cards_and_reports(site):
    card = json.loads((ROOT / "assets" / "weights" / "image.json").read_text("utf-8"))
    models = (site / "models.html").read_text("utf-8")
    assert card["fingerprint"] in models
    assert f"{card['parameters']:,}" in models
    report = json.loads((ROOT / "docs" / "figures" / "image_kodak.json").read_text("utf-8"))
    benchmarks = (site / "benchmarks.html").read_text("utf-8")
    assert report["fingerprint"] in benchmarks
    assert report["command"] in benchmarks
    for mean in report["means"]:
        assert f"<td>{mean['bpp']:.4f}</td>" in benchmarks


def test_examples_of_the_hook(hook):
    results = doctest.testmod(hook)
    assert results.attempted > 0
    assert results.failed == 0


def test_card_without_measurements(hook):
    from latentpress.codecs.card import ModelCard

    card = ModelCard("a|b", "image", {}, "0" * 16, 1, 1, "2025-01-01", "MIT", "x\ny", "", (0.1, 1.0))
    text = hook.model_card(card)
    assert "x y" in text
    assert "###" not in text


def test_cards_of_other_families(hook):
    """Neither has all of what the image codec's card has."""
    from latentpress.codecs.card import CodebookUse, ModelCard

    config = {"networks": {"8": {"channels": 192}}}
    card = ModelCard("field", "field", config, "0" * 16, 1, 1, "2025-01-01", "MIT", "flows", "", None)
    text = hook.model_card(card)
    assert "lambda" not in text
    assert "networks.8.channels 192" in text
    use = CodebookUse("photographs", 1024, 1000, 812.3)
    card = ModelCard("index", "index", {}, "0" * 16, 1, 1, "2025-01-01", "MIT", "", "", None, (), use)
    assert "1000 of 1024 codes occur on photographs, perplexity 812" in hook.model_card(card)


def test_readme_has_the_figures_of_the_weights_that_ship():
    """`python -m latentpress.scripts.documentation_figures` was run after the last change of weights."""
    from latentpress.scripts.documentation_figures import readme_blocks, shipped_cards, with_blocks

    text = (ROOT / "README.md").read_text("utf-8")
    assert text == with_blocks(text, readme_blocks(shipped_cards(), ROOT / "docs" / "figures"))


def test_verbs_on_the_pages_exist():
    """A command that a page shows is one that there is; rows of tables have wide gaps or commas."""
    shown = {
        verb
        for path in PAGES
        for verb in re.findall(
            r"^\s*(?:\$ )?latentpress ([a-z]+)(?= \S|$)", path.read_text("utf-8"), re.MULTILINE
        )
    }
    assert shown
    assert shown <= set(VERBS)


def test_modules_on_the_pages_exist():
    shown = {
        module
        for path in PAGES
        for module in re.findall(r"python -m (latentpress[\w.]+\w)", path.read_text("utf-8"))
    }
    assert "latentpress.scripts.fuzz" in shown
    for module in shown:
        assert importlib.util.find_spec(module) is not None, module


def test_options_of_view_on_its_page():
    from latentpress.scripts.cli import build_parser

    text = (ROOT / "docs" / "view.md").read_text("utf-8")
    options = set(re.findall(r"`(--[a-z-]+)", text))
    assert len(options) > 3
    help_text = build_parser("view")._subparsers._group_actions[0].choices["view"].format_help()
    for option in options:
        assert option in help_text
