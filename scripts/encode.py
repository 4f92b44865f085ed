"""Runs ``latentpress encode`` from a checkout: ``python scripts/encode.py`` takes the same arguments."""

import sys

from latentpress.scripts.cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
