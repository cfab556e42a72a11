"""What a model is trained on: the demo's emoji and digits, or any directory of pictures."""

from pathlib import Path

import numpy as np

from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.folder import find_pictures
from igpt_runtime.pictures.palette import resize_image
from igpt_runtime.pictures.reading import read_image
from models.digits import digits
from models.emoji import emoji, rendering
from models.emoji.emoji import SIDE, Bytes, Ints

_DIGITS = 0.08  # share of digits among the demo's pictures
_HELD_OUT = 20  # one in so many pictures of a directory is held out, and at least one


class Demo:
    """Emoji, and some digits written in any ink."""

    name = "emoji and digits"

    def __init__(self, directory: Path) -> None:
        """directory: where the packages of emoji are, or are put."""
        self.directory = directory
        emoji.download(directory)
        self.emoji = emoji.load(directory)
        self.rows, self._held_out, self.other_versions = emoji.split(self.emoji)
        self.scans = digits.load_split()[0].scans
        # Each emoji is as likely as another: by itself, a person in six skin tones would be so six times.
        keys = [f"{self.emoji.names[row]} {self.emoji.vendors[row]}" for row in self.rows]
        _, index, counts = np.unique(keys, return_inverse=True, return_counts=True)
        weights = counts[index] ** -0.5
        self._weights = weights / weights.sum()

    def batch(self, n: int, rng: np.random.Generator) -> Bytes:
        """Training pictures, uint8 [n, 32, 32, 3]."""
        written = int(rng.binomial(n, _DIGITS))
        rows = self.draw(n - written, rng)
        scans = self.scans[rng.integers(0, len(self.scans), written)]
        found = rendering.vary(self.emoji, rows, rng)
        return np.concatenate([found, rendering.write_digits(scans, rng)]) if written else found

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        """Rows of training emoji."""
        return rng.choice(self.rows, n, p=self._weights)

    def held_out_rows(self) -> Ints:
        """Held-out emoji, without skin tones."""
        return self._held_out[~self.emoji.tones[self._held_out]]

    def held_out(self) -> Bytes:
        """Held-out emoji, on white and as they are."""
        return rendering.on_white(self.emoji, self.held_out_rows())


class Folder:
    """The pictures below a directory."""

    def __init__(self, directory: Path, *, mirror: bool) -> None:
        """mirror: whether a picture and its mirror image are alike. Raises OptionError, ImageError."""
        self.name = f"pictures of {directory.resolve()}{' as they are' if not mirror else ''}"
        names = sorted(find_pictures([str(directory)]).names)
        if len(names) < 2:
            raise OptionError(f"{directory} holds {len(names)} picture; give a directory with at least two")
        whole = [np.asarray(resize_image(read_image(name), SIDE, SIDE, crop=True)) for name in names]
        order = np.random.default_rng(0).permutation(len(whole))
        held_out = max(1, len(whole) // _HELD_OUT)
        self._train, self._kept = ([whole[i] for i in part] for part in (order[held_out:], order[:held_out]))
        self._mirror = mirror

    def batch(self, n: int, rng: np.random.Generator) -> Bytes:
        """Training pictures, uint8 [n, 32, 32, 3]."""
        pictures = [self._train[i] for i in rng.integers(0, len(self._train), n)]
        turned = rng.random(n) < (0.5 if self._mirror else 0)
        return np.stack([picture[:, ::-1] if turn else picture for picture, turn in zip(pictures, turned, strict=True)])

    def held_out(self) -> Bytes:
        """Pictures that are not trained on."""
        return np.stack(self._kept)
