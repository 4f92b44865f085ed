"""What the README says of the codecs beside the default one, out of the measurements in ``docs/figures``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from latentpress.codecs.card import ModelCard
from latentpress.scripts.shape_comparison import OWN_NAME, RIVAL_NAME

FIELD_FILE = "field_turbulence.json"
INDEX_FILE = "index_low_rates.json"
SHAPE_FILE = "shape_acceptance.json"


def family_facts(figures: Path, cards: Mapping[str, ModelCard]) -> dict[str, str]:
    """One sentence a family, of measurements of the weights that ship; others are left out.

    Args:
        figures: ``docs/figures`` of a checkout.
        cards: Of the weights that ship, by family.
    """
    found = {}
    sentence = image_max_fact(cards["image-max"]) if "image-max" in cards else None
    if sentence:
        found["image-max"] = sentence
    facts = {
        "field": (FIELD_FILE, field_fact),
        "index": (INDEX_FILE, index_fact),
        "shape": (SHAPE_FILE, shape_fact),
    }
    for family, (name, fact) in facts.items():
        path = figures / name
        if family in cards and path.is_file():
            content = json.loads(path.read_text("utf-8"))
            if content["fingerprint"] == cards[family].fingerprint:
                found[family] = fact(content)
    return found


def image_max_fact(card: ModelCard) -> str | None:
    """Bits at equal PSNR beside VTM, from the card; None if that was not measured."""
    for measured in card.measurements:
        for one in measured.bd_rate:
            if measured.data == "kodak" and one.anchor == "vtm":
                more = "more" if one.percent > 0 else "fewer"
                return f"{abs(one.percent):.1f} % {more} bits than H.266 (VTM) at equal PSNR on the Kodak set"
    return None


def field_fact(content: Mapping[str, Any]) -> str:
    """The error beside SPERR's at equal bytes, at every ratio that was measured."""
    rows = [(row["codec"], row["ratio"], row["measures"]["nrmse"]) for row in content["rows"]]
    ours = [(ratio, error) for codec, ratio, error in rows if codec == "latentpress faithful"]
    shares = []
    for ratio, error in ours:
        theirs = min((abs(r - ratio), e) for codec, r, e in rows if codec == "SPERR")[1]
        shares.append(f"{error / theirs:.2f} at {ratio:.0f} times fewer bytes")
    return f"held-out turbulence, error as a part of SPERR's: {', '.join(shares)}"


def shape_fact(content: Mapping[str, Any]) -> str:
    """Chamfer distances beside the rival's at every size, of the meshes that both have a stream for."""
    distances: dict[int, dict[str, dict[str, float]]] = {}
    for row in content["geometry"]:
        if row["target"]:  # zero stands for the distance of the samples themselves
            distances.setdefault(row["target"], {}).setdefault(row["codec"], {})[row["mesh"]] = row["chamfer"]
    parts, meshes = [], 0
    for size, codecs in sorted(distances.items()):
        ours, rival = codecs.get(OWN_NAME, {}), codecs.get(RIVAL_NAME, {})
        both = ours.keys() & rival.keys()
        meshes = max(meshes, len(ours))
        if both:
            own, theirs = (fmean(found[mesh] for mesh in both) for found in (ours, rival))
            parts.append(f"{own:.4f} beside {theirs:.4f} at {size} bytes")
    return f"Chamfer distance on {meshes} meshes, beside {RIVAL_NAME}: {', '.join(parts)}"


def index_fact(content: Mapping[str, Any]) -> str:
    """Wasserstein distortion beside the best rival that reaches the most pictures, at every rate."""
    rows = content["rows"]
    ours = {
        (r["picture"], r["target_bpp"]): r["measures"]["wasserstein"] for r in rows if r["codec"] == "index"
    }
    parts = []
    for rate in content["rates"]:
        rivals: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["target_bpp"] == rate and row["codec"] != "index":
                rivals.setdefault(row["codec"], {})[row["picture"]] = row["measures"]["wasserstein"]
        if rivals:
            name, best = max(rivals.items(), key=lambda item: (len(item[1]), -fmean(item[1].values())))
            own = fmean(ours[picture, rate] for picture in best)
            parts.append(f"{own:.1f} beside {fmean(best.values()):.1f} of {name} at {rate:g} bits a pixel")
    return f"photographs, distortion of local statistics: {', '.join(parts)}"
