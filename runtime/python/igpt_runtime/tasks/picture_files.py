"""The files a drawing command writes: a contact sheet, single pictures, an animation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from igpt_runtime.engine.generate import Tokens
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import OptionError
from igpt_runtime.files import check_writable, write_output
from igpt_runtime.pictures.sheet import (
    auto_scale,
    contact_sheet,
    drawing_gif,
    encode_image,
    partial_image,
    picture_suffix,
    save_image,
    upscale,
)
from igpt_runtime.tasks.complete import Completion

_MAX_SCALE = 64


@dataclass(frozen=True)
class Outputs:
    """Where the pictures go."""

    sheet: str  # path of the contact sheet; - is stdout
    separate: tuple[str, ...]  # paths of the single pictures; empty for none
    gif: str | None  # path of the animation
    scale: int | None  # squares a pixel becomes; None is about 128 pixels a picture


def plan_outputs(sheet: str, n: int, *, separate: bool, gif: bool, scale: int | None, force: bool) -> Outputs:
    """Name the files of `n` pictures, and find out before the work begins whether they can be written.

    Raises:
        OptionError: the options contradict each other, or ask for an unknown format.
        OutputError: a file exists and `force` is not given, or its directory cannot be written.
    """
    if sheet == "-" and (separate or gif):
        raise OptionError("--separate and --gif need a file name; give -o a path instead of -")
    if scale is not None and not 1 <= scale <= _MAX_SCALE:
        raise OptionError(f"scale must be 1 .. {_MAX_SCALE}, got {scale}")
    path = Path(sheet)
    if not path.name:
        raise OptionError(f"{sheet!r} names no file; give -o the name of a picture")
    animation = str(path.with_suffix(".gif")) if gif else None
    if animation is not None and Path(animation) == path:
        raise OptionError(f"the contact sheet and the animation would both be {sheet}; name the sheet .png")
    singles = [str(path.with_name(f"{path.stem}-{i}{path.suffix}")) for i in range(1, n + 1)] if separate else []
    if sheet != "-":
        picture_suffix(sheet)
    check_writable([sheet, *singles, *([animation] if animation else [])], force=force)
    return Outputs(sheet, tuple(singles), animation, scale)


def write_pictures(session: Session, result: Completion, outputs: Outputs) -> list[str]:
    """Write what `outputs` plans; returns the paths written (none for stdout). Raises OutputError."""
    form = session.manifest.image_format
    scale = outputs.scale or auto_scale(max(form.width, form.height))
    given = result.tokens[0, : result.kept_rows * form.width]
    kept = None if result.original is None else _partial(session, given)

    def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
        return contact_sheet(result.original, kept, pictures, scale=scale)

    if outputs.sheet == "-":
        write_output("-", encode_image(sheet(result.images), ".png"))
        return []
    save_image(sheet(result.images), outputs.sheet)
    for path, picture in zip(outputs.separate, result.images, strict=False):
        save_image(upscale(picture, scale), path)
    if outputs.gif is not None:
        total = result.tokens.shape[1]
        ends = [*range(given.size, total, max(1, form.width // 4)), total]
        drawing_gif([sheet([_partial(session, row[:end]) for row in result.tokens]) for end in ends], outputs.gif)
    return [outputs.sheet, *outputs.separate, *([outputs.gif] if outputs.gif else [])]


def _partial(session: Session, tokens: Tokens) -> Image.Image:
    form = session.manifest.image_format
    return partial_image(tokens, form.clusters, form.height, form.width)
