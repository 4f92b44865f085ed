"""Fields and shapes on the page, and which codecs it offers: the server's side."""

import importlib.util
import inspect as python_inspect
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import latentpress
from latentpress.codecs.bitstream import Limits
from latentpress.codecs.card import ModelCard
from latentpress.codecs.field import FieldCodec
from latentpress.scripts.view import offer as offer_module
from latentpress.scripts.view.bench import Bench
from latentpress.scripts.view.fields import FieldKind
from latentpress.scripts.view.kinds import Rate, Superseded
from latentpress.scripts.view.offer import make_offers
from latentpress.scripts.view.samples import SAMPLES, flow
from latentpress.scripts.view.server import make_app
from latentpress.scripts.view.spectrum import energy_spectrum

HOME = "http://127.0.0.1"


def weights_module():
    path = Path(__file__).with_name("view_weights.py")
    spec = importlib.util.spec_from_file_location("view_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = weights_module()
waves = tiny.field_module().waves


@pytest.fixture(scope="module")
def field_weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "field_tiny.safetensors"
    path.write_bytes(tiny.field_module().make_weights().to_bytes())
    return path


def client_of(bench: Bench) -> TestClient:
    return TestClient(make_app(bench), HOME, headers={"x-latentpress-page": "1"})


@pytest.fixture(scope="module")
def fields(field_weights) -> TestClient:
    return client_of(Bench(weights=str(field_weights)))


@pytest.fixture(scope="module")
def shapes() -> TestClient:
    return client_of(Bench(weights=str(tiny.SHAPE)))


def post(client: TestClient, path: str, content: bytes | dict = b"") -> dict:
    body = json.dumps(content) if isinstance(content, dict) else content
    answer = client.post(path, content=body)
    assert answer.status_code == 200, answer.json()
    return answer.json()


def slice_of(client: TestClient, source: str, key: str, shape: tuple[int, ...], **query: int) -> np.ndarray:
    content = client.get(f"/api/{source}/{key}/parts/slice.f32", params=query).content
    return np.frombuffer(content, "<f4").reshape(shape)


class TestOffers:
    def test_what_ships_is_offered_and_the_rest_has_a_reason(self, monkeypatch, tmp_path):
        """As weights arrive, a family moves from one list to the other."""
        shipped: dict[str, Path] = {}
        monkeypatch.setattr(offer_module, "shipped_weights", lambda: shipped)
        nothing = make_offers()
        assert [(o.family, o.rates) for o in nothing.codecs] == [("field", ("bound",))]
        assert [w.title for w in nothing.withheld] == [
            "image",
            "image-max",
            "index",
            "field at ratios 8, 64 and 512",
            "shape",
        ]
        assert {w.reason for w in nothing.withheld} == {"no weights of it ship yet"}
        for family in ("image", "index", "shape"):
            path = tmp_path / f"{family}.safetensors"
            path.write_bytes((tiny.GOLDEN / f"{family}_tiny.safetensors").read_bytes())
            card = ModelCard(family, family, {}, "0" * 16, 1, 1, "2025-01-01", "MIT", "", "", (0.1, 1.0))
            path.with_suffix(".json").write_text(card.to_json())
            shipped[family] = path
        offers = make_offers()
        assert [o.name for o in offers.codecs] == ["image", "index", "shape", "field"]
        assert [w.title for w in offers.withheld] == ["image-max", "field at ratios 8, 64 and 512"]

    def test_field_weights_bring_ratios(self, field_weights):
        first = make_offers(str(field_weights)).codecs[0]
        assert (first.rates, first.ratios, first.realistic) == (("bound", "ratio", "bytes"), (8, 64), True)
        assert "field" not in {w.title.split()[0] for w in make_offers(str(field_weights)).withheld}

    def test_what_a_family_needs(self, monkeypatch):
        monkeypatch.setattr(offer_module, "find_spec", lambda name: None)
        offers = make_offers(str(tiny.SHAPE))
        assert "shape" not in {o.family for o in offers.codecs}
        (reason,) = [w.reason for w in offers.withheld if w.title == "shape"]
        assert reason == "needs trimesh: pip install 'latentpress[shape]'"

    def test_a_file_that_no_codec_takes(self, monkeypatch):
        monkeypatch.setattr(offer_module, "shipped_weights", dict)
        with pytest.raises(ValueError, match="no codec for a shape is offered"):
            Bench().add("ball.ply", tiny.stored_mesh(".ply"))

    @pytest.mark.parametrize("family", ["image", "image-max", "index", "shape"])
    def test_effort_is_offered_where_the_codec_has_it(self, family):
        from latentpress.codecs.image import ImageCodec
        from latentpress.codecs.index import IndexCodec
        from latentpress.codecs.shape import ShapeCodec

        method = {"index": IndexCodec.compress, "shape": ShapeCodec.encode}.get(family, ImageCodec.compress)
        has_it = "effort" in python_inspect.signature(method).parameters
        assert has_it == (family in offer_module._REFINING)

    def test_weights_of_something_else(self, tmp_path):
        path = tmp_path / "harp.safetensors"
        path.write_bytes(offer_module.WeightFile("harp", {}, {}).to_bytes())
        with pytest.raises(ValueError, match="cannot show the family 'harp'"):
            make_offers(str(path))


class TestFields:
    def test_bound_from_a_file_to_a_download(self, fields):
        values = waves(3, 9, 12, 14)
        item = post(fields, "/api/items?name=flow.npy", tiny.stored_field(values))
        assert (item["kind"], item["shape"], item["dtype"]) == ("field", [3, 9, 12, 14], "float32")
        rate = {"codec": "field", "relative_error": 0.01}
        name = fields.get("/api/offer").json()["codecs"][0]["name"]
        result = post(fields, f"/api/items/{item['id']}/results", {**rate, "codec": name})
        data = fields.get(f"/api/results/{result['id']}/file").content
        assert (len(data), result["filename"]) == (result["bytes"], "flow.lpz")
        decoded = latentpress.load(name).decompress(data).numpy()
        span = values.max() - values.min()
        assert result["relative"] == pytest.approx(np.abs(decoded - values).max() / span)
        assert result["relative"] <= 0.01
        assert result["ratio"] == values.nbytes / len(data)
        mean_square = np.square(decoded.astype(float) - values).mean()
        assert result["psnr"] == pytest.approx(20 * np.log10(span / np.sqrt(mean_square)))
        for axis, shape in enumerate([(12, 14), (9, 14), (9, 12)]):
            query = {"component": 1, "axis": axis, "index": 5}
            expected = np.take(decoded[1], 5, axis)
            found = slice_of(fields, "results", result["id"], shape, **query)
            np.testing.assert_array_equal(found, expected)
            original = slice_of(fields, "items", item["id"], shape, **query)
            np.testing.assert_array_equal(original, np.take(values[1], 5, axis))

    def test_ratio_and_decoder(self, fields, field_weights):
        values = waves(4, 16, 16, 16)
        item = post(fields, "/api/items?name=flow.npy", tiny.stored_field(values))
        rate = {"codec": str(field_weights), "ratio": 64, "quality": 80}
        plain = post(fields, f"/api/items/{item['id']}/results", rate)
        other = post(fields, f"/api/items/{item['id']}/results", {**rate, "realistic": True})
        assert plain["bytes"] == other["bytes"]
        assert plain["spectra"]["decoded"] != other["spectra"]["decoded"]
        assert plain["setting"] == "ratio 64, quality 80"
        assert other["setting"] == "ratio 64, quality 80, realistic decoder"
        data = fields.get(f"/api/results/{plain['id']}/file").content
        assert latentpress.inspect(data).parameters["ratio"] == 64

    def test_spectra_are_of_what_is_shown(self, fields, field_weights):
        values = waves(5, 8, 8, 8)
        item = post(fields, "/api/items?name=flow.npy", tiny.stored_field(values))
        rate = {"codec": str(field_weights), "relative_error": 0.0}
        spectra = post(fields, f"/api/items/{item['id']}/results", rate)["spectra"]
        assert spectra["wavenumbers"] == [1, 2, 3, 4]
        assert spectra["original"] == spectra["decoded"]
        assert set(spectra["error"]) == {0.0}

    def test_planes_and_single_components(self, fields):
        flat = post(fields, "/api/items?name=a.npy", tiny.stored_field(waves(6, 20, 30)[0]))
        assert (flat["shape"], flat["notes"]) == ([1, 20, 30], [])
        solid = post(fields, "/api/items?name=a.npy", tiny.stored_field(waves(6, 8, 9, 10)[0]))
        assert (solid["shape"], solid["notes"]) == (
            [1, 8, 9, 10],
            ["taken as one component of 8 x 9 x 10 samples"],
        )

    def test_values_that_are_not_finite(self, fields, field_weights):
        values = waves(7, 8, 8, 8)
        values[0, 1, 2, 3] = np.nan
        item = post(fields, "/api/items?name=a.npy", tiny.stored_field(values))
        assert "not finite" in item["notes"][0]
        rate = {"codec": str(field_weights), "relative_error": 0.01}
        result = post(fields, f"/api/items/{item['id']}/results", rate)
        assert result["relative"] <= 0.01
        assert np.isfinite(result["spectra"]["original"]).all()

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("a.npy", b"no array", "a.npy|pickle|magic"),
            ("a.npy", tiny.stored_field(np.zeros((3, 4, 5), np.int32)), "a.npy holds int32"),
            ("a.npy", tiny.stored_field(np.zeros((3, 0, 5), np.float32)), "empty"),
        ],
    )
    def test_what_is_no_field(self, fields, name, content, sentence):
        answer = fields.post(f"/api/items?name={name}", content=content)
        assert answer.status_code == 422
        assert any(part in answer.json()["error"] for part in sentence.split("|"))

    def test_too_many_values(self):
        with pytest.raises(ValueError, match="1,000 values are too many"):
            FieldKind(Limits(max_voxels=999)).read("a.npy", tiny.stored_field(np.ones((1, 10, 10, 10), "f4")))

    @pytest.mark.parametrize("query", [{"index": 99}, {"component": 3}, {"axis": 4}, {"index": "x"}])
    def test_slices_that_are_not_there(self, fields, query):
        item = post(fields, "/api/items?name=a.npy", tiny.stored_field(waves(6, 8, 8, 8)))
        assert fields.get(f"/api/items/{item['id']}/parts/slice.f32", params=query).status_code == 422
        assert fields.get(f"/api/items/{item['id']}/parts/shown.png").status_code == 404

    def test_a_codec_of_another_kind(self, fields):
        item = post(fields, "/api/items?name=a.npy", tiny.stored_field(waves(6, 8, 8, 8)))
        answer = fields.post(f"/api/items/{item['id']}/results", content='{"codec": "image", "quality": 5}')
        assert (answer.status_code, answer.json()["error"]) == (422, "the codec image takes no field")

    def test_peers_have_no_more_bytes(self, fields, field_weights):
        peers = fields.get("/api/offer").json()["peers"]["field"]
        if not peers:
            pytest.skip("none of zfpy, pysz and numcodecs-wasm-sperr is installed")
        item = post(fields, "/api/items?name=a.npy", tiny.stored_field(waves(6, 16, 16, 16)))
        rate = {"codec": str(field_weights), "relative_error": 0.001}
        own = post(fields, f"/api/items/{item['id']}/results", rate)
        for peer in peers:
            result = post(fields, f"/api/results/{own['id']}/peers/{peer}")
            assert result["bytes"] <= own["bytes"]
            assert 10 < result["psnr"] < 200


class TestShapes:
    @pytest.mark.parametrize("suffix", [".ply", ".glb", ".obj"])
    def test_from_a_file_to_a_mesh_to_draw(self, shapes, suffix):
        item = post(shapes, f"/api/items?name=ball{suffix}", tiny.stored_mesh(suffix))
        assert (item["kind"], item["points"], item["faces"]) == ("shape", 162, 320)
        buffer = shapes.get(f"/api/items/{item['id']}/parts/mesh.bin").content
        points, faces, coloured = struct.unpack_from("<3I", buffer)
        assert (points, faces, bool(coloured)) == (162, 320, item["coloured"])
        assert len(buffer) == 12 + 12 * points + 12 * faces + 4 * points * coloured
        places = np.frombuffer(buffer, "<f4", 3 * points, 12)
        assert np.abs(places).max() == pytest.approx(1, abs=1e-5)
        corners = np.frombuffer(buffer, "<u4", 3 * faces, 12 + 12 * points)
        assert corners.max() == points - 1

    def test_compressed(self, shapes):
        item = post(shapes, "/api/items?name=ball.ply", tiny.stored_mesh(".ply"))
        rate = {"codec": str(tiny.SHAPE), "quality": 60}
        result = post(shapes, f"/api/items/{item['id']}/results", rate)
        data = shapes.get(f"/api/results/{result['id']}/file").content
        assert (len(data), result["filename"]) == (result["bytes"], "ball.lpz")
        mesh = latentpress.load(str(tiny.SHAPE)).decompress(data)
        assert (result["points"], result["faces"]) == (len(mesh.vertices), len(mesh.faces))
        buffer = shapes.get(f"/api/results/{result['id']}/parts/mesh.bin").content
        assert struct.unpack_from("<3I", buffer) == (len(mesh.vertices), len(mesh.faces), 1)
        # Shown in the frame of the original, whose longest side is 2.
        places = np.frombuffer(buffer, "<f4", 3 * len(mesh.vertices), 12).reshape(-1, 3)
        np.testing.assert_allclose(places, mesh.vertices, atol=1e-4)
        if not (peers := shapes.get("/api/offer").json()["peers"]["shape"]):
            pytest.skip("DracoPy is not installed")
        draco = post(shapes, f"/api/results/{result['id']}/peers/{peers[0]}")
        assert draco["bytes"] <= result["bytes"]
        assert draco["filename"] == "ball.drc"
        assert 0 < draco["chamfer"] < 0.5
        assert shapes.get(f"/api/results/{draco['id']}/parts/mesh.bin").status_code == 200

    def test_points(self, shapes):
        import trimesh

        cloud = trimesh.creation.icosphere(2).vertices
        content = trimesh.PointCloud(cloud).export(file_type="ply")
        item = post(shapes, "/api/items?name=cloud.ply", content)
        assert (item["points"], item["faces"], item["coloured"]) == (162, 0, False)

    def test_what_is_no_mesh(self, shapes):
        answer = shapes.post("/api/items?name=a.ply", content=b"ply, but no mesh")
        assert answer.status_code == 422
        assert "a.ply" in answer.json()["error"]


def test_progress_ends_what_nobody_waits_for(monkeypatch):
    """A newer request for an item ends the older one at its next sign of life."""
    bench = Bench(weights=str(tiny.IMAGE))
    buffer = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    item = bench.add("x.png", buffer.getvalue())
    kind = bench._kinds["picture"]
    monkeypatch.setattr(kind, "warm_up", lambda codec: None)

    def slow(result, item, codec, rate, notify):
        notify(0.25, "refining")
        assert bench.progress(item.id) == (0.25, "refining")
        bench._newest[item.id] = "newer"
        notify(0.5, "refining")
        raise AssertionError("went on")

    monkeypatch.setattr(kind, "compress", slow)
    with pytest.raises(Superseded):
        bench.compress(item.id, Rate(str(tiny.IMAGE), 50))


def test_progress_is_served(shapes):
    item = post(shapes, "/api/items?name=ball.ply", tiny.stored_mesh(".ply"))
    assert shapes.get(f"/api/items/{item['id']}/progress").json() == {"fraction": 0.0, "stage": "waiting"}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_can_be_read(name, shapes):
    item = post(shapes, f"/api/samples/{name}")
    assert (item["kind"], item["name"]) == (SAMPLES[name].kind, SAMPLES[name].name)


def test_there_is_no_other_sample(shapes):
    assert shapes.post("/api/samples/secret").status_code == 404


def test_sample_flow_has_no_divergence():
    field = flow(16)
    waves_of = np.fft.fftn(field, axes=(1, 2, 3))
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(16) * 16] * 3, indexing="ij"))
    inner = np.abs(k).max(0) < 8  # the last wave has no derivative on a grid
    assert np.abs((k * waves_of).sum(0))[inner].max() < 1e-3 * np.abs(waves_of).max()
    spectrum = energy_spectrum(field, periodic=True)
    assert spectrum.energy[0] > 5 * spectrum.energy[3] > 0


def test_colours(shapes):
    tables = shapes.get("/api/colours").json()
    assert {name: len(table) for name, table in tables.items()} == {"sequential": 256, "diverging": 256}


class TestSpectrum:
    def test_sum_is_half_the_variance(self):
        field = np.random.default_rng(0).normal(size=(2, 16, 16, 16)) + 5
        found = energy_spectrum(field, periodic=True)
        # Shells beyond half of the longest side, in the corners, are not shown.
        assert 0.3 * field.var() < sum(found.energy) < field.var()

    @pytest.mark.parametrize("wave", [1, 4, 7])
    def test_one_wave_is_in_one_shell(self, wave):
        x = np.sin(2 * np.pi * wave * np.arange(16) / 16)
        field = np.broadcast_to(x[:, None], (1, 16, 32))
        found = energy_spectrum(field, periodic=True)
        assert found.energy[2 * wave - 1] == pytest.approx(0.25)
        assert sum(found.energy) == pytest.approx(0.25)

    def test_window_hides_the_jump_at_the_ends(self):
        slope = np.broadcast_to(np.arange(64.0), (1, 64, 64))
        last = {periodic: energy_spectrum(slope, periodic).energy[-1] for periodic in (False, True)}
        assert last[False] < 1e-3 * last[True]

    def test_constant_fields_and_small_ones(self):
        for shape in [(1, 1, 1), (1, 2, 1), (2, 1, 3, 2)]:
            found = energy_spectrum(np.full(shape, 3.0))
            assert len(found.energy) == len(found.wavenumbers)
            assert np.allclose(found.energy, 0)


def test_bounds_alone_need_no_weights():
    bench = Bench()
    offered = bench.offers.named("field")
    if offered.ratios:
        pytest.skip("field weights ship")
    assert isinstance(bench._load("field"), FieldCodec)
