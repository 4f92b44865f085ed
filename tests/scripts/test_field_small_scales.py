"""What energies in a stream give the realistic decoder is measured, and which limits are missed."""

import json

import numpy as np

from latentpress.scripts.field_measures import TrueField
from latentpress.scripts.field_small_scales import main, missed


def turbulent(seed: int) -> np.ndarray:
    """A periodic flow without divergence: the curl of noise whose waves fall off, ``(3, 40, 40, 40)``."""
    k = np.stack(np.meshgrid(*3 * [np.fft.fftfreq(40, 1 / 40)], indexing="ij"))
    potential = np.fft.fftn(np.random.default_rng(seed).standard_normal((3, 40, 40, 40)), axes=(1, 2, 3))
    potential /= np.maximum(1, np.sqrt((k**2).sum(0))) ** 4
    flow = np.fft.ifftn(np.cross(1j * k, potential, axis=0), axes=(1, 2, 3)).real
    return (flow / flow.std()).astype(np.float32)


def test_limits_are_named() -> None:
    true = TrueField(turbulent(1)).measure(turbulent(1))
    assert missed(true, true) == []
    found = true._replace(small_scales=0.7, skewness=true.skewness + 0.1, gradient=0.94)
    assert missed(found, true) == ["E 24-40", "skewness", "dissipation"]
    found = true._replace(flatness=1.11 * true.flatness, divergence=3.1 * true.divergence)
    assert missed(found, true) == ["flatness", "div"]


def test_measured_from_files(tmp_path, capsys) -> None:
    flow = tmp_path / "flow.npy"
    np.save(flow, turbulent(1))
    out = tmp_path / "scales.json"
    assert main([str(flow), "--ratios", "90", "--json", str(out), "--threads", "1"]) == 0
    box, piece = json.loads(out.read_text())["rows"]
    assert (box["periodic"], piece["periodic"]) == (True, False)
    for row in (box, piece):
        assert row["flow"] == "flow"
        assert row["bytes"] <= 40**3 * 12 / 90
        assert 20 < row["section"] < 32
        assert row["found"]["small_scales"] != row["guessed"]["small_scales"]
        assert abs(row["found"]["small_scales"] - 1) < 0.5
        assert set(row["missed"]) <= {"E 24-40", "skewness", "flatness", "dissipation", "div"}
    assert "flow  periodic" in capsys.readouterr().out


def test_a_missing_file_is_told(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "nothing.npy")]) == 1
    assert "nothing.npy" in capsys.readouterr().err
