"""The pages and example files that show what a model does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_PICTURE = 96  # width and height of a picture on a page, pixels
_GAP = 12  # page pixels between pictures
_HEADER = 30  # page pixels above the first row
_FONT = 20  # page pixels of a header's letters
_MARGIN = 20
_WHITE, _GREY, _TEXT = (255, 255, 255), 205, (60, 60, 60)
_FRAME = (225, 225, 225)  # round each picture, since its ground may be the page's white
_CELL = _PICTURE + _GAP

Bytes = npt.NDArray[np.uint8]


def blank_lower_half(pixels: Bytes) -> Bytes:
    """Pictures [n, height, width, 3] with the lower half of their rows grey."""
    given = pixels.copy()
    given[:, pixels.shape[1] // 2 :] = _GREY
    return given


def save_page(path: Path, rows: Sequence[Bytes], headers: dict[int, str], gaps: frozenset[int]) -> None:
    """Write a page of pictures.

    rows: each uint8 [columns, height, width, 3]; headers: text above a column; gaps: columns that a wider gap precedes.
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
            y = top + index * _CELL
            page.paste(_enlarged(picture, _PICTURE), (x, y))
            draw.rectangle((x - 1, y - 1, x + _PICTURE, y + _PICTURE), outline=_FRAME)
    page.save(path, optimize=True)


def save_example(path: Path, picture: Bytes, side: int = 128) -> None:
    """Write one picture [height, width, 3] enlarged to side x side."""
    path.parent.mkdir(exist_ok=True)
    _enlarged(picture, side).save(path, optimize=True)


def _enlarged(picture: Bytes, side: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.NEAREST)
