"""The ``latentpress`` command: one entry point with a verb for each thing to do with files.

Results go to stdout; progress, warnings and errors to stderr. Exit codes: 0 success, 1 the operation failed
on the data it was given (a damaged stream, an unreadable picture, a missing file), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple, NoReturn

import latentpress
from latentpress.scripts.failures import EXIT_FAILED, EXIT_USAGE, exit_code, report

EXIT_INTERRUPTED = 130  # what shells report for a program that was ended by Ctrl-C


class Verb(NamedTuple):
    """One verb of the command line.

    Attributes:
        module: Name of the module in ``latentpress.scripts.commands``.
        help: One line for the list of verbs.
    """

    module: str
    help: str


VERBS = {
    "encode": Verb("encode", "compress pictures, fields and meshes"),
    "decode": Verb("decode", "restore what is in compressed files"),
    "info": Verb("info", "print what is in compressed files, without decoding them"),
    "verify": Verb("verify", "check compressed files for damage"),
    "eval": Verb("evaluate", "measure a codec on a folder of pictures"),
    "demo": Verb("demo", "compress a photograph and compare with JPEG, WebP and AVIF"),
    "view": Verb("view", "serve a local page to drop files on (needs the extra 'view')"),
    "train": Verb("train", "train a model (needs the extra 'train')"),
}


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, as every other error of the command is."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(EXIT_USAGE, f"latentpress: error: {message} (see '{self.prog} --help')\n")


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Makes the parser.

    Args:
        verb: The verb whose arguments are added. The modules of the others are not imported, which keeps
            quick verbs quick.

    Returns:
        The parser of the whole command.
    """
    common = _Parser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks of errors"
    )
    parser = _Parser(prog="latentpress", description=latentpress.__doc__.splitlines()[0], parents=[common])
    parser.add_argument("--version", action="version", version=f"latentpress {latentpress.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, entry in VERBS.items():
        child = verbs.add_parser(name, help=entry.help, description=entry.help.capitalize(), parents=[common])
        if name == verb:
            _module(name).add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path need not be text, and to print it must not fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    if verb not in VERBS:
        verb = None
    try:
        if verb == "train":
            return _train(arguments)
        args = build_parser(verb).parse_args(arguments)
    except SystemExit as stop:  # argparse ends the process after --help and after a mistake
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED
    debug = getattr(args, "debug", False)
    args.debug = debug
    args.command = shlex.join(["latentpress", *arguments])
    try:
        code: int = _module(args.verb).run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("latentpress: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone. Python flushes stdout once more at exit and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        found = exit_code(error)
        if found is None:
            raise
        report(error, debug=debug)
        return found
    return code


def _train(arguments: list[str]) -> int:
    """Hands everything after the verb on as it is: ``--help`` too is for Lightning's parser to answer."""
    place = arguments.index("train")
    if any(word != "--debug" for word in arguments[:place]):
        build_parser().parse_args(arguments[:place])
    debug = "--debug" in arguments[:place]
    try:
        return int(_module("train").run_arguments(arguments[place + 1 :]))
    except KeyboardInterrupt:
        print("latentpress: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        # Training runs code of the user's choice, so only what was meant for the user is shortened.
        if not isinstance(error, OSError | ModuleNotFoundError) or exit_code(error) is None:
            raise
        report(error, debug=debug)
        return EXIT_FAILED


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"latentpress.scripts.commands.{VERBS[verb].module}")


if __name__ == "__main__":
    sys.exit(main())
