"""``latentpress view``: a local page to drop pictures on and see what codecs make of them."""

from __future__ import annotations

import argparse
import webbrowser

from latentpress.scripts.codec_access import add_machine_arguments, positive_int

DEFAULT_PORT = 8017


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb.

    Args:
        parser: Its parser.
    """
    parser.add_argument("--codec", help="weights to offer first, by name or path")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"0 for any (default: {DEFAULT_PORT})"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    parser.add_argument(
        "--max-pixels", type=positive_int, default=50_000_000, metavar="N", help="default: 50000000"
    )
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serves the page on the loopback interface until it is interrupted.

    Args:
        args: Arguments of `add_arguments`.

    Returns:
        The exit code.
    """
    from latentpress.codecs.bitstream import Limits
    from latentpress.scripts.view.bench import Bench
    from latentpress.scripts.view.server import ViewServer

    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    bench = Bench(args.device, args.codec, Limits(max_pixels=args.max_pixels))
    with ViewServer(bench, args.port) as server:
        print(f"{server.url}  (Ctrl-C ends)", flush=True)
        if not args.no_browser:
            webbrowser.open(server.url)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()
    return 0
