"""Pictures in, pictures out: completion of a given part, and samples from nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from igpt_runtime.engine.generate import GenerationOptions, Tokens, generate_all
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.palette import image_to_tokens, resize_image, tokens_to_image
from igpt_runtime.pictures.reading import Picture, as_image

Progress = Callable[[int], None]  # called after every step with the number of tokens it drew


@dataclass(frozen=True)
class Completion:
    """What `complete` and `sample` return."""

    tokens: Tokens  # int64 [n, height * width]
    kept_rows: int  # rows at the top that were given
    images: list[Image.Image]  # n pictures, RGB, width x height of the model
    original: Image.Image | None  # the given picture at the model's size, before its colours were quantised


def tokens_of(session: Session, image: Image.Image, *, crop: bool = False) -> Tokens:
    """Tokens of a picture of any size, int64 [height * width], as the bundle's image format says."""
    form = session.manifest.image_format
    return image_to_tokens(image, form.clusters, form.height, form.width, crop=crop, resample=form.resample)


def images_of(session: Session, tokens: Tokens) -> list[Image.Image]:
    """RGB pictures of tokens int64 [n, height * width]."""
    form = session.manifest.image_format
    return [tokens_to_image(row, form.clusters, form.height, form.width) for row in tokens]


def rows_to_keep(keep: str, height: int) -> int:
    """Rows that "top-half", a fraction ("0.25", "25%") or a number of rows ("8") mean.

    Raises:
        OptionError: it is none of these, or leaves nothing to complete.
    """
    if keep == "top-half":
        return height // 2
    try:
        if keep.endswith("%"):
            rows = round(height * float(keep[:-1]) / 100)
        elif "." in keep:
            rows = round(height * float(keep))
        else:
            rows = int(keep)
    except (ValueError, OverflowError) as error:
        raise OptionError(f"keep must be top-half, a fraction like 0.25, or a number of rows; got {keep!r}") from error
    if not 0 <= rows < height:
        raise OptionError(f"keep {keep!r} is {rows} rows; it must be 0 .. {height - 1} of the picture's {height}")
    return rows


def complete(
    session: Session,
    picture: Picture,
    options: GenerationOptions | None = None,
    *,
    keep: str = "top-half",
    crop: bool = False,
    progress: Progress | None = None,
) -> Completion:
    """Keep the top rows of a picture and draw the rest `options.n` times.

    keep: see `rows_to_keep`; crop: cut the picture square instead of squashing it (the paper's way).

    Raises:
        ImageError: the picture cannot be read.
        OptionError: `keep` does not fit the bundle.
        BundleError: the bundle cannot generate, or is damaged.
    """
    form = session.manifest.image_format
    rows = rows_to_keep(keep, form.height)
    image = as_image(picture)
    original = resize_image(image, form.height, form.width, crop=crop, resample=form.resample)
    primer = tokens_of(session, original)[: rows * form.width]
    tokens = generate_all(session, primer, options or GenerationOptions(), progress)
    return Completion(tokens, rows, images_of(session, tokens), original)


def sample(
    session: Session, options: GenerationOptions | None = None, *, progress: Progress | None = None
) -> Completion:
    """Draw `options.n` whole pictures from nothing. Raises BundleError."""
    tokens = generate_all(session, np.empty(0, np.int64), options or GenerationOptions(), progress)
    return Completion(tokens, 0, images_of(session, tokens), None)
