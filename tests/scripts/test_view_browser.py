"""The page of ``latentpress view`` in a real browser: drop, move the quality, compare, download, decode."""

import base64
import importlib.util
import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import latentpress
from latentpress.scripts.view import offer as offer_module
from latentpress.scripts.view.bench import Bench
from latentpress.scripts.view.server import ViewServer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PATIENCE_SECONDS = 120
# Without these, a browser looks for its maker's hosts, whether there is a network or not.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
)


def weights_module():
    path = Path(__file__).with_name("view_weights.py")
    spec = importlib.util.spec_from_file_location("view_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = weights_module()

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="no browser: needs chromium and chromedriver (Debian: chromium, chromium-driver)",
)


@pytest.fixture(scope="module")
def server() -> Iterator[ViewServer]:
    # For pictures this small threads mostly wait for each other, long so where the machine is busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ViewServer(Bench(weights=str(tiny.IMAGE))) as running:
        yield running
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    y, x = np.mgrid[0:170, 0:220]
    planes = [128 + 90 * np.sin(x / 17 + k) * np.cos(y / (11 + k)) + 20 * (x > y) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 4, (170, 220, 3))
    path = tmp_path_factory.mktemp("photos") / "hills & dales.png"
    Image.fromarray((np.stack(planes, -1) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads, tmp_path_factory) -> Iterator["Page"]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Page(driver)
    finally:
        driver.quit()


class Page:
    """What a user sees and does."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def until(self, truth):
        """What a function returns, once that is true."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := truth()):
            assert time.monotonic() < end, f"the page says: {self.message()}; log: {self.log()}"
            time.sleep(0.05)
        return found

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def log(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def message(self) -> str:
        return self.one("#message").text

    def settled(self) -> bool:
        return self.message() == "" and "…" not in str(self.rows())

    def rows(self) -> dict[str, list[str]]:
        cells = self.run(
            "return [...document.querySelectorAll('#figures tbody tr')].map(r => "
            "[...r.cells].map(c => c.textContent))"
        )
        return {name: rest for name, *rest in cells}

    def bytes_of(self, codec: str) -> int:
        return int(self.rows()[codec][0].replace(",", ""))

    def set(self, selector: str, value: object) -> None:
        """Moves a control as a hand does: its value, then the event."""
        self.run(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            self.one(selector),
            str(value),
        )

    def screenshot(self, name: str) -> None:
        if folder := os.environ.get("LATENTPRESS_SCREENSHOTS"):
            self.driver.save_screenshot(str(Path(folder) / name))


@pytest.fixture(scope="module")
def page(browser, server, photo) -> Page:
    """The page with a picture on it, compared with everything."""
    browser.driver.get(server.url)
    browser.until(lambda: browser.one("#codec").text)
    browser.screenshot("empty.png")
    browser.one("#file").send_keys(str(photo))
    browser.until(lambda: browser.rows() and browser.settled())
    return browser


def test_figures(page, photo):
    browser_rows = page.rows()
    assert list(browser_rows) == ["latentpress", "JPEG", "WebP", "AVIF"]
    own = page.bytes_of("latentpress")
    for codec, (size, bpp, psnr, ms_ssim) in browser_rows.items():
        assert float(bpp) == pytest.approx(page.bytes_of(codec) * 8 / (220 * 170), abs=0.001), size
        assert 5 < float(psnr) < 60
        assert 0 < float(ms_ssim) <= 1
    # The others may have more bytes only where even their worst quality does.
    assert page.bytes_of("WebP") <= own or page.bytes_of("WebP") < 1500
    assert page.one("#file-name").text == photo.name
    page.screenshot("compared.png")


def test_quality_moves_the_numbers(page):
    before = page.rows()["latentpress"]
    page.set("#quality", 95)
    page.until(lambda: page.rows()["latentpress"] != before and page.settled())
    after = page.rows()["latentpress"]
    assert page.one("#quality-number").get_property("value") == "95"
    assert float(after[2]) > float(before[2])
    assert int(after[0].replace(",", "")) > int(before[0].replace(",", ""))


def test_download_decodes_to_the_pixels_shown(page, downloads):
    link = page.one("#download")
    assert link.text == "Download hills & dales.lpz"
    link.click()
    path = downloads / "hills & dales.lpz"
    page.until(path.is_file)
    data = path.read_bytes()
    assert len(data) == page.bytes_of("latentpress")
    assert latentpress.inspect(data).parameters["quality"] == 95.0
    expected = latentpress.load(str(tiny.IMAGE)).decompress(data).permute(1, 2, 0).numpy()
    png = bytes(
        page.run(
            "return fetch(document.getElementById('right').src).then(r => r.arrayBuffer())"
            ".then(b => Array.from(new Uint8Array(b)))"
        )
    )
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png))), expected)
    # And what the browser has painted: 95 % are the same where it scales by whole numbers.
    natural = page.run(
        "const i = document.getElementById('right'), c = document.createElement('canvas');"
        "c.width = i.naturalWidth; c.height = i.naturalHeight; const g = c.getContext('2d');"
        "g.drawImage(i, 0, 0); return Array.from(g.getImageData(0, 0, c.width, c.height).data)"
    )
    painted = np.array(natural, np.uint8).reshape(170, 220, 4)[..., :3]
    np.testing.assert_array_equal(painted, expected)


def test_boundary_moves(page):
    from selenium.webdriver import ActionChains

    divider = page.one("#divider")
    middle = divider.location["x"]
    ActionChains(page.driver).drag_and_drop_by_offset(divider, 100, 0).perform()
    assert divider.location["x"] == pytest.approx(middle + 100, abs=3)
    before = float(divider.get_attribute("aria-valuenow"))
    divider.send_keys("\ue012" * 3)  # the arrow to the left
    assert float(divider.get_attribute("aria-valuenow")) == before - 3


def test_another_row_is_shown_and_can_be_downloaded(page, downloads):
    page.one("tr[data-codec=AVIF]").click()
    page.until(lambda: page.one("#right-tag").text.startswith("AVIF"))
    assert page.one("tr[data-codec=AVIF]").get_attribute("aria-selected") == "true"
    page.one("#download").click()
    path = downloads / "hills & dales.avif"
    page.until(path.is_file)
    assert len(path.read_bytes()) == page.bytes_of("AVIF")
    page.screenshot("avif.png")


def test_a_number_of_bytes(page):
    page.one("input[name=by][value=bytes]").click()
    page.until(page.settled)
    target = page.bytes_of("latentpress") - 300
    page.set("#bytes", target)
    page.until(lambda: page.settled() and page.bytes_of("latentpress") <= target)
    assert page.bytes_of("latentpress") > target - 300
    page.set("#bytes", 3)
    page.until(lambda: "cannot be met" in page.message())
    assert "wrong" in page.one("#message").get_attribute("class")
    page.screenshot("refused.png")


def test_what_is_no_picture(page, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    page.one("#file").send_keys(str(tmp_path / "text.png"))
    page.until(lambda: "not a picture" in page.message())


def test_nothing_went_wrong_and_nothing_was_fetched_from_elsewhere(page, server):
    refused = ("422", "Unprocessable")
    assert [line for line in page.log() if not any(word in line for word in refused)] == []
    names = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert all(name.startswith((server.url, "blob:")) for name in names)


def test_pictures_for_the_documentation(tmp_path):
    """As `documentation_figures --page` takes them."""
    from latentpress.scripts.documentation_figures import take_page_pictures

    (path,) = take_page_pictures(tmp_path, ["photograph"], str(tiny.IMAGE))
    picture = Image.open(path)
    assert picture.size[0] == 1400
    # The photograph is on it: many colours where the stage is.
    assert len(picture.crop((200, 150, 700, 650)).getcolors(500 * 500)) > 10_000


# ---- fields


@pytest.fixture(scope="module")
def flow_page(browser, tmp_path_factory) -> Iterator[tuple[Page, Path, Path]]:
    """The page with a field on it, its file, and the weights it was compressed with."""
    folder = tmp_path_factory.mktemp("fields")
    weights, file = folder / "field_tiny.safetensors", folder / "flow & eddy.npy"
    module = tiny.field_module()
    weights.write_bytes(module.make_weights().to_bytes())
    file.write_bytes(tiny.stored_field(module.waves(2, 20, 24, 28)))
    with ViewServer(Bench(weights=str(weights))) as running:
        browser.driver.get(running.url)
        browser.until(lambda: browser.one("#codec").text)
        browser.one("#file").send_keys(str(file))
        browser.until(lambda: browser.rows() and browser.settled())
        yield browser, file, weights


def drawn(page: Page, canvas: str) -> np.ndarray:
    """The pixels of a canvas, RGBA."""
    width, height, values = page.run(
        "const c = document.getElementById(arguments[0]); const g = c.getContext('2d');"
        "return [c.width, c.height, Array.from(g.getImageData(0, 0, c.width, c.height).data)]",
        canvas,
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def test_field_is_shown_as_slices_and_spectra(flow_page):
    page, file, _ = flow_page
    assert not page.one("#picture").is_displayed()
    values = np.load(file)
    assert "3 × (20 × 24 × 28), float32" in page.one("#details").text
    assert drawn(page, "field-original").shape == (24, 28, 4)
    page.one("[data-axis='2']").click()
    page.until(lambda: drawn(page, "field-original").shape == (20, 24, 4))
    page.until(lambda: drawn(page, "field-decoded").shape == (20, 24, 4))
    assert len({tuple(colour) for colour in drawn(page, "field-error").reshape(-1, 4)}) > 10
    curves = page.run("return [...document.querySelectorAll('#spectrum polyline')].map(p => p.points.length)")
    assert len(curves) == 3
    assert all(points >= max(values.shape) // 2 - 1 for points in curves)
    page.screenshot("field.png")


def test_a_tighter_bound_changes_the_numbers_and_is_kept(flow_page):
    page, _, _ = flow_page
    before = page.rows()["latentpress"]
    page.set("#bound-number", "0.0001")
    page.until(lambda: page.rows()["latentpress"] != before and page.settled())
    size, ratio, psnr, largest = page.rows()["latentpress"]
    assert int(size.replace(",", "")) > int(before[0].replace(",", ""))
    assert float(psnr) > float(before[2])
    assert float(largest) <= 1e-4 < float(before[3])
    assert float(ratio) < float(before[1])


def test_field_download_decodes_to_the_slices_shown(flow_page, downloads):
    page, file, weights = flow_page
    page.one("#download").click()
    path = downloads / "flow & eddy.lpz"
    page.until(path.is_file)
    data = path.read_bytes()
    assert len(data) == page.bytes_of("latentpress")
    decoded = latentpress.load(str(weights)).decompress(data).numpy()
    values = np.load(file)
    assert np.abs(decoded - values).max() <= 1e-4 * (values.max() - values.min())
    page.set("#component", 2)
    page.set("#slice", 7)
    page.run("document.getElementById('component').dispatchEvent(new Event('change'))")
    colours = np.array(page.run("return fetch('api/colours').then(r => r.json())")["sequential"])
    low, high = values[2].min(), values[2].max()
    levels = np.rint((decoded[2, :, :, 7] - low) * (255 / (high - low))).clip(0, 255).astype(int)
    # JavaScript rounds halves up and in double precision, so a level may differ by one here and there.
    page.until(lambda: np.abs(drawn(page, "field-decoded")[..., :3].astype(int) - colours[levels]).max() <= 6)


def test_field_ratio_and_decoder(flow_page):
    page, _, _ = flow_page
    page.one("input[name=by][value=ratio]").click()
    page.until(lambda: "ratio 64" in page.one("#details").text and page.settled())
    page.one("#realistic").click()
    page.until(lambda: "realistic decoder" in page.one("#details").text and page.settled())
    page.screenshot("field-ratio.png")


def test_what_cannot_be_had_says_why(browser, monkeypatch):
    monkeypatch.setattr(offer_module, "shipped_weights", dict)
    with ViewServer(Bench(weights=str(tiny.SHAPE))) as running:
        browser.driver.get(running.url)
        browser.until(lambda: browser.one("#codec").text)
        reasons = browser.one("#withheld").text
        assert "image-max – no weights of it ship yet" in reasons
        greyed = browser.run(
            "return [...document.querySelectorAll('#codec option:disabled')].map(o => o.text)"
        )
        assert "image-max" in greyed


# ---- shapes


@pytest.fixture(scope="module")
def ball_page(browser, tmp_path_factory) -> Iterator[Page]:
    """The page with a mesh on it."""
    file = tmp_path_factory.mktemp("meshes") / "ball.glb"
    file.write_bytes(tiny.stored_mesh(".glb"))
    with ViewServer(Bench(weights=str(tiny.SHAPE))) as running:
        browser.driver.get(running.url)
        browser.until(lambda: browser.one("#codec").text)
        browser.one("#file").send_keys(str(file))
        browser.until(lambda: browser.rows() and browser.settled())
        browser.until(lambda: browser.one("#shape").get_attribute("data-drawn"))
        yield browser


def seen(page: Page, canvas: str) -> np.ndarray:
    """What is drawn on a canvas of WebGL, RGBA."""
    url = page.run(
        "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() =>"
        "done(document.getElementById(arguments[0]).toDataURL()))))",
        canvas,
    )
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))


def test_both_meshes_are_drawn(ball_page):
    assert not ball_page.one("#no-webgl").is_displayed()
    for canvas in ("shape-original", "shape-decoded"):
        pixels = seen(ball_page, canvas)
        covered = (pixels[..., 3] > 0).mean()
        assert 0.1 < covered < 0.9, canvas
        # Shaded: many colours, not a blot of one.
        assert len(np.unique(pixels[pixels[..., 3] > 0], axis=0)) > 50
    ball_page.screenshot("shape.png")


def test_meshes_turn_together(ball_page):
    from selenium.webdriver import ActionChains

    before = {canvas: seen(ball_page, canvas) for canvas in ("shape-original", "shape-decoded")}
    ActionChains(ball_page.driver).drag_and_drop_by_offset(ball_page.one("#shape-original"), 80, 30).perform()
    assert ball_page.one("#shape").get_attribute("data-turn") is not None
    turned = {canvas: seen(ball_page, canvas) for canvas in before}
    for canvas, pixels in before.items():
        assert (pixels != turned[canvas]).any(-1).mean() > 0.05, canvas
    ball_page.one("#colours").click()
    grey = seen(ball_page, "shape-original").astype(int)
    inside = grey[grey[..., 3] == 255]
    assert np.abs(inside[:, 0] - inside[:, 2]).max() < 40
    ball_page.one("#edges").click()
    assert (seen(ball_page, "shape-original") != grey).any(-1).mean() > 0.02
    ball_page.one("#front").click()
    ball_page.one("#edges").click()
    ball_page.one("#colours").click()
    np.testing.assert_array_equal(seen(ball_page, "shape-original"), before["shape-original"])


def test_mesh_quality_and_download(ball_page, downloads):
    before = ball_page.rows()["latentpress"]
    ball_page.set("#quality", 95)
    ball_page.until(lambda: ball_page.rows()["latentpress"] != before and ball_page.settled())
    ball_page.one("#download").click()
    path = downloads / "ball.lpz"
    ball_page.until(path.is_file)
    data = path.read_bytes()
    assert len(data) == ball_page.bytes_of("latentpress")
    mesh = latentpress.load(str(tiny.SHAPE)).decompress(data)
    assert ball_page.rows()["latentpress"][2:] == [f"{len(mesh.vertices):,}", f"{len(mesh.faces):,}"]
    size = ball_page.run(
        "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('mesh.bin'))"
        ".map(e => e.decodedBodySize)"
    )
    assert 12 + 16 * len(mesh.vertices) + 12 * len(mesh.faces) in size


def test_still_nothing_went_wrong(ball_page):
    # That tests look at canvases is not the page's fault, and a peer without a file so small is an answer.
    expected = ("willReadFrequently", "/peers/")
    assert [line for line in ball_page.log() if not any(word in line for word in expected)] == []
