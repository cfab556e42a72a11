"""Reads picture files: formats, orientation, transparency and depth, to 8-bit RGB."""

import os
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from igpt_runtime.errors import ImageError
from igpt_runtime.pictures.png import SIGNATURE, pixels_only
from igpt_runtime.regular import IrregularFileError, placeholder, read_at_most, read_regular

__all__ = ["Picture", "as_image", "as_pictures", "read_image", "to_rgb"]

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

_MOST = 1 << 29  # bytes read of a file or a stream: more than Pillow's limit on pixels takes in any format

_NARROW = 8  # pixels: Pillow keeps as much beside each row of its copies, so that a narrow picture takes no less

Pixels = npt.NDArray[np.uint8]
Picture = Image.Image | str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview | Pixels
_IN_MEMORY = (bytes, bytearray, memoryview)
_WHAT = "a picture is a path, the bytes of a file, a binary stream, a PIL image or an array"


def as_image(picture: Picture) -> Image.Image:
    """An RGB picture from a PIL image, a path, bytes, a binary stream, or an array.

    An array is uint8 [height, width], [height, width, 3] or [height, width, 4], of which the last is transparent.

    Raises ImageError.
    """
    if isinstance(picture, Image.Image):
        return picture
    return _from_array(picture) if isinstance(picture, np.ndarray) else read_image(picture)


def as_pictures(pictures: Sequence[Picture] | Picture) -> Sequence[Picture]:
    """Several pictures, also where a single one is given, or an array of several. Raises ImageError."""
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim > 3 else [pictures]
    if isinstance(pictures, (Image.Image, str, os.PathLike, *_IN_MEMORY)) or hasattr(pictures, "read"):
        return [pictures]  # type: ignore[list-item]
    if not isinstance(pictures, Sequence):
        raise ImageError(f"{_WHAT}, or a sequence of these, but this is {type(pictures).__name__}")
    return pictures  # type: ignore[return-value]


def _from_array(pixels: Pixels) -> Image.Image:
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise ImageError(
            f"an array is a picture if it is uint8 [height, width] or [height, width, 3 or 4], not {found}"
        )
    if not pixels.size:
        raise ImageError(f"the picture is {pixels.shape[1]}x{pixels.shape[0]} and has no pixels; give a larger one")
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def read_image(source: str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview) -> Image.Image:
    """Read a PNG, JPEG, WebP, GIF (first frame) or BMP picture as 8-bit RGB, upright as its EXIF data says.

    Transparency is laid over white, as viewers and transformers do; colour profiles are not applied. A stream is read
    from where it stands to its end and left open. Pillow's `MAX_IMAGE_PIXELS` is the limit on size, checked before
    any pixel is decoded; a row counts as 8 pixels at least. Text and colour profiles in PNG files are not looked at,
    and checksums of their pixels are.

    Raises:
        ImageError: the file cannot be opened, is no regular file, is none of these formats, is damaged or cut short, or
            is too large.
    """
    if isinstance(source, (str, os.PathLike)):
        name = repr(os.fsdecode(source))
        content = _read(source, name)
    elif isinstance(source, _IN_MEMORY):
        name, content = "the given picture", bytes(source)
    elif hasattr(source, "read"):
        name = "the given picture"
        read = read_at_most(source, _MOST)
        if read is None:
            raise ImageError(f"{name} has more than {_MOST:,} bytes; make it smaller first")
        content = read
    else:
        raise ImageError(f"{_WHAT}, but this is {type(source).__name__}")
    if stands_for := placeholder(content):
        raise ImageError(f"{name} {stands_for}")
    return _decode(content, name)


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        return read_regular(path, _MOST)
    except IrregularFileError as error:
        if "directory" in str(error.strerror):
            raise ImageError(f"{name} is a directory; name a picture in it") from None
        raise ImageError(
            f"{name} cannot be read: {error.strerror}; name a picture file, or give - to read it"
        ) from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:  # on Windows
        raise ImageError(f"{name} is a directory; name a picture in it") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name} cannot be opened: {reason}; check the path and its permissions") from error


def _decode(content: bytes, name: str) -> Image.Image:
    try:
        if content.startswith(SIGNATURE):
            content = pixels_only(content)
        image: Image.Image = Image.open(BytesIO(content), formats=_FORMATS)
        limit = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns up to twice this
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError
        if limit is not None and image.height > limit // _NARROW and image.width < _NARROW:
            raise ImageError(f"{name} has more than {limit // _NARROW} rows of pixels; make it smaller first")
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
