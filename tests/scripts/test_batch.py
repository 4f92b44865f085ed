"""Whole folders: nothing is done twice, nothing is left half done, and nothing foreign is overwritten."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

import latentpress
from latentpress.scripts import batch_pool, file_io
from latentpress.scripts.batch import name_outputs
from latentpress.scripts.batch_pool import default_threads, run_in_processes
from latentpress.scripts.batch_records import RECORDS_NAME, Item
from latentpress.scripts.batch_worker import Recipe
from latentpress.scripts.cli import main

NAMES = ("a.png", "below/b.jpg", "below/deeper/c.webp")


@pytest.fixture(scope="module")
def weights(repository) -> str:
    return str(repository / "tests" / "golden" / "v1" / "image_tiny.safetensors")


@pytest.fixture(scope="module")
def tiny(weights):
    return latentpress.load(weights)


@pytest.fixture
def here(monkeypatch) -> None:
    """Works in a thread of this process: the rules are the same, and no process has to load torch."""
    monkeypatch.setattr(batch_pool, "_local_pool", ThreadPoolExecutor)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "in"
    for seed, name in enumerate(NAMES):
        draw(folder / name, seed)
    return folder


@pytest.fixture
def encode(weights, pictures, tmp_path, capsys):
    """Encodes the folder; returns the exit code, the lines of stdout and those of stderr."""

    def run(*arguments: str, folder: Path = pictures) -> tuple[int, list[str], list[str]]:
        out = str(tmp_path / "out")
        code = main(["encode", str(folder), "--out", out, "--codec", weights, *arguments])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every stream; a file that is made again has another time."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*.lpz"))
    }


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_folders_are_kept_and_a_second_run_does_nothing(here, encode, pictures, tiny, tmp_path) -> None:
    (pictures / "notes.txt").write_text("no picture")
    draw(pictures / ".hidden" / "x.png", 9)
    code, out, err = encode()
    assert code == 0
    assert err == []
    made = contents(tmp_path / "out")
    assert list(made) == ["a.lpz", "below/b.lpz", "below/deeper/c.lpz"]
    assert out[0].startswith(f"{tmp_path / 'out' / 'a.lpz'}  {len(made['a.lpz'][1])} bytes  ")
    assert out[3].startswith(f"3 made ({sum(len(data) for _, data in made.values())} bytes), 0 up to date, 0")
    for _, data in made.values():
        tiny.verify(data)
    code, out, err = encode()
    assert code == 0
    assert out[:3] == [f"{tmp_path / 'out' / name}  up to date" for name in made]
    assert out[3].startswith("0 made (0 bytes), 3 up to date, 0 failed")
    assert contents(tmp_path / "out") == made
    assert leftovers(tmp_path) == []


def test_back_to_pictures(here, encode, weights, tmp_path, capsys) -> None:
    encode()
    command = ["decode", str(tmp_path / "out"), "--out", str(tmp_path / "back"), "--codec", weights]
    assert main(command) == 0
    assert "a.png  32 x 24  " in capsys.readouterr().out
    with Image.open(tmp_path / "back" / "below" / "deeper" / "c.png") as image:
        assert image.size == (32, 24)
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 made (0 bytes), 3 up to date, 0 failed")


@pytest.mark.parametrize("damage", ["touched", "older", "content", "cut", "flipped", "deleted"])
def test_only_what_changed_is_made_again(here, encode, pictures, tmp_path, damage) -> None:
    encode()
    before = contents(tmp_path / "out")
    source, target = pictures / "below" / "b.jpg", tmp_path / "out" / "below" / "b.lpz"
    data = target.read_bytes()
    if damage in ("touched", "older"):
        os.utime(source, (1, 1) if damage == "older" else None)
    elif damage == "content":
        draw(source, 77)
    elif damage == "cut":
        target.write_bytes(data[:-3])
    elif damage == "flipped":
        target.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    else:
        target.unlink()
    code, out, _ = encode()
    assert code == 0
    assert out[-1].startswith("1 made")
    after = contents(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {"below/b.lpz"}
    if damage not in ("content",):
        assert after["below/b.lpz"][1] == data
    assert encode()[1][-1].startswith("0 made (0 bytes), 3 up to date")


def test_other_options_make_everything_again(here, encode) -> None:
    encode()
    assert encode("--quality", "50.01")[1][-1].startswith("0 made")
    for options in (
        ["--quality", "20"],
        ["--bytes", "900"],
        ["--bytes", "901"],
        ["--psnr", "5"],
        ["--effort", "1"],
        ["--strip"],
    ):
        assert encode(*options)[1][-1].startswith("3 made"), options
        assert encode(*options)[1][-1].startswith("0 made"), options
    assert encode("--strip", "--force")[1][-1].startswith("3 made")


def test_foreign_files_are_kept(here, encode, pictures, tmp_path) -> None:
    foreign = tmp_path / "out" / "a.lpz"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    (tmp_path / "out" / "below" / "b.lpz").mkdir(parents=True)
    code, out, err = encode()
    assert code == 1
    assert out[-1].startswith("1 made")
    assert "2 failed" in out[-1]
    assert err[0].endswith(f"{foreign} exists and was not made from this file: use --force to replace it")
    assert "is a folder" in err[1]
    assert foreign.read_bytes() == b"mine"
    foreign.unlink()
    foreign.symlink_to(pictures / "a.png")
    picture = (pictures / "a.png").read_bytes()
    assert encode("--force")[2][0].endswith(f"{foreign} is input and output at once")
    assert (pictures / "a.png").read_bytes() == picture
    foreign.unlink()
    foreign.write_bytes(b"mine")
    assert encode("--force")[0] == 1
    assert foreign.read_bytes() != b"mine"


def test_another_folder_does_not_replace_the_outputs_of_the_first(here, encode, pictures, tmp_path) -> None:
    encode()
    before = contents(tmp_path / "out")
    draw(tmp_path / "other" / "a.png", 50)
    code, _, err = encode(folder=tmp_path / "other")
    assert code == 1
    assert "was not made from this file" in err[0]
    assert contents(tmp_path / "out") == before
    # The same pictures in another place are no others.
    shutil.copytree(pictures, tmp_path / "moved")
    code, out, _ = encode(folder=tmp_path / "moved")
    assert code == 0
    assert out[-1].startswith("0 made (0 bytes), 3 up to date")


def test_lost_and_torn_records_never_overwrite(here, encode, tmp_path) -> None:
    encode()
    records = tmp_path / "out" / RECORDS_NAME
    whole = records.read_bytes()
    records.write_bytes(whole + b'{"target":"a.l')
    assert encode("--quality", "30")[1][-1].startswith("3 made")
    assert encode("--quality", "30")[1][-1].startswith("0 made")
    records.unlink()
    before = contents(tmp_path / "out")
    assert encode()[0] == 1
    assert contents(tmp_path / "out") == before


def test_one_bad_picture_does_not_stop_the_others(here, encode, pictures, tmp_path) -> None:
    (pictures / "aa.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    (pictures / "ab.tiff").write_bytes(b"")
    (pictures / "ac.png").symlink_to("nowhere")
    code, out, err = encode("--jobs", "2")
    assert code == 1
    assert out[-1].startswith("3 made")
    assert "3 failed" in out[-1]
    assert [line.split(": ")[2] for line in sorted(err)] == [
        str(pictures / name) for name in ("aa.png", "ab.tiff", "ac.png")
    ]
    assert sorted(contents(tmp_path / "out")) == ["a.lpz", "below/b.lpz", "below/deeper/c.lpz"]


def test_names_that_would_clash(here, encode, pictures, tmp_path) -> None:
    draw(pictures / "a.jpg", 5)
    assert encode()[0] == 0
    assert [name for name in contents(tmp_path / "out") if name[0] == "a"] == ["a.jpg.lpz", "a.png.lpz"]
    names = name_outputs(
        [PurePath(name) for name in ("a.jpg", "a.png", "a.png.tif", "A.gif", "b/a.png")], ".z"
    )
    assert [str(name) for name in names] == ["a.jpg.z", "a.png.z", "a.png.tif.z", "A.gif.z", "b/a.z"]


def test_unknown_weights_are_one_error(here, encode, monkeypatch, pictures) -> None:
    code, out, err = encode("--codec", "nothing")
    assert (code, out, len(err)) == (1, [], 1)
    assert "nothing" in err[0]
    code, out, err = encode("--device", "cuda")
    assert (code, out, len(err)) == (1, [], 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.png", "--jobs", "2"], "need a folder"),
        (["a.png", "--scheduler", "tcp://somewhere:8786"], "need a folder"),
        ([".", "a.png"], "the only input"),
        ([".", "-o", "x.lpz"], "use --out FOLDER"),
        ([".", "--jobs", "0"], "at least 1"),
        ([".", "--jobs", "2", "--scheduler", "x"], "not allowed with"),
    ],
)
def test_wrong_usage(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["encode", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_empty_folder(encode, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = encode(folder=tmp_path / "empty")
    assert code == 1
    assert "holds nothing to encode" in err[0]


def test_threads_are_shared_among_processes() -> None:
    assert default_threads(1) >= default_threads(2) >= default_threads(10_000) == 1


def test_unfinished_files_go_with_their_process(tmp_path) -> None:
    file, live = file_io._open_part(tmp_path)
    dead = tmp_path / ".latentpress-dead.part"
    dead.write_bytes(b"half")
    other = tmp_path / "mine.part"
    other.write_bytes(b"")
    with file:
        assert file_io.remove_abandoned(tmp_path) == 1
        assert not dead.exists()
        assert Path(live).exists()
    assert file_io.remove_abandoned(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [other]
    assert file_io.remove_abandoned(tmp_path / "absent") == 0


DEADLY = """
import os
from latentpress.scripts.batch_worker import Outcome

def work(recipe, item):
    if "deadly" in item.source:
        os._exit(9)
    if "bug" in item.source:
        raise AttributeError("a bug")
    return Outcome(item)
"""


def test_a_file_that_kills_its_process_fails_alone(tmp_path, monkeypatch) -> None:
    (tmp_path / "deadly_work.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import deadly_work

    monkeypatch.setattr(batch_pool, "work", deadly_work.work)
    names = ["a", "b", "deadly", "c", "bug", "d"]
    outcomes = run_in_processes(Recipe("encode", "", ".lpz"), iter([Item(n, n, n) for n in names]), 2)
    errors = {outcome.item.source: outcome.error for outcome in outcomes}
    assert sorted(errors) == sorted(names)
    assert {name for name, error in errors.items() if error} == {"deadly", "bug"}
    assert "ended unexpectedly" in errors["deadly"]
    assert "AttributeError: a bug" in errors["bug"]


def start(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "latentpress.scripts.cli", *arguments]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_killed_and_resumed(weights, tiny, tmp_path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for k in range(150):
        draw(source / f"{k:03}.png", k)
    command = ["encode", str(source), "--out", str(out), "--codec", weights, "--jobs", "2"]
    run = start(command)
    wait_for(lambda: len(list(out.glob("*.lpz"))) >= 5)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    # The workers end with their parent.
    wait_for(lambda: is_gone(run.pid))
    before = contents(out)
    assert 5 <= len(before) < 150
    resumed = start(command)
    lines, errors = resumed.communicate()
    assert resumed.returncode == 0, errors
    after = contents(out)
    assert len(after) == 150
    assert f"{150 - len(before)} made" in lines.decode().splitlines()[-1]
    assert {name: after[name] for name in before} == before
    for _, data in after.values():
        tiny.verify(data)
    assert leftovers(out) == []


@pytest.mark.slow
def test_two_runs_at_once(weights, tiny, tmp_path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for k in range(30):
        draw(source / f"{k:03}.png", k)
    command = ["encode", str(source), "--out", str(out), "--codec", weights]
    runs = [start([*command, "--quality", "20"]) for _ in range(2)]
    ended = [(run.communicate()[1], run.returncode) for run in runs]
    assert [code for _, code in ended] == [0, 0], ended
    made = contents(out)
    assert len(made) == 30
    for _, data in made.values():
        tiny.verify(data)
    assert leftovers(out) == []
    assert main([*command, "--quality", "20"]) == 0
    assert contents(out) == made


@pytest.mark.slow
def test_on_a_cluster(encode, weights, tiny, pictures, tmp_path) -> None:
    distributed = pytest.importorskip("distributed")
    (pictures / "bad.png").write_bytes(b"no picture")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        code, out, err = encode("--scheduler", cluster.scheduler_address)
        assert code == 1
        assert out[-1].startswith("3 made")
        assert [line for line in err if "error" in line] == [
            f"latentpress: error: {pictures / 'bad.png'}: not a picture in a format that can be read"
        ]
        code, out, _ = encode("--scheduler", cluster.scheduler_address)
        assert out[-1].startswith("0 made (0 bytes), 3 up to date, 1 failed")
    for _, data in contents(tmp_path / "out").values():
        tiny.verify(data)


def test_cluster_without_dask(here, encode, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = encode("--scheduler", "tcp://127.0.0.1:8786")
    assert code == 1
    assert err == ["latentpress: error: this needs distributed: pip install 'latentpress[dask]'"]
