"""What the index codec promises, measured on pictures: rates, targets, what the prior saves, lost packets.

python -m latentpress.scripts.check_index --data FOLDER --out results.json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

import latentpress
from latentpress.codecs.index import IndexCodec
from latentpress.codecs.index_payload import split_packets
from latentpress.models.index.prior import Belief, GrainBeliefs
from latentpress.scripts.codec_access import positive_int
from latentpress.scripts.failures import run_reported
from latentpress.scripts.pictures import read_flat_picture
from latentpress.scripts.rate_distortion import find_pictures
from latentpress.scripts.text_table import format_table
from latentpress.train.metrics.perceptual import Measure, measures

TARGETS = (0.03, 0.06, 0.12, 0.2, 0.3, 0.4, 0.5)
SPLIT_QUALITIES = (30, 50, 80, 90, 100)
"""At which the parts of a stream are measured."""

PACKETS = 20
LOST = 4
LOSS_BPP = 0.12
SEED = 1


class Loss(NamedTuple):
    """What losing packets does to a picture.

    Attributes:
        measures: By name, for the picture that came whole, the repaired one, and one with zeros for lost
            indices.
        told: Whether the report names the lost packets, all of them and no other.
    """

    measures: dict[str, dict[str, float]]
    told: bool


class PictureResult(NamedTuple):
    """Everything about one picture.

    Attributes:
        name: Of its file.
        lowest: Bits a pixel at quality 0.
        highest: At quality 100.
        achieved: Bits a pixel by the target; None where it is above the highest.
        parts: Bits a pixel of the map, of the indices and of indices without a prior, by quality; empty if
            only rates were asked for.
        loss: Of packets; None if only rates were asked for.
    """

    name: str
    lowest: float
    highest: float
    achieved: dict[str, float | None]
    parts: dict[str, tuple[float, float, float]]
    loss: Loss | None


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--codec", default="index", help="weights, by name or path (default: index)")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="folder of pictures")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON of all pictures")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N pictures")
    parser.add_argument(
        "--earlier", metavar="FILE", help="results of the same weights, of which all but losses is taken over"
    )
    parser.add_argument(
        "--rates", action="store_true", help="only the range of rates and the targets, which is faster"
    )
    parser.add_argument(
        "--targets", type=float, nargs="+", default=TARGETS, metavar="BPP", help="bits a pixel to ask for"
    )
    parser.add_argument("--device", default="cpu", help="where networks run (default: cpu)")
    args = parser.parse_args(argv)
    return run_reported(lambda: _check(args))


def _check(args: argparse.Namespace) -> None:
    codec = latentpress.load(args.codec, device=args.device)
    if not isinstance(codec, IndexCodec):
        raise ValueError(f"expected weights of the codec index, got {codec.name}")
    wanted = {name: measure for name, measure in measures()[0].items() if name in ("psnr", "wasserstein")}
    earlier = {} if args.earlier is None else _earlier(Path(args.earlier), codec)
    results = []
    for path in find_pictures(args.data, args.limit):
        pixels = read_flat_picture(path.read_bytes()).pixels
        pixels = pixels.expand(3, -1, -1).contiguous()
        if path.stem in earlier:
            results.append(earlier[path.stem]._replace(loss=_loss(codec, wanted, path.stem, pixels)))
        else:
            results.append(_result(codec, {} if args.rates else wanted, path.stem, pixels, args.targets))
        content: dict[str, object] = {"fingerprint": codec.fingerprint.hex(), "data": Path(args.data).name}
        content["pictures"] = [
            result._asdict() | {"loss": None if result.loss is None else result.loss._asdict()}
            for result in results
        ]
        Path(args.out).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"{path.stem}: {results[-1].lowest:.4f} to {results[-1].highest:.4f} bpp", flush=True)
    print(f"\n{len(results)} pictures of {Path(args.data).name}, weights {codec.fingerprint.hex()}\n")
    tables = [rates_table(results)]
    if all(result.parts for result in results):
        tables.append(parts_table(results))
    if not args.rates:
        tables.append(loss_table(results))
    print("\n\n".join(tables))


def _earlier(path: Path, codec: IndexCodec) -> dict[str, PictureResult]:
    """Results by picture.

    Raises:
        ValueError: They are of other weights.
    """
    content = json.loads(path.read_text("utf-8"))
    if content["fingerprint"] != codec.fingerprint.hex():
        raise ValueError(f"{path} has results of the weights {content['fingerprint']}")
    return {found["name"]: PictureResult(**found) for found in content["pictures"]}


def _result(
    codec: IndexCodec,
    wanted: dict[str, Measure],
    name: str,
    pixels: torch.Tensor,
    targets: Sequence[float],
) -> PictureResult:
    """Everything about a picture; without measures, rates only."""
    area = pixels.shape[1] * pixels.shape[2]

    def bpp(data: bytes) -> float:
        return 8 * len(data) / area

    highest = bpp(codec.compress(pixels, quality=100))
    parts = {}
    for quality in SPLIT_QUALITIES if wanted else ():
        found = codec.index_bits(codec.compress(pixels, quality=quality))
        parts[str(quality)] = (found.map / area, found.indexes / area, found.raw_indexes / area)
    return PictureResult(
        name,
        bpp(codec.compress(pixels, quality=0)),
        highest,
        {
            str(target): bpp(codec.compress(pixels, target_bpp=target)) if target <= highest else None
            for target in targets
        },
        parts,
        _loss(codec, wanted, name, pixels) if wanted else None,
    )


def _loss(codec: IndexCodec, wanted: dict[str, Measure], name: str, pixels: torch.Tensor) -> Loss:
    data = codec.compress(pixels, target_bpp=LOSS_BPP, packets=PACKETS)
    lost = sorted(random.Random(f"{SEED} {name}").sample(range(PACKETS), LOST))
    left = b"".join(packet for number, packet in enumerate(split_packets(data)) if number not in lost)
    repaired = codec.decompress(left, repair=True)
    assert not isinstance(repaired, torch.Tensor)
    decoded = codec.decompress(data)
    assert isinstance(decoded, torch.Tensor)
    predict = codec.coder.predict
    codec.coder.predict = lambda *known: _certain_of_zero(predict(*known))  # type: ignore[method-assign]
    try:
        zeros = codec.decompress(left, repair=True)
    finally:
        codec.coder.predict = predict  # type: ignore[method-assign]
    assert not isinstance(zeros, torch.Tensor)
    pictures = {"whole": decoded, "repaired": repaired.picture, "zeros": zeros.picture}
    found = {
        key: {measure: _measured(wanted[measure], pixels, picture) for measure in wanted}
        for key, picture in pictures.items()
    }
    return Loss(found, repaired.report.lost_packets == tuple(lost))


def _certain_of_zero(beliefs: GrainBeliefs) -> GrainBeliefs:
    """Zero in place of every unknown index."""

    def certain(belief: Belief) -> Belief:
        probabilities = torch.zeros_like(belief.probabilities)
        probabilities[:, 0] = 1
        return Belief(belief.lost, probabilities)

    return GrainBeliefs(*map(certain, beliefs))


def _measured(measure: Measure, x: torch.Tensor, y: torch.Tensor) -> float:
    return measure(*(image[None].float().cpu() / 255 for image in (x, y)))


def rates_table(results: Sequence[PictureResult]) -> str:
    """The range of rates, and how close targets are met where they can be."""
    lowest, highest = [result.lowest for result in results], [result.highest for result in results]
    rows = [
        ["quality 0", "", "", f"{fmean(lowest):.4f}", f"{max(lowest):.4f}"],
        ["quality 100", "", "", f"{fmean(highest):.4f}", f"{min(highest):.4f}"],
    ]
    for target in results[0].achieved:
        met = [found for result in results if (found := result.achieved[target]) is not None]
        row = [f"target {target}", f"{len(met)} of {len(results)}", "-", "-", ""]
        if met:
            row[2] = f"{100 * max(abs(found / float(target) - 1) for found in met):.2f} %"
            row[3] = f"{fmean(met):.4f}"
        rows.append(row)
    return format_table(("rate", "reached", "largest miss", "mean bpp", "worst picture"), rows, left=(0,))


def parts_table(results: Sequence[PictureResult]) -> str:
    """What maps cost and the prior saves."""
    rows = []
    for quality in map(str, SPLIT_QUALITIES):
        parts = [result.parts[quality] for result in results]
        maps, indexes, raw = map(fmean, zip(*parts, strict=True))
        saved = f"{100 * (1 - indexes / raw):.1f} %"
        rows.append([quality, f"{maps:.4f}", f"{indexes:.4f}", f"{raw:.4f}", saved])
    return format_table(("quality", "map bpp", "index bpp", "log2 K bpp", "prior saves"), rows)


def loss_table(results: Sequence[PictureResult]) -> str:
    """Means over the pictures with a fifth of the packets lost."""
    rows = []
    losses = [result.loss for result in results if result.loss is not None]
    whole = [loss.measures["whole"]["wasserstein"] for loss in losses]
    for key in ("whole", "repaired", "zeros"):
        found = [loss.measures[key] for loss in losses]
        distortions = [one["wasserstein"] for one in found]
        ratio = fmean(x / y for x, y in zip(distortions, whole, strict=True))
        psnr = fmean(one["psnr"] for one in found)
        rows.append([key, f"{psnr:.2f}", f"{fmean(distortions):.2f}", f"{ratio:.2f}"])
    told = sum(loss.told for loss in losses)
    head = (f"{LOST} of {PACKETS} packets lost", "PSNR", "Wasserstein distortion", "mean of ratios")
    return f"{format_table(head, rows, left=(0,))}\nlosses told exactly: {told} of {len(results)} pictures"


if __name__ == "__main__":
    sys.exit(main())
