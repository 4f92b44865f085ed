"""The shape codec on meshes, points and images, with a tiny model."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

trimesh = pytest.importorskip("trimesh")

from latentpress.codecs import inspect  # noqa: E402
from latentpress.codecs.base import no_progress  # noqa: E402
from latentpress.codecs.bitstream import LimitExceeded, Limits, StreamError, UnknownModel  # noqa: E402
from latentpress.codecs.posed_images import PosedImages  # noqa: E402
from latentpress.codecs.shape import ShapeCodec  # noqa: E402
from latentpress.codecs.shape_encoding import ShapeEncoding  # noqa: E402
from latentpress.codecs.shape_source import shape_source  # noqa: E402


@pytest.fixture(scope="session")
def weights(shape_helper):
    return shape_helper.make_weights()


@pytest.fixture(scope="session")
def codec(shape_codec):
    return shape_codec


@pytest.fixture(scope="session")
def ball():
    mesh = trimesh.creation.icosphere(2, radius=3.0)
    mesh.apply_translation((10, -4, 2))
    return mesh


@pytest.fixture(scope="session")
def stream(codec, ball):
    return codec.compress(ball, quality=50)


def test_mesh_comes_back_where_it_was(codec, ball, stream) -> None:
    decoded = codec.decompress(stream, resolution=32)
    assert np.abs(decoded.bounds.mean(0) - (10, -4, 2)).max() < 1
    assert 2 < decoded.extents.max() < 8
    assert decoded.is_watertight
    assert decoded.volume > 0


def test_report_says_what_decoding_gives(codec, ball) -> None:
    encoded = codec.encode(ball, quality=50)
    assert encoded.report.bytes == len(encoded.data)
    decoded = codec.decompress(encoded.data)
    ours, theirs = cKDTree(decoded.sample(20000)), cKDTree(ball.sample(20000))
    both = (ours.query(theirs.data)[0].mean() + theirs.query(ours.data)[0].mean()) / 2
    # Half the longest side is 3.
    assert encoded.report.chamfer == pytest.approx(both / 3, rel=0.05)


def test_points_and_field_agree_with_the_mesh(codec, stream) -> None:
    mesh = codec.decompress(stream, resolution=48)
    points = codec.decompress(stream, as_="points", count=500, resolution=48)
    assert points.shape == (500, 3)
    field = codec.decompress(stream, as_="field")
    with torch.inference_mode():
        distances = field.signed_distance(torch.from_numpy(points))
    assert float(distances.abs().mean()) < 0.05 * mesh.extents.max()
    with torch.inference_mode():
        centre = torch.tensor(mesh.bounds.mean(0), dtype=torch.float32)[None]
        assert float(field.density(centre)) > float(field.density(centre + 20.0))


def test_coloured_mesh(codec, ball) -> None:
    colours = np.tile(np.array([200, 30, 60, 255], np.uint8), (len(ball.vertices), 1))
    painted = trimesh.Trimesh(ball.vertices, ball.faces, vertex_colors=colours, process=False)
    data = codec.compress(painted, quality=50)
    assert inspect(data).parameters["colour"] == "yes"
    assert codec.decompress(data, resolution=16).visual.kind == "vertex"
    assert codec.decompress(data, as_="points", count=20, resolution=16).shape == (20, 6)
    plain = codec.compress(painted, quality=50, colour=False)
    assert inspect(plain).parameters["colour"] == "no"
    assert len(plain) < len(data)


def test_target_bytes(codec, ball) -> None:
    sizes = [len(codec.compress(ball, target_bytes=limit, mode="generator")) for limit in (90, 160)]
    assert sizes[0] <= 90
    assert sizes[0] <= sizes[1] <= 160
    with pytest.raises(ValueError, match=r"at least \d+ bytes"):
        codec.compress(ball, target_bytes=20)


def test_max_error(codec, ball) -> None:
    report = codec.encode(ball, quality=50).report
    assert codec.encode(ball, max_error=report.chamfer * 3).report.chamfer <= report.chamfer * 3
    with pytest.raises(ValueError, match=r"max_error 0\.001 cannot be met: .* Chamfer distance of 0\."):
        codec.encode(ball, max_error=0.001)


def test_effort_uses_the_bytes_up(codec, ball) -> None:
    plain = codec.encode(ball, quality=100).report.bytes
    refined = codec.encode(ball, target_bytes=2 * plain, effort=3, mode="generator").report
    assert plain < refined.bytes <= 2 * plain


def test_the_low_pass_taken_is_near_the_best(codec, ball) -> None:
    source = shape_source(ball, colour=False)
    encoding = ShapeEncoding(codec, source, 0, None, no_progress)
    trial, chamfer = encoding.smoothed(encoding.at_quality(90))
    errors = codec.measure(source, trial.code, trial.header)
    assert chamfer == errors[trial.header.smoothing] <= 1.01 * min(errors)


def test_effort_lowers_what_is_paid(codec, ball) -> None:
    plain, refined = (codec.encode(ball, quality=90, effort=effort).report for effort in (0, 1))
    assert refined.steps == 20
    # The tiny model can hardly change its shape, but it can say the same in fewer bits.
    assert refined.chamfer < 1.05 * plain.chamfer
    assert refined.bytes < 0.97 * plain.bytes


def test_options_exclude_each_other(codec, ball) -> None:
    with pytest.raises(TypeError, match="quality and target_bytes"):
        codec.compress(ball, quality=3, target_bytes=100)
    for options in ({"quality": 101}, {"effort": 11}, {"target_bytes": -3}):
        with pytest.raises(ValueError, match=r"must be"):
            codec.compress(ball, **options)


def test_points_in(codec) -> None:
    directions = np.random.default_rng(0).normal(size=(600, 3))
    cloud = 5 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    data = codec.compress(np.hstack((cloud, np.full((600, 3), 0.25))), quality=30)
    assert inspect(data).parameters == {
        "kind": "points",
        "mode": "generator",
        "quality": 30.0,
        "colour": "yes",
        "longest_side": pytest.approx(10, rel=0.01),
    }


def _views(count: int, size: int) -> PosedImages:
    """Silhouettes of a ball of radius 0.6 from around."""
    poses, images = [], []
    for k in range(count):
        angle = 2 * np.pi * k / count
        position = 3 * np.array([np.cos(angle), np.sin(angle), 0.4 * (-1) ** k])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack((right, np.cross(forward, right), forward, position), axis=1)
        poses.append(matrix)
        v, u = np.mgrid[0:size, 0:size] + 0.5 - size / 2
        local = np.stack((u / size, v / size, np.ones_like(u)), axis=-1)
        along = (local / np.linalg.norm(local, axis=-1, keepdims=True)) @ matrix[:3, :3].T
        closest = np.linalg.norm(np.cross(along, position), axis=-1)
        image = np.zeros((size, size, 4), np.uint8)
        image[closest < 0.6] = (250, 120, 10, 255)
        images.append(image)
    intrinsics = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]])
    return PosedImages(np.stack(images), np.stack(poses), intrinsics)


def test_posed_images_in_radiance_field_out(codec) -> None:
    given = _views(6, 48)
    data = codec.compress(given, quality=50)
    found = inspect(data).parameters
    assert found["kind"] == "images"
    assert found["longest_side"] == pytest.approx(1.2, abs=0.2)
    field = codec.decompress(data, as_="field")
    with torch.inference_mode():
        picture = field.render(
            torch.from_numpy(given.camera_to_world[0]), torch.from_numpy(given.intrinsics), 48, 48, samples=24
        )
    assert float(picture.opacity[24, 24]) > 0.9
    assert float(picture.opacity[0, 0]) < 0.1


def test_files(codec, ball, tmp_path) -> None:
    for suffix in ("obj", "ply", "stl", "glb"):
        path = tmp_path / f"ball.{suffix}"
        ball.export(path)
        assert inspect(codec.compress(path, quality=20)).parameters["kind"] == "mesh"
    rows = "\n".join(f"{x} {y} {z}" for x, y, z in ball.vertices)
    count = len(ball.vertices)
    header = f"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {count}\nHEIGHT 1\n"
    (tmp_path / "ball.pcd").write_text(f"{header}POINTS {count}\nDATA ascii\n{rows}\n")
    assert inspect(codec.compress(tmp_path / "ball.pcd", quality=20)).parameters["kind"] == "points"
    with pytest.raises(ValueError, match="expected one of"):
        codec.compress(tmp_path / "ball.xyz")


def _mesh(vertices, faces):
    return trimesh.Trimesh(np.asarray(vertices, float), np.asarray(faces).reshape(-1, 3), process=False)


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(_mesh(SQUARE[:3], [[0, 1, 2]]), id="one triangle"),
        pytest.param(_mesh(SQUARE, [[0, 1, 2], [0, 2, 3], [2, 1, 0]]), id="non-manifold"),
        pytest.param(_mesh([*SQUARE, [np.nan, 0, 0]], [[0, 1, 2], [0, 2, 4]]), id="not finite"),
        pytest.param(_mesh(np.array(SQUARE) * 1e15, [[0, 1, 2], [0, 2, 3]]), id="huge"),
        pytest.param(_mesh(SQUARE, [[0, 1, 2], [0, 0, 1]]), id="a degenerate face"),
    ],
)
def test_broken_meshes_are_coded(codec, mesh) -> None:
    data = codec.compress(mesh, quality=20)
    codec.verify(data)
    assert np.isfinite(codec.decompress(data, resolution=8).vertices).all()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(_mesh(np.zeros((0, 3)), []), id="empty"),
        pytest.param(_mesh(SQUARE, []), id="no faces"),
        pytest.param(_mesh([[np.nan] * 3] * 3, [[0, 1, 2]]), id="nothing finite"),
        pytest.param(_mesh([[1, 2, 3]] * 3, [[0, 1, 2]]), id="a point"),
        pytest.param(_mesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]]), id="no area"),
        pytest.param(np.zeros((1, 3)), id="one point"),
        pytest.param(np.zeros((0, 3)), id="no points"),
        pytest.param(np.full((40, 3), np.inf), id="no finite points"),
        pytest.param(np.zeros((40, 4)), id="four columns"),
        pytest.param(np.ones((40, 6)) * np.arange(40)[:, None], id="colours beyond one"),
    ],
)
def test_shapes_without_a_surface(codec, shape) -> None:
    with pytest.raises(ValueError, match=r"\w{4}"):
        codec.compress(shape)


def test_no_shape_at_all(codec) -> None:
    with pytest.raises(TypeError, match="got dict"):
        codec.compress({})


def test_mutated_streams(codec, stream) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(stream)
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        with pytest.raises(StreamError):
            codec.verify(bytes(data))
    for length in range(0, len(stream), 7):
        with pytest.raises(StreamError):
            codec.verify(stream[:length])


def test_damage_behind_valid_checksums(codec, stream) -> None:
    """Whatever the payload is, decoding ends in a stream error or in some shape."""
    from latentpress.codecs.bitstream import CodecId, SectionType, read_container, write_container

    payload = read_container(stream).payload
    random = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(payload)
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        data = write_container(CodecId.SHAPE, codec.fingerprint, [(SectionType.PAYLOAD, bytes(damaged))])
        try:
            codec.verify(data)
        except StreamError:
            continue
        # Only header fields that no checksum of symbols covers can go through: kind, pose, unit.
        assert damaged[:3] != payload[:3] or damaged[-16:] == payload[-16:]


def test_other_models_streams(shape_helper, stream) -> None:
    other = ShapeCodec(shape_helper.make_weights(seed=2))
    with pytest.raises(UnknownModel):
        other.verify(stream)


def test_limits(codec, stream) -> None:
    with pytest.raises(LimitExceeded):
        codec.decompress(stream, resolution=64, limits=Limits(max_voxels=10**4))
    with pytest.raises(LimitExceeded):
        codec.decompress(stream, resolution=32, limits=Limits(max_faces=10))
    with pytest.raises(ValueError, match="resolution"):
        codec.decompress(stream, resolution=2)


def test_prior_makes_shapes(codec) -> None:
    first, second = codec.generate(2, seed=3)
    assert not torch.equal(first.field.geometry, second.field.geometry)


def test_fresh_process_decodes_from_the_bytes(weights, codec, stream, tmp_path) -> None:
    (tmp_path / "w.safetensors").write_bytes(weights.to_bytes())
    (tmp_path / "s.lpz").write_bytes(stream)
    program = (
        "import latentpress, sys; codec = latentpress.load(sys.argv[1]);"
        "mesh = codec.decompress(open(sys.argv[2], 'rb').read(), resolution=16); print(len(mesh.vertices))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "w.safetensors"), str(tmp_path / "s.lpz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(codec.decompress(stream, resolution=16).vertices)


def test_symbols_do_not_depend_on_threads_or_float_mode(weights, stream) -> None:
    """Tables come from integers, so another way of computing floats changes nothing."""
    codec = ShapeCodec(weights)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.autocast("cpu", torch.bfloat16):
            codec.verify(stream)
    finally:
        torch.set_num_threads(threads)
