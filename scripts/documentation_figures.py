"""Makes the pictures of the README and the site, and writes the figures of the weights into the README.

    python -m latentpress.scripts.documentation_figures

Run it when weights have changed. The photograph is in the public domain and comes with scikit-image; all
figures are those of the model cards beside the weights. ``--page`` also takes pictures of the page of
``latentpress view`` (needs selenium, chromium and its driver).
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.codecs.card import ModelCard, card_path, read_card
from latentpress.codecs.weights import shipped_weights
from latentpress.scripts.family_facts import family_facts
from latentpress.scripts.file_io import write_bytes

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

QUALITY = 30.0
"""Of the picture in the README."""

CROP = (160, 52, 128, 128)
"""Left, top, width and height of the face."""

ANCHORS = {
    "vtm": "H.266 (VTM)",
    "av1": "AV1, as in AVIF",
    "hm": "H.265 (HM), as in HEIC",
    "webp": "WebP",
    "jpeg": "JPEG",
}
"""Of all codecs that the card compares with, those that readers know."""

FAMILIES = {"image-max": "image-max.md", "index": "index-codecs.md", "field": "field.md", "shape": "shape.md"}
"""Families besides the default one, and their pages."""

_MARK = "<!-- {}: {} (made by {}) -->"
_MAKER = "scripts/documentation_figures.py"
_ZOOM = 2
_GAP = 14
_CAPTION = 52
_PAGE_SIZE = (1400, 860)
_PATIENCE_SECONDS = 180


def equal_bytes(pixels: torch.Tensor, codec: Any, quality: float = QUALITY) -> Image:
    """A part of a picture, the original first, then what each codec makes of as many bytes.

    Args:
        pixels: uint8, ``(3, H, W)``.
        codec: Ours.
        quality: Of ours.
    """
    from latentpress.scripts.measures import compare
    from latentpress.scripts.peers import PEERS, at_size

    data = codec.compress(pixels, quality=quality)
    panels = [("Original", f"{pixels.numel():,} bytes as pixels", pixels)]
    for name, size, decoded in [
        ("latentpress", len(data), codec.decompress(data).cpu()),
        *(
            (peer.name, len(made.data), made.decoded)
            for peer in reversed(PEERS)
            for made in at_size(peer, pixels, len(data))[:1]
        ),
    ]:
        panels.append((name, f"{size:,} bytes, {compare(pixels, decoded).psnr:.1f} dB", decoded))
    return _strip(panels)


def image_table(card: ModelCard) -> str:
    """What a picture needs beside what others need, as Markdown; only what was measured.

    Example:
        >>> from latentpress.codecs.card import Measurement, RateDifference
        >>> found = Measurement("kodak", 24, "2025-01-01", (), (RateDifference("jpeg", -66.2, 27.0, 40.0),))
        >>> card = ModelCard("image", "image", {}, "00" * 8, 1, 1, "", "", "", "", (0.1, 1.0), (found,))
        >>> print(image_table(card))
        | at equal PSNR on the Kodak set, beside | bits needed |
        |---|---|
        | JPEG | 66 % fewer |
        <BLANKLINE>
        24 pictures, from files and decoded 8-bit pixels, weights `0000000000000000`.
    """
    for found in card.measurements:
        if found.data == "kodak":
            percent = {one.anchor: one.percent for one in found.bd_rate}
            lines = ["| at equal PSNR on the Kodak set, beside | bits needed |", "|---|---|"]
            lines += [
                f"| {name} | {_difference(percent[anchor])} |"
                for anchor, name in ANCHORS.items()
                if anchor in percent
            ]
            facts = f"{found.pictures} pictures, from files and decoded 8-bit pixels"
            return "\n".join([*lines, "", f"{facts}, weights `{card.fingerprint}`."])
    return f"Not measured yet, weights `{card.fingerprint}`."


def family_table(cards: Mapping[str, ModelCard], facts: Mapping[str, str]) -> str:
    """What ships of the other families, as Markdown.

    Args:
        cards: Of the weights that ship, by family.
        facts: What was measured of them, by family.

    Example:
        >>> print(family_table({}, {}).splitlines()[2])
        | [`image-max`](docs/image-max.md) | no weights yet | |
    """
    lines = ["| codec | weights | measured |", "|---|---|---|"]
    for family, page in FAMILIES.items():
        card = cards.get(family)
        what = "no weights yet"
        if family == "field" and card is None:
            what = "bounds on the error work without; no weights for the learned ratios yet"
        if card is not None:
            size = f"{card.parameters / 1e6:.1f} million parameters, {card.bytes / 2**20:.0f} MiB"
            what = f"`{card.fingerprint}`, {size}"
        measured = f" {facts[family]} " if family in facts else " "
        lines.append(f"| [`{family}`](docs/{page}) | {what} |{measured}|")
    return "\n".join(lines)


def shipped_cards() -> dict[str, ModelCard]:
    """The cards of the weights that ship, by family."""
    paths = [path for path in shipped_weights().values() if card_path(path).is_file()]
    return {card.family: card for card in map(read_card, paths)}


def with_blocks(text: str, blocks: Mapping[str, str], maker: str = _MAKER) -> str:
    r"""Puts blocks in the place of those that have marks of their names around them.

    Args:
        text: A page.
        blocks: By name.
        maker: The script that the marks name.

    Raises:
        ValueError: A block has no marks.

    Example:
        >>> begin, end = (_MARK.format(which, "x", _MAKER) for which in ("begin", "end"))
        >>> marked = f"a\n{begin}\nold\n{end}\nb"
        >>> with_blocks(marked, {"x": "new"}).splitlines()[3]
        'new'
    """
    for name, block in blocks.items():
        begin, end = (_MARK.format(which, name, maker) for which in ("begin", "end"))
        if begin not in text or end not in text:
            raise ValueError(f"there are no marks for the block {name!r}")
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text = pattern.sub(lambda _, part=f"{begin}\n\n{block}\n\n{end}": part, text)  # type: ignore[misc]
    return text


def readme_blocks(cards: Mapping[str, ModelCard], figures: Path) -> dict[str, str]:
    """The blocks of the README, of cards by family and measurements in ``docs/figures``."""
    families = family_table(cards, family_facts(figures, cards))
    return {"image": image_table(cards["image"]), "families": families}


def take_page_pictures(folder: Path, samples: Sequence[str], weights: str | None = None) -> list[Path]:
    """Takes pictures of the page with samples on it.

    Args:
        folder: Where they go, as ``page_SAMPLE.jpg``.
        samples: Names of samples that are offered.
        weights: To offer first; None for those that ship.

    Raises:
        OSError: There is no browser.
    """
    from PIL import Image
    from selenium import webdriver

    from latentpress.scripts.view.bench import Bench
    from latentpress.scripts.view.server import ViewServer

    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver_path is None:
        raise OSError(
            "pictures of the page need chromium and chromedriver (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    width, height = _PAGE_SIZE
    written = []
    with tempfile.TemporaryDirectory() as profile, ViewServer(Bench(weights=weights)) as server:
        for flag in (
            *("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
            *(f"--window-size={width},{height}", f"--user-data-dir={profile}"),
        ):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
        try:
            for sample in samples:
                driver.get(server.url)
                _until(lambda: driver.find_elements("css selector", "[data-sample]"))
                driver.find_element("css selector", f"[data-sample={sample}]").click()
                _until(lambda: driver.find_element("css selector", "#download").is_displayed())
                _until(lambda: not driver.find_element("css selector", "#message").text)
                time.sleep(1)  # until what was asked for last has been painted
                path = folder / f"page_{sample}.jpg"
                write_bytes(
                    str(path), _jpeg(Image.open(io.BytesIO(driver.get_screenshot_as_png()))), force=True
                )
                written.append(path)
        finally:
            driver.quit()
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes them.

    Args:
        arguments: None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.documentation_figures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="of the checkout")
    parser.add_argument("--page", action="store_true", help="take pictures of the page, too")
    args = parser.parse_args(arguments)
    import skimage.data
    import torch

    from latentpress.codecs.registry import load

    pixels = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).contiguous()
    figures = args.root / "docs" / "figures"
    write_bytes(str(figures / "equal_bytes.jpg"), _jpeg(equal_bytes(pixels, load("image"))), force=True)
    readme = args.root / "README.md"
    text = with_blocks(readme.read_text("utf-8"), readme_blocks(shipped_cards(), figures))
    write_bytes(str(readme), text.encode(), force=True)
    if args.page:
        ship = {"photograph", "flow"} | ({"knot"} if "shape" in shipped_cards() else set())
        take_page_pictures(figures, sorted(ship))
    return 0


def _difference(percent: float) -> str:
    """How many more or fewer bits; in tenths where a whole percent says too little.

    Example:
        >>> _difference(2.9), _difference(-66.2), _difference(0.42)
        ('3 % more', '66 % fewer', '0.4 % more')
    """
    digits = 1 if abs(percent) < 0.95 else 0
    return f"{abs(percent):.{digits}f} % {'more' if percent > 0 else 'fewer'}"


def _strip(panels: Sequence[tuple[str, str, torch.Tensor]]) -> Image:
    """Parts of pictures in a row, each enlarged, with two lines below."""
    from PIL import Image, ImageDraw, ImageFont

    from latentpress.scripts.pictures import to_image

    left, top, width, height = CROP
    side = (width * _ZOOM, height * _ZOOM)
    sheet = Image.new("RGB", ((side[0] + _GAP) * len(panels) - _GAP, side[1] + _CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, facts, pixels) in enumerate(panels):
        part = to_image(pixels[:, top : top + height, left : left + width]).convert("RGB")
        x = number * (side[0] + _GAP)
        sheet.paste(part.resize(side, Image.Resampling.BICUBIC), (x, 0))
        draw.text((x, side[1] + 6), name, (24, 24, 27), ImageFont.load_default(19))
        draw.text((x, side[1] + 30), facts, (100, 100, 110), ImageFont.load_default(16))
    return sheet


def _jpeg(picture: Image) -> bytes:
    """A file that is small and shows no artefacts of its own."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=93, subsampling="4:4:4", optimize=True)
    return buffer.getvalue()


def _until(truth: Any) -> Any:
    """What a function returns, once that is true.

    Raises:
        TimeoutError: It never was.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while not (found := truth()):
        if time.monotonic() > end:
            raise TimeoutError("the page did not get there")
        time.sleep(0.1)
    return found


if __name__ == "__main__":
    sys.exit(main())
