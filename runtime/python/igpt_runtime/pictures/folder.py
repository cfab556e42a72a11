"""Picture files below directories."""

import os
from collections.abc import Sequence
from pathlib import Path

from igpt_runtime.errors import ImageError
from igpt_runtime.pictures.reading import Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Files as they are given, and of a directory all picture files below it, in the order of their paths.

    Hidden files and directories are left out. Raises ImageError if a directory holds no picture or cannot be read.
    """
    found = []
    for path in paths:
        if path == "-" or not os.path.isdir(path):
            found.append(path)
            continue
        inside = sorted(_walk(path))
        if not inside:
            raise ImageError(f"{path!r} holds no pictures ({', '.join(sorted(SUFFIXES))}); name another directory")
        found += inside
    return found


def _walk(directory: str) -> list[str]:
    def fail(error: OSError) -> None:
        raise ImageError(f"{error.filename!r} cannot be read: {error.strerror}; check its permissions") from error

    found = []
    for parent, directories, files in os.walk(directory, onerror=fail):
        directories[:] = [name for name in directories if not name.startswith(".")]
        names = (name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."))
        found += [os.path.join(parent, name) for name in names]
    return found


def label_of(picture: str) -> str:
    """The name of the directory a picture is in, which is its class where directories are classes; "" for "-"."""
    return "" if picture == "-" else Path(picture).absolute().parent.name


def valid_text(name: str) -> str:
    """A file name that may hold bytes which are no text, as text."""
    return os.fsencode(name).decode("utf-8", "replace")


def unique_stems(pictures: Sequence[Picture]) -> list[str]:
    """A file name without suffix for each picture, those that would be the same numbered."""
    used: dict[str, int] = {}  # by name, the last number it was given
    names = []
    for picture in pictures:
        stem = (
            Path(os.fsdecode(picture)).stem if isinstance(picture, (str, os.PathLike)) and picture != "-" else "stdin"
        )
        name, number = stem, used.get(stem.casefold(), 1)
        while name.casefold() in used:
            number += 1
            name = f"{stem}-{number}"
        used[stem.casefold()] = number
        used.setdefault(name.casefold(), 1)
        names.append(name)
    return names
