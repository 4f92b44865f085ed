"""The command line with the weights that ship."""

import io
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

import latentpress
from latentpress.scripts.cli import main


def photograph(mode: str = "RGB") -> Image.Image:
    import skimage.data

    return Image.fromarray(skimage.data.astronaut()).crop((150, 40, 301, 171)).convert(mode)


def psnr(path, other: Image.Image) -> float:
    with Image.open(path) as image:
        error = np.array(image).astype(float) - np.array(other)
    return 10 * np.log10(255**2 / (error**2).mean())


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    photograph().save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_verb(tmp_path, capsys, mode) -> None:
    source, packed, restored = (tmp_path / name for name in ("a.png", "a.lpz", "b.png"))
    photograph(mode).save(source)
    assert main(["encode", str(source), "--quality", "60"]) == 0
    assert main(["verify", str(packed)]) == 0
    assert main(["decode", str(packed), "-o", str(restored)]) == 0
    assert psnr(restored, photograph(mode)) > 20
    with Image.open(restored) as image:
        assert (image.mode, image.size) == (mode, (151, 131))
    capsys.readouterr()
    assert main(["info", "--json", str(packed)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["codec"] == "image"
    assert facts["parameters"]["width"] == 151
    assert facts["parameters"]["height"] == 131
    assert facts["overhead_bytes"] <= 24
    assert main(["info", str(packed)]) == 0
    assert f"weights   {facts['fingerprint']}" in capsys.readouterr().out.replace(
        "weights     ", "weights   "
    )


@pytest.mark.parametrize("option", ["--bytes", "--bpp"])
def test_size_is_kept(picture, option) -> None:
    packed = picture.with_suffix(".lpz")
    assert main(["encode", str(picture), "--quality", "50"]) == 0
    limit = packed.stat().st_size * 4 // 5
    value = str(limit) if option == "--bytes" else str(limit * 8 / (151 * 131))
    assert main(["encode", str(picture), option, value, "--force"]) == 0
    assert 0.8 * limit < packed.stat().st_size <= limit


def test_psnr_is_kept(picture, tmp_path) -> None:
    packed, restored = picture.with_suffix(".lpz"), tmp_path / "b.png"
    assert main(["encode", str(picture), "--quality", "50"]) == 0
    assert main(["decode", str(packed), "-o", str(restored)]) == 0
    target = psnr(restored, photograph()) - 1.0
    assert main(["encode", str(picture), "--psnr", str(target), "--force"]) == 0
    assert main(["decode", str(packed), "-o", str(restored), "--force"]) == 0
    assert target <= psnr(restored, photograph()) < target + 0.9


def test_size_that_cannot_be_met(picture, capsys) -> None:
    assert main(["encode", str(picture), "--bytes", "1"]) == 1
    assert capsys.readouterr().err.startswith(f"latentpress: error: {picture}: ")
    assert not picture.with_suffix(".lpz").exists()


def test_metadata_is_kept_or_stripped(tmp_path) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "an astronaut"
    source, packed, restored = (tmp_path / name for name in ("a.jpg", "a.lpz", "b.jpg"))
    photograph().save(source, icc_profile=icc, exif=exif)
    assert main(["encode", str(source)]) == 0
    assert main(["decode", str(packed), "-o", str(restored)]) == 0
    with Image.open(restored) as image:
        assert image.size == (131, 151)
        assert image.info["icc_profile"] == icc
        assert image.getexif()[0x010E] == "an astronaut"
        assert image.getexif().get(0x0112, 1) == 1
    kept = packed.stat().st_size
    assert main(["encode", str(source), "--strip", "--force"]) == 0
    assert packed.stat().st_size < kept - len(icc) // 2


def test_damage_is_found(picture, capsys) -> None:
    assert main(["encode", str(picture)]) == 0
    packed = picture.with_suffix(".lpz")
    whole = packed.read_bytes()
    for place in (3, 5, 20, len(whole) // 2, len(whole) - 1):
        packed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        for arguments in (["verify"], ["decode", "--suffix", ".webp"]):
            assert main([*arguments, str(packed)]) == 1
            assert capsys.readouterr().err.startswith(f"latentpress: error: {packed}: ")
    packed.write_bytes(whole[: len(whole) // 2])
    assert main(["verify", "--quick", str(packed)]) == 1


def test_unknown_weights(picture, tmp_path, capsys) -> None:
    assert main(["encode", str(picture), "--codec", "none-of-these"]) == 1
    assert main(["encode", str(picture), "--codec", str(tmp_path / "absent.safetensors")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "Traceback" not in err


def test_eval(picture, tmp_path) -> None:
    out = tmp_path / "eval"
    assert main(["eval", "--data", str(picture.parent), "--qualities", "10,50,90", "--out", str(out)]) == 0
    found = json.loads((out / "image.json").read_text())
    assert found["monotone"] is True
    assert found["means"][0]["bpp"] < found["means"][-1]["bpp"]


def test_info_is_quick_and_needs_no_torch(picture) -> None:
    """The time is only printed: what is asserted is why it is short."""
    assert main(["encode", str(picture)]) == 0
    program = (
        "import sys; from latentpress.scripts.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(99 if 'torch' in sys.modules or 'rich' in sys.modules else code)"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", program, "info", str(picture.with_suffix(".lpz"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"info took {time.perf_counter() - start:.2f} s")
    assert done.returncode == 0, done.stderr
    assert "codec" in done.stdout


def test_standard_streams_in_a_pipe(picture) -> None:
    command = [sys.executable, "-m", "latentpress.scripts.cli"]
    packed = subprocess.run(
        [*command, "encode", "-"], input=picture.read_bytes(), capture_output=True, check=True
    )
    assert latentpress.inspect(packed.stdout).parameters["width"] == 151
    restored = subprocess.run([*command, "decode", "-"], input=packed.stdout, capture_output=True, check=True)
    with Image.open(io.BytesIO(restored.stdout)) as image:
        assert (image.format, image.size) == ("PNG", (151, 131))
