"""Model cards: what a weight file is, where it comes from and what it was measured to do. No torch here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "latentpress-card-1"


@dataclass(frozen=True)
class RatePoint:
    """Averages over a data set at one quality, from files on disk and decoded 8-bit pixels.

    Attributes:
        quality: 0 to 100.
        bpp: Bits a pixel.
        psnr: dB; None if infinite.
        ms_ssim: None if it is not defined for every picture.
    """

    quality: float
    bpp: float
    psnr: float | None
    ms_ssim: float | None = None


@dataclass(frozen=True)
class RateDifference:
    """Bjontegaard rate difference to another codec.

    Attributes:
        anchor: The other codec.
        percent: Negative if fewer bits are needed.
        low_psnr: Lower end of the range both cover, dB.
        high_psnr: Upper end, dB.
    """

    anchor: str
    percent: float
    low_psnr: float
    high_psnr: float


@dataclass(frozen=True)
class Measurement:
    """What `latentpress eval` measured on one data set.

    Attributes:
        data: Name of the data set.
        pictures: How many.
        date: When, ISO 8601.
        points: One for each quality, rising.
        bd_rate: To each anchor that could be compared with.
    """

    data: str
    pictures: int
    date: str
    points: tuple[RatePoint, ...]
    bd_rate: tuple[RateDifference, ...] = ()


@dataclass(frozen=True)
class CodebookUse:
    """How the codes of a codebook are used on a data set.

    Attributes:
        data: Name of the data set.
        codes: Size of the codebook.
        used: How many of the codes occur.
        perplexity: Two to the entropy of their frequencies.
    """

    data: str
    codes: int
    used: int
    perplexity: float


@dataclass(frozen=True)
class RankAgreement:
    """How well a critic's scores agree with true errors.

    Attributes:
        data: What was scored.
        fields: How many fields.
        spearman: Rank correlation of score and negative error over all of them.
        groups: The same within parts of them, by name.
    """

    data: str
    fields: int
    spearman: float
    groups: Mapping[str, float]


@dataclass(frozen=True)
class ModelCard:
    """The card of a weight file, kept beside it as JSON.

    Attributes:
        name: Of the weights, such as ``image``.
        family: Codec family.
        config: Arguments that build the network.
        fingerprint: Of the weights, 16 hexadecimal digits; streams carry it.
        parameters: Number of trained parameters.
        bytes: Size of the weight file.
        date: When the weights were exported, ISO 8601.
        license: SPDX identifier of the weights' licence.
        training_data: What the weights were trained on.
        training: How they were trained.
        lambda_range: Weights of the distortion at qualities 0 and 100; None for codecs that have none.
        measurements: Rate and distortion, one a data set.
        codebook: How its codes are used, for codecs that have a codebook.
        ranks: How its scores agree with errors, for critics.
        extended_fingerprint: With the arrays that the weights got later, for streams that need those; None
            if there are none.

    Example:
        >>> card = ModelCard("tiny", "image", {"channels": 8}, "00" * 8, 100, 400, "2025-01-01", "Apache-2.0",
        ...                  "noise", "one step", (0.001, 0.1))
        >>> ModelCard.from_json(card.to_json()) == card
        True
    """

    name: str
    family: str
    config: Mapping[str, Any]
    fingerprint: str
    parameters: int
    bytes: int
    date: str
    license: str
    training_data: str
    training: str
    lambda_range: tuple[float, float] | None
    measurements: tuple[Measurement, ...] = field(default=())
    codebook: CodebookUse | None = None
    ranks: RankAgreement | None = None
    extended_fingerprint: str | None = None

    def to_json(self) -> str:
        """The card as JSON text."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        content["config"] = dict(self.config)
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ValueError: The text is not the JSON of a card, or a field is missing or unknown.
        """
        try:
            content = json.loads(text)
        except RecursionError as error:
            raise ValueError("not a model card of latentpress: it is nested too deeply") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"not a model card of latentpress: its format is not {FORMAT!r}")
        try:
            lambda_range = content.pop("lambda_range")
            if lambda_range is not None or content.get("family") == "image":
                low, high = lambda_range
                lambda_range = (low, high)
            measurements = tuple(_measurement(m) for m in content.pop("measurements"))
            use = content.pop("codebook", None)
            codebook = None if use is None else CodebookUse(**use)
            found = content.pop("ranks", None)
            card = cls(
                **content,
                lambda_range=lambda_range,
                measurements=measurements,
                codebook=codebook,
                ranks=None if found is None else RankAgreement(**found),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a complete model card: {error}") from error
        if not isinstance(card.config, Mapping):
            raise ValueError(f"not a complete model card: its config is {type(card.config).__name__}")
        return card


def read_card(path: str | Path) -> ModelCard:
    """Reads the card beside a weight file.

    Args:
        path: Of the card (``.json``) or of its weight file.

    Raises:
        FileNotFoundError: There is no card.
        ValueError: It is not a card.
    """
    return ModelCard.from_json(card_path(path).read_text("utf-8"))


def card_path(weights: str | Path) -> Path:
    """Where the card of a weight file is.

    Example:
        >>> card_path("weights/image.safetensors").name
        'image.json'
    """
    return Path(weights).with_suffix(".json")


def _measurement(content: Any) -> Measurement:
    if not isinstance(content, Mapping):
        raise TypeError(f"a measurement is {type(content).__name__}")
    rest = {name: value for name, value in content.items() if name not in ("points", "bd_rate")}
    points = tuple(RatePoint(**point) for point in content["points"])
    return Measurement(
        **rest,
        points=points,
        bd_rate=tuple(RateDifference(**difference) for difference in content["bd_rate"]),
    )
