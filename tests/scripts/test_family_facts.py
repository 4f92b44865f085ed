"""Sentences about measurements."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from latentpress.scripts.family_facts import (
    FIELD_FILE,
    family_facts,
    field_fact,
    image_max_fact,
    index_fact,
    shape_fact,
)


def field_content() -> dict[str, object]:
    found = (("latentpress faithful", 64.1, 0.2), ("SPERR", 63.0, 0.4), ("latentpress faithful", 500, 0.3))
    rows = [{"codec": codec, "ratio": r, "measures": {"nrmse": e}} for codec, r, e in found]
    rows.append({"codec": "SPERR", "ratio": 510, "measures": {"nrmse": 1.2}})
    return {"fingerprint": "ab", "rows": rows}


def test_errors_are_held_against_the_same_ratio() -> None:
    assert "0.50 at 64 times fewer bytes, 0.25 at 500 times" in field_fact(field_content())


def test_the_rival_with_the_most_pictures_is_named() -> None:
    def row(picture: str, codec: str, distortion: float) -> dict[str, object]:
        return {
            "picture": picture,
            "target_bpp": 0.1,
            "codec": codec,
            "measures": {"wasserstein": distortion},
        }

    rows = [row("a", "index", 1), row("b", "index", 2), row("a", "AVIF", 3), row("b", "AVIF", 5)]
    rows += [row("a", "half", 4), row("b", "half", 9), row("a", "WebP", 0.1)]
    assert "1.5 beside 4.0 of AVIF at 0.1" in index_fact({"rates": [0.1], "rows": rows})


def test_shapes_that_the_rival_has_no_stream_for_are_left_out_of_both_means() -> None:
    found = [("a", "latentpress", 1.0), ("b", "latentpress", 2.0), ("c", "latentpress", 9.0)]
    found += [("a", "decimation + Draco", 4.0), ("b", "decimation + Draco", 6.0)]
    rows = [{"mesh": m, "codec": codec, "target": 200, "chamfer": error} for m, codec, error in found]
    rows.append({"mesh": "a", "codec": "floor", "target": 0, "chamfer": 0.1})
    fact = shape_fact({"geometry": rows})
    assert (
        fact == "Chamfer distance on 3 meshes, beside decimation + Draco: 1.5000 beside 5.0000 at 200 bytes"
    )


def test_measurements_of_other_weights_are_left_out(tmp_path) -> None:
    (tmp_path / FIELD_FILE).write_text(json.dumps(field_content()))
    assert "field" in family_facts(tmp_path, {"field": SimpleNamespace(fingerprint="ab")})
    assert family_facts(tmp_path, {"field": SimpleNamespace(fingerprint="cd")}) == {}
    assert family_facts(tmp_path, {}) == {}


def test_image_max_is_told_beside_vtm() -> None:
    measured = SimpleNamespace(
        data="kodak",
        bd_rate=(SimpleNamespace(anchor="jpeg", percent=-60.0), SimpleNamespace(anchor="vtm", percent=-1.52)),
    )
    card = SimpleNamespace(measurements=(SimpleNamespace(data="clic", bd_rate=()), measured))
    assert image_max_fact(card) == "1.5 % fewer bits than H.266 (VTM) at equal PSNR on the Kodak set"
    assert image_max_fact(SimpleNamespace(measurements=())) is None
    assert family_facts(Path("nowhere"), {"image-max": card}) == {"image-max": image_max_fact(card)}
