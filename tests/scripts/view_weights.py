"""Weights and files for the tests of the page: tiny models of every family."""

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "v1"
IMAGE = GOLDEN / "image_tiny.safetensors"
SHAPE = GOLDEN / "shape_tiny.safetensors"


def field_module() -> ModuleType:
    """The tests' tiny field codec."""
    path = Path(__file__).resolve().parent.parent / "codecs" / "tiny_field.py"
    spec = importlib.util.spec_from_file_location("tiny_field", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored_field(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def stored_mesh(suffix: str) -> bytes:
    """A ball with colours, in the file that a suffix names."""
    import trimesh

    ball = trimesh.creation.icosphere(2)
    ball.visual.vertex_colors = ((ball.vertices + 1) * 127).astype(np.uint8)
    content = ball.export(file_type=suffix.removeprefix("."))
    return content.encode() if isinstance(content, str) else content
