"""Imports go one way: scripts -> codecs -> models, and train -> codecs and models."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Folder -> what may never be imported below it, as prefixes of absolute module names.
FORBIDDEN = {
    "models": [
        "latentpress.codecs",
        "latentpress.scripts",
        "latentpress.train",
        "compressai",
        "lightning",
        "pytorch_lightning",
    ],
    "codecs": [
        "latentpress.scripts",
        "latentpress.train",
        "compressai",
        "jsonargparse",
        "lightning",
        "pytorch_lightning",
    ],
    "train": ["latentpress.scripts"],
}
BITSTREAM_MAY_IMPORT = {"numpy", "constriction", "google_crc32c", *sys.stdlib_module_names}


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module or name that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; imports are absolute here"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def python_files(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no Python files in {folder}/"
    return files


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_go_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in python_files(folder)
        for line, name in imported_modules(path)
        if any(is_below(name, prefix) for prefix in FORBIDDEN[folder])
    ]
    assert not wrong, "\n".join(wrong)


def test_bitstream_layer_stands_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in python_files("codecs/bitstream")
        for line, name in imported_modules(path)
        if not is_below(name, "latentpress.codecs.bitstream")
        and name.partition(".")[0] not in BITSTREAM_MAY_IMPORT
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", ["codecs", "models", "scripts", "train"])
def test_folders_are_imported_by_their_full_names(folder: str) -> None:
    """`import models` would work in the checkout only, and `import codecs` means Python's own module."""
    own = {"assets", "configs", "models", "scripts", "train"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in python_files(folder)
        for line, name in imported_modules(path)
        if name.partition(".")[0] in own
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "statement",
    [
        "import latentpress",
        "import latentpress; dir(latentpress); latentpress.__version__",
        "import latentpress; latentpress.StreamError; latentpress.Limits",
        "import latentpress; latentpress.inspect",
        "import latentpress.codecs.bitstream",
        "import latentpress.scripts.cli",
    ],
)
def test_no_torch_before_it_is_needed(statement: str) -> None:
    program = f"{statement}\nimport sys\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"`{statement}` loads torch"


@pytest.mark.parametrize("verb", [["--help"], ["info"], ["verify", "--quick"]])
def test_quick_verbs_load_little(verb, repository: Path) -> None:
    """Neither torch nor what takes as long to load as all the rest: whoever asks for a header gets it."""
    stream = repository / "tests" / "golden" / "v1" / "image_rgb_64x96_q50.lpz"
    arguments = verb if verb == ["--help"] else [*verb, str(stream)]
    heavy = ("torch", "numpy", "constriction", "safetensors", "PIL", "rich")
    program = (
        "import sys\nfrom latentpress.scripts.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        f"found = set({heavy!r}) & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
