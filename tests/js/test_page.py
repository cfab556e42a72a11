"""The page of `igpt-run web` in Chromium, from a picture to its completions and what is saved of them."""

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from js.browser import EXAMPLES, NEEDS_BROWSER, PICTURE, SAMPLES, Page
from PIL import Image

from igpt_runtime import GenerationOptions, Session, generate_all, tokens_of
from igpt_runtime.pictures.palette import tokens_to_image

# A GPU that the processor computes.
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
SEEDS = [*range(17), 2**32, 2**53 + 1, 2**64 - 1]

pytestmark = NEEDS_BROWSER


def primer_of(session: Session, picture: Path) -> np.ndarray:
    return tokens_of(session, Image.open(picture).convert("RGB"))


def levels(session: Session, tokens: Any) -> np.ndarray:
    return np.asarray(tokens_to_image(np.asarray(tokens), session.manifest.image_format.clusters, 16, 16))


def test_same_tokens_as_igpt_run(page: Page, session: Session) -> None:
    """For 20 seeds, in WebAssembly with threads, as the model recommends it."""
    assert page.js("return crossOriginIsolated")
    page["file"].send_keys(str(PICTURE))
    page.wait_for_class("seven")
    primer = primer_of(session, PICTURE)
    for i, seed in enumerate(SEEDS):
        n, keep = (2, 1, 4)[i % 3], (8, 12, 0)[i % 3]
        page.fill(n=n, seed=seed)
        page.keep(keep)
        page.complete()
        tokens = generate_all(session, primer[: 16 * keep], GenerationOptions(n=n, seed=seed))
        assert page.tokens() == tokens.tolist()
    for i, row in enumerate(tokens):
        np.testing.assert_array_equal(page.pixels(f"#list li:nth-child({i + 1}) canvas"), levels(session, row))


def test_controls_start_from_what_the_model_recommends(page: Page, session: Session) -> None:
    """A control that is emptied leaves the choice to the model; 1, 0 and 1 draw from its own distribution."""
    advised = session.manifest.sampling
    shown = [page[name].get_property("value") for name in ("temperature", "topK", "topP")]
    assert shown == [str(advised.temperature), str(advised.top_k), str(advised.top_p)] == ["0.8", "0", "0.95"]
    page.keep(0)
    for values, options in (
        (("", "", ""), GenerationOptions(2, 7)),
        ((1, 0, 1), GenerationOptions(2, 7, 1.0, 0, 1.0)),
        ((1.3, 9, ""), GenerationOptions(2, 7, 1.3, 9)),
    ):
        page.fill(n=2, seed=7, **dict(zip(("temperature", "topK", "topP"), values, strict=True)))
        page.complete()
        assert page.tokens() == generate_all(session, np.empty(0, np.int64), options).tolist()


def test_the_shelf(page: Page, session: Session) -> None:
    """The canvas shows a sample as the model sees it; drawing on it makes it another picture."""
    assert page.js("return [...document.querySelectorAll('#shelf button')].map((b) => b.title)") == [*SAMPLES]
    for name in ("seven", "two"):
        page.pick(name)
        assert page.picked() == [name] and not page["hint"].is_displayed()
        picture = Image.open(EXAMPLES / f"{name}.png").convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(page.pixels(), levels(session, tokens_of(session, picture)))
    assert "sample=two" in page.address("sample=two")
    page.drag((0.1, 0.1), (0.2, 0.1))
    page.wait(lambda: page.picked() == [] and "sample" not in page.driver.current_url)
    page["undo"].click()
    assert page.picked() == ["two"]
    page["undo"].click()
    assert page.picked() == ["seven"]


def test_drawing(page: Page, session: Session) -> None:
    """Pixels of the palette where the pen was, on a ground of its own; what is drawn is what is completed."""
    palette = levels(session, range(256)).reshape(-1, 3)
    white = int(np.argmin(((palette.astype(int) - 255) ** 2 * (3, 6, 1)).sum(1)))
    assert (page.pixels() == palette[white]).all() and page["hint"].is_displayed()

    def chosen(popover: str, place: int) -> np.ndarray:
        page[popover.removesuffix("-colours")].click()
        swatch = page.driver.find_element("css selector", f"#{popover} input:nth-of-type({place})")
        token = int(swatch.get_attribute("value"))
        swatch.click()
        page.wait(lambda: not page[popover].is_displayed())
        return palette[token]

    ink = chosen("pen-colours", 12)
    page.driver.find_element("css selector", "#widths [value='0']").click()
    page.drag((0.5 / 16, 0.5 / 16), (15.5 / 16, 0.5 / 16))
    first = page.pixels()
    assert (first[0] == ink).all() and (first[1:] == palette[white]).all()
    ground = chosen("ground-colours", 3)
    page.driver.find_element("css selector", "#widths [value='2']").click()
    page.drag((7.5 / 16, 7.5 / 16))
    second = page.pixels()
    painted = (second == ink).all(-1)
    assert painted[0].all() and painted[6:9, 6:9].all() and painted.sum() == 16 + 9
    assert (second[~painted] == ground).all()
    page["eraser"].click()
    page.drag((7.5 / 16, 7.5 / 16))
    assert (page.pixels()[1:] == ground).all()
    page["undo"].click()
    np.testing.assert_array_equal(page.pixels(), second)
    page.fill(n=1, seed=5)
    page.keep(9)
    page.complete()
    tokens = tokens_of(session, Image.fromarray(second))
    assert page.tokens() == generate_all(session, tokens[: 16 * 9], GenerationOptions(n=1, seed=5)).tolist()
    page["clear"].click()
    assert (page.pixels() == ground).all() and page["hint"].is_displayed()
    page["undo"].click()
    np.testing.assert_array_equal(page.pixels(), second)
    page.js("document.querySelector('#pen-colours [type=color]').value = '#ff0000'")
    page.js("document.querySelector('#pen-colours [type=color]').dispatchEvent(new Event('input'))")
    page.drag((3.5 / 16, 12.5 / 16))
    nearest = palette[np.argmin(((palette.astype(int) - (255, 0, 0)) ** 2 * (3, 6, 1)).sum(1))]
    assert (page.pixels()[12, 3] == nearest).all()


def test_keyboard_and_stop(page: Page) -> None:
    """Everything by keys: drawing, undoing, the line, and drawing that is stopped and begun again."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    blank = page.pixels()
    page["pad"].send_keys(Keys.SHIFT, Keys.ARROW_DOWN * 5)
    assert (page.pixels() != blank).any(-1).sum() == 2 * 7 and page["cursor"].is_displayed()
    assert "Space draws" in page["pad-help"].text
    page["pen"].click()  # which is where it was, although the help goes
    page.wait(lambda: page["pen-colours"].is_displayed())
    for key in (Keys.ENTER, Keys.SPACE):
        page["pen-colours"].find_element("css selector", "input:checked").send_keys(Keys.ARROW_RIGHT)
        page.driver.switch_to.active_element.send_keys(key)
        page.wait(lambda: not page["pen-colours"].is_displayed())
        time.sleep(0.1)
        assert not page["pen-colours"].is_displayed() and page.js("return document.activeElement.id") == "pen"
        page["pen"].send_keys(key)
        page.wait(lambda: page["pen-colours"].is_displayed())
    page["pen-colours"].find_element("css selector", "input:checked").send_keys(Keys.ESCAPE)
    page.wait(lambda: not page["pen-colours"].is_displayed())
    page["pad"].send_keys(Keys.NULL, Keys.ARROW_LEFT * 3, Keys.SPACE)
    drawn = page.pixels()
    page["pad"].send_keys(Keys.DELETE)
    np.testing.assert_array_equal(page.pixels(), blank)
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    np.testing.assert_array_equal(page.pixels(), drawn)
    page.fill(n=16)
    page.keep(0)
    page["complete"].send_keys(Keys.ENTER)
    page.wait(lambda: page.js("return document.getElementById('progress').value") > 0)
    assert page.js("return document.activeElement.id") == "stop"
    page["stop"].send_keys(Keys.ENTER)
    page.wait_for("Stopped")
    assert page.js("return document.activeElement.id") == "complete"
    assert len(page.driver.find_elements("css selector", "#list canvas[data-tokens]")) == 0
    page.fill(n=1)
    page.keep(15)
    page["complete"].send_keys(Keys.ENTER)
    page.wait_for("Done")


def test_the_line(page: Page) -> None:
    """Dragged by the mouse and by touch, moved by keys; it never draws, and a pen never moves it."""
    from selenium.webdriver.common.keys import Keys

    handle = page["keep"]
    assert handle.aria_role == "slider" and page.kept() == 8
    assert [handle.get_attribute(f"aria-value{end}") for end in ("min", "max")] == ["0", "15"]
    assert handle.get_attribute("aria-valuetext") == "8 of 16 rows are kept"
    row = page["pad"].rect["height"] / handle.rect["height"] / 16  # in handles
    before = page.pixels()
    page.drag((0.5, 0.5), (0.5, 0.5 - 3 * row), of="keep")
    assert page.kept() == 5
    page.drag((0.5, 0.5), (0.5, 0.5 + 12 * row), of="keep")
    assert page.kept() == 15
    page.drag((0.5, 2.2 / 16), of="rail")
    assert page.kept() == 2
    for keys, rows in (
        (Keys.ARROW_DOWN, 3), (Keys.ARROW_RIGHT, 4), (Keys.ARROW_UP, 3), (Keys.ARROW_LEFT, 2), (Keys.PAGE_DOWN, 6),
        (Keys.PAGE_UP, 2), (Keys.END, 15), (Keys.ARROW_DOWN, 15), (Keys.HOME, 0), (Keys.ARROW_UP, 0),
    ):  # fmt: skip
        handle.send_keys(keys)
        assert page.kept() == rows
    box = page.js("return arguments[0].getBoundingClientRect()", handle)
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for kind, move in (("touchStart", 0), ("touchMove", 2), ("touchMove", 4 * row * handle.rect["height"])):
        points = [{"x": centre[0], "y": centre[1] + move}]
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait(lambda: page.kept() == 4)
    np.testing.assert_array_equal(page.pixels(), before)
    page.drag((0.9, 4 / 16), (0.9, 0.8))
    assert page.kept() == 4 and (page.pixels() != before).any()


def test_results_of_another_picture_are_marked(page: Page) -> None:
    """When the picture or the line changes; those of another model are cleared. A run that is overtaken ends."""
    page.pick("seven")
    page.fill(n=2)

    def is_stale() -> bool:
        return "stale" in page["results"].get_attribute("class")

    for change in (
        lambda: page.keep(9),
        lambda: page.drag((0.5, 0.5), (0.6, 0.6)),
        lambda: page["undo"].click(),
        lambda: page.pick("two"),
        lambda: page["clear"].click(),
    ):
        page.complete()
        assert not is_stale() and "rows kept, seed 0, temperature 0.8, top-p 0.95" in page["note"].text
        change()
        page.wait(is_stale)
        assert "has changed since" in page["note"].text
    page.fill(n=16)
    page.keep(0)
    page["complete"].click()
    page.wait(lambda: page.js("return document.getElementById('progress').value") > 0)
    page.drag((0.5, 0.5), (0.6, 0.6))
    page.wait_for("Stopped")
    assert is_stale()
    before = page.pixels()
    page.driver.find_element("css selector", "#model option:nth-child(3)").click()
    page.wait_for("Ready")
    assert not page["results"].is_displayed() and page["steps"].is_displayed()
    assert not page["shelf"].is_displayed()  # it has no samples
    np.testing.assert_array_equal(page.pixels(), before)


def test_what_the_model_sees_in_it(page: Page) -> None:
    """Only where there is a picture; with a scale in nats."""
    assert not page["insight"].is_displayed() and not page["unlike"].is_displayed()
    page.pick("seven")
    assert page["insight"].is_displayed() and "nats per pixel" in page["nats"].text
    marks = [mark.text for mark in page.driver.find_elements("css selector", "#scale-marks span")]
    assert marks == ["0", "3", "6 nats"] and "at most 5." in page["surprise"].get_attribute("aria-label")
    assert page.pixels("#surprise").shape == (16, 16, 3)
    page["clear"].click()
    page.wait(lambda: not page["insight"].is_displayed())


def test_a_notice_of_rows_that_are_unlike_the_model_s_own(page: Page) -> None:
    """Below the canvas, for the rows that are kept."""
    page.pick("seven")
    for rows, shown in ((8, False), (3, True), (5, False), (1, True), (0, False)):
        page.keep(rows)
        assert page["unlike"].is_displayed() == shown
        assert page["unlike"].text.startswith("unlike what this model was trained on: ") == shown
    page.keep(3)
    page["clear"].click()
    page.wait(lambda: not page["unlike"].is_displayed())


def test_a_link_restores_it_all(page: Page, address: str) -> None:
    """But for pictures of the visitor's own, which are never in it."""
    page.pick("five")
    page.fill(n=3, seed=SEEDS[-1], temperature=0.9, topK=40, topP="")
    page.keep(6)
    page.complete()
    tokens = page.tokens()
    origin = address.rstrip("/")
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page["copy"].click()
    page.wait_for("The link is copied.")
    link = page.driver.current_url
    assert link == f"{address}#model=digits&sample=five&keep=6&n=3&seed={SEEDS[-1]}&temperature=0.9&topK=40"
    page.driver.get("about:blank")
    page.driver.get(link)
    page.wait_for("Ready")
    assert page.picked() == ["five"] and page.kept() == 6 and page["seed"].get_property("value") == str(SEEDS[-1])
    page.complete()
    assert page.tokens() == tokens
    page["again"].click()
    page.wait_for("Done")
    assert page.tokens() != tokens and f"seed {page['seed'].get_property('value')}," in page["note"].text
    page.fill(seed=SEEDS[-1])
    page["file"].send_keys(str(PICTURE))  # which is not in the link
    page.wait_for_class("seven")
    page["copy"].click()
    page.wait_for("The link is copied. Your own picture is not in it.")
    assert page.driver.current_url == f"{link.replace('sample=five&', '')}&topP=0.95"  # what the model recommends
    page.driver.get(f"{address}#model=digits~3&keep=3&n=2&seed=1&temperature=1&topK=5&topP=0.5")  # in the same page
    page.wait(lambda: page["model"].get_property("value") == "digits~3")
    page.wait_for("Ready")
    values = [page[name].get_property("value") for name in ("n", "seed", "temperature", "topK", "topP")]
    assert page.kept() == 3 and values == ["2", "1", "1", "5", "0.5"] and page["hint"].is_displayed()


def test_saving(page: Page, session: Session) -> None:
    """Pillow reads the very pixels, in PNG and in GIF, which rests at its end."""
    page.pick("seven")
    page.fill(n=3, seed=4)
    page.complete()
    pictures = levels(session, page.tokens()[1])
    large, small, film = page.driver.find_elements("css selector", "#list li:nth-child(2) button")
    for button, scale, name in ((large, 32, "digits-seven-seed4-2.png"), (small, 1, "digits-seven-seed4-2-small.png")):
        file = page.saved(button)
        assert file.name == name
        pixels = np.asarray(Image.open(file).convert("RGB"))
        np.testing.assert_array_equal(pixels, pictures.repeat(scale, 0).repeat(scale, 1))
    file = page.saved(film)
    assert file.name == "digits-seven-seed4-2.gif"
    with Image.open(file) as gif:
        assert gif.size == (512, 512) and gif.info["loop"] == 0
        np.testing.assert_array_equal(np.asarray(gif.convert("RGB"))[:256], pictures[:8].repeat(32, 0).repeat(32, 1))
        count = gif.n_frames  # type: ignore[attr-defined]
        assert 60 <= count <= 70
        gif.seek(count - 1)
        assert gif.info["duration"] == 2500
        np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), pictures.repeat(32, 0).repeat(32, 1))
    with Image.open(page.saved(page["gif"])) as gif:
        gif.seek(gif.n_frames - 1)  # type: ignore[attr-defined]
        sheet = np.asarray(gif.convert("RGB"))
        assert gif.size == (33 * 16, 33 * 16)
        for i, tokens in enumerate(page.tokens()):
            top, left = i // 2 * 17 * 16, i % 2 * 17 * 16
            picture = levels(session, tokens).repeat(16, 0).repeat(16, 1)
            np.testing.assert_array_equal(sheet[top : top + 256, left : left + 256], picture)


def test_dropped_and_pasted(page: Page) -> None:
    content = base64.b64encode(PICTURE.read_bytes()).decode()
    script = """const [kind, content] = arguments;
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(content ?? ''), (c) => c.charCodeAt(0));
        if (content) transfer.items.add(new File([bytes], 'a.png', { type: 'image/png' }));
        else transfer.setData('text/plain', 'words');
        dispatchEvent(kind === 'drop' ? new DragEvent('drop', { dataTransfer: transfer, cancelable: true })
          : new ClipboardEvent('paste', { clipboardData: transfer }));"""
    for kind, words in (("drop", "What was dropped is not a file."), ("paste", "The clipboard holds no picture.")):
        page.js(script, kind, None)
        assert page["file-error"].text.startswith(words)
        page.js(script, kind, content)
        page.wait_for_class("seven")
        assert page["file-error"].text == ""
        page["clear"].click()


def test_loading_shows_how_far_it_is(page: Page) -> None:
    page.js("""window.told = [];
        new MutationObserver(() => told.push(document.getElementById('loading-text').textContent))
          .observe(document.getElementById('loading-text'), { childList: true });""")
    page.driver.find_element("css selector", "#model option:nth-child(3)").click()
    page.wait_for("Ready")
    assert "Loading weights.safetensors: 100 %" in page.js("return told")
    assert not page["loading"].is_displayed()


def test_no_gpu_is_not_offered(page: Page) -> None:
    page.driver.find_element("css selector", "#options summary").click()
    assert page["n"].is_displayed() and not page["provider"].is_displayed()


@pytest.mark.parametrize("page", [SOFTWARE_GPU], indirect=True)
def test_webgpu_draws_the_same(page: Page, session: Session) -> None:
    """Whose buffers hold the cache from step to step, twice, with and without a primer's."""
    page.driver.find_element("css selector", "#options summary").click()
    page.driver.find_element("css selector", "#provider option[value=webgpu]").click()
    page.wait_for("Ready, with WebGPU")
    page["file"].send_keys(str(PICTURE))
    page.wait_for_class("seven")
    primer = primer_of(session, PICTURE)
    for n, keep, seed in ((2, 15, 1), (1, 0, 3)):
        page.fill(n=n, seed=seed)
        page.keep(keep)
        page.complete(300)
        assert page.tokens() == generate_all(session, primer[: 16 * keep], GenerationOptions(n=n, seed=seed)).tolist()
