"""A file is there whole or not at all, whatever happens to who writes it."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentpress.codecs import whole_files
from latentpress.codecs.whole_files import open_whole, remove_abandoned, write_whole

KILLS = 12
SIZE = 3_000_000

# Writes one letter all over, then another, for ever, and says when it begins.
WRITER = f"""
import itertools, sys
from latentpress.codecs.whole_files import write_whole
print("begun", flush=True)
for letter in itertools.cycle((b"a", b"b")):
    write_whole(sys.argv[1], letter * {SIZE})
"""


def test_new_folders_and_replacement(tmp_path):
    path = tmp_path / "one" / "two" / "file"
    for content in (b"first", b"second"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_failure_names_what_was_asked_for(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "another name")

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(whole_files.os, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_piece_by_piece(tmp_path):
    path = tmp_path / "new" / "file"
    with open_whole(path) as file:
        file.write(b"one, ")
        assert not path.exists()
        file.write(b"two")
    assert path.read_bytes() == b"one, two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("no"), FileNotFoundError(2, "not there", "another file")]
)
def test_a_block_that_fails_leaves_what_was_there(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")

    def write_half() -> None:
        with open_whole(tmp_path / "file") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert caught.value is error
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_full_disk_is_told_of_the_file(tmp_path):
    def fill() -> None:
        with open_whole(tmp_path / "file"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_unfinished_files_go_with_their_process(tmp_path):
    file, live = whole_files._open_part(tmp_path)
    dead = tmp_path / ".latentpress-dead.part"
    dead.write_bytes(b"half")
    other = tmp_path / "mine.part"
    other.write_bytes(b"")
    with file:
        assert remove_abandoned(tmp_path) == 1
        assert not dead.exists()
        assert Path(live).exists()
    assert remove_abandoned(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [other]
    assert remove_abandoned(tmp_path / "absent") == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_at_any_moment(tmp_path):
    path = tmp_path / "file"
    moments = random.Random(1)
    for _ in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(moments.uniform(0.0, 0.05))
            writer.kill()
        if path.exists():
            content = path.read_bytes()
            assert content in (b"a" * SIZE, b"b" * SIZE)
    assert path.exists()
    remove_abandoned(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
