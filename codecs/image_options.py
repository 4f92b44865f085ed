"""What somebody asks of the image codec, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.image_tiles import TILE_STEP
from latentpress.codecs.latent_refinement import iterations_of
from latentpress.codecs.picture_input import PictureInput, picture_input
from latentpress.codecs.rate_control import quality_to_tenths

DEFAULT_QUALITY = 50.0

TILE_SIZE = 512
"""Side of the tiles of large pictures, in pixels."""

LARGE_PIXELS = 2**22
"""Pictures with more pixels are coded in tiles, unless it is said how."""

Metadata = Mapping[str, bytes]


class ImageOptions(TypedDict, total=False):
    """Options of ``compress`` that are the same for all pictures of a batch; it documents them."""

    quality: float | None
    target_bytes: int | None
    target_bpp: float | None
    target_psnr: float | None
    alpha_max_error: float | None
    effort: int
    tile_size: int | None


class ImageJob(NamedTuple):
    """A picture to be compressed. Exactly one of the three targets is given.

    Attributes:
        source: The picture.
        sections: Of the stream, beside what holds the picture.
        iterations: Steps of refinement.
        tile_size: Side of the tiles; 0 for none.
        tenths: The quality in tenths.
        most_bytes: Of the stream.
        least_psnr: Of the decoded picture, in dB.
    """

    source: PictureInput
    sections: list[tuple[int, bytes]]
    iterations: int
    tile_size: int
    tenths: int | None = None
    most_bytes: float | None = None
    least_psnr: float | None = None


def image_job(
    x: Tensor | NDArray[Any],
    *,
    quality: float | None = None,
    target_bytes: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    metadata: Metadata | None = None,
    alpha_max_error: float | None = None,
    effort: int = 0,
    tile_size: int | None = None,
) -> ImageJob:
    """Checks a picture and options; they are those of ``ImageCodec.compress``, which says what is raised."""
    source = picture_input(x)
    size = tile_size_for(source, tile_size)
    targets = {
        "quality": quality,
        "target_bytes": target_bytes,
        "target_bpp": target_bpp,
        "target_psnr": target_psnr,
    }
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) > 1:
        raise TypeError(f"give one of {', '.join(targets)}, not {' and '.join(given)}")
    name, value = next(iter(given.items()), ("quality", DEFAULT_QUALITY))
    if name != "quality" and not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    job = ImageJob(source, source.sections(metadata or {}, alpha_max_error), iterations_of(effort), size)
    if name == "quality":
        return job._replace(tenths=quality_to_tenths(value))
    if name == "target_psnr":
        return job._replace(least_psnr=float(value))
    bits = float(value) * source.colour[0].numel()
    return job._replace(most_bytes=value if name == "target_bytes" else bits / 8)


def tile_size_for(source: PictureInput, asked: int | None) -> int:
    """The size of the tiles that a picture is coded in; 0 for none.

    Args:
        source: The picture.
        asked: A multiple of 64, 0 for no tiles, None for the usual.

    Raises:
        TypeError: What is asked is no whole number.
        ValueError: It is no multiple of 64.
    """
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int)):
        raise TypeError(f"tile_size must be a whole number, got {asked!r}")
    if asked is not None and (asked < 0 or asked % TILE_STEP):
        raise ValueError(f"tile_size must be a multiple of {TILE_STEP}, got {asked}")
    height, width = source.colour.shape[1:]
    if asked is None:
        asked = TILE_SIZE if height * width > LARGE_PIXELS else 0
    return asked if max(height, width) > asked else 0


def metadata_of_each(
    metadata: Metadata | Sequence[Metadata | None] | None, count: int
) -> Sequence[Metadata | None]:
    """Metadata of each picture of a batch, of one mapping for all or one for each.

    Raises:
        ValueError: There are not as many as there are pictures.

    Example:
        >>> metadata_of_each({"icc": b"profile"}, 2)
        [{'icc': b'profile'}, {'icc': b'profile'}]
    """
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata] * count
    if len(metadata) != count:
        raise ValueError(f"there are {count} pictures, but metadata for {len(metadata)}")
    return metadata
