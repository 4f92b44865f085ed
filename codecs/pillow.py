"""Pillow reads and writes streams of pictures, once this module is imported.

``Image.open`` reads what the stream says of itself and loads no torch; pixels are decoded when they are first
needed. ``save`` takes the options of the codec::

    import latentpress.codecs.pillow

    image = Image.open("photo.lpz")
    image.save("smaller.lpz", quality=40)

Options of ``save``: ``quality``, ``target_bytes``, ``target_bpp`` or ``target_psnr``; ``alpha_max_error``;
``weights``, the name or path for `latentpress.load` (default ``"image"``); and ``icc_profile``, ``exif`` and
``xmp``, which are those of ``Image.info`` unless they are given, and left out where None is given. Others are
ignored, as Pillow's own writers ignore what they do not know. Pillow empties an existing file before it asks
a writer, so where that matters save to another name first.

====================================  ==================================================================
saved                                 opened
====================================  ==================================================================
``L``, ``RGB``, ``LA``, ``RGBA``      the same; without alpha if all of it is opaque
``I;16``, ``I`` of up to 16 bits      ``I;16``
``1``, ``La``, ``RGBa``, ``PA``       ``L``, ``LA``, ``RGBA``, ``RGBA``
``P``, ``YCbCr``, ``HSV``, ``RGBX``   ``RGB``; ``RGBA`` for a palette with transparent colours
``CMYK``, ``LAB``                     ``RGB``, with a warning
``F``, ``I`` of more than 16 bits     refused
====================================  ==================================================================

Pillow has no colour of 16 bits: such streams open as 8 bits, and ``info["bits"]`` says 16.

Wrong bytes raise `OSError`, which programs that use Pillow expect, with the sentence of the `StreamError`
that is its cause.
"""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from typing import IO, Any

from PIL import Image, ImageFile

from latentpress.codecs.base import Codec
from latentpress.codecs.bitstream import MAGIC, StreamError
from latentpress.codecs.picture_modes import EXIF_PREFIX, image_of, metadata_of, to_planes
from latentpress.codecs.picture_sections import with_bits
from latentpress.codecs.registry import inspect, load, read_metadata, weights_for

FORMAT = "LATENTPRESS"
EXTENSION = ".lpz"
MIME_TYPE = "image/x-latentpress"

DEFAULT_WEIGHTS = "image"
CODEC_OPTIONS = ("quality", "target_bytes", "target_bpp", "target_psnr", "alpha_max_error")

_MODES: dict[Any, str] = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_METADATA_OPTIONS = ("icc_profile", "exif", "xmp")
_INFO_NAMES = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}


class LatentpressImageFile(ImageFile.ImageFile):
    """A stream that Pillow has opened; its pixels are decoded by ``load``.

    ``info`` holds ``icc_profile``, ``exif`` and ``xmp`` where the stream carries them, ``quality``, ``bits``,
    and the ``fingerprint`` of the weights that decode it.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("RGB", (30, 20), "teal").save(buffer, "LATENTPRESS", quality=40)
        >>> with Image.open(buffer) as image:
        ...     image.size, image.mode, image.info["quality"], image.convert("L").size
        ((30, 20), 'RGB', 40.0, (30, 20))
    """

    format = FORMAT
    format_description = "latentpress picture"

    def _open(self) -> None:
        assert self.fp is not None
        self._stream = self.fp.read()
        try:
            self._header = inspect(self._stream)
            metadata = read_metadata(self._stream)
        except StreamError as error:
            raise OSError(str(error)) from error
        say = self._header.parameters
        mode = _MODES.get(say.get("channels"))
        if mode is None or "width" not in say or "height" not in say:
            raise OSError(f"a stream of the codec {self._header.codec} is no picture that Pillow can hold")
        self._mode = "I;16" if mode == "L" and say.get("bits") == 16 else mode
        self._size = (int(say["width"]), int(say["height"]))
        self.info |= {_INFO_NAMES[name]: content for name, content in metadata.items()}
        if "exif" in self.info:
            # As Pillow's readers of JPEG and PNG leave it, which is how its writer of JPEG wants it.
            self.info["exif"] = EXIF_PREFIX + self.info["exif"]
        self.info["fingerprint"] = self._header.fingerprint
        self.info |= {name: say[name] for name in ("quality", "bits") if name in say}
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]

    def load(self) -> Any:
        """Decodes the pixels, when it is called first.

        Raises:
            OSError: The symbols are damaged, or the weights that the stream needs are not there.
        """
        if self.tile:
            try:
                pixels = _codec(weights_for(self._header)).decompress(self._stream).numpy()
            except (StreamError, ValueError) as error:  # a ValueError if no weights of the family ship
                raise OSError(str(error)) from error
            if self.fp and self._exclusive_fp:
                self.fp.close()
            image = image_of(with_bits(pixels, 16 if self.mode == "I;16" else 8))
            self.fp = io.BytesIO(image.tobytes())
            self._stream = b""
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Nothing to seek: the decoded pixels begin where they are read."""


def register() -> None:
    """Makes Pillow know the format. Importing this module does it; doing it twice does no harm."""
    Image.register_open(FORMAT, LatentpressImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME_TYPE)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    import torch

    options: dict[str, Any] = dict(image.encoderinfo)
    chosen = {name: options[name] for name in _METADATA_OPTIONS if name in options}
    converted = to_planes(image, metadata_of({**image.info, **chosen}))
    for note in converted.notes:
        warnings.warn(note, UserWarning, stacklevel=3)  # the caller of Image.save
    given = {name: options[name] for name in CODEC_OPTIONS if options.get(name) is not None}
    codec = _codec(str(options.get("weights", DEFAULT_WEIGHTS)))
    file.write(codec.compress(torch.from_numpy(converted.planes), metadata=converted.metadata, **given))


@lru_cache(maxsize=4)
def _codec(name: str) -> Codec:
    return load(name)


register()
