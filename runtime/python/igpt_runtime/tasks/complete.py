"""Completions: pictures of which a part is given."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_runtime.engine.generate import GenerationOptions, ResolvedOptions, Tokens, generate_all
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.palette import image_to_tokens, resize_image, tokens_to_image
from igpt_runtime.pictures.reading import Picture, as_image
from igpt_runtime.tasks.likeness import Likeness, likeness

Progress = Callable[[int], None]  # called after every step with the number of tokens it drew


@dataclass(frozen=True)
class Completion:
    """The pictures that `complete` or `sample` has drawn."""

    tokens: Tokens  # int64 [n, height * width], kept ones included
    kept_rows: int  # rows at the top that were given; 0 of `sample`
    images: list[Image.Image]  # n pictures, RGB, width x height of the model
    original: Image.Image | None  # the given picture at the model's size, in its own colours; None of `sample`
    options: ResolvedOptions  # how they were drawn, recommended values filled in
    # How the given rows compare with what the model was trained on; None if there are none, or nothing is known of it.
    likeness: Likeness | None = None


def tokens_of(session: Session, image: Image.Image, *, crop: bool = False) -> Tokens:
    """Tokens of a picture of any size, int64 [height * width], as the bundle's image format says.

    image: of any mode of Pillow; it is turned to RGB as `read_image` does.
    crop: keep only the centre of the picture, in the shape of the model's pictures, instead of squashing it.

    Raises:
        ImageError: the picture has no pixels, or no conversion to RGB.
    """
    form = session.manifest.image_format
    return image_to_tokens(image, form.clusters, form.height, form.width, crop=crop, resample=form.resample)


def images_of(session: Session, tokens: Tokens) -> list[Image.Image]:
    """The RGB pictures of tokens, at the model's size. tokens: int64 [n, height * width].

    Raises:
        OptionError: a token is no colour, or a row is no whole picture.
    """
    form = session.manifest.image_format
    return [tokens_to_image(row, form.clusters, form.height, form.width) for row in tokens]


def rows_to_keep(keep: str | float, height: int) -> int:
    """Rows at the top that are meant by "top-half", a number of rows (8, "8"), or a fraction (0.25, "0.25", "25%").

    Whole numbers are rows, and what has a decimal point or a per cent sign is a fraction below 1.

    Raises:
        OptionError: it is none of these, or leaves nothing to complete.
    """
    text = str(keep)
    if text == "top-half":
        return height // 2
    try:
        if text.endswith("%"):
            share, read = float(text[:-1]) / 100, f"{text} of {height} rows"
        elif any(mark in text for mark in ".eE"):
            share, read = float(text), f"the fraction {text} of {height} rows"
        else:
            rows, read = int(text), f"{int(text)} rows"
            share = rows / height
        rows = round(height * share)
    except (ValueError, OverflowError) as error:
        raise OptionError(
            f"keep {text!r} is not understood; give rows (8), a fraction (0.25, 25%) or top-half"
        ) from error
    if share < 0 or rows >= height:
        fault = "is less than nothing" if share < 0 else "leaves nothing to draw"
        raise OptionError(
            f"keep {text!r} was read as {read}, which {fault}; whole numbers are rows, 0 to {height - 1}, and "
            "fractions are below 1 (0.25, 25%)"
        )
    return rows


def complete(
    session: Session,
    picture: Picture,
    options: GenerationOptions | None = None,
    *,
    keep: str | float = "top-half",
    crop: bool = False,
    progress: Progress | None = None,
) -> Completion:
    """Keep the top rows of a picture and draw the rest `options.n` times.

    options: None draws 8 with the recommended sampling.
    keep: the part that is given: "top-half", rows at the top, or a fraction of the height. A whole number (8 or "8",
    at least 0) is rows. A number with a point or a per cent sign ("25%", 0.25, below 1) is a fraction, which is
    rounded to the nearest number of rows. At least one row must be left to draw.
    crop: keep only the centre of the picture, in the shape of the model's pictures, instead of squashing it.
    progress: called after every step with the number of tokens that this step drew.

    Raises:
        ImageError: the picture cannot be read.
        OptionError: `keep` is none of these, or leaves nothing to draw.
        BundleError: the bundle has no language-model head, or is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
        MemoryShortageError: not even one picture fits into the memory there is.
    """
    form = session.manifest.image_format
    rows = rows_to_keep(keep, form.height)
    image = as_image(picture)
    original = resize_image(image, form.height, form.width, crop=crop, resample=form.resample)
    primer = tokens_of(session, original)[: rows * form.width]
    used = (options or GenerationOptions()).resolved(session.manifest)
    costs: list[npt.NDArray[np.float32]] = []
    compared = session.manifest.likelihood is not None
    tokens = generate_all(session, primer, used, progress, costs.append if compared else None)
    found = likeness(session.manifest, costs[0]) if costs else None
    return Completion(tokens, rows, images_of(session, tokens), original, used, found)
