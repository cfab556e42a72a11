"""Surprise maps: a picture as the model sees it, what each pixel of it cost, and a scale with numbers."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.contact_sheet import auto_scale, upscale
from igpt_runtime.pictures.folder import valid_text

__all__ = ["heat_colours", "scale_ticks", "surprise_map"]

# from none to the maximum; each is lighter than the one before, so that no hue need be told apart
_STOPS = np.array([(0, 0, 8), (92, 20, 110), (229, 92, 48), (252, 255, 164)], np.float64)
_BACKGROUND = (30, 30, 33)
_TEXT = (205, 205, 210)
_FONT = 15  # pixels high
_MARGIN = 16
_GAP = 24  # between the parts
_SPACE = 12  # between the parts and the text above and below them
_BAR = 20  # width of the scale's colours
_TICK = 5  # length of a tick, and the space behind it
_LEAST = 1e-6  # nats: the smallest maximum a scale has

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Part:
    """An image and the lines below it."""

    image: Image.Image
    caption: tuple[str, ...]
    overhang: int = 0  # pixels that the image reaches above and below the others


def surprise_map(
    seen: Image.Image,
    nats: npt.NDArray[np.float32],
    *,
    clusters: int | None = None,
    name: str | None = None,
    maximum: float | None = None,
) -> Image.Image:
    """Draw a picture beside the nats of its pixels as a heat map, with captions and a scale of nats per pixel.

    seen: the picture as the model sees it; nats: [height, width] of it; clusters: how many colours the model has, for
    the caption; name: a title; maximum: nats at the top of the scale, where costlier pixels have the colour of the top.
    By default it is the costliest pixel, so each map uses the whole scale; give all maps the same one to compare them.

    Raises:
        OptionError: the sizes differ, a value is not finite, or the maximum is not positive.
    """
    if nats.shape != (seen.height, seen.width):
        raise OptionError(f"nats of shape {nats.shape} do not fit a picture of {seen.width}x{seen.height} pixels")
    if not np.isfinite(nats).all():
        raise OptionError("nats of some pixels are not finite, so they have no colour; check the model")
    if maximum is None:
        maximum = max(float(nats.max()), _LEAST)
    if not (maximum > 0 and math.isfinite(maximum)):
        raise OptionError(f"the maximum of a scale is {maximum}; give a positive number of nats")
    font: Font = ImageFont.load_default(size=_FONT)
    scale = 2 * auto_scale(max(seen.size))
    mean = float(nats.mean(dtype=np.float64))
    picture = upscale(seen.convert("RGB"), scale)
    heat = upscale(Image.fromarray(heat_colours(nats, maximum)), scale)
    colours = "the model's colours" if clusters is None else f"the model's {clusters:,} colours"
    bar = _scale_bar(heat.height, maximum, font, above=bool(nats.max() > maximum))
    parts = [
        _Part(picture, (f"the picture in {colours}", f"{seen.width}x{seen.height} pixels, each a token")),
        _Part(
            heat,
            ("surprise of each pixel", f"mean {mean:.3f} nats per token", f"{mean / math.log(2):.3f} bits per pixel"),
        ),
        _Part(bar, ("nats per pixel",), overhang=(bar.height - heat.height) // 2),
    ]
    return _laid_out(parts, name, font)


def heat_colours(nats: npt.NDArray[np.floating], maximum: float) -> npt.NDArray[np.uint8]:
    """Colours of nats [...], uint8 [..., 3]: black at none, purple, orange, and light yellow from `maximum` on."""
    place = np.asarray(nats, np.float64) / maximum * (len(_STOPS) - 1)
    channels = [np.interp(place, np.arange(len(_STOPS)), channel) for channel in _STOPS.T]
    colours: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def scale_ticks(maximum: float, room: int) -> list[float]:
    """The numbers of a scale from 0 to `maximum`, both among them.

    room: how many numbers fit loosely, at least 1. Those in between are multiples of 1, 2 or 5 times a power of ten,
    at least `maximum / room` apart, and half of that from the maximum.
    """
    closest = maximum / room
    power = 10.0 ** math.floor(math.log10(closest))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= closest)
    ticks = [i * step for i in range(math.ceil(maximum / step)) if maximum - i * step >= closest / 2]
    return [*ticks, maximum]


def _scale_bar(height: int, maximum: float, font: Font, *, above: bool) -> Image.Image:
    """The colours from none, at the bottom, to the maximum, with numbers; above: the top stands for more, too.

    Half a line is added above and below the colours, because numbers are centred at their ticks.
    """
    line = _line_height(font)
    ticks = scale_ticks(maximum, max(height // (2 * line), 1))
    texts = [f"{tick:.3g}" for tick in ticks]
    texts[-1] += " or more" if above else ""
    overhang = line // 2 + 1
    width = _BAR + 2 * _TICK + max(_width(text, font) for text in texts)
    image = Image.new("RGB", (width, height + 2 * overhang), _BACKGROUND)
    levels = np.linspace(maximum, 0, height)
    colours = Image.fromarray(np.repeat(heat_colours(levels, maximum)[:, None], _BAR, axis=1))
    image.paste(colours, (0, overhang))
    draw = ImageDraw.Draw(image)
    for tick, text in zip(ticks, texts, strict=True):
        y = overhang + round((height - 1) * (1 - tick / maximum))
        draw.line([(_BAR, y), (_BAR + _TICK - 1, y)], fill=_TEXT)
        draw.text((_BAR + 2 * _TICK, y), text, fill=_TEXT, font=font, anchor="lm")
    return image


def _laid_out(parts: list[_Part], name: str | None, font: Font) -> Image.Image:
    """The parts side by side, each over its caption, a title above them."""
    line = _line_height(font)
    widths = [max(part.image.width, *(_width(text, font) for text in part.caption)) for part in parts]
    total = sum(widths) + _GAP * (len(parts) - 1) + 2 * _MARGIN
    top = _MARGIN + (0 if name is None else line + _SPACE)
    below = top + parts[0].image.height + _SPACE
    lines = max(len(part.caption) for part in parts)
    sheet = Image.new("RGB", (total, below + lines * line + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if name is not None:
        draw.text((_MARGIN, _MARGIN), _shortened(name, total - 2 * _MARGIN, font), fill=_TEXT, font=font)
    left = _MARGIN
    for part, width in zip(parts, widths, strict=True):
        sheet.paste(part.image, (left, top - part.overhang))
        for i, text in enumerate(part.caption):
            draw.text((left, below + i * line), text, fill=_TEXT, font=font)
        left += width + _GAP
    return sheet


def _shortened(name: str, width: int, font: Font) -> str:
    """A name in one line, its middle left out where it is wider than that many pixels."""
    text = " ".join(valid_text(name).split())
    if _width(text, font) <= width:
        return text

    def short(kept: int) -> str:
        return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"

    fitting = bisect_right(range(len(text)), width, key=lambda kept: _width(short(kept), font))
    return short(max(fitting - 1, 0))


def _width(text: str, font: Font) -> int:
    return math.ceil(font.getlength(text))


def _line_height(font: Font) -> int:
    return math.ceil(sum(font.getmetrics())) if isinstance(font, ImageFont.FreeTypeFont) else 12
