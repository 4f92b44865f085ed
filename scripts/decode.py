"""Runs ``latentpress decode`` from a checkout: ``python scripts/decode.py`` takes the same arguments."""

import sys

from latentpress.scripts.cli import main

if __name__ == "__main__":
    sys.exit(main(["decode", *sys.argv[1:]]))
