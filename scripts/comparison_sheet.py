"""One picture that shows what several codecs make of another at the same size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont

from latentpress.scripts.pictures import to_image

ZOOM = 2
GAP = 16
MARGIN = 28
OVERVIEW_WIDTH = 480
CAPTION_HEIGHT = 50
TITLE_HEIGHT = 64
PAPER = (255, 255, 255)
INK = (24, 24, 27)
FAINT = (100, 100, 110)
ACCENT = (190, 24, 60)


class Box(NamedTuple):
    """A part of a picture, in pixels.

    Attributes:
        left: First column.
        top: First row.
        width: Columns.
        height: Rows.
    """

    left: int
    top: int
    width: int
    height: int


class Panel(NamedTuple):
    """One decoded picture.

    Attributes:
        title: Which codec.
        facts: Its size and quality.
        pixels: uint8, shape (C, H, W).
    """

    title: str
    facts: str
    pixels: torch.Tensor


def centred(box: Box, height: int, width: int) -> Box:
    """Fits a box into a picture.

    Args:
        box: Wanted part.
        height: Rows of the picture.
        width: Columns of the picture.

    Returns:
        A part of the same size, or as large as the picture allows, moved inside.

    Example:
        >>> centred(Box(90, -5, 20, 20), 100, 100)
        Box(left=80, top=0, width=20, height=20)
    """
    wide, high = min(box.width, width), min(box.height, height)
    left = min(max(box.left, 0), width - wide)
    top = min(max(box.top, 0), height - high)
    return Box(left, top, wide, high)


def comparison_sheet(
    original: torch.Tensor, rows: Sequence[Sequence[Panel]], box: Box, title: str, subtitle: str
) -> Image.Image:
    """Puts the original on the left and a row of enlarged parts for each quality on the right.

    Args:
        original: uint8, shape (C, H, W).
        rows: Decoded pictures of the same shape; as many in each row.
        box: The part to enlarge, inside the picture.
        title: Heading.
        subtitle: A line below it.

    Returns:
        An RGB image.
    """
    wide, high = box.width * ZOOM, box.height * ZOOM
    columns = max(len(row) for row in rows)
    overview = _overview(original, box)
    grid_left = MARGIN + overview.width + 2 * GAP
    width = grid_left + columns * wide + (columns - 1) * GAP + MARGIN
    grid_height = len(rows) * (high + CAPTION_HEIGHT + GAP) - GAP
    left_height = overview.height + high + 2 * CAPTION_HEIGHT + GAP
    height = MARGIN + TITLE_HEIGHT + max(grid_height, left_height) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(26))
    draw.text((MARGIN, MARGIN + 34), subtitle, FAINT, ImageFont.load_default(16))
    top = MARGIN + TITLE_HEIGHT
    _place(sheet, overview, (MARGIN, top), "Original", "the marked part is enlarged")
    below = top + overview.height + CAPTION_HEIGHT + GAP
    _place(sheet, _enlarged(original, box), (MARGIN, below), "Original", f"enlarged {ZOOM} times")
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            place = (grid_left + j * (wide + GAP), top + i * (high + CAPTION_HEIGHT + GAP))
            _place(sheet, _enlarged(panel.pixels, box), place, panel.title, panel.facts)
    return sheet


def _overview(original: torch.Tensor, box: Box) -> Image.Image:
    image = to_image(original).convert("RGB")
    scale = OVERVIEW_WIDTH / image.width
    image = image.resize((OVERVIEW_WIDTH, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    corners = (
        box.left * scale,
        box.top * scale,
        (box.left + box.width) * scale,
        (box.top + box.height) * scale,
    )
    ImageDraw.Draw(image).rectangle(corners, outline=ACCENT, width=3)
    return image


def _enlarged(pixels: torch.Tensor, box: Box) -> Image.Image:
    part = pixels[:, box.top : box.top + box.height, box.left : box.left + box.width]
    # Pixels stay pixels: smoothing would hide what there is to see.
    return (
        to_image(part).convert("RGB").resize((box.width * ZOOM, box.height * ZOOM), Image.Resampling.NEAREST)
    )


def _place(sheet: Image.Image, image: Image.Image, place: tuple[int, int], title: str, facts: str) -> None:
    sheet.paste(image, place)
    left, top = place[0], place[1] + image.height + 5
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top), title, INK, ImageFont.load_default(17))
    draw.text((left, top + 21), facts, FAINT, ImageFont.load_default(15))
