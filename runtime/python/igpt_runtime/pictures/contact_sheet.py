"""Pictures for people: contact sheets, pictures half drawn, animations of the drawing, and saving them."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from igpt_runtime.errors import OptionError, OutputError
from igpt_runtime.files import atomic_write
from igpt_runtime.pictures.palette import checked_tokens, cluster_colours

__all__ = [
    "auto_scale",
    "contact_sheet",
    "drawing_gif",
    "encode_image",
    "partial_image",
    "picture_suffix",
    "resized",
    "save_image",
    "upscale",
]

FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}
_CELL = 128  # pixels a cell of a sheet should have
_BACKGROUND = (30, 30, 33)
_TEXT = (205, 205, 210)
_MISSING = np.array([(92, 92, 96), (122, 122, 126)], dtype=np.uint8)  # two greys of a checkerboard
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
}
# every pixel keeps its own colour
_ENCODER: dict[str, dict[str, int]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


def auto_scale(width: int) -> int:
    """Return the whole factor that brings `width` pixels nearest to 128."""
    return max(1, round(_CELL / width))


def upscale(image: Image.Image, scale: int) -> Image.Image:
    """Enlarge a picture `scale` times, every pixel becoming a square.

    Raises:
        OptionError: `scale` is less than 1.
    """
    if scale < 1:
        raise OptionError(f"scale {scale} is too small; use 1 or more")
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def resized(image: Image.Image, size: int, resample: str = "nearest") -> Image.Image:
    """Give the longer side of a picture `size` pixels; resample: nearest, bilinear, bicubic or lanczos.

    Raises:
        OptionError: the size is less than 1, or there is no such filter.
    """
    if size < 1:
        raise OptionError(f"size {size} is too small; use 1 or more")
    if resample not in FILTERS:
        raise OptionError(f"resample {resample!r} is no filter; use one of {', '.join(FILTERS)}")
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    return image.resize((width, height), FILTERS[resample])


def partial_image(
    tokens: npt.NDArray[np.integer] | Sequence[int], clusters: npt.NDArray[np.float32], height: int, width: int
) -> Image.Image:
    """Paint the first tokens of a picture; pixels not drawn yet show a grey checkerboard.

    `tokens` are 0 to `height * width` of them in raster order; `clusters` is float32 [n, 3] in [-1, 1].

    Raises:
        OptionError: there are more tokens than pixels, or a token is no colour.
    """
    ids = checked_tokens(tokens, len(clusters))
    if ids.size > height * width:
        raise OptionError(f"{ids.size} tokens do not fit a picture of {width}x{height}; give at most {height * width}")
    rows, columns = np.indices((height, width))
    pixels = _MISSING[(rows + columns) % 2].reshape(-1, 3)
    pixels[: ids.size] = cluster_colours(clusters)[ids]
    return Image.fromarray(pixels.reshape(height, width, 3))


def contact_sheet(
    original: Image.Image | None,
    kept: Image.Image | None,
    completions: Sequence[Image.Image],
    *,
    scale: int | None = None,
) -> Image.Image:
    """Lay out pictures of one size with captions: the original, what was given of it, and the completions 1..n.

    Up to three completions stand in a row with the first two; more make a grid to the right of them. Without
    `original` and `kept` the sheet is the grid alone. `scale` enlarges each picture; by default to about 128 pixels.

    Raises:
        OptionError: there is nothing to show, the pictures differ in size, or `scale` is less than 1.
    """
    given = [(name, image) for name, image in (("original", original), ("given", kept)) if image is not None]
    cells = given + [(str(i), image) for i, image in enumerate(completions, 1)]
    if not cells:
        raise OptionError("a contact sheet needs a picture; give at least one")
    size = cells[0][1].size
    for name, image in cells:
        if image.size != size:
            raise OptionError(f"picture {name!r} is {image.width}x{image.height}, not {size[0]}x{size[1]} as the first")
    scale = auto_scale(max(size)) if scale is None else scale
    pictures = [upscale(image.convert("RGB"), scale) for _, image in cells]
    width, height = pictures[0].size
    font = ImageFont.load_default(size=max(11, min(24, width // 9)))
    # a cell is never narrower than its caption
    width = max(width, *(math.ceil(font.getlength(name)) for name, _ in cells))
    gap = max(6, width // 12)
    caption = math.ceil(sum(font.getmetrics())) if isinstance(font, ImageFont.FreeTypeFont) else 12
    places = _places(len(given), len(completions))
    # between the given pictures and the completions the gap is three times as wide
    split = 2 * gap if given and completions else 0
    lefts = [gap + x * (width + gap) + (0 if i < len(given) else split) for i, (x, _) in enumerate(places)]
    tops = [gap + y * (height + caption + gap) for _, y in places]
    sheet = Image.new("RGB", (max(lefts) + width + gap, max(tops) + height + caption + gap // 2), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for left, top, (name, _), picture in zip(lefts, tops, cells, pictures, strict=True):
        sheet.paste(picture, (left + (width - picture.width) // 2, top))
        draw.text((left + width / 2, top + height + caption / 2), name, fill=_TEXT, font=font, anchor="mm")
    return sheet


def _places(n_given: int, n_completions: int) -> list[tuple[int, int]]:
    """Return the column and row of every cell, the given pictures first."""
    if n_completions <= 3:
        return [(x, 0) for x in range(n_given + n_completions)]
    columns = _columns(n_completions)
    first = 1 if n_given else 0
    grid = [(first + i % columns, i // columns) for i in range(n_completions)]
    return [(0, y) for y in range(n_given)] + grid


def _columns(n: int) -> int:
    """Return the columns of a grid of `n` cells: nearly square, wider than high, the last row as full as can be."""
    square = math.ceil(math.sqrt(n))
    return min(range(square, square + square // 2 + 1), key=lambda columns: (-n % columns, columns))


def save_image(
    image: Image.Image, path: str | os.PathLike[str], *, force: bool = True, text: Mapping[str, str] | None = None
) -> None:
    """Write a picture in the format its suffix names (PNG without one), whole or not at all.

    force: overwrite a file. text: kept in a PNG file, by keywords; other formats do without.

    Raises:
        OptionError: the suffix is unknown.
        OutputError: the file cannot be written, exists, or the format cannot hold a picture of this size.
    """
    atomic_write(path, encode_image(image, picture_suffix(path), text), force=force)


def picture_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix that names the format of a picture, .png where `path` has none; OptionError if unknown."""
    suffix = Path(path).suffix.lower() or ".png"
    if suffix not in _FORMATS:
        raise OptionError(f"cannot write a picture as {suffix!r}; use one of {' '.join(_FORMATS)}")
    return suffix


def encode_image(image: Image.Image, suffix: str, text: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a picture file; `suffix` is one that `picture_suffix` returns. text: see `save_image`.

    Raises:
        OutputError: the format cannot hold a picture of this size.
    """
    file_format = _FORMATS[suffix]
    if file_format == "GIF":
        return _gif([image], [0], scale=1)
    buffer = BytesIO()
    options: dict[str, Any] = {**_ENCODER.get(file_format, {})}
    if file_format == "PNG" and text:
        options["pnginfo"] = PngInfo()
        for keyword, value in text.items():
            options["pnginfo"].add_text(keyword, value)
    try:
        image.convert("RGB").save(buffer, format=file_format, **options)
    except (OSError, ValueError) as error:
        reason = f"{file_format} cannot hold {image.width}x{image.height} pixels"
        raise OutputError(f"cannot write the picture: {reason}; use a smaller scale or .png") from error
    return buffer.getvalue()


def drawing_gif(
    frames: Iterable[Image.Image],
    path: str | os.PathLike[str],
    *,
    scale: int = 1,
    ms_per_frame: int = 40,
    last_ms: int = 2000,
    force: bool = True,
) -> None:
    """Write pictures of one size as a GIF that loops for ever and rests on its last frame, whole or not at all.

    All frames share one palette, so colours do not flicker: exact up to 256 colours, the nearest of 256 beyond.
    Each frame is enlarged `scale` times only as it is encoded; `ms_per_frame` and `last_ms` are milliseconds.
    force: overwrite a file.

    Raises:
        OptionError: there are no frames, they differ in size, the suffix is not .gif, or a number is out of range.
        OutputError: the file cannot be written, or exists.
    """
    images = list(frames)
    if Path(path).suffix.lower() != ".gif":
        raise OptionError(f"cannot write an animation as {os.fsdecode(path)!r}; end its name in .gif")
    if not images:
        raise OptionError("an animation needs a frame; give at least one")
    if len({image.size for image in images}) > 1:
        raise OptionError("the frames of an animation differ in size; give all the same")
    if not (20 <= ms_per_frame <= 60000 and 20 <= last_ms <= 60000):  # browsers slow down anything faster
        raise OptionError(f"frames of {ms_per_frame} and {last_ms} ms are out of range; use 20..60000")
    atomic_write(path, _gif(images, [ms_per_frame] * (len(images) - 1) + [last_ms], scale=scale), force=force)


def _gif(images: Sequence[Image.Image], durations: list[int], *, scale: int) -> bytes:
    packed = [np.asarray(image.convert("RGB")) @ np.array([1 << 16, 1 << 8, 1]) for image in images]
    colours = np.unique(np.concatenate([np.unique(frame) for frame in packed]))
    palette, index = _palette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8))
    frames = []
    for frame in packed:
        indexed = Image.fromarray(index[np.searchsorted(colours, frame)])
        indexed.putpalette(palette.tobytes())
        frames.append(upscale(indexed, scale))
    buffer = BytesIO()
    first, *rest = frames
    animation = {"append_images": rest, "duration": durations, "loop": 0} if rest else {}
    first.save(buffer, format="GIF", save_all=bool(rest), **animation)
    return buffer.getvalue()


def _palette(colours: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return at most 256 colours, uint8 [k, 3], and for each of the given uint8 [n, 3] its index, uint8 [n]."""
    if len(colours) <= 256:
        return colours, np.arange(len(colours), dtype=np.uint8)
    few = Image.fromarray(colours[None]).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = np.array(few.getpalette(), dtype=np.uint8).reshape(-1, 3)
    index = np.empty(len(colours), dtype=np.uint8)
    for start in range(0, len(colours), 1024):
        # Pillow's own lookup is coarse to 4 levels, which would shift colours that are in the palette
        differences = colours[start : start + 1024, None].astype(np.int32) - palette
        index[start : start + 1024] = np.square(differences).sum(axis=2).argmin(axis=1)
    return palette, index
