"""Puts emoji and handwritten digits over grounds of any colour: what the demo model sees in training."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.digits import digits, inks
from models.emoji.emoji import SIDE, STORED, Bytes, Emoji, Ints

Floats = npt.NDArray[np.float32]

WHITE = 255
_AS_GIVEN = 0.5  # share of training pictures that fill the canvas upright, as most files do
_SCALES = (0.72, 1.12)  # of an emoji relative to the canvas, else
_SHIFT = 0.12  # of the canvas, at most
_HUES = (0.3, 0.35)  # share of pictures whose hue turns, and by how many radians at most
_UPRIGHT = ("Symbols", "Flags")  # categories that are never mirrored, and keep their hues


def on_white(emoji: Emoji, rows: Ints) -> Bytes:
    """Emoji as a file of theirs is read, uint8 [n, 32, 32, 3]."""
    return np.stack([_over(Image.fromarray(emoji.rgba[row], "RGBa"), np.full(3, WHITE, np.float32)) for row in rows])


def vary(emoji: Emoji, rows: Ints, rng: np.random.Generator) -> Bytes:
    """Emoji of other sizes, places, hues and grounds, some mirrored; uint8 [n, 32, 32, 3]."""
    drawn = []
    for row, ground in zip(rows, inks.grounds(len(rows), rng), strict=True):
        rgba = emoji.rgba[row]
        free = emoji.categories[row] not in _UPRIGHT
        if free and rng.random() < 0.5:
            rgba = rgba[:, ::-1]
        if free and rng.random() < _HUES[0]:
            rgba = _turn_hue(rgba, rng.uniform(-_HUES[1], _HUES[1]))
        image = Image.fromarray(np.ascontiguousarray(rgba), "RGBa")
        if rng.random() >= _AS_GIVEN:
            side = round(STORED * rng.uniform(*_SCALES))
            x, y = (round((STORED - side) / 2 + STORED * rng.uniform(-_SHIFT, _SHIFT)) for _ in range(2))
            canvas = Image.new("RGBa", (STORED, STORED))
            canvas.paste(image.resize((side, side), Image.Resampling.BICUBIC), (x, y))
            image = canvas
        drawn.append(_over(image, ground))
    return np.stack(drawn)


def write_digits(scans: digits.Floats, rng: np.random.Generator) -> Bytes:
    """Handwritten digits in any ink on any ground, uint8 [n, 32, 32, 3]."""
    seed = int(rng.integers(1 << 31))
    coverage = digits.render(scans, digits.Augmentation(), seed, SIDE)
    return inks.paint(coverage, inks.random_inks(len(scans), rng))


def _over(image: Image.Image, ground: Floats) -> Bytes:
    """Lay a picture of 64x64, colours times alpha, over a colour, and make it as large as the model's."""
    pixels = np.asarray(image, np.float32)
    alpha = pixels[..., 3:] / 255
    laid = np.rint(pixels[..., :3] + ground * (1 - alpha)).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(laid).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _turn_hue(rgba: Bytes, angle: float) -> Bytes:
    """Turn colours about the grey axis, which keeps greys and works with colours times alpha."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3)
    matrix = cosine * np.eye(3) + (1 - cosine) / 3 + sine * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    colours = rgba[..., :3] @ matrix.T
    return np.concatenate([np.minimum(colours.clip(0), rgba[..., 3:]).round(), rgba[..., 3:]], -1).astype(np.uint8)
