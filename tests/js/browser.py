"""The page of `igpt-run web` in Chromium: how it is served, opened, looked at and used."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "models" / "digits" / "examples"
PICTURE = EXAMPLES / "seven.png"
SAMPLES = ("two", "three", "four", "five", "six", "seven")  # of the page's shelf
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900")

NEEDS_BROWSER = [
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


class Page:
    """The page in a browser."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def __getitem__(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (value := condition()):
            errors = self.js("return [...document.querySelectorAll('.error')].map((e) => e.textContent).join()")
            assert time.monotonic() < end, (self["status"].text, errors)
            time.sleep(0.05)
        return value

    def wait_for(self, *words: str, seconds: float = 60) -> None:
        self.wait(lambda: self["status"].text.startswith(words), seconds)

    def wait_for_class(self, name: str) -> None:
        self.wait(lambda: self.classes()[:1] == [name] and not self["insight"].get_attribute("aria-busy"))

    def fill(self, **values: object) -> None:
        for name, value in values.items():
            script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
            self.js(script, self[name], str(value))

    def keep(self, rows: int) -> None:
        """Moves the line with keys."""
        from selenium.webdriver.common.keys import Keys

        self["keep"].send_keys(Keys.HOME, Keys.ARROW_DOWN * rows)
        assert self.kept() == rows

    def kept(self) -> int:
        return int(self["keep"].get_attribute("aria-valuenow"))

    def complete(self, seconds: float = 60) -> None:
        self["complete"].click()
        self.wait_for("Done", seconds=seconds)

    def pick(self, name: str) -> None:
        self.driver.find_element("css selector", f"#shelf [aria-label={name}]").click()
        self.wait_for_class(name)

    def picked(self) -> list[str]:
        pressed = self.driver.find_elements("css selector", "#shelf [aria-pressed=true]")
        return [button.get_attribute("aria-label") for button in pressed]

    def drag(self, *path: tuple[float, float], of: str = "pad") -> None:
        """Presses the mouse at the first place, moves it to the others, in shares of an element."""
        from selenium.webdriver.common.action_chains import ActionChains

        width, height = (self[of].rect[side] for side in ("width", "height"))
        actions = ActionChains(self.driver, duration=20)
        for i, (x, y) in enumerate(path):
            actions.move_to_element_with_offset(self[of], round((x - 0.5) * width), round((y - 0.5) * height))
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()

    def pixels(self, selector: str = "#pad") -> np.ndarray:
        """RGB of a canvas, [height, width, 3]."""
        script = """const canvas = document.querySelector(arguments[0]);
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.height, canvas.width, [...data]];"""
        height, width, data = self.js(script, selector)
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def tokens(self) -> list[list[int]]:
        canvases = self.driver.find_elements("css selector", "#list canvas")
        return [[int(t) for t in canvas.get_attribute("data-tokens").split()] for canvas in canvases]

    def classes(self) -> list[str]:
        names: list[str] = self.js(  # at once, as they are replaced while one looks
            "return [...document.querySelectorAll('#classes li span:first-child')].map((e) => e.textContent)"
        )
        return names

    def address(self, *parts: str) -> str:
        """Once it has all parts."""
        return str(self.wait(lambda: (u := self.driver.current_url) and all(part in u for part in parts) and u))

    def saved(self, button: Any) -> Path:
        """The file that a click saves."""
        before = set(self.downloads.iterdir())
        button.click()
        finished = lambda: [f for f in set(self.downloads.iterdir()) - before if f.suffix in (".png", ".gif")]  # noqa: E731
        return Path(self.wait(finished)[0])

    def phone(self) -> None:
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@contextmanager
def browsing(address: str, downloads: Path, *flags: str) -> Iterator[Page]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        downloads.mkdir(exist_ok=True)
        behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        driver.get(address)
        yield Page(driver, downloads)
    finally:
        driver.quit()
