"""What a kind of data has to bring to be shown on the page: how it is read, compressed, shown and measured.

A kind is a subclass of `Kind` here and a renderer of the same name in ``page/``.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

OWN_LABEL = "latentpress"
"""What results of our own codecs are called, beside those of others."""

Notify = Callable[[float, str], None]
"""Told the fraction done and the stage; raises `Superseded` when nobody waits any longer."""


class Rate(NamedTuple):
    """What the page asks for; what is None is not asked for.

    Attributes:
        codec: Name of an offer.
        quality: 0 to 100.
        target_bytes: Bytes at most.
        relative_error: Of fields: bound on every value's error, as a fraction of the range.
        ratio: Of fields: 8, 64 or 512 samples for one.
        effort: 0 to 10.
        keep_metadata: Of pictures: whether colour profile, EXIF and XMP go into the file.
        realistic: Of fields: decode with the decoder that restores small scales.
    """

    codec: str
    quality: float | None = None
    target_bytes: int | None = None
    relative_error: float | None = None
    ratio: int | None = None
    effort: int = 0
    keep_metadata: bool = False
    realistic: bool = False

    def options(self, *names: str) -> dict[str, Any]:
        """Those of the named attributes that are asked for, as keyword arguments of a codec."""
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value not in (None, 0)}


class Content(NamedTuple):
    """Something that a browser shows.

    Attributes:
        data: Its bytes.
        media_type: Of what.
    """

    data: bytes
    media_type: str


class Superseded(Exception):
    """A newer result of the same item has been asked for, so nobody waits for this one."""


@dataclass(frozen=True, kw_only=True)
class Item(ABC):
    """Something that was dropped on the page.

    Attributes:
        id: Not to be guessed.
        name: Of the file.
        file_bytes: Its size.
        notes: What was lost or decided on the way from the file.
    """

    kind: ClassVar[str]

    id: str
    name: str
    file_bytes: int
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """What the page is told."""
        own = {"kind": self.kind, "id": self.id, "name": self.name, "bytes": self.file_bytes}
        return {**own, "notes": list(self.notes), **self.facts()}

    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """What only this kind of item has to say."""

    @abstractmethod
    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """A part to show.

        Raises:
            KeyError: There is no such part.
            ValueError: The query makes no sense.
        """


I = TypeVar("I", bound=Item)  # noqa: E741 - an item


@dataclass(frozen=True, kw_only=True)
class Result(ABC, Generic[I]):
    """An item compressed and decoded.

    Attributes:
        id: Not to be guessed.
        item: What was compressed.
        label: By which codec.
        setting: How.
        data: The file.
        encode_seconds: Time to make the file.
        decode_seconds: Time to read it.
        suffix: Of the file.
    """

    id: str
    item: I
    label: str
    setting: str
    data: bytes
    encode_seconds: float
    decode_seconds: float
    suffix: str = ".lpz"

    @property
    def filename(self) -> str:
        """What a download is called."""
        return f"{Path(self.item.name).stem}{self.suffix}"

    def describe(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "kind": self.item.kind,
            "id": self.id,
            "label": self.label,
            "setting": self.setting,
            "bytes": len(self.data),
            "encode_seconds": self.encode_seconds,
            "decode_seconds": self.decode_seconds,
            "filename": self.filename,
            **self.figures(),
        }

    @abstractmethod
    def figures(self) -> Mapping[str, Any]:
        """How close the decoded item is."""

    @abstractmethod
    def part(self, name: str, query: Mapping[str, str]) -> Content:
        """A part to show, as of `Item.part`."""


R = TypeVar("R", bound=Result[Any])


class Kind(ABC, Generic[I, R]):
    """How one kind of data is handled.

    ::

        file -> read -> Item -> compress -> Result (figures, parts to show, file)
                          +---> against a peer at as many bytes -> Result
    """

    name: ClassVar[str]

    @abstractmethod
    def takes(self, name: str) -> bool:
        """Whether a file of this name is of this kind."""

    @abstractmethod
    def peers(self) -> tuple[str, ...]:
        """Names of the codecs that results are compared with."""

    @abstractmethod
    def read(self, name: str, content: bytes) -> I:
        """Reads a file.

        Raises:
            ValueError, PictureError: It cannot be read.
        """

    @abstractmethod
    def warm_up(self, codec: Any) -> None:
        """Runs a codec once: the first run also pays for memory and threads that later ones find ready."""

    @abstractmethod
    def compress(self, result: str, item: I, codec: Any, rate: Rate, notify: Notify) -> R:
        """Compresses, decodes and measures.

        Raises:
            ValueError: The rate cannot be met.
            Superseded: From `notify`.
        """

    @abstractmethod
    def against(self, own: R, peer: str) -> R:
        """The same item by another codec, to no more bytes where that can be.

        Raises:
            KeyError: There is no such peer.
            ValueError: It cannot compress this item.
        """


def new_id() -> str:
    """A name for an item or a result that cannot be guessed."""
    return secrets.token_urlsafe(12)
