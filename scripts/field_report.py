"""What all measurements of the field codec write: results as JSON, with what made them."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from latentpress.codecs.field import FieldCodec
from latentpress.scripts.fields import add_selection_arguments
from latentpress.scripts.file_io import write_bytes
from latentpress.scripts.package_versions import package_versions

REPORTED_PACKAGES = ("latentpress", "torch", "numpy", "constriction", "imagecodecs", "pysz", "PyWavelets")


def add_flow_arguments(parser: argparse.ArgumentParser, ratios: Sequence[float]) -> None:
    """Adds flows to measure, ``--ratios``, ``--json``, and what says which arrays and which codec.

    Args:
        parser: The parser of a script.
        ratios: Of bytes, where none are asked for.
    """
    parser.add_argument("flows", nargs="+", metavar="FLOW", help="files of velocities, see --variable")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(ratios), help="of bytes")
    parser.add_argument("--json", metavar="FILE", help="where everything found is written")
    add_selection_arguments(parser)
    add_codec_arguments(parser)


def add_codec_arguments(parser: argparse.ArgumentParser, without: bool = False) -> None:
    """Adds ``--weights``, ``--device`` and ``--threads``.

    Args:
        parser: The parser of a script.
        without: The script can measure the codec without weights, and does unless some are named.
    """
    parser.add_argument(
        "--weights",
        default=None if without else "field",
        help="name of shipped weights, or a .safetensors file"
        + (" (default: none, bounds only)" if without else " (default: field)"),
    )
    parser.add_argument("--device", default="cpu", help="where networks run (default: cpu)")
    parser.add_argument("--threads", type=int, default=2, help="of the processor (default: 2)")


def field_codec(options: argparse.Namespace) -> FieldCodec:
    """The codec that the arguments name; it is to be measured, so it refuses no field.

    Raises:
        ValueError: There are no such weights, or they are not of a field codec.
    """
    import torch

    from latentpress.codecs import load

    torch.set_num_threads(options.threads)
    if options.weights is None:
        return FieldCodec()
    codec = load(options.weights, options.device)
    if not isinstance(codec, FieldCodec):
        raise ValueError(f"{options.weights} are weights of the family {codec.name}, not of fields")
    codec.refuses = False
    return codec


def report_bytes(content: Mapping[str, Any], fingerprint: str, device: str) -> bytes:
    """Results as JSON, with date, machine, versions and weights.

    Args:
        content: Results; what JSON has no word for becomes null.
        fingerprint: Of the weights.
        device: Where networks ran.

    Example:
        >>> json.loads(report_bytes({"error": math.inf}, "00" * 8, "cpu"))["error"] is None
        True
    """
    import torch

    head = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": package_versions(REPORTED_PACKAGES),
    }
    return (json.dumps(_finite({**head, **content}), indent=1) + "\n").encode()


def write_report(path: str, content: Mapping[str, Any], codec: FieldCodec, device: str) -> None:
    """Writes :func:`report_bytes` to a file and says so."""
    write_bytes(path, report_bytes(content, codec.fingerprint.hex(), device), force=True)
    print(f"written: {path}")


def _finite(value: Any) -> Any:
    """JSON has neither infinity nor NaN: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
