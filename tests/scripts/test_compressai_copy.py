"""Small copies of CompressAI's networks: they learn, come back from files, are held against brute force."""

import numpy as np
import pytest
import torch
from PIL import Image

from latentpress.scripts import check_channel_order
from latentpress.scripts.compressai_copy import CopyConfig, build_copy, load_copy, main

pytestmark = pytest.mark.usefixtures("compressai_models")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.linspace(0, 255, 96)
    for number in range(2):
        picture = np.stack([np.add.outer(ramp * (number + 1), ramp) / 3] * 3, -1)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("name", "channels", "latent"), [("mean-scale-hyperprior", 8, 12), ("cheng2020-anchor", 8, 8)]
)
def test_trains_and_is_held_against_brute_force(photos, tmp_path, capsys, name, channels, latent) -> None:
    out = tmp_path / "copy.pt"
    words = ["--network", name, "--data", str(photos), "--out", str(out), "--minutes", "0.02", "--crop", "64"]
    words += ["--channels", str(channels), "--latent-channels", str(latent), "--batch", "2", "--threads", "1"]
    main(words)
    assert "steps, loss" in capsys.readouterr().out
    model = load_copy(out)
    fresh = build_copy(CopyConfig(name, channels, latent))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    check_channel_order.main(["--copy", str(out), "--data", str(photos), "--pictures", "1", "--threads", "1"])
    told = capsys.readouterr().out
    assert f"{latent} latent channels" in told
    assert "made-up latents" in told


def test_sizes_have_to_go_together() -> None:
    with pytest.raises(ValueError, match="as many latent channels"):
        build_copy(CopyConfig("cheng2020-anchor", 8, 12))
    with pytest.raises(ValueError, match="no such network"):
        build_copy(CopyConfig("cheng2021", 8, 8))


def test_no_pictures_are_told(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--network", "cheng2020-anchor", "--data", str(tmp_path), "--out", str(tmp_path / "x")])
    assert "no picture" in capsys.readouterr().err
