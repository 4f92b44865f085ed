"""Searches for bytes that make a decoder misbehave, guided by which lines they reach.

    pip install atheris
    python -m latentpress.scripts.fuzz container --seconds 60

Any exception that a decoder does not document, more than two seconds or more memory than the limit ends the
search; the input is then in the folder that is printed. Put it into ``tests/fuzz/TARGET/``, where a test
keeps feeding it, and mend the decoder. What the search learns stays in the corpus folder for the next.

Atheris (Google's fuzzer for Python, on libFuzzer) is no dependency of the library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS_PER_INPUT = 2
MEMORY_MIB = 3072
TARGETS = ("container", "image", "alpha", "picture", "symbols", "weights", "card", "pillow")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzzes one target.

    Args:
        arguments: None for those of the process.

    Returns:
        The exit code, if the target or atheris is missing. Otherwise libFuzzer ends the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m latentpress.scripts.fuzz", description=__doc__.splitlines()[0]
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="default: 60")
    parser.add_argument("--runs", type=int, default=-1, help="inputs at most (default: no limit)")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="default: runs/fuzz/TARGET")
    parser.add_argument(
        "--weights",
        default="image",
        help="of the targets image and picture: name or path (default: image, slow)",
    )
    args = parser.parse_args(arguments)
    try:
        import atheris
    except ModuleNotFoundError:
        print("fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=["latentpress.codecs", "latentpress.models"]):
        from latentpress.scripts.fuzz_targets import make_target

        target = make_target(args.target, args.weights)
    corpus = args.corpus or Path("runs") / "fuzz" / args.target
    found = corpus / "found"
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    print(f"corpus: {corpus}; inputs that fail: {found}", flush=True)
    options = [
        f"-max_total_time={args.seconds}",
        f"-runs={args.runs}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={found}/",
        f"-max_len={max(4096, *map(len, target.seeds))}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
