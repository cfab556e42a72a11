"""Picture files below directories."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from igpt_runtime.errors import ImageError
from igpt_runtime.pictures.reading import Picture

# Those that Pillow has for the formats that are read.
SUFFIXES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib",
}  # fmt: skip


class Found:
    """Picture files, and what was passed over on the way to them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.passed: Counter[str] = Counter()  # what was passed over in directories, by its kind in words
        self._inside: set[str] = set()  # names that were found in a directory

    def leave_out(self, outputs: Callable[[list[str]], list[list[str]]]) -> None:
        """Leave out pictures that the same request has written into the directories they were found in.

        outputs: the files that would be written for each of some pictures.
        """
        planned = outputs(self.names)
        if not (self._inside and any(planned)):
            return
        real = {name: os.path.realpath(name) for name in self.names}
        ours = {os.path.realpath(path): name for name, paths in zip(self.names, planned, strict=True) for path in paths}
        written = {name for name in self._inside if real[name] in ours and ours[real[name]] != name}
        if written:
            self.names = [name for name in self.names if name not in written]
            self.passed["written by this command"] += len(written)

    def directory(self, path: str) -> None:
        """Add the pictures below a directory, in the order of their paths. Raises ImageError if there are none."""
        inside = sorted(self._walk(path))
        if not inside:
            besides = f"; it has {self.said()}" if self.passed else ""
            raise ImageError(
                f"{path!r} holds no pictures ({', '.join(sorted(SUFFIXES))}){besides}; name another directory"
            )
        self.names += inside
        self._inside.update(inside)

    def said(self) -> str:
        """What was passed over, in words; empty for nothing."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.passed.items()))

    def _walk(self, directory: str) -> list[str]:
        def fail(error: OSError) -> None:
            raise ImageError(f"{error.filename!r} cannot be read: {error.strerror}; check its permissions") from error

        found = []
        # A link may lead back to where it is, so no directory is looked into twice.
        seen = set()
        for parent, directories, files in os.walk(directory, onerror=fail, followlinks=True):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                directories[:] = []
                continue
            seen.add((status.st_dev, status.st_ino))
            hidden = [name for name in directories if name.startswith(".")]
            self.passed["hidden"] += len(hidden)
            directories[:] = sorted(set(directories) - set(hidden))
            for name in files:
                kind = _kind(parent, name)
                if kind is None:
                    found.append(os.path.join(parent, name))
                else:
                    self.passed[kind] += 1
        self.passed += Counter()  # without those that are zero
        return found


def _kind(parent: str, name: str) -> str | None:
    """Why a file is no picture to be read; None if it is one."""
    if name.startswith("."):
        return "hidden"
    if Path(name).suffix.lower() not in SUFFIXES:
        return f"of another kind ({Path(name).suffix or 'no suffix'})"
    try:
        mode = os.stat(os.path.join(parent, name)).st_mode
    except OSError:  # a link to nothing, which is told when it is to be read
        return None
    return None if stat.S_ISREG(mode) else "pipes, sockets and devices"


def find_pictures(paths: Sequence[str]) -> Found:
    """Files as they are given, and of a directory all picture files below it, in the order of their paths.

    Links are followed. Hidden files and directories, files of other kinds, pipes and devices are passed over. Raises
    ImageError if a directory holds no picture or cannot be read.
    """
    found = Found()
    for path in paths:
        if path == "-" or not os.path.isdir(path):
            found.names.append(path)
        else:
            found.directory(path)
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
