"""Which codecs the page offers, and why it does not offer the others."""

from __future__ import annotations

from collections.abc import Set
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from latentpress.codecs.card import card_path, read_card
from latentpress.codecs.weights import WeightFile, read_weight_file, shipped_weights

PICTURE, FIELD, SHAPE = "picture", "field", "shape"

_KINDS = {"image": PICTURE, "image-max": PICTURE, "index": PICTURE, "field": FIELD, "shape": SHAPE}
_RATES = {PICTURE: ("quality", "bytes"), FIELD: ("bound", "ratio", "bytes"), SHAPE: ("quality", "bytes")}
_REFINING = frozenset({"image", "image-max", "index", "shape"})
# Packages that a family needs besides those that the page does, and their extra.
_NEEDED = {"shape": {"trimesh": "shape", "skimage": "shape"}}

WITHOUT_WEIGHTS = "field"
"""The family that works without weights, and the name under which it then does."""


class Offer(NamedTuple):
    """A codec that can be chosen.

    Attributes:
        name: For `latentpress.load`; of :data:`WITHOUT_WEIGHTS` there may be no weights.
        title: What it is called on the page.
        family: Codec family.
        kind: Of data that it takes.
        rates: Ways to say how small: ``quality``, ``bytes``, ``bound`` and ``ratio``.
        effort: Whether time can be spent on a better result.
        ratios: Of a field codec's networks.
        realistic: Whether a field codec has a decoder that restores small scales.
    """

    name: str
    title: str
    family: str
    kind: str
    rates: tuple[str, ...]
    effort: bool
    ratios: tuple[int, ...] = ()
    realistic: bool = False


class Withheld(NamedTuple):
    """A codec family that cannot be chosen.

    Attributes:
        title: What it is called.
        kind: Of data that it takes.
        reason: Why not, and what would help.
    """

    title: str
    kind: str
    reason: str


class Offers(NamedTuple):
    """All codec families.

    Attributes:
        codecs: That can be chosen.
        withheld: That cannot.
    """

    codecs: tuple[Offer, ...]
    withheld: tuple[Withheld, ...]

    def named(self, name: str) -> Offer:
        """The codec of a name.

        Raises:
            ValueError: None of this name is offered.
        """
        for offer in self.codecs:
            if offer.name == name:
                return offer
        raise ValueError(f"unknown codec '{name}': offered are {', '.join(o.name for o in self.codecs)}")

    def describe(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "codecs": [offer._asdict() for offer in self.codecs],
            "withheld": [withheld._asdict() for withheld in self.withheld],
        }


def make_offers(weights: str | None = None) -> Offers:
    """Looks at what ships and what is installed.

    Args:
        weights: Name or path of weights to offer first.

    Raises:
        ValueError: The weights are of no family that the page can show.
        FileNotFoundError: There are no such weights.

    Example:
        >>> [offer.family for offer in make_offers().codecs if offer.kind == "picture"][0]
        'image'
    """
    names = {name: card_path(path) for name, path in shipped_weights().items()}
    families = {name: read_card(path).family for name, path in names.items() if path.is_file()}
    chosen = [] if weights is None else [weights]
    codecs: list[Offer] = []
    for name in dict.fromkeys([*chosen, *families]):
        path = shipped_weights().get(name, Path(name))
        family = families.get(name)
        if family is None:
            family = read_weight_file(path).family
        if family not in _KINDS:
            raise ValueError(f"{name}: the page cannot show the family {family!r}")
        if missing_package(family) is None:
            codecs.append(_offer(name, family, path))
    if not any(offer.family == WITHOUT_WEIGHTS for offer in codecs):
        codecs.append(
            Offer(WITHOUT_WEIGHTS, "field, bounds only", WITHOUT_WEIGHTS, FIELD, ("bound",), effort=False)
        )
    complete = {offer.family for offer in codecs if offer.kind != FIELD or offer.ratios}
    return Offers(tuple(codecs), tuple(_withheld(complete)))


def missing_package(family: str) -> str | None:
    """What to install for a family; None if nothing is missing."""
    for package, extra in _NEEDED.get(family, {}).items():
        if find_spec(package) is None:
            return f"needs {package}: pip install 'latentpress[{extra}]'"
    return None


def _offer(name: str, family: str, path: Path) -> Offer:
    kind = _KINDS[family]
    offer = Offer(name, Path(name).stem, family, kind, _RATES[kind], family in _REFINING)
    if kind != FIELD:
        return offer
    held: WeightFile = read_weight_file(path)
    ratios = sorted(int(ratio) for ratio in held.config.get("networks", {}))
    realistic = any(".realistic." in tensor for tensor in held.tensors)
    return offer._replace(ratios=tuple(ratios), realistic=realistic)


def _withheld(offered: Set[str]) -> list[Withheld]:
    """All other families: without weights, or without packages that they need."""
    found = []
    for family, kind in _KINDS.items():
        if family not in offered:
            title = "field at ratios 8, 64 and 512" if family == WITHOUT_WEIGHTS else family
            found.append(Withheld(title, kind, missing_package(family) or "no weights of it ship yet"))
    return found
