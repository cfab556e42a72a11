"""Pictures as tokens and back: reading files, resizing, and the nearest colour cluster of each pixel.

The arithmetic is that of transformers' `ImageGPTImageProcessorPil`, bit for bit, written so that any language gets the
same tokens: a pixel level v becomes x = (float32(v / 255) - 0.5) / 0.5 in float32; x.x is summed in float32; everything
else is float64, where the products of two float32 values are exact; sums run red, green, blue; the first minimum wins.
"""

import os
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from igpt_runtime.errors import ImageError, OptionError

__all__ = [
    "checked_tokens",
    "cluster_colours",
    "image_to_tokens",
    "nearest_clusters",
    "read_image",
    "resize_image",
    "to_rgb",
    "tokens_to_image",
]

BILINEAR = 2  # Pillow's number of the filter, as preprocessor_config.json stores it
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONG_SIDE = 1 << 20  # beyond this many pixels Pillow's filter table alone takes 16 bytes times the side
_ROWS = 1024  # pixels compared at a time: 4 MiB a temporary with 512 clusters

LEVELS = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
LEVELS = (LEVELS - np.float32(0.5)) / np.float32(0.5)  # [256] float32: pixel level -> [-1, 1]


def read_image(source: str | os.PathLike[str] | BinaryIO | bytes) -> Image.Image:
    """Read a PNG, JPEG, WebP, GIF (first frame) or BMP picture as 8-bit RGB, upright as its EXIF data says.

    Transparency is laid over white, as viewers and transformers do; colour profiles are not applied. A stream is read
    from where it stands to its end and left open. Pillow's `MAX_IMAGE_PIXELS` is the limit on size, checked before
    any pixel is decoded.

    Raises:
        ImageError: the file cannot be opened, is none of these formats, is damaged or cut short, or is too large.
    """
    if isinstance(source, (str, os.PathLike)):
        name = repr(os.fsdecode(source))
        stream = _open(source, name)
    else:
        name = "the given picture"
        stream = BytesIO(source if isinstance(source, bytes) else source.read())
    with stream:
        return _decode(stream, name)


def _open(path: str | os.PathLike[str], name: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a directory; name a picture in it") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name} cannot be opened: {reason}; check the path and its permissions") from error


def _decode(stream: BinaryIO, name: str) -> Image.Image:
    try:
        image: Image.Image = Image.open(stream, formats=_FORMATS)
        limit = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns up to twice this
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError
        image.load()
        picture = to_rgb(_upright(image)).copy()  # free of the file, and below of an orientation already applied
        picture.info.clear()
        return picture
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a PNG, JPEG, WebP, GIF or BMP picture; convert it to one of these") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name} has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller first") from None
    except ImageError:
        raise
    except Exception as error:  # a decoder given hostile bytes may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short ({reason}); get a sound copy of it") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable EXIF data does not make the picture unreadable
        turn = None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any Pillow mode to 8-bit RGB; transparency is laid over white.

    16-bit grey levels (modes I;16 and I, 0..65535) are scaled to 0..255, where Pillow's own conversion clips them.
    Levels of mode F are 0..255 as everywhere in Pillow; LAB goes to sRGB. The result may be `image` itself.

    Raises:
        ImageError: the picture has no pixels, or its mode has no conversion to RGB.
    """
    if 0 in image.size:
        raise ImageError(f"the picture is {image.width}x{image.height} and has no pixels; give a larger one")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    try:
        if image.mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB")) or image
        if image.has_transparency_data:
            image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            return white.convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"a picture of mode {image.mode!r} cannot be turned into RGB; convert it first") from error


def _from_16_bit(image: Image.Image) -> Image.Image:
    levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
    grey = ((levels + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    grey[levels == image.info.get("transparency", -1)] = 255  # PNG's one transparent level, over white
    return Image.fromarray(grey).convert("RGB")


def resize_image(
    image: Image.Image, height: int, width: int, *, crop: bool = False, resample: int = BILINEAR
) -> Image.Image:
    """Resize a picture to `height` x `width` RGB pixels.

    By default the whole picture is squashed to the size, as transformers does. With `crop`, as in the ImageGPT paper,
    the short side is resized to fit and the centre kept of the long one; only the kept part is computed, so a very
    long picture costs no memory. The filter is the same both ways (`resample`, Pillow's number, antialiased bilinear
    by default), because the paper names none and tokens of a square picture then do not depend on `crop`.

    Raises:
        OptionError: the size is not positive or the filter unknown.
        ImageError: the picture has no pixels, or no conversion to RGB.
    """
    if height < 1 or width < 1:
        raise OptionError(f"cannot resize to {width}x{height} pixels; both sides must be at least 1")
    if resample not in set(Image.Resampling):
        known = ", ".join(f"{f.value} {f.name.lower()}" for f in sorted(Image.Resampling))
        raise OptionError(f"resample {resample!r} is no filter; use one of {known}")
    image = to_rgb(image)
    box = _centre(image.size, (width, height)) if crop else (0.0, 0.0, *map(float, image.size))
    # Averaging down to 1024 times the target first bounds the filter table and changes no level by more than one.
    gap = 1024.0 if max(image.size) > _LONG_SIDE else None
    left, top, right, bottom = box
    kind = Image.Resampling(resample)
    if height < bottom - top and bottom - top - height > 2 * (right - left - width):
        # Rows first, as Pillow does since version 13; levels are rounded in between, so the order tells.
        image = image.resize((image.width, height), kind, box=(0, top, image.width, bottom), reducing_gap=gap)
        top, bottom = 0, height
    return image.resize((width, height), kind, box=(left, top, right, bottom), reducing_gap=gap)


def _centre(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest centred box of `target`'s aspect ratio: left, top, right, bottom in pixels."""
    scale = min(size[0] / target[0], size[1] / target[1])
    width, height = min(target[0] * scale, size[0]), min(target[1] * scale, size[1])
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, min(left + width, size[0]), min(top + height, size[1])


def nearest_clusters(pixels: npt.NDArray[np.uint8], clusters: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the token of every pixel: uint8 [..., 3] and float32 [n, 3] in [-1, 1] to int64 [...].

    Memory beyond the result is a few MiB however many pixels there are.
    """
    centres = np.asarray(clusters, dtype=np.float64)
    red, green, blue = centres.T
    centre_squares = red * red + green * green + blue * blue
    flat = pixels.reshape(-1, 3)
    tokens = np.empty(len(flat), dtype=np.int64)
    for start in range(0, len(flat), _ROWS):
        r, g, b = LEVELS[flat[start : start + _ROWS]].T[:, :, None]
        squares = r * r + g * g + b * b  # float32, as in the reference
        r, g, b = r.astype(np.float64), g.astype(np.float64), b.astype(np.float64)
        products = r * red + g * green + b * blue
        tokens[start : start + _ROWS] = np.argmin(squares - 2 * products + centre_squares, axis=1)
    return tokens.reshape(pixels.shape[:-1])


def image_to_tokens(
    image: Image.Image,
    clusters: npt.NDArray[np.float32],
    height: int,
    width: int,
    *,
    crop: bool = False,
    resample: int = BILINEAR,
) -> npt.NDArray[np.int64]:
    """Resize a picture (see `resize_image`) and return its tokens, int64 [height * width] in raster order.

    `clusters` is float32 [n, 3] in [-1, 1]. No sos is added. Raises what `resize_image` raises.
    """
    small = resize_image(image, height, width, crop=crop, resample=resample)
    return nearest_clusters(np.asarray(small), clusters).reshape(-1)


def tokens_to_image(
    tokens: npt.NDArray[np.integer] | Sequence[int], clusters: npt.NDArray[np.float32], height: int, width: int
) -> Image.Image:
    """Paint `height * width` tokens in raster order as an RGB picture (image-gpt run.py: rint(127.5 * (c + 1))).

    Raises:
        OptionError: the number of tokens does not fit the size, or a token is no colour (sos is none).
    """
    ids = checked_tokens(tokens, len(clusters))
    if ids.size != height * width:
        raise OptionError(f"{ids.size} tokens do not make a picture of {width}x{height}; give {height * width}")
    return Image.fromarray(cluster_colours(clusters)[ids].reshape(height, width, 3))


def checked_tokens(tokens: npt.NDArray[np.integer] | Sequence[int], n_clusters: int) -> npt.NDArray[np.int64]:
    """Return the tokens flat as int64, or raise `OptionError` for the first that is not in 0..n_clusters - 1."""
    ids = np.asarray(tokens).reshape(-1)
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise OptionError(f"tokens of type {ids.dtype} are not colours; give whole numbers")
    wrong = np.flatnonzero((ids < 0) | (ids >= n_clusters))
    if wrong.size:
        where = int(wrong[0])
        raise OptionError(f"token {ids[where]} at position {where} is no colour; use 0..{n_clusters - 1}")
    return ids.astype(np.int64)


def cluster_colours(clusters: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the 8-bit colour of every cluster: float32 [n, 3] in [-1, 1] to uint8 [n, 3]."""
    # float64 is exact here, so any language rounds the same way
    levels = np.rint(127.5 * (np.asarray(clusters, dtype=np.float64) + 1))
    return np.clip(levels, 0, 255).astype(np.uint8)
