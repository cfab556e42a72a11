"""What the page of `igpt-run web` says of faults, and where."""

import os
import shutil
from pathlib import Path

from js.browser import NEEDS_BROWSER, ROOT, Page, browsing, serving

from igpt_runtime.web.site import ONNXRUNTIME_WEB

pytestmark = NEEDS_BROWSER


def test_links_that_cannot_be_followed(page: Page, address: str) -> None:
    page.driver.get(f"{address}#model=none&sample=eleven&n=99&keep=1e9&other=<script>")
    page.wait(lambda: "“none”, which is not served here" in page["model-error"].text)
    assert "no sample picture called “eleven”" in page["file-error"].text
    assert page["n"].get_attribute("aria-invalid") and page["n-error"].is_displayed() and page.kept() == 8


def test_errors_where_the_fault_is(page: Page, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_text("not a picture")
    page["file"].send_keys(str(tmp_path / "picture.png"))
    assert "cannot be decoded" in page.wait(lambda: page["file-error"].text)
    page.pick("seven")
    assert page["file-error"].text == ""
    page.driver.find_element("css selector", "#options summary").click()
    for name, value, words in (
        ("n", "99", "Choose a whole number from 1 to 16."),
        ("n", "", "Choose a whole number from 1 to 16."),
        ("seed", "-1", "Choose a whole number from 0 to 2⁶⁴ − 1."),
        ("seed", str(2**64), "Choose a whole number from 0 to 2⁶⁴ − 1."),
        ("temperature", "-0.1", "Choose a number of at least 0."),
        ("topK", "1.5", "Choose a whole number of at least 0."),
        ("topP", "1.01", "Choose a number above 0 and up to 1."),
    ):
        right = page[name].get_property("value")
        page.fill(**{name: value})
        assert page[f"{name}-error"].text == words and page[name].get_attribute("aria-invalid") == "true"
        assert page[name].get_attribute("aria-describedby") == f"{name}-error"
        page["complete"].click()
        assert page.js("return document.activeElement.id") == name and not page["results"].is_displayed()
        page.fill(**{name: right or 1})
        assert page[f"{name}-error"].text == "" and page[name].get_attribute("aria-invalid") is None
    page.driver.find_element("css selector", "#model option:nth-child(2)").click()
    page.wait(lambda: "does not match its sha256" in page["model-error"].text)
    assert page["retry"].is_displayed() and not page["complete"].is_enabled()
    page.driver.find_element("css selector", "#model option:nth-child(3)").click()
    page.wait_for("Ready")
    assert page["model-error"].text == "" and not page["retry"].is_displayed()


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    """It is not the bundle that is blamed."""
    dist = tmp_path / "dist"
    dist.mkdir()
    for name in ONNXRUNTIME_WEB:
        shutil.copyfile(ROOT / "runtime" / "js" / "node_modules" / "onnxruntime-web" / "dist" / name, dist / name)
    with serving("--onnxruntime-web", dist) as address:
        os.truncate(dist / ONNXRUNTIME_WEB[2], 1000)  # its WebAssembly
        with browsing(address, tmp_path / "downloads", "--disable-gpu") as page:
            said = page.wait(lambda: page["model-error"].text)
            assert said.startswith("onnxruntime-web cannot be loaded (") and "\n" not in said
        (dist / ONNXRUNTIME_WEB[0]).unlink()
        with browsing(address, tmp_path / "downloads", "--disable-gpu") as page:
            said = page.wait(lambda: page["model-error"].text)
            assert said.startswith("onnxruntime-web cannot be loaded (") and said.endswith("still running?")
            assert not page["model-label"].is_displayed()  # of one model there is no choice
