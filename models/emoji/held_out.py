"""Which emoji a trained model is measured on: none that it may know from others."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.emoji import rendering
from models.emoji.emoji import Bytes, Ints
from models.emoji.sources import Demo
from models.training.command import measured_on_the_way

_TWIN = 0.97  # correlation of two pictures' brightness from which they are the same drawing in other colours

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Emoji as files of theirs are read, on white."""

    rows: Ints  # of all emoji
    pictures: Bytes  # [n, 32, 32, 3]
    labels: Ints  # [n], numbers of categories
    groups: list[str]

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.rows)

    def first_of_groups(self) -> "HeldOut":
        """One picture of each group."""
        return self.of(np.sort(np.unique(self.groups, return_index=True)[1]))

    def of(self, chosen: Ints) -> "HeldOut":
        """Some of them."""
        return HeldOut(self.rows[chosen], self.pictures[chosen], self.labels[chosen], [self.groups[i] for i in chosen])


def categories(source: Demo) -> list[str]:
    """Names of the categories; a label is a place in it."""
    return sorted(set(source.emoji.categories))


def pictures_of(source: Demo, rows: Ints) -> HeldOut:
    """Emoji of these rows."""
    names = categories(source)
    labels = np.array([names.index(source.emoji.categories[row]) for row in rows])
    return HeldOut(rows, rendering.on_white(source.emoji, rows), labels, [source.emoji.groups[row] for row in rows])


def split(source: Demo) -> tuple[HeldOut, HeldOut, int]:
    """Validation, which training has looked at on its way, and test; and how many pictures were left out as twins.

    A twin is a held-out emoji that looks like one of the training, or like a held-out one before it, but for colours.
    """
    found = pictures_of(source, source.held_out_rows())
    seen = brightness(rendering.on_white(source.emoji, source.rows))
    own = brightness(found.pictures)
    twins = (own @ seen.T).max(1) > _TWIN
    twins |= (np.tril(own @ own.T, -1) > _TWIN).any(1)
    looked_at = np.zeros(len(found), np.bool_)
    looked_at[measured_on_the_way(len(found))] = True
    validated = {found.groups[i] for i in np.flatnonzero(looked_at)}
    known = np.array([group in validated for group in found.groups])
    return found.of(np.flatnonzero(looked_at & ~twins)), found.of(np.flatnonzero(~known & ~twins)), int(twins.sum())


def brightness(pictures: Bytes) -> Floats:
    """Pictures [n, height, width, 3] as grey ones of mean 0 and length 1, float32 [n, height * width]."""
    grey = pictures.astype(np.float32).mean(-1).reshape(len(pictures), -1)
    grey -= grey.mean(1, keepdims=True)
    result: Floats = grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    return result


def standard_error(values: npt.ArrayLike, groups: list[str]) -> float:
    """Of a mean over pictures, of which those of a group are alike."""
    numbers = np.asarray(values, np.float64)
    _, index = np.unique(groups, return_inverse=True)
    deviations = np.bincount(index, numbers - numbers.mean())
    return float(np.sqrt((deviations**2).sum()) / len(numbers))
