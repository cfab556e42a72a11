"""The page of `igpt-run web` on screens of several sizes, light and dark."""

import io
import time

import pytest
from js.browser import NEEDS_BROWSER, Page
from PIL import Image

pytestmark = NEEDS_BROWSER


# The size of what can be touched; what lies over something else counts as that.
TARGETS = """return [...document.querySelectorAll('button, select, summary, input, .button, [role=slider], #pad')]
  .filter((e) => e.checkVisibility() && !e.closest('.button > *'))
  .map((e) => [e.id || e.textContent || e.ariaLabel, e.getBoundingClientRect()])
  .filter(([, box]) => box.width < 44 || box.height < 44)
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""


def test_a_phone(page: Page) -> None:
    """The canvas and the button are on its first screen, all can be touched, and nothing scrolls sideways."""
    page.phone()

    def check() -> None:
        assert page.js("return document.documentElement.scrollWidth") <= 390
        assert page.js(TARGETS) == []

    page.driver.refresh()
    page.wait_for("Ready")
    check()
    for name in ("pad", "complete", "keep", "shelf"):
        box = page.js("return document.getElementById(arguments[0]).getBoundingClientRect()", name)
        assert box["top"] >= 0 and box["bottom"] <= 844 and box["left"] >= 0 and box["right"] <= 390, name
    page.pick("seven")
    page.complete()
    page.driver.find_element("css selector", "#options summary").click()
    check()
    page["pen"].click()
    page.wait(lambda: page["pen-colours"].is_displayed())
    check()


# Of every text that is shown: its contrast to what is behind it, where that is below what WCAG asks for.
CONTRAST = """
const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const levels = (colours) => {
  context.clearRect(0, 0, 1, 1);
  for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const luminance = (colour) => colour
  .map((level) => level / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('.unseen, #board')
    && !e.closest(':disabled, [aria-disabled=true]')
    && [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((e) => {
  const behind = [];
  for (let at = e; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
  const [text, ground] = [levels([...behind, getComputedStyle(e).color]), levels(behind)].map(luminance);
  const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  return [e.textContent.trim().slice(0, 30), ratio];
}).filter(([, ratio]) => ratio < 4.5);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours(page: Page, scheme: str) -> None:
    """The page is as bright or as dark as the system wants it, and every text stands out from its ground."""
    page.scheme(scheme)
    page.pick("seven")
    page.fill(n=2)
    page.complete()
    page.keep(3)  # which marks the results, and is unlike the model's own
    assert page["unlike"].is_displayed()
    page.driver.find_element("css selector", "#options summary").click()
    page.fill(n=99)
    page.js("document.activeElement.blur()")
    time.sleep(0.3)  # of a transition
    assert page.js(CONTRAST) == []
    with Image.open(io.BytesIO(page.driver.get_screenshot_as_png())) as picture:
        ground = picture.convert("L").getpixel((3, 3))
    assert isinstance(ground, int) and (ground > 220 if scheme == "light" else ground < 40)


def test_narrow_screens(page: Page) -> None:
    page.driver.set_window_size(380, 800)
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
