"""MkDocs hook: pages made from what is elsewhere in the repository, so that nothing is written twice.

The README becomes the home page, SECURITY.md and others pages of their own, model cards and reports of
``latentpress eval`` tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from latentpress.codecs.card import ModelCard, read_card

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
}
CARD_FOLDERS = (ROOT / "assets" / "weights", ROOT / "assets" / "critics")
REPORT_MARK = re.compile(r"^<!-- report: (\S+) -->$", re.MULTILINE)
CAMPAIGN_MARK = re.compile(r"^<!-- campaign: (\S+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not files of their own."""
    for source, target in COPIED.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, target, content=copied(source, text)))
    files.append(File.generated(config, "models.md", content=model_cards(*CARD_FOLDERS)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts a table in the place of every mark that names a report, and leads links to the root to pages."""
    for name, page in COPIED.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    markdown = REPORT_MARK.sub(lambda found: report_table(ROOT / "docs" / found[1]), markdown)
    return CAMPAIGN_MARK.sub(lambda found: campaign_table(ROOT / "docs" / found[1]), markdown)


def copied(source: str, text: str) -> str:
    """A file of the repository's root as a page: its links lead to pages.

    Example:
        >>> copied("README.md", "see [LICENSE](LICENSE) and [how](docs/image.md#how)")
        'see [LICENSE](license.md) and [how](image.md#how)'
    """
    if source == "LICENSE":
        return f"# Licence\n\n```text\n{text}```\n"
    for name, page in COPIED.items():
        text = text.replace(f"]({name})", f"]({page})")
    return text.replace("](docs/", "](")


def model_cards(*folders: Path) -> str:
    """The cards of all weights in some folders as one page."""
    cards = [read_card(path) for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    parts = ["# Model cards", "Made from the JSON beside the weights, which `latentpress eval` filled in."]
    return "\n\n".join([*parts, *(model_card(card) for card in cards)]) + "\n"


def model_card(card: ModelCard) -> str:
    """One card."""
    facts = {
        "fingerprint": f"`{card.fingerprint}`",
        "codec family": f"`{card.family}`",
        "parameters": f"{card.parameters:,}",
        "weight file": f"{card.bytes:,} bytes",
        "made": card.date,
        "licence": card.license,
        "trained on": _one_line(card.training_data),
        "training": _one_line(card.training),
    }
    if card.lambda_range is not None:
        facts["lambda at quality 0 and 100"] = f"{card.lambda_range[0]:g}, {card.lambda_range[1]:g}"
    if card.codebook is not None:
        use = card.codebook
        facts["codebook"] = (
            f"{use.used} of {use.codes} codes occur on {use.data}, perplexity {use.perplexity:.0f}"
        )
    if card.ranks is not None:
        parts = "".join(f"; {name} {value:.2f}" for name, value in card.ranks.groups.items())
        facts["Spearman of score and negative error"] = (
            f"{card.ranks.spearman:.2f} over {card.ranks.fields} fields of {card.ranks.data}{parts}"
        )
    facts["configuration"] = ", ".join(f"{name} {value}" for name, value in _flat(card.config))
    parts = [f"## {card.name}", table(("weights", f"`{card.name}`"), list(facts.items()))]
    for found in card.measurements:
        parts.append(f"### {card.name} on {found.data}")
        parts.append(
            f"{found.pictures} pictures, measured {found.date[:10]} from files and decoded 8-bit pixels."
        )
        parts.append(_rates([dict(vars(point)) for point in found.points]))
        if found.bd_rate:
            parts.append(_differences([dict(vars(difference)) for difference in found.bd_rate]))
    return "\n\n".join(parts)


def report_table(path: Path) -> str:
    """The command, the means and the rate differences of a report of ``latentpress eval``."""
    report = json.loads(path.read_text("utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    machine = f"device {report['device']}, {report['threads']} threads, Python {report['python']}, {versions}"
    what = f"{report['pictures']} pictures, weights `{report['fingerprint']}`, {report['date'][:10]}"
    return "\n\n".join(
        [
            f"```\n{report['command']}\n```",
            f"{what}; {machine}.",
            _rates(report["means"]),
            _differences([found for found in report["bd_rate"] if found["percent"] is not None]),
        ]
    )


def campaign_table(path: Path) -> str:
    """What came of each target of ``scripts/fuzz_campaign.py``, and of all."""
    outcomes = json.loads(path.read_text("utf-8"))["outcomes"]
    rows = [
        (
            one["target"],
            f"{one['inputs']:,}",
            f"{one['seconds']:.0f}",
            f"{one['edges']}",
            f"{one['peak_mb']}",
            one["skipped"] or str(one["failed"]),
        )
        for one in outcomes
    ]
    total, seconds, failed = (sum(one[name] for one in outcomes) for name in ("inputs", "seconds", "failed"))
    rows.append(("all", f"{total:,}", f"{seconds:.0f}", "", "", str(failed)))
    return table(("target", "inputs", "seconds", "edges reached", "peak MB", "failed"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table in Markdown.

    Example:
        >>> print(table(("a", "b"), [("1", "2|3")]))
        | a | b |
        |---|---|
        | 1 | 2\|3 |
    """
    lines = [head, *rows]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


def _rates(points: Sequence[dict[str, Any]]) -> str:
    rows = [
        (f"{p['quality']:g}", f"{p['bpp']:.4f}", _number(p["psnr"], 2), _number(p["ms_ssim"], 4))
        for p in points
    ]
    return table(("quality", "bpp", "PSNR dB", "MS-SSIM"), rows)


def _differences(found: Sequence[dict[str, Any]]) -> str:
    rows = [
        (d["anchor"], f"{d['percent']:+.1f} %", f"{d['low_psnr']:.1f} to {d['high_psnr']:.1f} dB")
        for d in found
    ]
    return table(("bits at equal PSNR, against", "BD-rate", "over"), rows)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their names, those within others after these.

    Example:
        >>> list(_flat({"depth": 2, "context": {"width": 8}}))
        [('depth', 2), ('context.width', 8)]
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
