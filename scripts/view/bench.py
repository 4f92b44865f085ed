"""What ``latentpress view`` does: keeps what was dropped, compresses it, measures, compares.

::

    file -> Kind.read -> Item -> codec -> stream -> codec -> Result (figures, parts to show, stream)
                          +----> JPEG, zfp, Draco, ... at as many bytes -> Result

The bench knows nothing of HTTP, and nothing of what is in items and results: that is for their kinds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Generic, NamedTuple, TypeVar

from latentpress.codecs.bitstream import Limits
from latentpress.codecs.registry import load
from latentpress.scripts.view.fields import FieldKind
from latentpress.scripts.view.kinds import Item, Kind, Rate, Result, Superseded, new_id
from latentpress.scripts.view.offer import WITHOUT_WEIGHTS, make_offers
from latentpress.scripts.view.pictures import PictureKind
from latentpress.scripts.view.shapes import ShapeKind

KEPT_ITEMS = 4
KEPT_RESULTS = 24

V = TypeVar("V")


class Progress(NamedTuple):
    """How far the work on an item is.

    Attributes:
        fraction: 0 to 1.
        stage: What is being done.
    """

    fraction: float = 0.0
    stage: str = "waiting"


class Bench:
    """Keeps a few items and results in memory, and does one thing at a time, so that times are true.

    Args:
        device: Where networks run.
        weights: Name or path of weights that are offered first; None for those that ship.
        limits: Caps on the size of items.
    """

    def __init__(self, device: str = "cpu", weights: str | None = None, limits: Limits | None = None) -> None:
        self._device = device
        limits = limits or Limits()
        # The last one takes whatever the others do not.
        kinds: tuple[Kind[Any, Any], ...] = (FieldKind(limits), ShapeKind(limits), PictureKind(limits))
        self._kinds = {kind.name: kind for kind in kinds}
        self.offers = make_offers(weights)
        self._loaded: dict[str, Any] = {}
        self._items: _Recent[Item] = _Recent(KEPT_ITEMS)
        self._results: _Recent[Result[Any]] = _Recent(KEPT_RESULTS)
        self._newest: dict[str, str] = {}
        self._progress: dict[str, Progress] = {}
        self._one_at_a_time = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """What the page can offer."""
        return {
            **self.offers.describe(),
            "peers": {name: list(kind.peers()) for name, kind in self._kinds.items()},
        }

    def add(self, name: str, content: bytes) -> Item:
        """Takes a file.

        Raises:
            PictureError, ValueError: It is none that can be compressed, or no codec for it is offered.
        """
        kind = next(
            (kind for kind in self._kinds.values() if kind.takes(name)), self._kinds[PictureKind.name]
        )
        if not any(offer.kind == kind.name for offer in self.offers.codecs):
            reasons = [f"{w.title}: {w.reason}" for w in self.offers.withheld if w.kind == kind.name]
            raise ValueError(f"no codec for a {kind.name} is offered ({'; '.join(reasons)})")
        item: Item = kind.read(name, content)
        self._items.keep(item.id, item)
        return item

    def item(self, key: str) -> Item:
        """An item that was added.

        Raises:
            KeyError: It was never there, or is no longer.
        """
        return self._items[key]

    def result(self, key: str) -> Result[Any]:
        """A result that was made.

        Raises:
            KeyError: It was never there, or is no longer.
        """
        return self._results[key]

    def progress(self, key: str) -> Progress:
        """How far the newest result of an item is."""
        return self._progress.get(key, Progress())

    def compress(self, key: str, rate: Rate) -> Result[Any]:
        """Compresses an item, decodes it and measures.

        Args:
            key: Of the item.
            rate: How.

        Raises:
            KeyError: There is no such item.
            ValueError: The codec is not offered or does not fit, or the rate cannot be met.
            Superseded: While this waited or worked, the page asked for another rate.
        """
        item = self._items[key]
        result_id = self._newest[key] = new_id()
        self._progress[key] = Progress()

        def notify(fraction: float, stage: str) -> None:
            self._refuse_if_old(key, result_id)
            self._progress[key] = Progress(fraction, stage)

        with self._one_at_a_time:
            notify(0.0, "loading the codec")
            offer = self.offers.named(rate.codec)
            if offer.kind != item.kind:
                raise ValueError(f"the codec {offer.title} takes no {item.kind}")
            kind = self._kinds[item.kind]
            codec = self._codec(offer.name, kind)
            notify(0.0, "compressing")
            result: Result[Any] = kind.compress(result_id, item, codec, rate, notify)
        self._results.keep(result_id, result)
        return result

    def at_equal_bytes(self, key: str, peer: str) -> Result[Any]:
        """Compresses the same item with another codec, to no more bytes where that can be.

        Args:
            key: Of a result of `compress`.
            peer: One of those that its kind is compared with.

        Raises:
            KeyError: There is no such result or peer.
            ValueError: The peer cannot compress this item.
            Superseded: There is a newer result for this item.
        """
        own = self._results[key]
        kind = self._kinds[own.item.kind]
        if peer not in kind.peers():
            raise KeyError(peer)
        with self._one_at_a_time:
            self._refuse_if_old(own.item.id, key)
            result: Result[Any] = kind.against(own, peer)
        self._results.keep(result.id, result)
        return result

    def _refuse_if_old(self, item: str, result: str) -> None:
        if self._newest.get(item) != result:
            raise Superseded

    def _codec(self, name: str, kind: Kind[Any, Any]) -> Any:
        if name not in self._loaded:
            codec = self._load(name)
            kind.warm_up(codec)
            self._loaded[name] = codec
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        offer = self.offers.named(name)
        if offer.family == WITHOUT_WEIGHTS and not offer.ratios:
            from latentpress.codecs.field import FieldCodec

            return FieldCodec()
        return load(name, device=self._device)


class _Recent(Generic[V]):
    """A few values, the newest; the one that was looked at longest ago makes room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, V] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, key: str, value: V) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def __getitem__(self, key: str) -> V:
        with self._lock:
            self._values.move_to_end(key)
            return self._values[key]
