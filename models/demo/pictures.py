"""The pages and example files that show what the model does."""

from collections.abc import Sequence
from pathlib import Path

import digits
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PIXEL = 6  # page pixels per picture pixel
_GAP = 12  # page pixels between pictures
_HEADER = 30  # page pixels above the first row
_FONT = 20  # page pixels of a header's letters
_MARGIN = 20
_WHITE, _GREY, _TEXT = (255, 255, 255), 205, (60, 60, 60)
_EXAMPLE_PIXELS = 128  # width and height of an example file
_CELL = digits.SIDE * _PIXEL + _GAP


def blank_lower_half(pixels: digits.Bytes) -> digits.Bytes:
    """Pictures [n, 16, 16, 3] with the lower eight rows grey."""
    given = pixels.copy()
    given[:, digits.SIDE // 2 :] = _GREY
    return given


def save_page(path: Path, rows: Sequence[digits.Bytes], headers: dict[int, str], gaps: frozenset[int]) -> None:
    """Write a page of pictures.

    rows: each uint8 [columns, 16, 16, 3]; headers: text above a column; gaps: columns that a wider gap precedes.
    """
    columns = [
        _MARGIN + column * _CELL + 2 * _GAP * sum(gap <= column for gap in gaps) for column in range(len(rows[0]))
    ]
    top = _MARGIN + (_HEADER if headers else 0)
    size = (columns[-1] + _CELL - _GAP + _MARGIN, top + len(rows) * _CELL - _GAP + _MARGIN)
    page = Image.new("RGB", size, _WHITE)
    draw = ImageDraw.Draw(page)
    for column, text in headers.items():
        draw.text((columns[column], _MARGIN), text, _TEXT, ImageFont.load_default(_FONT))
    for index, row in enumerate(rows):
        for x, picture in zip(columns, row, strict=True):
            page.paste(_enlarge(picture, digits.SIDE * _PIXEL), (x, top + index * _CELL))
    page.save(path, optimize=True)


def save_example(path: Path, picture: digits.Bytes) -> None:
    """Write one picture [16, 16, 3] enlarged to 128x128."""
    path.parent.mkdir(exist_ok=True)
    _enlarge(picture, _EXAMPLE_PIXELS).save(path, optimize=True)


def _enlarge(picture: digits.Bytes, side: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.NEAREST)
