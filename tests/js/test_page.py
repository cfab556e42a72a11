"""The page of `igpt-run web` in Chromium, from a picture to its completions."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from igpt_runtime import GenerationOptions, demo_bundle_path, generate_all, open_session, tokens_of
from igpt_runtime.web.site import ONNXRUNTIME_WEB

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "models" / "demo" / "examples" / "seven.png"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900")
# A GPU that the processor computes.
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
SEEDS = [*range(17), 2**32, 2**53 + 1, 2**64 - 1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER and (ROOT / "runtime" / "js" / "node_modules").is_dir()),
        reason="needs Chromium with its driver, and `make js` before",
    ),
]


@contextmanager
def serving(*arguments: object) -> Iterator[str]:
    """The address of the page that a command serves."""
    command = [sys.executable, "-m", "igpt_runtime", "web", "--no-open", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page with the demo model, a damaged copy of it, and one in the cache of the Hugging Face Hub."""
    directory = tmp_path_factory.mktemp("bundles")
    damaged = copytree(demo_bundle_path(), directory / "damaged")
    weights = bytearray((damaged / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (damaged / "weights.safetensors").write_bytes(weights)
    blobs, snapshot = (
        directory / "models--acme--demo" / "blobs",
        directory / "models--acme--demo" / "snapshots" / "0123",
    )
    copytree(demo_bundle_path(), blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    with serving("--model", demo_bundle_path(), "--model", damaged, "--model", snapshot) as address:
        yield address


class Page:
    """The page in a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def __getitem__(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, (self["status"].text, self["error"].text)
            time.sleep(0.05)
        return value

    def wait_for(self, *words: str) -> None:
        self.wait(lambda: self["status"].text.startswith(words))

    def fill(self, **values: object) -> None:
        for name, value in values.items():
            self.driver.execute_script(
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
                self[name],
                str(value),
            )

    def tokens(self) -> list[list[int]]:
        canvases = self.driver.find_elements("css selector", "#completions canvas")
        return [[int(t) for t in canvas.get_attribute("data-tokens").split()] for canvas in canvases]

    def classes(self) -> list[str]:
        names: list[str] = self.driver.execute_script(  # at once, as they are replaced while one looks
            "return [...document.querySelectorAll('#classes label span:first-child')].map((e) => e.textContent)"
        )
        return names


@contextmanager
def browsing(address: str, *flags: str) -> Iterator[Page]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(address)
        yield Page(driver)
    finally:
        driver.quit()


@pytest.fixture
def page(request: pytest.FixtureRequest, address: str) -> Iterator[Page]:
    """Indirectly parametrized by further flags of Chromium."""
    with browsing(address, *getattr(request, "param", ("--disable-gpu",))) as result:
        result.wait_for("Ready")
        yield result
        assert [entry for entry in result.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_same_tokens_as_igpt_run(page: Page) -> None:
    """For 20 seeds, in WebAssembly with threads, as the model recommends it."""
    assert page.driver.execute_script("return crossOriginIsolated")
    page["file"].send_keys(str(PICTURE))
    page.wait(lambda: page.classes()[:1] == ["seven"])
    session = open_session(device="cpu")
    primer = tokens_of(session, Image.open(PICTURE).convert("RGB"))
    for i, seed in enumerate(SEEDS):
        n, keep = (2, 1, 4)[i % 3], (8, 12, 0)[i % 3]
        page.fill(n=n, keep=keep, seed=seed)
        page["draw"].click()
        page.wait(lambda: page["stop"].get_attribute("disabled"))
        page.wait_for("Done")
        assert page.tokens() == generate_all(session, primer[: 16 * keep], GenerationOptions(n=n, seed=seed)).tolist()
    assert "nats per pixel" in page["nats"].text
    assert page.driver.find_element("css selector", "#completions a").get_attribute("href").startswith("data:image/png")


def test_controls_start_from_what_the_model_recommends(page: Page) -> None:
    """A control that is emptied leaves the choice to the model; 1, 0 and 1 draw from its own distribution."""
    session = open_session(device="cpu")
    advised = session.manifest.sampling
    shown = [page[name].get_property("value") for name in ("temperature", "topK", "topP")]
    assert shown == [str(advised.temperature), str(advised.top_k), str(advised.top_p)] == ["0.8", "0", "0.95"]
    for values, options in (
        (("", "", ""), GenerationOptions(2, 7)),
        ((1, 0, 1), GenerationOptions(2, 7, 1.0, 0, 1.0)),
        ((1.3, 9, ""), GenerationOptions(2, 7, 1.3, 9)),
    ):
        page.fill(n=2, keep=0, seed=7, **dict(zip(("temperature", "topK", "topP"), values, strict=True)))
        page["draw"].click()
        page.wait(lambda: page["stop"].get_attribute("disabled"))
        page.wait_for("Done")
        assert page.tokens() == generate_all(session, np.empty(0, np.int64), options).tolist()


def test_keyboard_and_stop(page: Page) -> None:
    """A digit drawn with the keyboard; drawing can be stopped at once, and begun again."""
    from selenium.webdriver.common.keys import Keys

    blank = page["nats"].text
    page["pad"].send_keys(Keys.SHIFT, Keys.ARROW_DOWN * 5)
    page.wait(lambda: page["nats"].text != blank)
    page.fill(n=16, keep=0)
    page["draw"].click()
    page.wait(lambda: page["progress"].get_property("value") > 0)
    page["stop"].click()
    page.wait_for("Stopped")
    assert page["progress"].get_property("value") < 1
    page.fill(n=1, keep=15)
    page["draw"].click()
    page.wait_for("Done")


def test_errors_in_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_text("not a picture")
    page["file"].send_keys(str(tmp_path / "picture.png"))
    assert "cannot be decoded" in page.wait(lambda: page["error"].text)
    page.fill(n=99)
    page["draw"].click()
    page.wait(lambda: page["error"].text == "choose 1 to 16 completions")
    page.driver.find_element("css selector", "#model option:nth-child(2)").click()
    page.wait(lambda: "does not match its sha256" in page["error"].text)
    page.driver.find_element("css selector", "#model option:nth-child(3)").click()
    page.wait_for("Ready")
    page.wait(lambda: page["error"].text == "")


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    """It is not the bundle that is blamed."""
    dist = tmp_path / "dist"
    dist.mkdir()
    for name in ONNXRUNTIME_WEB:
        shutil.copyfile(ROOT / "runtime" / "js" / "node_modules" / "onnxruntime-web" / "dist" / name, dist / name)
    with serving("--onnxruntime-web", dist) as address:
        os.truncate(dist / ONNXRUNTIME_WEB[2], 1000)  # its WebAssembly
        with browsing(address, "--disable-gpu") as page:
            said = page.wait(lambda: page["error"].text)
            assert said.startswith("onnxruntime-web cannot be loaded (") and "\n" not in said
        (dist / ONNXRUNTIME_WEB[0]).unlink()
        with browsing(address, "--disable-gpu") as page:
            said = page.wait(lambda: page["error"].text)
            assert said.startswith("onnxruntime-web cannot be loaded (") and said.endswith("still running?")


def test_no_gpu_is_not_offered(page: Page) -> None:
    assert not page["provider"].is_displayed()


@pytest.mark.parametrize("page", [SOFTWARE_GPU], indirect=True)
def test_webgpu_draws_the_same(page: Page) -> None:
    """Whose buffers hold the cache from step to step, twice, with and without a primer's."""
    page.driver.find_element("css selector", "#provider option[value=webgpu]").click()
    page.wait_for("Ready, WebGPU")
    page["file"].send_keys(str(PICTURE))
    page.wait(lambda: page.classes()[:1] == ["seven"])
    session = open_session(device="cpu")
    primer = tokens_of(session, Image.open(PICTURE).convert("RGB"))
    for n, keep, seed in ((2, 15, 1), (1, 0, 3)):
        page.fill(n=n, keep=keep, seed=seed)
        page["draw"].click()
        page.wait(lambda: page["stop"].get_attribute("disabled"), 300)
        page.wait_for("Done")
        assert page.tokens() == generate_all(session, primer[: 16 * keep], GenerationOptions(n=n, seed=seed)).tolist()


def test_narrow_screens(page: Page) -> None:
    page.driver.set_window_size(380, 800)
    assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
