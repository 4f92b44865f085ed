"""Searches for bytes that make a decoder misbehave, guided by which lines they reach.

    pip install atheris
    python -m latentpress.scripts.fuzz container --seconds 60

Any exception that a decoder does not document, more than two seconds of processor time or more memory than
the limit ends the search; the input is then in the folder that is printed. Put it into
``tests/fuzz/TARGET/``, where a test keeps feeding it, and mend the decoder. What the search learns stays in
the corpus folder for the next.

Atheris (Google's fuzzer for Python, on libFuzzer) is no dependency of the library.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SECONDS_PER_INPUT = 2
"""Of processor time: on a busy machine the clock on the wall accuses the innocent."""

PATIENCE_SECONDS = 120
"""On the wall, after which an input hangs for certain."""

MEMORY_MIB = 3072
FAMILIES = ("image", "image-max", "index", "field", "shape")
TARGETS = (
    *(
        "container",
        "symbols",
        "weights",
        "card",
        "pillow",
        "alpha",
        "alpha-symbols",
        "picture",
        "field-blocks",
        "field-energies",
    ),
    *FAMILIES,
    *(f"{family}-symbols" for family in FAMILIES),
)


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
        "--weights", help="of the codec: name or path; small ones are fast (default: those that ship)"
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
    # Beside the corpus: what is in it is where the next search starts.
    found = corpus.with_name(f"{corpus.name}-found")
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    print(f"corpus: {corpus}; inputs that fail: {found}", flush=True)
    options = [
        f"-max_total_time={args.seconds}",
        f"-runs={args.runs}",
        f"-timeout={PATIENCE_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={found}/",
        f"-max_len={max(4096, *map(len, target.seeds))}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], timed(target.run))
    atheris.Fuzz()
    return 0


def timed(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """A target that also fails where an input takes too long, and prints every new record.

    Example:
        >>> timed(lambda data: None)(b"")
    """
    slowest = 0.1  # of no interest below

    def measured(data: bytes) -> None:
        nonlocal slowest
        start = time.process_time()
        run(data)
        taken = time.process_time() - start
        if taken > slowest:
            slowest = taken
            print(f"slowest input so far: {taken:.2f} s", file=sys.stderr, flush=True)
        assert taken <= SECONDS_PER_INPUT, f"{len(data)} bytes took {taken:.2f} s"

    return measured


if __name__ == "__main__":
    sys.exit(main())
