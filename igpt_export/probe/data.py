"""Labelled pictures: directories that are classes, or arrays in a `.npz` file; split for fitting and choosing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_export.checkpoint.arrays import DamagedArrayError, read_arrays
from igpt_runtime.errors import ImageError, OptionError
from igpt_runtime.pictures.folder import SUFFIXES, find_pictures, valid_text
from igpt_runtime.pictures.reading import Picture
from igpt_runtime.tasks.feature_store import file_identity

Ints = npt.NDArray[np.int64]

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Names that directories and `split` arrays use.
_SPLITS = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
_REMEDY = "put each class into a directory of its own (DATA/cat, DATA/dog ...), or give a .npz with images and labels"


@dataclass(frozen=True, eq=False)
class Part:
    """Some labelled pictures."""

    pictures: Sequence[Picture]
    labels: Ints  # [n], indices of the data's label names
    identities: Sequence[Any]  # as JSON, of what identifies each picture

    def of(self, rows: Ints) -> "Part":
        """Some of them."""
        return Part([self.pictures[i] for i in rows], self.labels[rows], [self.identities[i] for i in rows])


@dataclass(frozen=True, eq=False)
class Data:
    """All that a probe is fitted, chosen and measured on."""

    label_names: tuple[str, ...]
    parts: dict[str, Part]  # by TRAIN, VALIDATION, TEST; as far as they are there


def load_data(path: str) -> Data:
    """The pictures at `path`.

    A directory has a directory for each class, or directories `train`, `val` (or `validation`), `test` that have. A
    `.npz` has `images`, uint8 [n, height, width, 3] or [n, height, width], `labels` [n], names or numbers, and perhaps
    `label_names` for numbers and `split` [n], names as above. Without a split all is TRAIN.

    Raises:
        OptionError: there are no labels, fewer than two classes, or the file is none of these.
        ImageError: a directory cannot be read.
    """
    if Path(path).is_dir():
        return _load_directory(Path(path))
    if not Path(path).is_file():
        raise OptionError(f"{path} is neither a directory nor a file; {_REMEDY}")
    return _load_npz(Path(path))


def split_off(data: Data, share: float, seed: int) -> Data:
    """The data with a part of TRAIN, of every class alike, as VALIDATION, if there is none yet.

    Raises OptionError if a class has too few pictures for that, or TRAIN fewer than two classes.
    """
    if TRAIN not in data.parts:
        raise OptionError(f"there is no part to fit on, only {', '.join(data.parts)}; add one called {TRAIN}")
    check_classes(data.parts[TRAIN].labels, data.label_names)
    if VALIDATION in data.parts:
        return data
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise OptionError(f"--validation must be a share between 0 and 1, got {share:g}")
    train = data.parts[TRAIN]
    counts = np.bincount(train.labels, minlength=len(data.label_names))
    few = [name for name, count in zip(data.label_names, counts, strict=True) if 0 < count < 2]
    if few:
        raise OptionError(f"class {few[0]!r} has one picture, but one is needed to fit and one to validate; add some")
    classes = int((counts > 0).sum())
    held = min(max(classes, round(share * len(train.labels))), len(train.labels) - classes)
    rows = train_test_split(np.arange(len(train.labels)), test_size=held, random_state=seed, stratify=train.labels)
    fitted, held_out = (train.of(np.sort(part)) for part in rows)
    return Data(data.label_names, {**data.parts, TRAIN: fitted, VALIDATION: held_out})


def check_classes(labels: Ints, label_names: Sequence[str]) -> None:
    """Raise OptionError if there are fewer than two classes to fit."""
    found = np.unique(labels)
    if len(found) < 2:
        only = f"one class, {label_names[found[0]]!r}" if len(found) else "no pictures"
        raise OptionError(f"the part to fit on has {only}; at least two classes are needed there - {_REMEDY}")


def _load_directory(path: Path) -> Data:
    children = _directories(path)
    splits = [(child, _SPLITS[child.name]) for child in children if child.name in _SPLITS]
    if len(splits) < len(children) and all(split != TRAIN for _, split in splits):
        splits = [(path, TRAIN)]  # directories of classes, one of which may be called "test"
    found: list[tuple[str, str, str]] = []  # split, class, picture
    for directory, split in splits or [(path, TRAIN)]:
        classes = _directories(directory)
        files = [child.name for child in directory.iterdir() if child.suffix.lower() in SUFFIXES]
        loose = [name for name in files if not name.startswith(".")]
        if not classes or loose:
            what = f"{min(loose)} is in no class" if loose else "there are no directories in it"
            raise OptionError(f"{directory} has no labels: {what}; {_REMEDY}")
        for child in classes:
            found += [(split, valid_text(child.name), picture) for picture in find_pictures([str(child)]).names]
    label_names = sorted({name for _, name, _ in found})
    if len(label_names) < 2:
        raise OptionError(f"{path} has one class, {label_names[0]!r}; at least two are needed - {_REMEDY}")
    parts = {}
    for split in dict.fromkeys(split for _, split in splits):
        rows = [(name, picture) for where, name, picture in found if where == split]
        labels = np.array([label_names.index(name) for name, _ in rows], np.int64)
        pictures = [picture for _, picture in rows]
        parts[split] = Part(pictures, labels, [file_identity(picture) for picture in pictures])
    return Data(tuple(label_names), parts)


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError as error:
        raise ImageError(f"{str(path)!r} cannot be read: {error.strerror}; check its permissions") from error


def _load_npz(path: Path) -> Data:
    try:
        arrays = read_arrays(path, ("images", "labels", "label_names", "split"))
    except (OSError, DamagedArrayError) as error:
        raise OptionError(f"{path} is no .npz file of arrays ({error}); {_REMEDY}") from error
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise OptionError(f"{path} has no array {missing[0]!r}; {_REMEDY}")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)) or not images.size:
        shape = f"{images.dtype} {list(images.shape)}"
        raise OptionError(f"{path}: images are {shape}, not uint8 [n, height, width, 3] or [n, height, width]")
    if labels.shape != images.shape[:1]:
        raise OptionError(f"{path}: labels are {list(labels.shape)}, not one for each of {len(images)} images")
    label_names, numbers = _label_names(path, labels, arrays.get("label_names"))
    split = arrays.get("split", np.full(len(images), TRAIN))
    unknown = sorted(set(map(str, np.unique(split))) - _SPLITS.keys())
    if split.shape != labels.shape or unknown:
        raise OptionError(f"{path}: split is not one of {', '.join(_SPLITS)} for each image")
    pictures = [Image.fromarray(image) for image in images]
    identities = [hashlib.sha256(image.tobytes() + bytes(str(image.shape), "ascii")).hexdigest() for image in images]
    whole, named = Part(pictures, numbers, identities), np.array([_SPLITS[str(name)] for name in split])
    return Data(label_names, {part: whole.of(np.flatnonzero(named == part)) for part in sorted(set(named.tolist()))})


def _label_names(path: Path, labels: npt.NDArray[Any], names: npt.NDArray[Any] | None) -> tuple[tuple[str, ...], Ints]:
    """Names of the classes, and the index of each label."""
    if labels.dtype.kind in "iu" and names is not None:
        if names.ndim != 1 or labels.min() < 0 or labels.max() >= len(names):
            raise OptionError(f"{path}: labels are not indices of label_names, 0 .. {names.size - 1}")
        found, numbers = names, labels.astype(np.int64)
    elif labels.dtype.kind in "iuU":
        found, numbers = np.unique(labels, return_inverse=True)
    else:
        raise OptionError(f"{path}: labels are {labels.dtype}, neither numbers nor texts")
    if len(found) < 2:
        raise OptionError(f"{path} has {len(found)} class; at least two are needed")
    return tuple(map(str, found)), numbers.astype(np.int64)
