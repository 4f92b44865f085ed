"""``latentpress encode`` and ``decode``: what is written where, and what is refused."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentpress.codecs import whole_files
from latentpress.scripts.cli import main


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_round_trip(codec, photo, tmp_path, capsys) -> None:
    packed, restored = tmp_path / "photo.lpz", tmp_path / "again.png"
    assert main(["encode", str(photo), "--quality", "100"]) == 0
    line, warnings = capsys.readouterr()
    size = packed.stat().st_size
    assert line.startswith(f"{packed}  {size} bytes  {size * 8 / (23 * 37):.4f} bpp  ")
    assert warnings == ""
    assert main(["decode", str(packed), "-o", str(restored)]) == 0
    assert capsys.readouterr().out.startswith(f"{restored}  37 x 23  ")
    np.testing.assert_array_equal(pixels(restored), pixels(photo))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"quality": 50.0}),
        (["--quality", "7.5"], {"quality": 7.5}),
        (["--bytes", "983"], {"target_bytes": 983}),
        (["--bpp", "0.25"], {"target_bpp": 0.25}),
        (["--psnr", "34"], {"target_psnr": 34.0}),
        (["--bpp", "0.25", "--effort", "7"], {"target_bpp": 0.25, "effort": 7}),
    ],
)
def test_options_reach_the_codec(codec, photo, arguments, expected) -> None:
    assert main(["encode", str(photo), *arguments]) == 0
    assert codec.calls[0].items() >= expected.items()
    assert len([name for name in codec.calls[0] if name.startswith("target")]) <= 1
    assert ("effort" in codec.calls[0]) == ("effort" in expected)


def test_many_into_a_folder(codec, photo, tmp_path, capsys) -> None:
    other = tmp_path / "other.jpg"
    Image.open(photo).save(other)
    out = tmp_path / "made" / "here"
    assert main(["encode", str(photo), str(other), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["other.lpz", "photo.lpz"]
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["decode", *map(str, out.iterdir()), "--suffix", "webp", "--out", str(tmp_path)]) == 0
    assert pixels(tmp_path / "other.webp").shape == (23, 37, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".tif", ".tiff", ".avif"])
def test_output_formats(codec, photo, tmp_path, suffix) -> None:
    packed, restored = tmp_path / "x.lpz", tmp_path / f"x{suffix}"
    assert main(["encode", str(photo), "-o", str(packed), "--quality", "100"]) == 0
    assert main(["decode", str(packed), "-o", str(restored)]) == 0
    error = np.abs(pixels(restored).astype(int) - pixels(photo)).mean()
    assert error == 0 if suffix in (".png", ".webp", ".tif", ".tiff") else error < 8


def test_one_bad_picture_does_not_stop_the_others(codec, photo, tmp_path, capsys) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photo.read_bytes()[:100])
    assert main(["encode", str(bad), str(tmp_path / "absent.png"), str(photo)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    first, second = err.splitlines()
    assert first.startswith(f"latentpress: error: {bad}: the picture cannot be read: ")
    assert second == f"latentpress: error: {tmp_path / 'absent.png'}: No such file or directory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "photo.lpz", "photo.png"]


def test_damaged_stream(codec, photo, tmp_path, capsys) -> None:
    packed = tmp_path / "photo.lpz"
    main(["encode", str(photo)])
    whole = packed.read_bytes()
    for content in (whole[:-1], whole[:-9] + b"x" + whole[-8:], b"", b"GIF89a"):
        packed.write_bytes(content)
        capsys.readouterr()
        assert main(["decode", str(packed), "-o", str(tmp_path / "out.png")]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"latentpress: error: {packed}: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_limit_is_checked(codec, photo, tmp_path, capsys) -> None:
    main(["encode", str(photo)])
    packed = str(tmp_path / "photo.lpz")
    assert main(["decode", packed, "-o", str(tmp_path / "out.png"), "--max-pixels", "850"]) == 1
    assert "851 pixels exceed the limit of 850" in capsys.readouterr().err
    assert main(["decode", packed, "-o", str(tmp_path / "out.png"), "--max-pixels", "851"]) == 0


def test_existing_files_are_kept(codec, photo, tmp_path, capsys) -> None:
    packed = tmp_path / "photo.lpz"
    packed.write_bytes(b"mine")
    assert main(["encode", str(photo)]) == 1
    assert capsys.readouterr().err == (
        f"latentpress: error: {photo}: {packed} exists: use --force to replace it\n"
    )
    assert packed.read_bytes() == b"mine"
    assert codec.calls == []
    assert main(["encode", str(photo), "--force"]) == 0
    before = photo.read_bytes()
    assert main(["decode", str(packed)]) == 1
    assert photo.read_bytes() == before


def test_input_is_never_the_output(codec, photo, capsys) -> None:
    before = photo.read_bytes()
    assert main(["encode", str(photo), "-o", str(photo), "--force"]) == 2
    assert photo.read_bytes() == before


def test_failed_write_leaves_nothing_behind(codec, photo, tmp_path, monkeypatch, capsys) -> None:
    packed = tmp_path / "photo.lpz"
    packed.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "replace", full)
    assert main(["encode", str(photo), "--force"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert packed.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.lpz", "photo.png"]


def test_written_files_have_usual_permissions(codec, photo, tmp_path) -> None:
    mask = os.umask(0o027)
    try:
        assert main(["encode", str(photo)]) == 0
    finally:
        os.umask(mask)
    assert (tmp_path / "photo.lpz").stat().st_mode & 0o777 == 0o640


def test_links_and_devices_stay(codec, photo, tmp_path) -> None:
    real, link = tmp_path / "real.lpz", tmp_path / "link.lpz"
    real.write_bytes(b"old")
    link.symlink_to(real)
    assert main(["encode", str(photo), "-o", str(link), "--force"]) == 0
    assert link.is_symlink()
    assert real.read_bytes() != b"old"
    assert main(["encode", str(photo), "-o", os.devnull, "--force"]) == 0
    assert Path(os.devnull).is_char_device()


class Pipe:
    """Stands for a standard stream that is no terminal."""

    def __init__(self, content: bytes = b"") -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        pass


def test_standard_streams(codec, photo, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(photo.read_bytes()))
    monkeypatch.setattr(sys, "stdout", packed := Pipe())
    assert main(["encode", "-", "--quality", "100"]) == 0
    monkeypatch.setattr(sys, "stdin", Pipe(packed.buffer.getvalue()))
    monkeypatch.setattr(sys, "stdout", restored := Pipe())
    assert main(["decode", "-", "--suffix", ".png"]) == 0
    np.testing.assert_array_equal(np.array(Image.open(restored.buffer)), pixels(photo))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("  ")[0] for line in lines] == ["standard output", "standard output"]


def test_no_bytes_to_a_terminal(codec, photo, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["encode", str(photo), "-o", "-"]) == 2
    assert "terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "a.png", "b.png", "-o", "c.lpz"], "use --out"),
        (["encode", "a.png", "a.jpg"], "a.png and a.jpg would both be written to a.lpz"),
        (["encode", "a.png", "--quality", "101"], "from 0 to 100"),
        (["encode", "a.png", "--quality", "nan"], "expected a number"),
        (["encode", "a.png", "--bytes", "0"], "at least 1"),
        (["encode", "a.png", "--bytes", "9", "--bpp", "1"], "not allowed with"),
        (["encode", "a.png", "--threads", "none"], "at least 1"),
        (["encode", "a.png", "--effort", "11"], "from 0 to 10"),
        (["encode", "a.png", "--effort", "2.5"], "from 0 to 10"),
        (["encode"], "PICTURE"),
        (["decode", "a.lpz", "--device", "tpu"], "invalid choice"),
        (["pack", "a.png"], "invalid choice"),
        ([], "VERB"),
    ],
)
def test_wrong_usage(codec, capsys, arguments, words) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("latentpress: error: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--codec", "nothing"], "no weights named 'nothing'"),
        (["--out", "photo.png/below"], "photo.png"),
        (["-o", "."], "is a folder"),
    ],
)
def test_what_cannot_be_done(codec, photo, monkeypatch, capsys, arguments, words) -> None:
    monkeypatch.chdir(photo.parent)
    assert main(["encode", "photo.png", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("latentpress: error: ")
    assert words in err


def test_unknown_output_format(codec, photo, tmp_path, capsys) -> None:
    main(["encode", str(photo)])
    assert main(["decode", str(tmp_path / "photo.lpz"), "-o", str(tmp_path / "x.bmpx")]) == 1
    assert "cannot write '.bmpx' files" in capsys.readouterr().err


def test_debug_shows_the_traceback(codec, capsys) -> None:
    for arguments in (["--debug", "encode", "absent.png"], ["encode", "absent.png", "--debug"]):
        assert main(arguments) == 1
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.endswith("latentpress: error: absent.png: No such file or directory\n")


def test_mistakes_of_the_program_keep_their_traceback(codec, photo, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise AttributeError("a bug")

    monkeypatch.setattr(codec, "compress", broken)
    with pytest.raises(AttributeError):
        main(["encode", str(photo)])


def test_names_that_are_no_text(codec, photo, tmp_path, capsys) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.png")
    try:
        odd.write_bytes(photo.read_bytes())
    except OSError:
        pytest.skip("this file system allows only text as names")
    assert main(["encode", str(odd)]) == 0
    assert "udcff.lpz" in capsys.readouterr().out


def test_what_a_killed_run_left_is_removed(codec, photo, tmp_path) -> None:
    left = tmp_path / "out" / ".latentpress-left.part"
    for verb, source, name in (("encode", photo, "photo.lpz"), ("decode", "out/photo.lpz", "photo.png")):
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half")
        source = tmp_path / source
        assert main([verb, str(source), "-o", str(left.parent / name)]) == 0
        assert not left.exists()
