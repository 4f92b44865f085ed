"""Codecs: how data becomes bytes and back. Importing this package does not import torch."""

from latentpress.codecs.base import Codec, Header, SectionInfo
from latentpress.codecs.registry import available, inspect, load, read_metadata

__all__ = ["Codec", "Header", "SectionInfo", "available", "inspect", "load", "read_metadata"]
