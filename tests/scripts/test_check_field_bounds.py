"""Random fields and bounds: none is violated, and what violates one is seen."""

import numpy as np
import torch

from latentpress.codecs.field import FieldCodec
from latentpress.scripts import check_field_bounds


def test_no_violations(capsys) -> None:
    assert check_field_bounds.main(["--fields", "40", "--seed", "3"]) == 0
    assert "40 fields" in capsys.readouterr().out


def test_violations_are_seen(monkeypatch, capsys) -> None:
    decompress = FieldCodec.decompress

    def slightly_off(self, data, **options) -> torch.Tensor:
        values = decompress(self, data, **options)
        values.view(-1)[0] = np.pi
        return values

    monkeypatch.setattr(FieldCodec, "decompress", slightly_off)
    assert check_field_bounds.main(["--fields", "5"]) == 1
    assert "1 violations" in capsys.readouterr().out
