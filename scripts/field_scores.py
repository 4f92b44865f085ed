"""Does the critic's score follow the true error?

Flows of several regimes (stores of ``make_turbulence``: Reynolds numbers, decaying flows) are compressed at
all ratios and some qualities, decoded by both decoders, and damaged in ways the critic was and was not
trained with. The rank correlation of score and NRMSE is printed for each group and for all together:
``python -m latentpress.scripts.field_scores --data forced.zarr decaying.zarr``.

Ratio and quality of a stream alone say much about its error. What the critic knows beyond them is the
correlation between flows that were coded alike, which is a group of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.codecs.card import RankAgreement, read_card
from latentpress.codecs.field import FieldCodec
from latentpress.codecs.field_quality import FlowCritic, shipped_critic
from latentpress.codecs.weights import read_weight_file
from latentpress.models.field.critic import HIGHEST_SCORE
from latentpress.scripts.field_report import add_codec_arguments, field_codec, write_report
from latentpress.scripts.text_table import format_table
from latentpress.scripts.turbulence_store import TurbulenceStore
from latentpress.train.card import write_card
from latentpress.train.field_corruption import LEARNED, UNSEEN

LEAST_CORRELATION = 0.7
QUALITIES = (0.0, 25.0, 50.0, 75.0, 100.0)
STRENGTHS = (0.15, 0.4, 0.65, 0.9)


ALIKE = "coded alike, between flows"
_ON_CARD = ("faithful", "realistic", ALIKE, "damage it was trained with", "damage it has never seen")


class Scored(NamedTuple):
    """A field and what the critic says of it.

    Attributes:
        flow: Store and number of the flow.
        kind: ``truth``, a decoder, or a kind of damage.
        detail: Ratio and quality, or strength.
        nrmse: True error.
        score: The critic's.
    """

    flow: str
    kind: str
    detail: str
    nrmse: float
    score: float


def score_flow(codec: FieldCodec, name: str, field: Tensor, periodic: bool, seed: int) -> list[Scored]:
    """Everything that is made of one flow.

    Args:
        codec: With a critic.
        name: Of the flow.
        field: ``(3, D, H, W)`` float32.
        periodic: It is a whole periodic box.
        seed: Of the damage.
    """
    found = [Scored(name, "truth", "", 0.0, codec.critic.score(field))]
    decoders = ("faithful", "realistic") if codec.has_realistic else ("faithful",)
    for ratio in codec.ratios:
        for quality in QUALITIES:
            data = codec.compress(field, ratio=ratio, quality=quality, periodic=periodic)
            for decoder in decoders:
                decoded = codec.decompress(data, decoder=decoder)  # type: ignore[arg-type]
                found.append(
                    Scored(
                        name,
                        decoder,
                        f"ratio {ratio}, quality {quality:g}",
                        _nrmse(field, decoded),
                        codec.critic.score(decoded),
                    )
                )
    centred = field - field.mean(dim=(1, 2, 3), keepdim=True)
    unit = (centred / centred.square().mean().sqrt()).permute(1, 2, 3, 0)[None]
    generator = torch.Generator().manual_seed(seed)
    for kind, corrupt in {**LEARNED, **UNSEEN}.items():
        for strength in STRENGTHS:
            damaged = corrupt(unit, torch.tensor([strength]), generator)
            score = codec.critic.score(damaged[0].permute(3, 0, 1, 2))
            found.append(Scored(name, kind, f"strength {strength:g}", _nrmse(unit, damaged), score))
    return found


def rank_correlation(scored: Sequence[Scored]) -> float:
    """Spearman's coefficient of the score and the negative error.

    Example:
        >>> round(rank_correlation([Scored("", "", "", e, 3 - e) for e in (0.1, 0.5, 0.2)]), 6)
        1.0
    """
    from scipy.stats import spearmanr

    if len(scored) < 3:
        return math.nan
    return float(spearmanr([-one.nrmse for one in scored], [one.score for one in scored]).statistic)


def grouped(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """All fields, those of every flow, of the decoders, and of every kind of damage."""
    groups: dict[str, list[Scored]] = {"all": list(scored)}
    for one in scored:
        groups.setdefault(one.flow, []).append(one)
    decoded = [one for one in scored if one.kind in ("faithful", "realistic", "truth")]
    groups["decoded"] = decoded
    for kind in ("faithful", "realistic"):
        groups[kind] = [one for one in decoded if one.kind == kind]
    groups[ALIKE] = [one for one in decoded if one.kind != "truth"]
    for name, kinds in (("damage it was trained with", LEARNED), ("damage it has never seen", UNSEEN)):
        groups[name] = [one for one in scored if one.kind in kinds]
        groups |= {f"... {kind}": [one for one in scored if one.kind == kind] for kind in kinds}
    return {name: group for name, group in groups.items() if group}


def correlations(scored: Sequence[Scored]) -> dict[str, tuple[int, float]]:
    """Number of fields and correlation in every group."""
    return {
        name: (len(group), _correlation_alike(group) if name == ALIKE else rank_correlation(group))
        for name, group in grouped(scored).items()
    }


def mean_deviation(scored: Sequence[Scored]) -> float:
    """How far scores are from ``-log10(NRMSE)``, which is at most what the critic can say.

    Example:
        >>> round(mean_deviation([Scored("", "", "", 0.1, 1.5), Scored("", "", "", 0.0, 3.9)]), 6)
        0.3
    """
    return fmean(abs(one.score + math.log10(max(one.nrmse, 10**-HIGHEST_SCORE))) for one in scored)


def _correlation_alike(decoded: Sequence[Scored]) -> float:
    """Mean of the correlations between flows that one decoder decoded at one ratio and quality."""
    settings: dict[tuple[str, str], list[Scored]] = {}
    for one in decoded:
        settings.setdefault((one.kind, one.detail), []).append(one)
    found = [rank_correlation(group) for group in settings.values() if len(group) > 2]
    return fmean(found) if found else math.nan


def write_ranks(critic: str | Path, data: Sequence[str], groups: Mapping[str, tuple[int, float]]) -> None:
    """Puts correlations into the card of a critic.

    Args:
        critic: Its weight file.
        data: Names of the flows.
        groups: Of :func:`correlations`.
    """
    count, overall = groups["all"]
    kept = {
        name: round(value, 3)
        for name, (_, value) in groups.items()
        if name in _ON_CARD and math.isfinite(value)
    }
    ranks = RankAgreement(", ".join(data), count, round(overall, 3), kept)
    write_card(dataclasses.replace(read_card(critic), ranks=ranks), critic)


def table(scored: Sequence[Scored]) -> str:
    """Correlation and deviation of every group as text."""
    members = grouped(scored)
    rows = [
        [name, str(count), f"{value:.3f}", f"{mean_deviation(members[name]):.2f}"]
        for name, (count, value) in correlations(scored).items()
    ]
    return format_table(("fields", "number", "Spearman", "off by"), rows)


def main(args: Sequence[str] | None = None) -> int:
    """Scores all flows.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        The exit code: 1 if the correlation over everything is below the bar.
    """
    parser = argparse.ArgumentParser(prog="python -m latentpress.scripts.field_scores", description=__doc__)
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="STORE", help="of scripts.make_turbulence"
    )
    parser.add_argument("--corner", type=int, metavar="N", help="only a corner of so many points a side")
    parser.add_argument("--out", metavar="FILE", help="JSON file for all scores")
    parser.add_argument("--critic", metavar="FILE", help="a critic other than the one that ships")
    parser.add_argument(
        "--card", action="store_true", help="put the correlations into the card of the critic"
    )
    add_codec_arguments(parser)
    options = parser.parse_args(args)
    codec = field_codec(options)
    critic = Path(options.critic or shipped_critic())
    if options.critic:
        codec.critic = FlowCritic(read_weight_file(critic), options.device)
    scored: list[Scored] = []
    for store in options.data:
        flows = TurbulenceStore(store)
        for box, time in itertools.product(range(flows.boxes), range(flows.times)):
            field = torch.from_numpy(flows.velocity(box, time))
            cut = options.corner is not None and options.corner < field.shape[-1]
            if cut:
                field = field[:, : options.corner, : options.corner, : options.corner].contiguous()
            name = f"{Path(store).stem}, box {box}, snapshot {time}"
            scored += score_flow(codec, name, field, not cut, seed=len(scored))
    groups = correlations(scored)
    print(table(scored))
    overall = groups["all"][1]
    if options.card:
        write_ranks(critic, [Path(store).stem for store in options.data], groups)
    if options.out:
        content = {
            "correlations": {name: value for name, (_, value) in groups.items()},
            "scored": [one._asdict() for one in scored],
        }
        write_report(options.out, content, codec, options.device)
    return int(not overall >= LEAST_CORRELATION)


def _nrmse(field: Tensor, other: Tensor) -> float:
    error = (other.double() - field.double()).square().mean() / field.double().square().mean()
    return math.sqrt(float(error))


if __name__ == "__main__":
    sys.exit(main())
