"""The codec of docs/extending.md, built from the page as a package of its own, does what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import latentpress
from latentpress.codecs.registry import weights_for

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "extending.md"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)

# What the page says is run by this, where the package is installed.
EXAMPLES = """
import doctest, sys
results = doctest.testfile(sys.argv[1], module_relative=False, optionflags=doctest.ELLIPSIS)
assert results.attempted > 5
sys.exit(results.failed)
"""

MAKE = """
import sys, torch, latentpress
data = latentpress.load("walsh").compress(torch.zeros(1, 9, 7, dtype=torch.uint8))
open(sys.argv[1], "wb").write(data)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The files of the page, with weights made, and installed as far as Python can tell."""
    folder = tmp_path_factory.mktemp("walsh")
    text = PAGE.read_text("utf-8")
    for _, title, content in FENCE.findall(text):
        if title:
            path = folder / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")
    (folder / "examples.txt").write_text(
        "\n".join(content for _, title, content in FENCE.findall(text) if not title), "utf-8"
    )
    subprocess.run([sys.executable, "make_weights.py"], cwd=folder, check=True)
    # What pip would write when it installs the package.
    metadata = folder / "walsh_codec-1.0.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: walsh-codec\nVersion: 1.0\n")
    project = (folder / "pyproject.toml").read_text()
    (point,) = re.findall(r'\[project.entry-points."latentpress.codecs"\]\n(.+)', project)
    metadata.joinpath("entry_points.txt").write_text("[latentpress.codecs]\n" + point.replace('"', "") + "\n")
    return folder


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *command],
        cwd=package,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_code_is_short():
    code = [
        content
        for kind, title, content in FENCE.findall(PAGE.read_text())
        if title.startswith("walsh_codec/")
    ]
    lines = [line for content in code for line in content.splitlines() if line.strip()]
    assert len(lines) <= 60


def test_the_page_runs(package):
    done = run(package, "-c", EXAMPLES, "examples.txt")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_tests_pass(package):
    done = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_walsh.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_info_without_torch(package):
    done = run(package, "-c", MAKE, "a.lpz")
    assert done.returncode == 0, done.stderr
    show = (
        "import sys; from latentpress.scripts.cli import main; code = main(['info', 'a.lpz']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = run(package, "-c", show)
    assert done.returncode == 0, done.stderr
    assert "walsh (format version 1)" in done.stdout
    assert "width" in done.stdout
    done = run(package, "-m", "latentpress.scripts.cli", "verify", "a.lpz")
    assert "ok (container and symbols" in done.stdout, done.stderr


def test_without_the_package(package):
    """Its streams can still be told from damaged ones."""
    stream = package / "b.lpz"
    assert run(package, "-c", MAKE, "b.lpz").returncode == 0
    header = latentpress.inspect(stream.read_bytes())
    assert (header.codec, header.parameters) == ("walsh", {})
    with pytest.raises(ValueError, match="unknown codec 'walsh'"):
        latentpress.load(weights_for(header))
