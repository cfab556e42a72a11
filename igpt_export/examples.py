"""Pictures that a bundle brings along to be tried with."""

from pathlib import Path

from PIL import Image

from igpt_runtime.bundle.config import Examples, ImageFormat
from igpt_runtime.errors import ImageError, OptionError
from igpt_runtime.pictures.folder import find_pictures
from igpt_runtime.pictures.palette import resize_image
from igpt_runtime.pictures.reading import read_image

EXAMPLES_FILE = "examples.png"
_COLUMNS = 8
_MOST = 64


def write_examples(source: Path, form: ImageFormat, directory: Path) -> Examples:
    """Write the pictures below a directory as one file of a bundle, in the order of their names.

    Raises OptionError or ImageError.
    """
    try:
        names = find_pictures([str(source)]).names
        if len(names) > _MOST:
            raise OptionError(f"--examples: {source} has {len(names)} pictures; give at most {_MOST}")
        pictures = [resize_image(read_image(name), form.height, form.width, resample=form.resample) for name in names]
    except ImageError as error:
        raise ImageError(f"--examples: {error}") from error
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * form.width, rows * form.height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % _COLUMNS * form.width, i // _COLUMNS * form.height))
    sheet.save(directory / EXAMPLES_FILE, optimize=True)
    return Examples(EXAMPLES_FILE, tuple(Path(name).stem for name in names))
