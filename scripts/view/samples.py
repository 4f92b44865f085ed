"""Something to look at for whoever has nothing at hand: a photograph, a flow, a mesh."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.scripts.view.offer import FIELD, PICTURE, SHAPE


class Sample(NamedTuple):
    """A file made on the spot.

    Attributes:
        kind: Of data.
        title: What the page calls it.
        name: Of the file.
        make: Makes its content.
    """

    kind: str
    title: str
    name: str
    make: Callable[[], bytes]


def photograph() -> bytes:
    """NASA's picture of Eileen Collins, in the public domain, which comes with scikit-image, as PNG."""
    import skimage.data
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(buffer, "PNG")
    return buffer.getvalue()


def flow(side: int = 64, seed: int = 0) -> NDArray[np.float32]:
    """A random velocity field ``(3, side, side, side)`` without divergence.

    Its energy falls with the wavenumber to the power of -5/3, as that of turbulence does. It has none of its
    structures.
    """
    random = np.random.default_rng(seed)
    axes = [np.fft.fftfreq(side) * side, np.fft.fftfreq(side) * side, np.fft.rfftfreq(side) * side]
    k = np.stack(np.meshgrid(*axes, indexing="ij"))
    square = np.square(k).sum(0)
    square[0, 0, 0] = 1.0
    waves = np.fft.rfftn(random.normal(size=(3, side, side, side)), axes=(1, 2, 3))
    # Energy in a shell is the square of the amplitude times its surface.
    waves *= square ** (-(5 / 3 + 2) / 4) * np.exp(-square / (side / 3) ** 2)
    waves -= k * (k * waves).sum(0) / square
    waves[:, 0, 0, 0] = 0.0
    field = np.fft.irfftn(waves, s=(side,) * 3, axes=(1, 2, 3))
    return (field / field.std()).astype(np.float32)


def knot() -> bytes:
    """A tube along a trefoil knot with colours that go round, as PLY."""
    import trimesh

    turns, around, radius = 240, 28, 0.42
    t = np.linspace(0, 2 * np.pi, turns, endpoint=False)[:, None]
    centre = np.hstack((np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)))
    along = np.roll(centre, -1, 0) - np.roll(centre, 1, 0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, (0.0, 0.0, 1.0))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along)
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)[None, :, None]
    ring = np.cos(angle) * side[:, None] + np.sin(angle) * up[:, None]
    points = (centre[:, None] + radius * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(turns), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    c, d = (i + 1) % turns * around + j, (i + 1) % turns * around + (j + 1) % around
    faces = np.stack((np.stack((a, c, b), -1), np.stack((b, c, d), -1)), 2).reshape(-1, 3)
    phase = np.repeat(t, around, axis=1).reshape(-1, 1) + np.array([0.0, 2.1, 4.2])
    colours = np.rint(150 + 90 * np.cos(phase)).astype(np.uint8)
    content = trimesh.Trimesh(points, faces, vertex_colors=colours, process=False).export(file_type="ply")
    assert isinstance(content, bytes)
    return content


def _flow_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, flow())
    return buffer.getvalue()


SAMPLES = {
    "photograph": Sample(PICTURE, "a photograph", "astronaut.png", photograph),
    "flow": Sample(FIELD, "a random flow", "flow.npy", _flow_file),
    "knot": Sample(SHAPE, "a mesh", "knot.ply", knot),
}
"""By name."""
