"""The table of saturated colours."""

import pytest

from latentpress.scripts.index_saturated import disc_and_bars, halves, main


def test_pictures_are_saturated() -> None:
    for picture in (disc_and_bars(), halves()):
        assert picture.shape == (3, 256, 256)
        assert picture[:, 100, 100].tolist() == [0, 0, 255]
        assert picture[:, 5, 250].tolist() == [255, 255, 255]


def test_a_row_for_every_picture_and_quality(small_index_weights, capsys) -> None:
    assert main(["--codec", str(small_index_weights), "--qualities", "0,40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 8
    blue = lines[2].split()
    assert blue[:4] == ["0", "0", "255", "0"]
    assert blue[9:12] == ["0", "0", "255"]
    assert float(blue[12]) < float(blue[13])


@pytest.mark.parametrize("codec", ["image", "nothing"])
def test_other_weights_are_refused(codec, capsys) -> None:
    assert main(["--codec", codec]) != 0
    assert codec in capsys.readouterr().err
