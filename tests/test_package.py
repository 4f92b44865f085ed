"""What is in the distributions, and that nothing stays behind."""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("assets", "codecs", "configs", "models", "scripts", "train")
DATA_FOLDERS = ("assets", "configs", "scripts/view/page")


def shipped_files() -> set[str]:
    """Every file of the checkout that has to be in the wheel, by its path there.

    Those are the Python files, and below DATA_FOLDERS all files: package-data in pyproject.toml names
    every kind.
    """
    here = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    here += [path for folder in DATA_FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    here = [path for path in here if path.suffix != ".pyc"]
    names = {f"latentpress/{path.relative_to(ROOT).as_posix()}" for path in here}
    return names | {"latentpress/__init__.py", "latentpress/py.typed"}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_every_folder_of_python_files_is_a_package() -> None:
    """A folder without `__init__.py` is not found by setup.py, so it would not be installed."""
    folders = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    folders |= {ROOT / folder for folder in FOLDERS}
    wrong = sorted(
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()
    )
    assert not wrong, f"no __init__.py in {', '.join(wrong)}"


def test_every_folder_of_python_files_is_known_here() -> None:
    """A new top-level folder of Python files has to be added to setup.py, or be named here as not shipped."""
    not_shipped = {"tests", "latentpress", "docs"}
    found = {path.parent.name for path in ROOT.glob("[a-z]*/*.py")}
    found -= {"build", "dist", "runs"}
    assert found <= {*FOLDERS, *not_shipped}


def test_wheel_holds_exactly_what_ships(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == shipped_files()


def test_wheel_has_licence_and_console_script(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(re.fullmatch(r"latentpress-[^/]+\.dist-info/licenses/LICENSE", name) for name in names)
    (entry_points,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert "latentpress = latentpress.scripts.cli:main" in wheel.read(entry_points).decode()


def test_core_dependencies_leave_training_out(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    lines = wheel.read(metadata).decode().splitlines()
    core = {
        re.split(r"[^A-Za-z0-9_-]", line.removeprefix("Requires-Dist: "))[0]
        for line in lines
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    }
    assert core == {"constriction", "google-crc32c", "numpy", "pillow", "rich", "safetensors", "torch"}


def test_source_distribution_can_be_tested(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "constraints.txt", "CHANGELOG.md", "LICENSE", "tests/test_package.py"} <= names


def test_constraints_are_bare_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*", line), line
