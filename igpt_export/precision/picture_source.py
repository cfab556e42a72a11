"""Pictures that stand for what a model is used on: some calibrate it, others are held out and judge it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_export.checkpoint.checkpoint import SHEET, Checkpoint
from igpt_runtime.bundle.config import ImageFormat, ImageGPTConfig
from igpt_runtime.errors import ImageError, OptionError
from igpt_runtime.pictures.folder import find_pictures
from igpt_runtime.pictures.palette import image_to_tokens
from igpt_runtime.pictures.reading import read_image

Tokens = npt.NDArray[np.int64]

_WORK = 5e12  # tokens times weights of one kind of pictures: minutes on a few cores, whatever the size of the model
# 8 x 8 pictures of 16 x 16: the upper half training digits of the demo model, the lower half digits it has not seen.
_DIGITS, _SIDE = Path(__file__).with_name(SHEET), 16


class PictureSource(ABC):
    """Pictures of two sorts."""

    is_own: bool = True  # whether they are of the kind that the model was trained on, as far as anyone says

    @property
    @abstractmethod
    def kind(self) -> str:
        """What they are, in words."""

    @abstractmethod
    def calibration(self, count: int) -> Iterable[Image.Image]:
        """Up to so many that calibrate."""

    @abstractmethod
    def held_out(self, count: int) -> Iterable[Image.Image]:
        """Up to so many that take no part in calibration."""


class Sheet(PictureSource):
    """One file of pictures side by side: the upper half of them calibrates, the lower half is held out."""

    def __init__(self, path: Path, form: tuple[int, int], kind: str, *, is_own: bool) -> None:
        """form: height and width of a picture. Raises OptionError, ImageError."""
        sheet, (height, width) = read_image(path), form
        if sheet.height % (2 * height) or sheet.width % width:
            raise OptionError(
                f"{path} has {sheet.width}x{sheet.height} pixels, which is no even number of rows of pictures of "
                f"{width}x{height}; mend it or remove it"
            )
        corners = [(x, y) for y in range(0, sheet.height, height) for x in range(0, sheet.width, width)]
        self._pictures = [sheet.crop((x, y, x + width, y + height)) for x, y in corners]
        self._kind, self.is_own = kind, is_own

    @property
    def kind(self) -> str:
        return self._kind

    def calibration(self, count: int) -> Iterable[Image.Image]:
        return self._pictures[: len(self._pictures) // 2][:count]

    def held_out(self, count: int) -> Iterable[Image.Image]:
        return self._pictures[len(self._pictures) // 2 :][:count]


class Directory(PictureSource):
    """The pictures below a directory: every second one, in the order of names, is held out."""

    def __init__(self, directory: Path) -> None:
        """Raises OptionError if there are fewer than two."""
        remedy = "give --calibration a directory of at least 2 pictures, one for calibration and one held out"
        if not directory.is_dir():
            raise OptionError(f"{directory} is no directory; {remedy}")
        try:
            self._paths = find_pictures([str(directory)]).names
        except ImageError as error:
            raise OptionError(f"--calibration: {error}; {remedy}") from error
        if len(self._paths) < 2:
            raise OptionError(f"{directory} holds one picture; {remedy}")
        self._kind = f"pictures of {directory.resolve().name}"

    @property
    def kind(self) -> str:
        return self._kind

    def calibration(self, count: int) -> Iterable[Image.Image]:
        return _read(_evenly(self._paths[::2], count))

    def held_out(self, count: int) -> Iterable[Image.Image]:
        return _read(_evenly(self._paths[1::2], count))


def picture_source(checkpoint: Checkpoint, directory: Path | None) -> PictureSource:
    """The user's pictures in `directory`; or those that came with the checkpoint; or the embedded digits.

    Raises:
        OptionError: there is no such directory, or it holds fewer than two pictures.
        ImageError: a sheet cannot be read.
    """
    form = checkpoint.image_format
    if directory is not None:
        return Directory(directory)
    if checkpoint.pictures is not None:
        kind = f"pictures of {checkpoint.name}"
        return Sheet(checkpoint.pictures, (form.height, form.width), kind, is_own=True)
    return Sheet(_DIGITS, (_SIDE, _SIDE), "handwritten digits", is_own=False)


def most_pictures(config: ImageGPTConfig, tokens: int) -> int:
    """How many pictures to show a model: as many as make about `tokens`, and fewer of a large model, but one."""
    weights = config.n_layer * config.n_embd * (4 * config.n_embd + 2 * config.inner_dim)
    return max(1, int(min(tokens, _WORK / weights)) // config.n_positions)


def as_tokens(images: Iterable[Image.Image], form: ImageFormat) -> Tokens:
    """Pictures in a model's size and colours, int64 [pictures, n_positions]."""
    return np.stack(
        [image_to_tokens(image, form.clusters, form.height, form.width, resample=form.resample) for image in images]
    )


def _read(paths: Sequence[str]) -> Iterator[Image.Image]:
    for path in paths:
        try:
            yield read_image(path)
        except ImageError as error:
            raise ImageError(f"--calibration: {error}") from error


def _evenly(paths: Sequence[str], most: int) -> list[str]:
    """Up to `most`, evenly over the names: directories are often sorted by what the pictures show."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), most)).round().astype(int)]
