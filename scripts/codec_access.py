"""How verbs get a codec: the choices every verb offers, and loading what they name."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentpress import Codec, Header


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device`` and ``--threads``.

    Args:
        parser: The parser of a verb.
    """
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where networks run (default: cpu)"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: all cores)")


def open_codec(name: str, args: argparse.Namespace) -> Codec:
    """Loads a codec on the device and with the threads that were asked for.

    Args:
        name: Name of shipped weights, or path of a ``.safetensors`` file.
        args: Arguments of `add_machine_arguments`.

    Returns:
        The codec.

    Raises:
        ValueError: The device is not there, or there are no such weights.
        OSError: The weights cannot be read.
    """
    import torch

    import latentpress

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device that torch can use: try --device cpu")
    return latentpress.load(name, device=args.device)


def check_options(codec: Codec, options: Mapping[str, object]) -> None:
    """Says which option a codec does not have, before it is called.

    Args:
        codec: The codec.
        options: Keyword arguments for its ``compress``.

    Raises:
        ValueError: It has no such option.
    """
    known = inspect.signature(codec.compress).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    unknown = [name.replace("target_", "").replace("_", "-") for name in options if name not in known]
    if unknown and not takes_any:
        raise ValueError(f"the codec {codec.name} has no --{unknown[0]}")


class CodecShelf:
    """Loads the codec that each stream names, once.

    Args:
        chosen: Weights to use for every stream instead, or None.
        args: Arguments of `add_machine_arguments`.
    """

    def __init__(self, chosen: str | None, args: argparse.Namespace) -> None:
        self._chosen = chosen
        self._args = args
        self._codecs: dict[str, Codec] = {}

    def get(self, header: Header) -> Codec:
        """Finds the codec for a stream.

        Args:
            header: What the stream says about itself.

        Returns:
            The codec, loaded on first use.

        Raises:
            ValueError: There are no such weights, or the device is not there.
            OSError: The weights cannot be read.
        """
        from latentpress.codecs.registry import weights_for

        if self._chosen is None and header.codec == "field" and not int(header.fingerprint, 16):
            # Such streams need no weights.
            from latentpress.codecs.field import FieldCodec

            return self._codecs.setdefault("field without weights", FieldCodec())
        name = self._chosen if self._chosen is not None else weights_for(header)
        if name not in self._codecs:
            self._codecs[name] = open_codec(name, self._args)
        return self._codecs[name]


def positive_int(text: str) -> int:
    """Parses a count.

    Args:
        text: What was typed.

    Returns:
        An integer of at least 1.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return value


def positive_float(text: str) -> float:
    """Parses a positive number.

    Args:
        text: What was typed.

    Returns:
        A finite number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    value = _finite(text)
    if value <= 0.0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return value


def effort(text: str) -> int:
    """Parses an effort.

    Args:
        text: What was typed.

    Returns:
        A whole number from 0 to 10.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or not 0 <= int(text) <= 10:
        raise argparse.ArgumentTypeError(f"an effort is a whole number from 0 to 10, got '{text}'")
    return int(text)


def tile_size(text: str) -> int:
    """Parses the size of tiles.

    Args:
        text: What was typed.

    Returns:
        A multiple of 64, or 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) % 64:
        raise argparse.ArgumentTypeError(f"a size of tiles is a multiple of 64, got '{text}'")
    return int(text)


def region(text: str) -> tuple[int, ...]:
    """Parses a region of a picture.

    Args:
        text: What was typed.

    Returns:
        Top row, left column, height and width.

    Raises:
        argparse.ArgumentTypeError: It is none.

    Example:
        >>> region("0,100,512,512")
        (0, 100, 512, 512)
    """
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"a region is Y,X,HEIGHT,WIDTH in pixels, got '{text}'")
    return tuple(map(int, numbers))


def effort_option(value: int) -> dict[str, int]:
    """Translates an effort.

    Args:
        value: 0 to 10.

    Returns:
        Keyword arguments for `Codec.compress`; none for 0, so that codecs need not know of effort.
    """
    return {"effort": value} if value else {}


def quality(text: str) -> float:
    """Parses a quality.

    Args:
        text: What was typed.

    Returns:
        A number from 0 to 100.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    value = _finite(text)
    if not 0.0 <= value <= 100.0:
        raise argparse.ArgumentTypeError(f"a quality is a number from 0 to 100, got '{text}'")
    return value


def qualities(text: str) -> tuple[float, ...]:
    """Parses several qualities with commas between them.

    Args:
        text: What was typed.

    Returns:
        Numbers from 0 to 100, rising, none twice.

    Raises:
        argparse.ArgumentTypeError: One is none.

    Example:
        >>> qualities("50,0,100")
        (0.0, 50.0, 100.0)
    """
    return tuple(sorted({quality(part) for part in text.split(",")}))


def byte_ratios(text: str) -> tuple[float, ...]:
    """Parses byte ratios with commas between them.

    Args:
        text: What was typed.

    Returns:
        Numbers above 1, rising, none twice.

    Raises:
        argparse.ArgumentTypeError: One is none.

    Example:
        >>> byte_ratios("512,64")
        (64.0, 512.0)
    """
    found = sorted({positive_float(part) for part in text.split(",")})
    if found[0] <= 1:
        raise argparse.ArgumentTypeError(f"a byte ratio is above 1, got '{text}'")
    return tuple(found)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got '{text}'")
    return value
