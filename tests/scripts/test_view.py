"""The server of the page: what it answers, whom it refuses, and what it keeps."""

import io
import json
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import latentpress
from latentpress.codecs.bitstream import Limits
from latentpress.scripts import cli
from latentpress.scripts.view import bench as bench_module
from latentpress.scripts.view import server
from latentpress.scripts.view.bench import Bench
from latentpress.scripts.view.kinds import Rate, Superseded
from latentpress.scripts.view.server import ViewServer, make_app

WEIGHTS = str(Path(__file__).resolve().parent.parent / "golden" / "v1" / "image_tiny.safetensors")
PAGE = {"x-latentpress-page": "1"}
HOME = "http://127.0.0.1"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(weights=WEIGHTS, limits=Limits(max_pixels=10_000))


@pytest.fixture(scope="module")
def client(bench) -> TestClient:
    return TestClient(make_app(bench), HOME, headers=PAGE, raise_server_exceptions=False)


def stored(height: int = 30, width: int = 45, kind: str = "PNG", **options: object) -> bytes:
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 5 % 256, y * 7 % 256, (x + y) * 2 % 256], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def item(client) -> dict:
    return client.post("/api/items?name=a%20photo.png", content=stored()).json()


def compress(client, item, **rate: object):
    body = {"codec": WEIGHTS, "quality": 60, **rate}
    return client.post(f"/api/items/{item['id']}/results", content=json.dumps(body))


class TestWork:
    def test_offer(self, client):
        offer = client.get("/api/offer").json()
        first = offer["codecs"][0]
        assert (first["name"], first["title"], first["kind"]) == (WEIGHTS, "image_tiny", "picture")
        assert (first["rates"], first["effort"]) == (["quality", "bytes"], True)
        assert "image" in [codec["name"] for codec in offer["codecs"]]
        assert offer["peers"]["picture"] == ["JPEG", "WebP", "AVIF"]

    def test_from_a_file_to_a_download(self, client, item):
        assert (item["name"], item["width"], item["height"], item["channels"]) == ("a photo.png", 45, 30, 3)
        assert (item["bytes"], item["metadata"], item["notes"]) == (len(stored()), {}, [])
        result = compress(client, item).json()
        download = client.get(f"/api/results/{result['id']}/file")
        assert "a%20photo.lpz" in download.headers["content-disposition"]
        data = download.content
        assert result["bytes"] == len(data)
        assert result["bpp"] == len(data) * 8 / (30 * 45)
        assert result["setting"] == "quality 60"
        assert result["ms_ssim"] is None  # too small a picture
        expected = latentpress.load(WEIGHTS).decompress(data).permute(1, 2, 0).numpy()
        shown = client.get(f"/api/results/{result['id']}/parts/shown.png").content
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(shown))), expected)
        original = np.array(Image.open(io.BytesIO(stored())))
        error = np.square(original.astype(float) - expected).mean()
        assert result["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
        untouched = client.get(f"/api/items/{item['id']}/parts/shown.png").content
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(untouched))), original)

    def test_bytes(self, client, item):
        large = compress(client, item, quality=100).json()["bytes"]
        result = compress(client, item, quality=None, target_bytes=large - 20).json()
        assert large - 200 < result["bytes"] <= large - 20

    def test_peers_get_as_many_bytes(self, client, item):
        own = compress(client, item, quality=100).json()
        for peer in ("JPEG", "WebP", "AVIF"):
            result = client.post(f"/api/results/{own['id']}/peers/{peer}").json()
            assert result["label"] == peer
            content = client.get(f"/api/results/{result['id']}/file").content
            assert Image.open(io.BytesIO(content)).format == peer.upper()
            assert len(content) == result["bytes"]

    def test_metadata_only_if_asked_for(self, client):
        exif = Image.Exif()
        exif[271] = "a camera"
        content = stored(exif=exif)
        item = client.post("/api/items?name=x.png", content=content).json()
        assert list(item["metadata"]) == ["exif"]
        sizes = []
        for keep in (False, True):
            result = compress(client, item, keep_metadata=keep).json()
            data = client.get(f"/api/results/{result['id']}/file").content
            assert ("exif" in latentpress.codecs.read_metadata(data)) == keep
            sizes.append(result["bytes"])
        assert sizes[1] > sizes[0] + item["metadata"]["exif"]

    def test_notes(self, client):
        content = stored(kind="PNG")
        layers = Image.open(io.BytesIO(content)).convert("RGBA")
        layers.putalpha(100)
        buffer = io.BytesIO()
        layers.save(buffer, "PNG")
        item = client.post("/api/items", content=buffer.getvalue()).json()
        assert "on white" in item["notes"][0]


class TestRefusals:
    def test_no_picture(self, client):
        answer = client.post("/api/items", content=b"no picture")
        assert (answer.status_code, answer.json()["error"]) == (
            422,
            "not a picture in a format that can be read",
        )

    def test_too_many_pixels(self, client):
        answer = client.post("/api/items", content=stored(101, 100))
        assert answer.status_code == 422
        assert "more than 10000 pixels" in answer.json()["error"]

    def test_too_many_bytes(self, client, monkeypatch):
        monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 100)
        assert client.post("/api/items", content=bytes(101)).status_code == 413

    @pytest.mark.parametrize(
        ("rate", "sentence"),
        [
            ({"quality": 101}, "quality must be within"),
            ({"quality": None, "target_bytes": 3}, "cannot be met"),
            ({"codec": "/etc/passwd"}, "unknown codec"),
            ({"codec": "../../x.safetensors"}, "unknown codec"),
            ({"target_bytes": 99}, "give one of"),
        ],
    )
    def test_rates(self, client, item, rate, sentence):
        answer = compress(client, item, **rate)
        assert answer.status_code == 422
        assert sentence in answer.json()["error"]

    @pytest.mark.parametrize("body", [b"", b"[]", b"3", b'{"a": 1}', b'{"codec": "image", "__class__": 1}'])
    def test_no_rate(self, client, item, body):
        assert client.post(f"/api/items/{item['id']}/results", content=body).status_code == 400

    def test_what_is_not_there(self, client, item):
        own = compress(client, item).json()
        for path in (
            "/api/items/x/parts/shown.png",
            "/api/results/x/file",
            "/page/../server.py",
            "/server.py",
        ):
            assert client.get(path).status_code == 404
        assert client.post("/api/items/x/results", content='{"codec": "image"}').status_code == 404
        assert client.post(f"/api/results/{own['id']}/peers/PNG").status_code == 404

    def test_another_name_for_this_host(self, bench):
        stranger = TestClient(make_app(bench), "http://evil.example", headers=PAGE)
        assert stranger.get("/").status_code == 400

    def test_another_page(self, bench):
        stranger = TestClient(make_app(bench), HOME, headers={"origin": "http://evil.example"})
        answer = stranger.post("/api/items", content=stored())
        assert answer.status_code == 403
        asked = stranger.options("/api/items", headers={"access-control-request-method": "POST"})
        assert "access-control-allow-origin" not in asked.headers

    def test_headers(self, client):
        for path in ("/", "/page.js", "/api/offer", "/nowhere"):
            headers = client.get(path).headers
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"

    def test_a_fault_shows_no_traceback(self, client, item, monkeypatch):
        def fault(*_: object) -> None:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(Bench, "compress", fault)
        answer = compress(client, item)
        assert answer.status_code == 500
        assert answer.json() == {"error": "a fault of the program: ZeroDivisionError"}


class TestBench:
    def test_old_requests_give_way(self, bench):
        item = bench.add("x.png", stored())
        old = bench.compress(item.id, Rate(WEIGHTS, 10))
        bench.compress(item.id, Rate(WEIGHTS, 90))
        with pytest.raises(Superseded):
            bench.at_equal_bytes(old.id, "AVIF")

    def test_little_is_kept(self, bench, monkeypatch):
        first = bench.add("first.png", stored())
        for _ in range(bench_module.KEPT_ITEMS):
            bench.add("next.png", stored(4, 4))
        with pytest.raises(KeyError):
            bench.item(first.id)

    def test_what_is_used_stays(self, bench):
        first = bench.add("first.png", stored())
        for _ in range(2 * bench_module.KEPT_ITEMS):
            bench.add("next.png", stored(4, 4))
            bench.item(first.id)


class TestServer:
    def test_loopback_only(self, bench):
        with ViewServer(bench) as running:
            assert running.url.startswith("http://127.0.0.1:")
            assert running._socket.getsockname()[0] == "127.0.0.1"
            with urllib.request.urlopen(running.url) as answer:
                assert b"<title>latentpress</title>" in answer.read()

    def test_a_port_in_use_is_one_sentence(self, capsys):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            assert cli.main(["view", "--no-browser", "--port", port]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"port {port}" in err
        assert "--port" in err

    def test_the_verb(self, monkeypatch, capsys):
        opened = []
        monkeypatch.setattr("webbrowser.open", opened.append)

        def interrupted(self: ViewServer) -> None:
            with urllib.request.urlopen(self.url) as answer:
                assert answer.status == 200
            raise KeyboardInterrupt

        monkeypatch.setattr(ViewServer, "wait", interrupted)
        assert cli.main(["view", "--port", "0", "--codec", WEIGHTS]) == 0
        assert len(opened) == 1
        assert capsys.readouterr().out.startswith(opened[0])
