"""Surprise maps: where things stand, which colour a number of nats has, and that the scale says so."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.surprise import heat_colours, scale_ticks, surprise_map

BLACK, LIGHT = (0, 0, 8), (252, 255, 164)
SIDE, LEFT, TOP = 256, 296, 16  # of the heat map: its size, and where it stands if there is no title
BAR = LEFT + SIDE + 24  # where the scale's colours begin
BACKGROUND, TEXT = (30, 30, 33), (205, 205, 210)


def seen(width: int = 8, height: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def costs(width: int = 8, height: int = 8) -> np.ndarray:
    """Nats below 7.25, which is the last pixel's."""
    nats = np.random.default_rng(1).uniform(0.1, 7, (height, width)).astype(np.float32)
    nats[0, 0], nats[-1, -1] = 0, 7.25
    return nats


def places(image: Image.Image, text: str) -> list[tuple[int, int]]:
    """Where a text stands in an image, as left and top of its ink."""
    font = ImageFont.load_default(size=15)
    page = Image.new("RGB", (700, 40), BACKGROUND)
    ImageDraw.Draw(page).text((10, 10), text, fill=TEXT, font=font)
    ink = np.argwhere((np.asarray(page) != BACKGROUND).any(-1))
    (top, left), (bottom, right) = ink.min(0), ink.max(0) + 1
    stamp, pixels = np.asarray(page)[top:bottom, left:right], np.asarray(image)
    height, width = (whole - part + 1 for whole, part in zip(pixels.shape[:2], stamp.shape[:2], strict=True))
    tops, lefts = (found.ravel() for found in np.mgrid[:height, :width])
    brightest_first = np.argsort(-stamp.sum(-1, dtype=int), axis=None)
    for y, x in np.transpose(np.unravel_index(brightest_first, stamp.shape[:2])):  # after a few, hardly a place is left
        same = (pixels[tops + y, lefts + x] == stamp[y, x]).all(-1)
        tops, lefts = tops[same], lefts[same]
    return [(int(x), int(y)) for y, x in zip(tops, lefts, strict=True)]


def test_a_pixel_has_the_colour_of_its_nats() -> None:
    nats = costs()
    image = surprise_map(seen(), nats)
    heat = np.asarray(image)[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    squares = heat.reshape(8, 32, 8, 32, 3)
    assert (squares == squares[:, :1, :, :1]).all()
    assert (squares[:, 0, :, 0] == heat_colours(nats, 7.25)).all()
    assert tuple(squares[0, 0, 0, 0]) == BLACK and tuple(squares[-1, 0, -1, 0]) == LIGHT
    picture = np.asarray(image)[TOP : TOP + SIDE, 16 : 16 + SIDE]
    assert (picture[::32, ::32] == np.asarray(seen())).all()


def test_colours_of_known_nats() -> None:
    found = heat_colours(np.array([-0.5, 0, 1, 1.5, 2, 3, 9]), 3)
    assert found.tolist() == [
        [0, 0, 8], [0, 0, 8], [92, 20, 110], [160, 56, 79], [229, 92, 48], [252, 255, 164], [252, 255, 164],
    ]  # fmt: skip


def test_more_nats_are_lighter_without_any_hue() -> None:
    """So that whoever tells no red from green reads the map all the same."""
    linear = (heat_colours(np.linspace(0, 1, 100), 1) / 255) ** 2.2
    assert (np.diff(linear @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_the_scale_goes_from_none_to_the_maximum() -> None:
    image = surprise_map(seen(), costs())
    bar = np.asarray(image)[TOP : TOP + SIDE, BAR : BAR + 20]
    assert (bar == heat_colours(np.linspace(7.25, 0, SIDE), 7.25)[:, None]).all()
    line = np.asarray(image)[:, BAR + 20]
    ticks = np.flatnonzero((line == TEXT).all(-1)) - TOP
    assert ticks.tolist() == [round(255 * (1 - tick / 7.25)) for tick in (7.25, 6, 4, 2, 0)]


def test_numbers_stand_at_their_ticks() -> None:
    image = surprise_map(seen(), costs())
    for text, tick in (("7.25", 7.25), ("6", 6.0), ("0", 0.0)):
        found = [y for x, y in places(image, text) if x > BAR + 20]
        expected = TOP + 255 * (1 - tick / 7.25)
        assert [y for y in found if abs(y + 5 - expected) < 4], (text, found, expected)


def test_captions() -> None:
    nats = costs()
    image = surprise_map(seen(), nats, clusters=512)
    mean = float(nats.mean(dtype=np.float64))
    expected = {
        "the picture in the model's 512 colours": 16,
        "8x8 pixels, each a token": 16,
        "surprise of each pixel": LEFT,
        f"mean {mean:.3f} nats per token": LEFT,
        f"{mean / math.log(2):.3f} bits per pixel": LEFT,
        "nats per pixel": BAR,
    }
    for text, left in expected.items():
        (found,) = places(image, text)
        assert 0 <= found[0] - left <= 2 and found[1] > TOP + SIDE, text
    assert not places(surprise_map(seen(), nats), "the picture in the model's 512 colours")
    assert places(surprise_map(seen(), nats), "the picture in the model's colours")


def test_a_title_stands_above_and_moves_the_rest_down() -> None:
    plain, titled = surprise_map(seen(), costs()), surprise_map(seen(), costs(), name="seven.png")
    down = titled.height - plain.height
    assert titled.width == plain.width and down > 15
    ((left, top),) = places(titled, "seven.png")
    assert 16 <= left < 19 and top < 16 + down
    first, second = np.asarray(plain), np.asarray(titled)
    assert (second[TOP + down :] == first[TOP:]).all()


@pytest.mark.parametrize(
    "name", ["a very long name " * 20 + ".png", "W" * 300, "two\nlines.png", "no\udcfftext.png", "", "x" * 5000]
)
def test_any_name_fits(name: str) -> None:
    plain, image = surprise_map(seen(), costs()), surprise_map(seen(), costs(), name=name)
    assert image.width == plain.width and image.height == surprise_map(seen(), costs(), name="x").height
    assert (np.asarray(image)[:, -10:] == BACKGROUND).all()


def test_the_end_of_a_long_name_stays() -> None:
    image = surprise_map(seen(), costs(), name="a" * 200 + "-17.png")
    assert places(image, "-17.png") and places(image, "...")


@pytest.mark.parametrize("width, height, scale", [(16, 16, 16), (32, 32, 8), (64, 64, 4), (32, 8, 8), (8, 32, 8)])
def test_sizes(width: int, height: int, scale: int) -> None:
    image = surprise_map(seen(width, height), costs(width, height), clusters=512)
    pixels = np.asarray(image)
    assert (
        pixels[TOP : TOP + height * scale : scale, 16 : 16 + width * scale : scale] == np.asarray(seen(width, height))
    ).all()
    assert image.height > TOP + height * scale + 3 * 15 and image.width > 2 * width * scale
    (unit,) = places(image, "nats per pixel")
    assert unit[1] > TOP + height * scale


def test_maps_of_one_maximum_can_be_compared() -> None:
    nats = costs()
    one, other = (np.asarray(surprise_map(seen(), part, maximum=14.5)) for part in (nats, nats * 2))
    place = (TOP + SIDE - 1, LEFT + SIDE - 1)
    assert tuple(one[place]) == tuple(heat_colours(np.float32(7.25), 14.5)) and tuple(other[place]) == LIGHT
    bars = [image[:, BAR : BAR + 60][: TOP + SIDE] for image in (one, other)]
    assert (bars[0] == bars[1]).all()


def test_what_is_above_the_maximum_is_told() -> None:
    assert places(surprise_map(seen(), costs(), maximum=5), "5 or more")
    assert not places(surprise_map(seen(), costs(), maximum=8), "8 or more")


@pytest.mark.parametrize("maximum", [1e-6, 0.013, 0.66, 1, 4.48, 5.0, 7.25, 9.99, 10, 14.2, 99])
@pytest.mark.parametrize("room", [1, 2, 3, 6, 12])
def test_ticks(maximum: float, room: int) -> None:
    ticks = scale_ticks(maximum, room)
    assert ticks[0] == 0 and ticks[-1] == maximum and len(ticks) <= room + 1
    gaps = np.diff(ticks) / maximum
    assert (gaps[:-1] > 0.999 / room).all() and gaps[-1] > 0.499 / room
    assert room < 6 or len(ticks) >= 3


def test_nothing_surprises() -> None:
    pixels = np.asarray(surprise_map(seen(), np.zeros((8, 8), np.float32)))
    assert (pixels[TOP : TOP + SIDE, LEFT : LEFT + SIDE] == BLACK).all()


@pytest.mark.parametrize(
    ("nats", "maximum", "expected"),
    [
        (np.zeros((8, 4), np.float32), None, r"nats of shape \(8, 4\) do not fit a picture of 8x8"),
        (np.full((8, 8), np.nan, np.float32), None, "not finite"),
        (np.full((8, 8), np.inf, np.float32), 3.0, "not finite"),
        (np.ones((8, 8), np.float32), 0.0, "maximum of a scale is 0.0; give a positive number"),
        (np.ones((8, 8), np.float32), math.nan, "maximum of a scale is nan"),
    ],
)
def test_bad_input(nats: np.ndarray, maximum: float | None, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        surprise_map(seen(), nats, maximum=maximum)
