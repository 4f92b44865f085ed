"""The lead over SPERR on one flow is held against that on another."""

import json

import numpy as np
import pytest

from latentpress.scripts.field_advantage import Lead, lost, main, table

pytest.importorskip("imagecodecs")


def test_a_lead_that_stays_is_not_lost() -> None:
    first = Lead("a", 64, 64, 0.02, 0.05)
    assert lost(first, Lead("b", 64, 64, 0.01, 0.025)) == pytest.approx(0)
    assert lost(first, Lead("b", 64, 64, 0.01, 0.02)) == pytest.approx(0.2)
    assert lost(first, Lead("b", 64, 64, 0.01, 0.05)) < 0


def test_rows_are_held_against_the_first_flow_at_their_ratio() -> None:
    rows = [
        Lead("a", 64, 64, 0.4, 1.0),
        Lead("a", 512, 512, 0.3, 1.0),
        Lead("b", 64, 64, 0.5, 1.0),
        Lead("b", 512, 512, 0.6, 1.0),
    ]
    lines = table(rows).splitlines()
    assert [line.split()[-2:] for line in lines[-2:]] == [["20.0", "%"], ["50.0", "%"]]
    assert "%" not in "".join(lines[:-2])


def turbulent(decay: float) -> np.ndarray:
    """A periodic flow without divergence: the curl of noise whose waves fall off, ``(3, 32, 32, 32)``."""
    k = np.stack(np.meshgrid(*3 * [np.fft.fftfreq(32, 1 / 32)], indexing="ij"))
    potential = np.fft.fftn(np.random.default_rng(1).standard_normal((3, 32, 32, 32)), axes=(1, 2, 3))
    potential /= np.maximum(1, np.sqrt((k**2).sum(0))) ** decay
    flow = np.fft.ifftn(np.cross(1j * k, potential, axis=0), axes=(1, 2, 3)).real
    return (flow / flow.std()).astype(np.float32)


def test_measured_from_files(tmp_path, capsys) -> None:
    for name, decay in (("smooth", 5), ("rough", 4)):
        np.save(tmp_path / f"{name}.npy", turbulent(decay))
    out = tmp_path / "advantage.json"
    flows = [str(tmp_path / "smooth.npy"), str(tmp_path / "rough.npy")]
    assert main([*flows, "--periodic", "--ratios", "40", "--json", str(out), "--threads", "1"]) == 0
    content = json.loads(out.read_text())
    assert content["periodic"] is True
    smooth, rough = content["rows"]
    assert (smooth["flow"], rough["flow"]) == ("smooth", "rough")
    assert min(smooth["found"], rough["found"]) >= 40
    assert 0 < smooth["nrmse"] < rough["nrmse"] < 0.5
    assert 0 < smooth["sperr"] < rough["sperr"]
    assert "smooth" in capsys.readouterr().out


def test_a_missing_file_is_told(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "nothing.npy")]) == 1
    assert "nothing.npy" in capsys.readouterr().err
