"""Gains measured from boxes: the regression by hand, and the command."""

import math

import numpy as np
import pytest
import torch

from latentpress.codecs.field import FieldCodec
from latentpress.codecs.weights import read_weight_file
from latentpress.models.field.spectral_gain import BANDS, LARGEST, SEEN, SpectralGain
from latentpress.train.fit_field_gain import (
    Boxes,
    _open_pieces,
    fit,
    fitted,
    main,
    simulated,
    with_gains,
)


@pytest.fixture(scope="module")
def weights(field_helper):
    return field_helper.field_weights()


def test_what_is_put_in_is_found() -> None:
    """Decoded energies that follow from two densities by a known law give that law's factors back."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(12, 2, generator=generator, dtype=torch.float64).exp()
    logarithms = 0.3 + 0.1 * seen.log()[:, 0] - 0.05 * seen.log()[:, 1]
    true = torch.rand(12, BANDS, generator=generator, dtype=torch.float64) + 1e-3
    left = true / torch.exp(2 * logarithms[:, None])
    left[:, 10] = true[:, 10] * 1.015
    left[:, 12] = true[:, 12] / 100
    rows, spread = fitted(true, left, seen, torch.ones(12, dtype=torch.float64))
    gain = SpectralGain(rows.expand(2, -1, -1), spread.expand(2, -1, -1))
    for box in range(12):
        densities = torch.ones(BANDS, dtype=torch.float64)
        densities[list(SEEN)] = seen[box]
        u = spread[:, :2] @ (seen[box].log() - spread[:, 2])
        found = gain.logarithms(densities, 50.0) * torch.exp(0.5 * (u.square().sum() - 16).clamp(min=0))
        np.testing.assert_allclose(found[13:20], logarithms[box], atol=0.02)
        assert not found[:4].any()
        assert found[10] == 0
        assert found[12] == pytest.approx(math.log(LARGEST))
        assert 0 < found[24] / found[21] < 1
        assert not found[28:].any()


def test_flows_without_small_scales_do_not_count() -> None:
    """Unless hardly any other is left."""
    generator = torch.Generator().manual_seed(1)
    true = torch.rand(6, BANDS, generator=generator, dtype=torch.float64) + 0.5
    seen = torch.rand(6, 2, generator=generator, dtype=torch.float64) + 0.5
    share = torch.ones(6, dtype=torch.float64)
    left = true / 2
    left[4:, 10:] = true[4:, 10:] * 50
    rows, _ = fitted(true, left, seen, share)
    alone, _ = fitted(true[:4], left[:4], seen[:4], share[:4])
    torch.testing.assert_close(rows, alone)
    assert float(rows[15, 0]) == pytest.approx(math.log(2) / 2)
    left[2:, 10:] = true[2:, 10:] * 50
    rows, _ = fitted(true, left, seen, share)
    assert float(rows[15, 0]) == pytest.approx((math.log(2) - 4 * math.log(LARGEST)) / 6)


def test_large_boxes_are_cut_in_several_places() -> None:
    small, large = (torch.rand(3, side, side, side) for side in (32, 128))
    assert [piece.shape[-1] for piece in _open_pieces(small)] == [32]
    first, *_, rolled, left, right = _open_pieces(large)
    assert torch.equal(first, large)
    assert torch.equal(rolled[:, 64:, 64:, 64:], large[:, :64, :64, :64])
    assert torch.equal(left[:, 32:, 32:, 32:], right[:, :64, :64, :64])


def test_small_scales_come_back(weights) -> None:
    """Of the boxes that were measured; old gains do not count, and nothing but the gains is new."""
    boxes = simulated((Boxes(32, (0.02, 0.03, 0.04, 0.05), 5, 1, (0.2,)),))
    gains = fit(weights, boxes)
    assert set(gains) == {64}
    extended = with_gains(weights, gains)
    assert extended.fingerprint() == weights.fingerprint()
    assert len(extended.tensors) == len(weights.tensors) + 4
    again = fit(extended, boxes)
    for ratio, both in gains.items():
        assert not np.allclose(both.periodic.rows, both.open.rows)
        for one, other in zip(both, again[ratio], strict=True):
            assert one.rows.shape == (5, BANDS, 3)
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4)
    assert with_gains(extended, {}).tensors.keys() == weights.tensors.keys()
    for periodic in (True, False):
        data = FieldCodec(weights).compress(boxes[0], ratio=64, quality=50, periodic=periodic)
        plain, sharp = (FieldCodec(w).decompress(data, decoder="realistic") for w in (weights, extended))
        assert not torch.equal(plain, sharp)


def test_the_command(weights, tmp_path, capsys) -> None:
    path, out, cache = tmp_path / "field.safetensors", tmp_path / "new.safetensors", tmp_path / "boxes.pt"
    path.write_bytes(weights.to_bytes())
    assert main(["--weights", str(path), "--out", str(out), "--small", "--cache", str(cache)]) == 0
    assert weights.fingerprint().hex() in capsys.readouterr().out
    assert main(["--weights", str(path), "--small", "--cache", str(cache)]) == 0
    found, kept = read_weight_file(out), read_weight_file(path)
    assert found.extended_fingerprint() == kept.extended_fingerprint() != weights.fingerprint()
    assert main(["--weights", str(path), "--cache", str(cache)]) == 1
    assert "has other boxes" in capsys.readouterr().err


def test_weights_that_have_nothing_to_measure(weights) -> None:
    plain = {name: array for name, array in weights.tensors.items() if ".realistic." not in name}
    boxes = [torch.zeros(3, 32, 32, 32)] * 3
    with pytest.raises(ValueError, match="no realistic decoders"):
        fit(type(weights)("field", weights.config, plain), boxes)
    with pytest.raises(ValueError, match="three boxes or more"):
        fit(weights, boxes[:2])
