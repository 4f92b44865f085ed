"""The command as a whole: version, help, ``info``, ``verify``, scripts, and what must not be imported."""

import json
import subprocess
import sys

import pytest

import latentpress
from latentpress.scripts import cli, failures
from latentpress.scripts.cli import main
from latentpress.scripts.progress import progress_bar


@pytest.fixture
def packed(codec, photo, capsys):
    assert main(["encode", str(photo)]) == 0
    capsys.readouterr()
    return photo.with_suffix(".lpz")


def test_version_and_help(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"latentpress {latentpress.__version__}\n"
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(verb in listed for verb in cli.VERBS)


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb != "train"])
def test_help_of_each_verb(verb, capsys) -> None:
    assert main([verb, "--help"]) == 0
    assert f"usage: latentpress {verb}" in capsys.readouterr().out


def test_info_for_people(packed, capsys) -> None:
    assert main(["info", str(packed)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{packed}\n")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    size = packed.stat().st_size
    assert lines["codec"] == "image (format version 1)"
    assert lines["weights"] == "0001020304050607"
    assert lines["bytes"].startswith(f"{size}, of which ")
    assert lines["bpp"] == f"{size * 8 / (37 * 23):.4f}"
    assert (lines["width"], lines["height"], lines["quality"]) == ("37", "23", "50")


def test_info_for_programs(packed, capsys) -> None:
    assert main(["info", "--json", str(packed), str(packed)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    facts = json.loads(first)
    assert facts["total_bytes"] == packed.stat().st_size
    inside = sum(section["bytes"] for section in facts["sections"])
    assert facts["overhead_bytes"] + inside == facts["total_bytes"]
    assert facts["parameters"]["width"] == 37


def test_verify(packed, capsys) -> None:
    assert main(["verify", str(packed)]) == 0
    assert "ok (container and symbols" in capsys.readouterr().out
    assert main(["verify", "--quick", str(packed)]) == 0
    assert "ok (container, " in capsys.readouterr().out


def test_verify_finds_damage_and_goes_on(packed, tmp_path, capsys) -> None:
    whole = packed.read_bytes()
    damaged = tmp_path / "damaged.lpz"
    damaged.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    for quick in ([], ["--quick"]):
        assert main(["verify", *quick, str(damaged), str(packed)]) == 1
        out, err = capsys.readouterr()
        assert out.startswith(f"{packed}  ok")
        assert err.startswith(f"latentpress: error: {damaged}: ")


def test_foreign_weights(packed, capsys) -> None:
    assert main(["verify", str(packed), "--codec", "other"]) == 1
    assert "no weights named 'other'" in capsys.readouterr().err


def test_missing_extra(capsys, monkeypatch) -> None:
    class Broken:
        @staticmethod
        def run_arguments(_: list[str]) -> int:
            raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setattr(cli, "_module", lambda _: Broken)
    assert main(["train", "fit"]) == 1
    assert capsys.readouterr().err == (
        "latentpress: error: this needs lightning: pip install 'latentpress[train]'\n"
    )


def test_arguments_of_train_are_handed_on(monkeypatch) -> None:
    seen: list[list[str]] = []

    class Recorder:
        @staticmethod
        def run_arguments(arguments: list[str]) -> int:
            seen.append(arguments)
            return 3

    monkeypatch.setattr(cli, "_module", lambda _: Recorder)
    for arguments in (["--help"], ["fit", "--config", "a.yaml", "--trainer.max_steps=1"], ["--debug"], []):
        assert main(["train", *arguments]) == 3
        assert seen[-1] == arguments


def test_interruption(packed, monkeypatch, capsys) -> None:
    def interrupted(_: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(latentpress.__dict__, "inspect", interrupted)
    assert main(["info", str(packed)]) == 130
    assert capsys.readouterr().err == "latentpress: interrupted\n"


def test_errors_fit_in_one_line() -> None:
    assert failures.describe(ValueError("two\nlines"), "x") == "x: two lines"
    assert failures.describe(ValueError()) == "ValueError"
    assert failures.describe(MemoryError(), "x") == "x: not enough memory"


def test_progress_is_for_terminals(monkeypatch, capsys) -> None:
    with progress_bar("photo.png") as report:
        assert report is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar("photo.png") as report:
        assert report is not None
        report(0.5, "[stage]")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["encode", "decode", "evaluate"])
def test_scripts_run_from_a_checkout(repository, name) -> None:
    """Python puts scripts/ first in its path then, so no module in it may have the name of another."""
    command = [sys.executable, str(repository / "scripts" / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: latentpress ")


def test_modules_shadow_nothing(repository) -> None:
    names = {path.stem for path in (repository / "scripts").iterdir()} - {"__init__", "__pycache__"}
    assert not names & set(sys.stdlib_module_names)


def test_installed_command_reports_errors_without_torch(tmp_path) -> None:
    program = (
        "import sys; from latentpress.scripts.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    bad = tmp_path / "bad.lpz"
    bad.write_bytes(b"GIF89a")
    done = subprocess.run(
        [sys.executable, "-c", program, "info", str(bad)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"latentpress: error: {bad}: ")


def test_closed_pipe_is_no_error(repository) -> None:
    command = f"{sys.executable} -m latentpress.scripts.cli --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
