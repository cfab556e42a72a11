"""Pictures as tokens and back: resizing, and the nearest colour cluster of each pixel.

The arithmetic is that of transformers' `ImageGPTImageProcessorPil`, bit for bit, written so that any language gets the
same tokens: a pixel level v becomes x = (float32(v / 255) - 0.5) / 0.5 in float32; x.x is summed in float32; everything
else is float64, where the products of two float32 values are exact; sums run red, green, blue; the first minimum wins.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.reading import to_rgb

__all__ = [
    "checked_tokens",
    "cluster_colours",
    "image_to_tokens",
    "nearest_clusters",
    "resize_image",
    "tokens_to_image",
]

BILINEAR = 2  # Pillow's number of the filter, as preprocessor_config.json stores it
_LONG_SIDE = 1 << 20  # beyond this many pixels Pillow's filter table alone takes 16 bytes times the side
_ROWS = 128  # pixels compared at a time: with 512 clusters two arrays of 512 KiB, which a processor's cache holds

LEVELS = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
LEVELS = (LEVELS - np.float32(0.5)) / np.float32(0.5)  # [256] float32: pixel level -> [-1, 1]


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
    if image.height > height and image.height - height > 2 * (image.width - width):
        # Rows first, as Pillow does since version 13, by the size of the whole picture, whatever part of it is resized.
        # Levels are rounded in between, so the order tells.
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
    red, green, blue = 2 * red, 2 * green, 2 * blue  # doubling is exact, here as well as in the end
    flat = pixels.reshape(-1, 3)
    tokens = np.empty(len(flat), dtype=np.int64)
    distances, products = np.empty((2, min(_ROWS, len(flat)), len(centres)))
    for start in range(0, len(flat), _ROWS):
        r, g, b = LEVELS[flat[start : start + _ROWS]].T[:, :, None]
        squares = r * r + g * g + b * b  # float32, as in the reference
        distance, product = distances[: len(r)], products[: len(r)]
        np.multiply(r.astype(np.float64), red, out=distance)
        distance += np.multiply(g.astype(np.float64), green, out=product)
        distance += np.multiply(b.astype(np.float64), blue, out=product)
        np.subtract(squares, distance, out=distance)
        distance += centre_squares
        tokens[start : start + _ROWS] = np.argmin(distance, axis=1)
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
