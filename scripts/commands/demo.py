"""``latentpress demo``: one photograph at three qualities, beside everybody's codecs at as many bytes."""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentpress.scripts.codec_access import add_machine_arguments, open_codec, qualities
from latentpress.scripts.failures import warn
from latentpress.scripts.file_io import read_bytes, write_bytes
from latentpress.scripts.progress import Report, progress_bar
from latentpress.scripts.text_table import format_table

if TYPE_CHECKING:
    import torch

    from latentpress import Codec
    from latentpress.scripts.comparison_sheet import Box
    from latentpress.scripts.measures import Closeness
    from latentpress.scripts.peers import PeerResult

OWN_NAME = "latentpress"
CROP_SIDE = 128
# Left and top of the face in scikit-image's photograph of an astronaut.
FACE = (160, 52)
HEAD = ("codec", "setting", "bytes", "bpp", "PSNR dB", "MS-SSIM", "encode s", "decode s")


class Photo(NamedTuple):
    """What is compressed.

    Attributes:
        name: What it is called.
        pixels: uint8, shape (C, H, W).
        crop: The part that is shown enlarged.
    """

    name: str
    pixels: torch.Tensor
    crop: Box


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        codec: Which codec.
        setting: Its quality.
        size: Bytes of the file.
        closeness: How close the decoded picture is.
        encode_seconds: Time to make the file.
        decode_seconds: Time to read it.
        decoded: uint8, shape (C, H, W).
    """

    codec: str
    setting: str
    size: int
    closeness: Closeness
    encode_seconds: float
    decode_seconds: float
    decoded: torch.Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb.

    Args:
        parser: Its parser.
    """
    parser.add_argument("--picture", metavar="FILE", help="another picture than scikit-image's photograph")
    parser.add_argument("--codec", default="image", help="weights, by name or path (default: image)")
    parser.add_argument(
        "--qualities", type=qualities, default=(10.0, 40.0, 70.0), metavar="Q,Q,...", help="default: 10,40,70"
    )
    parser.add_argument(
        "--out", default="latentpress-demo", metavar="FOLDER", help="default: latentpress-demo"
    )
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compresses the photograph, prints the table, writes the pictures and says where.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """
    from latentpress.scripts.peers import PEERS
    from latentpress.scripts.pictures import picture_bytes

    photo = _photo(args.picture)
    codec = open_codec(args.codec, args)
    # The first run of anything also pays for memory and threads that later runs find ready.
    codec.decompress(codec.compress(photo.pixels, quality=args.qualities[0]))
    out = Path(args.out)
    write_bytes(str(out / "original.png"), picture_bytes(photo.pixels, ".png"), force=True)
    groups: list[list[Line]] = []
    with progress_bar("demo") as progress:
        for k, quality in enumerate(args.qualities):
            groups.append(_at_quality(codec, photo, quality, out))
            _step(progress, (k + 1) / len(args.qualities), f"quality {quality:g}")
    _, height, width = photo.pixels.shape
    print(f"{photo.name}, {width} x {height} pixels, against other codecs at equal bytes\n")
    print(_table(groups, height * width))
    print(
        "\nOf each other codec the largest file that is not larger than ours, and the nearest in size where"
    )
    print("that is another one, made by Pillow; times are single runs:")
    for peer in PEERS:
        print(f"  {peer.describe()}")
    _write_sheet(groups, photo, out / "comparison.png")
    print(f"\nDecoded pictures, compressed files and comparison.png are in {out}/")
    return 0


def _photo(path: str | None) -> Photo:
    from latentpress.scripts.comparison_sheet import Box, centred
    from latentpress.scripts.pictures import read_flat_picture

    if path is None:
        import skimage.data
        import torch

        array = skimage.data.astronaut()
        pixels = torch.from_numpy(array).permute(2, 0, 1).contiguous()
        return Photo("scikit-image's astronaut", pixels, Box(*FACE, CROP_SIDE, CROP_SIDE))
    picture = read_flat_picture(read_bytes(path))
    for note in picture.notes:
        warn(path, note)
    _, height, width = picture.pixels.shape
    middle = Box((width - CROP_SIDE) // 2, (height - CROP_SIDE) // 2, CROP_SIDE, CROP_SIDE)
    return Photo(Path(path).name, picture.pixels, centred(middle, height, width))


def _at_quality(codec: Codec, photo: Photo, quality: float, out: Path) -> list[Line]:
    """Compresses with every codec; writes the files that are compared."""
    from latentpress.scripts.measures import compare
    from latentpress.scripts.peers import PEERS, at_size
    from latentpress.scripts.pictures import picture_bytes

    start = time.perf_counter()
    data = codec.compress(photo.pixels, quality=quality)
    middle = time.perf_counter()
    decoded = codec.decompress(data).cpu()
    end = time.perf_counter()
    stem = str(out / f"q{quality:g}")
    write_bytes(f"{stem}.lpz", data, force=True)
    write_bytes(f"{stem}.png", picture_bytes(decoded, ".png"), force=True)
    closeness = compare(photo.pixels, decoded)
    lines = [Line(OWN_NAME, f"{quality:g}", len(data), closeness, middle - start, end - middle, decoded)]
    for peer in PEERS:
        results = at_size(peer, photo.pixels, len(data))
        write_bytes(f"{stem}-{peer.name.lower()}{peer.suffix}", results[0].data, force=True)
        lines += [_peer_line(result, photo.pixels) for result in results]
    return lines


def _peer_line(result: PeerResult, original: torch.Tensor) -> Line:
    from latentpress.scripts.measures import compare

    return Line(
        result.peer.name,
        str(result.quality),
        len(result.data),
        compare(original, result.decoded),
        result.encode_seconds,
        result.decode_seconds,
        result.decoded,
    )


def _table(groups: list[list[Line]], pixels: int) -> str:
    rows: list[list[str]] = []
    for group in groups:
        if rows:
            rows.append([])
        for line in group:
            rows.append(
                [
                    line.codec,
                    line.setting,
                    str(line.size),
                    f"{line.size * 8 / pixels:.3f}",
                    f"{line.closeness.psnr:.2f}",
                    "-" if line.closeness.ms_ssim is None else f"{line.closeness.ms_ssim:.4f}",
                    f"{line.encode_seconds:.2f}",
                    f"{line.decode_seconds:.2f}",
                ]
            )
    return format_table(HEAD, rows)


def _write_sheet(groups: list[list[Line]], photo: Photo, path: Path) -> None:
    from latentpress.scripts.comparison_sheet import Panel, comparison_sheet

    rows = []
    for group in groups:
        # One panel a codec: of a peer's two files the one that is not larger than ours.
        first_of_each = {line.codec: line for line in reversed(group)}
        rows.append(
            [
                Panel(
                    f"{line.codec}, quality {line.setting}",
                    f"{line.size:,} bytes, {line.closeness.psnr:.2f} dB",
                    line.decoded,
                )
                for line in group
                if first_of_each[line.codec] is line
            ]
        )
    title = "Side by side at equal bytes"
    subtitle = f"{photo.name}; in each row, as many bytes as {OWN_NAME} needs at that quality"
    sheet = comparison_sheet(photo.pixels, rows, photo.crop, title, subtitle)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(str(path), buffer.getvalue(), force=True)


def _step(progress: Report | None, fraction: float, stage: str) -> None:
    if progress is not None:
        progress(fraction, stage)
