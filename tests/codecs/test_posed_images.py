"""Posed images: what is refused, which colours are seen, and the errors that refinement descends on."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")

from latentpress.codecs.posed_images import PosedImages, images_source
from latentpress.codecs.shape_payload import Pose
from latentpress.codecs.shape_photometric import SeenRays, photometric_error, seen_rays
from latentpress.codecs.shape_refine import FreeCode, Refinement, RefinementTarget
from latentpress.models.shape.bridge import CodeQuality, build_shape_bridge
from latentpress.models.shape.generator import ShapeField

SIZE = 40


def cameras(count: int, distance: float = 3.0) -> np.ndarray:
    """Around the z axis, alternating above and below."""
    found = np.tile(np.eye(4), (count, 1, 1))
    for k, matrix in enumerate(found):
        angle = 2 * np.pi * k / count
        position = distance * np.array([np.cos(angle), np.sin(angle), 0.4 * (-1) ** k])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        matrix[:3] = np.stack((right, np.cross(forward, right), forward, position), axis=1)
    return found


INTRINSICS = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])


class Body(NamedTuple):
    """A ball in two colours, the first where x is greater than that of its centre."""

    centre: tuple[float, float, float]
    radius: float
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]


RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def pictures(poses: np.ndarray, *bodies: Body) -> np.ndarray:
    """What cameras see of balls, ``(V, 40, 40, 4)`` in [0, 1]."""
    v, u = np.mgrid[0:SIZE, 0:SIZE] + 0.5 - SIZE / 2
    local = np.stack((u / SIZE, v / SIZE, np.ones_like(u)), axis=-1)
    local /= np.linalg.norm(local, axis=-1, keepdims=True)
    images = np.zeros((len(poses), SIZE, SIZE, 4), np.float32)
    for image, matrix in zip(images, poses, strict=True):
        along, nearest = local @ matrix[:3, :3].T, np.full((SIZE, SIZE), np.inf)
        for body in bodies:
            start = matrix[:3, 3] - body.centre
            half = along @ start
            root = half**2 - start @ start + body.radius**2
            depth = -half - np.sqrt(root.clip(0))
            hit = (root > 0) & (depth < nearest)
            nearest[hit] = depth[hit]
            right = (start + along * depth[..., None])[hit][:, :1] > 0
            image[hit] = np.where(right, (*body.colours[0], 1), (*body.colours[1], 1))
    return images


@pytest.fixture(scope="module")
def given() -> PosedImages:
    poses = cameras(8)
    return PosedImages(pictures(poses, Body((0, 0, 0), 0.6, (RED, BLUE))), poses, INTRINSICS)


class Ball:
    """Stands in for a generator: the distance to a ball, and two colours."""

    def __init__(self, radius: float, red: float = 1.0) -> None:
        self.radius = torch.tensor(radius, requires_grad=True)
        self.red = torch.tensor(red, requires_grad=True)

    def signed_distance(self, field: ShapeField, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=-1) - self.radius

    def colour_at(self, field: ShapeField, points: torch.Tensor) -> torch.Tensor:
        right = torch.stack((self.red, torch.zeros(()), 1 - self.red))
        return torch.where(points[..., :1] > 0, right, torch.tensor([0.0, 0, 1]))


FIELD = ShapeField(torch.zeros(1), torch.zeros(1))


def test_silhouettes_pull_the_surface_to_where_it_is(given) -> None:
    rays = seen_rays(given, Pose())
    errors, slopes = [], []
    for radius in (0.5, 0.6, 0.7):
        ball = Ball(radius)
        error = photometric_error(ball, FIELD, rays).silhouette
        error.backward()
        errors.append(float(error.detach()))
        slopes.append(float(ball.radius.grad))
    assert errors[1] < 0.1 * min(errors[0], errors[2])
    assert slopes[0] < 0 < slopes[2]


def test_colours_are_those_where_rays_end(given) -> None:
    rays = seen_rays(given, Pose())
    right = photometric_error(Ball(0.6), FIELD, rays).colour
    assert float(right.detach()) < 0.03
    faded = Ball(0.6, red=0.4)
    error = photometric_error(faded, FIELD, rays).colour
    # Half of what is seen is red, and off by 0.6 in two of three channels.
    assert float(error.detach()) == pytest.approx(0.5 * 0.6 * 2 / 3, abs=0.05)
    error.backward()
    assert float(faded.red.grad) < 0
    assert float(photometric_error(Ball(0.6), FIELD._replace(colour=None), rays).colour) == 0


def test_rays_stand_where_the_pose_puts_the_cube(given) -> None:
    moved = cameras(8)
    moved[:, :3, 3] = moved[:, :3, 3] * 2 + (10, 0, 0)
    far = PosedImages(given.images, moved, INTRINSICS, low=(8, -2, -2), high=(12, 2, 2))
    pose = Pose.around((8, -2, -2), (12, 2, 2))
    rays = seen_rays(far, pose)
    found = photometric_error(Ball(0.6), FIELD, rays)
    assert float(found.silhouette.detach()) < 2e-3
    torch.testing.assert_close(rays.origins, seen_rays(given, Pose()).origins)


def test_rays_are_limited_and_balanced(given) -> None:
    rays = seen_rays(given, Pose(), most=500)
    assert len(rays.opaque) == 500
    assert 200 <= int(rays.opaque.sum()) <= 300
    blank = PosedImages(np.zeros_like(given.images), given.camera_to_world, INTRINSICS)
    assert not seen_rays(blank, Pose(), most=500).opaque.any()


class Balloon(Ball):
    """Stands in for a generator whose balls are as large as their latent says."""

    def __init__(self) -> None:
        """Nothing is kept: the latent says everything."""

    def __call__(self, geometry: torch.Tensor, colour: torch.Tensor | None = None) -> ShapeField:
        return ShapeField(geometry, colour)

    def signed_distance(self, field: ShapeField, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=-1) - self.size(field.geometry)

    @staticmethod
    def size(latent: torch.Tensor) -> torch.Tensor:
        return 0.7 + 0.3 * torch.tanh(latent[..., 0].sum() / 4)


def test_photographs_overrule_what_was_carved(given) -> None:
    torch.manual_seed(0)
    bridge = build_shape_bridge(16, 4, 2, 6, 3, 4, 2, 32, 1, 1, 32, 1, 8, 1).eval().requires_grad_(False)
    directions = torch.nn.functional.normalize(torch.randn(2000, 3), dim=1)
    # A hull that is too large, as hulls are; distances to it at places all over the cube.
    places = torch.rand(2000, 3) * 2 - 1
    queries = torch.cat((places, places.norm(dim=1, keepdim=True) - 0.8), dim=1)
    level = CodeQuality(torch.tensor([80.0]), torch.tensor([80.0]))
    start = FreeCode(torch.randn(1, 64, 6), None)

    def radius(rays: SeenRays | None) -> float:
        target = RefinementTarget(directions * 0.8, queries, None, rays)
        refinement = Refinement(bridge, Balloon(), target, lambda quality: (0.0, 0.0))
        code = refinement.run(start, level, (3, 0), steps=60).geometry
        gain = bridge.geometry_gain(level.geometry)[:, None]
        return float(Balloon.size(bridge.decode_geometry(torch.round(code * gain), level)))

    assert radius(None) == pytest.approx(0.8, abs=0.03)
    assert radius(seen_rays(given, Pose())) == pytest.approx(0.6, abs=0.08)


def test_hidden_places_do_not_take_the_colour_in_front() -> None:
    """A green ball hides a blue one from the camera that looks at its front."""
    poses = cameras(4)
    bodies = (Body((-0.5, 0, 0), 0.4, (BLUE, BLUE)), Body((0.6, 0, 0.2), 0.35, (GREEN, GREEN)))
    given = PosedImages(pictures(poses, *bodies), poses, INTRINSICS)
    source = images_source(given, colour=True)
    place = source.surface.position.numpy() * source.pose.scale + source.pose.centre
    behind = (np.abs(place[:, 1]) < 0.2) & (np.abs(place[:, 0]) < 0.1)
    assert behind.sum() > 100
    assert (source.colour[behind, 1] > 0.6).mean() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"images": np.full((8, SIZE, SIZE, 4), np.nan, np.float32)}, "in", id="no numbers"),
        pytest.param({"images": np.full((8, SIZE, SIZE, 4), 255.0)}, r"in \[0, 1\]", id="0 to 255"),
        pytest.param({"images": np.zeros((0, SIZE, SIZE, 4))}, "must have shape", id="no views"),
        pytest.param({"camera_to_world": np.zeros((8, 4, 4))}, "invertible", id="no camera"),
        pytest.param({"camera_to_world": np.full((8, 4, 4), np.nan)}, "finite", id="a camera nowhere"),
        pytest.param({"camera_to_world": np.eye(4)}, "must have shape", id="one camera"),
        pytest.param({"intrinsics": np.zeros((3, 3))}, "focal", id="no focal length"),
        pytest.param({"intrinsics": np.full((3, 3), np.inf)}, "finite", id="endless focal length"),
        pytest.param({"low": (np.nan, 0, 0)}, "box", id="a box of nothing"),
        pytest.param({"low": (1, 1, 1)}, "box", id="an empty box"),
        pytest.param({"high": (np.inf, 1, 1)}, "box", id="an endless box"),
    ],
)
def test_impossible_images(given, change, message) -> None:
    fields = {"images": given.images, "camera_to_world": given.camera_to_world, "intrinsics": INTRINSICS}
    with pytest.raises(ValueError, match=message):
        PosedImages(**{**fields, **change})


def test_images_of_other_numbers(given) -> None:
    with pytest.raises(TypeError, match="uint16"):
        PosedImages(given.images.astype(np.uint16), given.camera_to_world, INTRINSICS)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [((5, 5, 5), (6, 6, 6), "nothing in common"), ((-1, -1, -1e-9), (1, 1, 1e-9), "too thin")],
)
def test_nothing_to_carve(given, low, high, message) -> None:
    fields = (given.images, given.camera_to_world, INTRINSICS)
    with pytest.raises(ValueError, match=message):
        images_source(PosedImages(*fields, low=low, high=high), colour=False)
