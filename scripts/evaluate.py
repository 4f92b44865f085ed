"""Runs ``latentpress eval`` from a checkout: ``python scripts/evaluate.py`` takes the same arguments."""

import sys

from latentpress.scripts.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
