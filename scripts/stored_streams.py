"""Streams of pictures in a folder: made on one machine, measured on another.

One file for each picture and rate, ``PICTURE-RATE.lpz``, such as ``kodim05-0.12.lpz``.
"""

from __future__ import annotations

from pathlib import Path

from latentpress.codecs.base import Codec
from latentpress.codecs.registry import inspect
from latentpress.codecs.whole_files import write_whole

LARGEST_MISS = 0.02
"""By how much of the rate that is asked for a stream may be smaller; none may be larger."""


def stream_path(folder: str | Path, picture: str, rate: float) -> Path:
    """Where a picture's stream is.

    Args:
        folder: Of all streams.
        picture: Name of the picture's file, without suffix.
        rate: Bits a pixel that were asked for.

    Example:
        >>> stream_path("streams", "kodim05", 0.12).name
        'kodim05-0.12.lpz'
    """
    return Path(folder) / f"{picture}-{rate:g}.lpz"


def write_stream(data: bytes, folder: str | Path, picture: str, rate: float) -> None:
    """Puts a stream where :func:`read_stream` finds it."""
    write_whole(stream_path(folder, picture, rate), data)


def read_stream(folder: str | Path, picture: str, rate: float, size: tuple[int, int], codec: Codec) -> bytes:
    """Reads a stream and checks that it is the one that is asked for.

    Args:
        folder: Of all streams.
        picture: Name of the picture's file, without suffix.
        rate: Bits a pixel.
        size: Height and width of the picture.
        codec: Of the weights that it has to be of.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is of other weights, another picture or another rate.
        StreamError: It is no stream.
    """
    path = stream_path(folder, picture, rate)
    if not path.is_file():
        raise FileNotFoundError(f"no stream at {path}")
    data = path.read_bytes()
    header = inspect(data)
    # Streams with residual indices name the weights with their additions.
    names = {codec.fingerprint.hex(), getattr(codec, "extended_fingerprint", codec.fingerprint).hex()}
    if header.fingerprint not in names:
        raise ValueError(f"{path} is of the weights {header.fingerprint}, not {codec.fingerprint.hex()}")
    found = tuple(header.parameters.get(key) for key in ("height", "width"))
    if found != size:
        raise ValueError(f"{path} is of a picture of {found[0]}x{found[1]}, not {size[0]}x{size[1]}")
    bpp = len(data) * 8 / (size[0] * size[1])
    if not (1 - LARGEST_MISS) * rate <= bpp <= rate:
        raise ValueError(f"{path} has {bpp:.4f} bits a pixel, not {rate:g}")
    return data
