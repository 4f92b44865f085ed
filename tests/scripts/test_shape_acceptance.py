"""Which promises of shape weights count as kept."""

from __future__ import annotations

from latentpress.scripts.shape_acceptance import OWN_NAME, RIVAL_NAME, Result, coloured_bars, geometry_bars


def row(mesh: str, codec: str, target: int, chamfer: float) -> Result:
    return Result(mesh, codec, target, target, chamfer, 1.0, 1.0, 0.0)


def good(mesh: str) -> list[Result]:
    return [
        *(row(mesh, OWN_NAME, target, 0.01) for target in (100, 200, 500)),
        row(mesh, RIVAL_NAME, 200, 0.03),
    ]


def test_all_are_kept() -> None:
    assert all(bar.holds for bar in geometry_bars(good("a") + good("b")))


def test_a_rival_without_a_stream_has_lost() -> None:
    alone = [r for r in good("b") if r.codec == OWN_NAME]
    assert all(bar.holds for bar in geometry_bars(good("a") + alone))


def test_a_mesh_without_a_stream_of_ours_is_not_left_out() -> None:
    """It is not a mean over the others."""
    bars = geometry_bars([*good("a"), row("b", RIVAL_NAME, 200, 0.03)])
    assert [bar.holds for bar in bars] == [False] * 5
    assert bars[0].found == "inf"


def test_nothing_measured_is_nothing_kept() -> None:
    assert not any(bar.holds for bar in geometry_bars([]))
    assert not any(bar.holds for bar in geometry_bars([row("a", RIVAL_NAME, 200, 0.03)]))


def test_no_coloured_mesh_measured() -> None:
    (bar,) = coloured_bars([])
    assert not bar.holds
    assert "no mesh" in bar.found
