"""The files a drawing command writes: a contact sheet, single pictures, an animation."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from igpt_runtime.engine.generate import Tokens
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import OptionError
from igpt_runtime.files import check_writable, write_output
from igpt_runtime.pictures.contact_sheet import (
    auto_scale,
    contact_sheet,
    drawing_gif,
    encode_image,
    partial_image,
    picture_suffix,
    resized,
    save_image,
    upscale,
)
from igpt_runtime.tasks.complete import Completion

_MAX_SCALE = 64
_MAX_SIZE = 8192


@dataclass(frozen=True)
class PictureOptions:
    """What is written of the pictures that are drawn together, besides their contact sheet."""

    separate: bool = False  # each picture by itself, without a caption
    gif: bool = False  # an animation of the drawing
    scale: int | None = None  # squares a pixel becomes; None: about 128 pixels a picture on the sheet, 1 by itself
    size: int | None = None  # pixels of the longer side of each picture by itself; None: as `scale` says
    resample: str = "nearest"  # filter that enlarges to `size`: see `igpt_runtime.pictures.contact_sheet.resized`
    force: bool = False  # overwrite files

    def __post_init__(self) -> None:
        """Raise OptionError for a scale or size out of range, or for a filter that filters nothing."""
        if self.scale is not None and not 1 <= self.scale <= _MAX_SCALE:
            raise OptionError(f"scale must be 1 .. {_MAX_SCALE}, got {self.scale}")
        if self.size is not None and not 1 <= self.size <= _MAX_SIZE:
            raise OptionError(f"size must be 1 .. {_MAX_SIZE} pixels, got {self.size}")
        if self.resample != "nearest" and self.size is None:
            raise OptionError(f"--resample {self.resample} is how pictures get a --size; give one, such as --size 512")

    @property
    def by_themselves(self) -> bool:
        """Whether each picture is written by itself."""
        return self.separate or self.size is not None


@dataclass(frozen=True)
class Outputs:
    """Where the pictures go."""

    sheet: str  # path of the contact sheet; - is stdout
    separate: tuple[str, ...]  # paths of the single pictures; empty for none
    gif: str | None  # path of the animation

    @property
    def paths(self) -> list[str]:
        """All of them."""
        return [self.sheet, *self.separate, *([self.gif] if self.gif else [])]


def plan_outputs(sheets: Sequence[str], n: int, options: PictureOptions) -> list[Outputs]:
    """Name the files of `n` pictures for each sheet, and find out before the work begins whether they can be written.

    Raises:
        OptionError: the options contradict each other, or ask for an unknown format.
        OutputError: a file exists and is not to be overwritten, or its directory cannot be written.
    """
    planned = [name_outputs(sheet, n, options) for sheet in sheets]
    paths = [path for outputs in planned for path in outputs.paths]
    twice = next((path for path, count in Counter(paths).items() if count > 1 and path != "-"), None)
    if twice is not None:
        raise OptionError(f"{twice} would be written twice; name the pictures otherwise, or complete them one by one")
    check_writable(paths, force=options.force)
    return planned


def name_outputs(sheet: str, n: int, options: PictureOptions) -> Outputs:
    """The files of `n` pictures and their sheet. Raises OptionError as `plan_outputs` does."""
    if sheet == "-" and (options.by_themselves or options.gif):
        raise OptionError("--separate, --size and --gif need a file name; give -o a path instead of -")
    path = Path(sheet)
    if not path.name:
        raise OptionError(f"{sheet!r} names no file; give -o the name of a picture")
    animation = str(path.with_suffix(".gif")) if options.gif else None
    if animation is not None and Path(animation) == path:
        raise OptionError(f"the contact sheet and the animation would both be {sheet}; name the sheet .png")
    numbers = range(1, n + 1) if options.by_themselves else ()
    if sheet != "-":
        picture_suffix(sheet)
    return Outputs(sheet, tuple(str(path.with_name(f"{path.stem}-{i}{path.suffix}")) for i in numbers), animation)


def write_pictures(session: Session, result: Completion, outputs: Outputs, options: PictureOptions) -> list[str]:
    """Write what `outputs` plans; returns the paths written (none for stdout). Raises OutputError."""
    scale, force = options.scale, options.force
    form = session.manifest.image_format
    sheet_scale = scale or auto_scale(max(form.width, form.height))
    given = result.tokens[0, : result.kept_rows * form.width]
    kept = None if result.original is None else _partial(session, given)

    def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
        return contact_sheet(result.original, kept, pictures, scale=sheet_scale)

    if outputs.sheet == "-":
        write_output("-", encode_image(sheet(result.images), ".png", _text(session, result)))
        return []
    save_image(sheet(result.images), outputs.sheet, force=force, text=_text(session, result))
    for number, (path, picture) in enumerate(zip(outputs.separate, result.images, strict=False)):
        one = upscale(picture, scale or 1) if options.size is None else resized(picture, options.size, options.resample)
        save_image(one, path, force=force, text=_text(session, result, number))
    if outputs.gif is not None:
        total = result.tokens.shape[1]
        ends = [*range(given.size, total, max(1, form.width // 4)), total]
        frames = [sheet([_partial(session, row[:end]) for row in result.tokens]) for end in ends]
        drawing_gif(frames, outputs.gif, force=force)
    return outputs.paths


def _text(session: Session, result: Completion, sample: int | None = None) -> dict[str, str]:
    """What draws the pictures again, for the text of a PNG file. sample: number of the one that is in it."""
    manifest, used = session.manifest, result.options
    parameters = {
        "model": manifest.name, "checkpoint_sha256": manifest.source["sha256"], "precision": manifest.precision,
        "kv_cache": manifest.kv_cache, "kept_rows": result.kept_rows, "n": used.n, "seed": used.seed,
        "temperature": used.temperature, "top_k": used.top_k, "top_p": used.top_p,
        **({} if sample is None else {"sample": sample}),
    }  # fmt: skip
    return {"Software": "igpt-onnx", "parameters": json.dumps(parameters)}


def _partial(session: Session, tokens: Tokens) -> Image.Image:
    form = session.manifest.image_format
    return partial_image(tokens, form.clusters, form.height, form.width)
