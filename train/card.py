"""Fills in model cards: facts from the weight file, figures from the reports of ``latentpress eval``.

``python -m latentpress.train.card --weights FILE --rd REPORT`` replaces the figures of a card, for weights
that have been measured since. No figure is ever typed by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpress.codecs.card import Measurement, ModelCard, RateDifference, RatePoint, card_path, read_card
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole


def measurement(report: Mapping[str, Any]) -> Measurement:
    """Takes the figures of a card from a report.

    Args:
        report: The JSON that ``latentpress eval`` writes.

    Raises:
        ValueError: It is not such a report.
    """
    try:
        points = tuple(
            RatePoint(mean["quality"], mean["bpp"], mean["psnr"], mean["ms_ssim"]) for mean in report["means"]
        )
        differences = tuple(
            RateDifference(found["anchor"], found["percent"], found["low_psnr"], found["high_psnr"])
            for found in report["bd_rate"]
            if found["percent"] is not None
        )
        return Measurement(_data_set(report), report["pictures"], report["date"], points, differences)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a report of latentpress eval: {error!r}") from error


def measurements(paths: Iterable[str | Path], fingerprint: str) -> tuple[Measurement, ...]:
    """Reads reports, all of which must be of the same weights.

    Args:
        paths: JSON files of ``latentpress eval``.
        fingerprint: Of the weights.

    Raises:
        ValueError: A file is not a report, or of other weights, or measured with effort.
    """
    found = []
    for path in paths:
        try:
            report = json.loads(Path(path).read_text("utf-8"))
            found.append(measurement(report))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if report.get("fingerprint") != fingerprint:
            raise ValueError(f"{path} measured the weights {report.get('fingerprint')}, not {fingerprint}")
        if report.get("effort", 0):
            raise ValueError(
                f"{path} measured effort {report['effort']}, figures of a card are without effort"
            )
    return tuple(found)


def write_with_card(weights: WeightFile, out: str | Path, card_of: str | Path | None = None) -> None:
    """Writes weights and, where there is a card, one that fits them beside them.

    Args:
        weights: Those of a file with something changed or added.
        out: The weight file to write.
        card_of: Weight file whose card is taken; None for that of ``out`` itself.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: The card is none.
    """
    source = card_path(out if card_of is None else card_of)
    write_whole(Path(out), weights.to_bytes())
    if source.is_file():
        write_card(refreshed(read_card(source), out), out)


def refreshed(card: ModelCard, weights: str | Path, reports: Sequence[str | Path] = ()) -> ModelCard:
    """A card that fits a weight file: its fingerprint, its size and its figures.

    Figures of other weights are dropped. New reports replace all figures.

    Args:
        card: The card so far.
        weights: The weight file.
        reports: JSON files of ``latentpress eval``.
    """
    content = read_weight_file(weights)
    fingerprint = content.fingerprint().hex()
    kept = card.measurements if card.fingerprint == fingerprint else ()
    return dataclasses.replace(
        card,
        name=Path(weights).stem,
        fingerprint=fingerprint,
        bytes=Path(weights).stat().st_size,
        measurements=measurements(reports, fingerprint) if reports else kept,
        extended_fingerprint=content.extended_fingerprint().hex() if content.added() else None,
    )


def write_card(card: ModelCard, weights: str | Path) -> Path:
    """Writes a card beside its weight file and returns where."""
    path = card_path(weights)
    write_whole(path, card.to_json().encode())
    return path


def main(args: Sequence[str] | None = None) -> None:
    """Refreshes the card of a weight file.

    Args:
        args: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m latentpress.train.card", description=main.__doc__)
    parser.add_argument("--weights", required=True, metavar="FILE", help="weight file; its card is beside it")
    parser.add_argument(
        "--rd",
        action="append",
        default=[],
        metavar="REPORT",
        help="JSON of `latentpress eval`, once a data set",
    )
    options = parser.parse_args(args)
    try:
        card = refreshed(read_card(options.weights), options.weights, options.rd)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"written: {write_card(card, options.weights)}, {len(card.measurements)} data sets")


def _data_set(report: Mapping[str, Any]) -> str:
    """Name of the folder that was measured, from the command line that the report keeps."""
    words = shlex.split(report["command"])
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--data")
    try:
        folder = parser.parse_known_args(words)[0].data
    except argparse.ArgumentError as error:
        raise ValueError(f"its command has no --data: {report['command']}") from error
    if not folder:
        raise ValueError(f"its command has no --data: {report['command']}")
    # Not resolved: the folder may be elsewhere by now.
    return Path(folder).name or folder


if __name__ == "__main__":
    main()
