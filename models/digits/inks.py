"""Colours for handwritten digits: any ink on any ground."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_GROUNDS = (0.55, 0.10, 0.10, 0.15, 0.10)  # shares of white, black, greys, pale and strong colours
_BLACK_ON_WHITE, _WHITE_ON_BLACK = 0.20, 0.13  # shares of digits that are written so
_SEEN = 150  # sum of differences of red, green and blue by which an ink is seen on its ground
_MIXTURES = 256


@dataclass(frozen=True, eq=False)
class Inks:
    """A colour to write with and one to write on for each picture, float32 [n, 3] in 0..255 each."""

    ground: Floats
    ink: Floats

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.ink)

    def repeated(self, copies: int) -> "Inks":
        """Each so many times, one after the other."""
        return Inks(self.ground.repeat(copies, 0), self.ink.repeat(copies, 0))


def grounds(n: int, rng: np.random.Generator) -> Floats:
    """Colours to put pictures on, float32 [n, 3] in 0..255."""
    kind = rng.choice(len(_GROUNDS), n, p=_GROUNDS)[:, None]
    grey, any_colour = rng.uniform(0, 255, (n, 1)), rng.uniform(0, 255, (n, 3))
    pale = 255 - 0.35 * rng.uniform(0, 255, (n, 3))
    kinds = [kind == i for i in range(4)]
    found = np.select(kinds, [np.full((n, 3), 255.0), np.zeros((n, 3)), grey + np.zeros(3), pale], any_colour)
    rounded: Floats = np.rint(found).astype(np.float32)
    return rounded


def random_inks(n: int, rng: np.random.Generator) -> Inks:
    """Any colours that can be told apart; a third of them are black on white or the reverse."""
    ground, ink = grounds(n, rng), rng.uniform(0, 255, (n, 3)).astype(np.float32)
    plain = rng.random(n)
    ground[plain < _BLACK_ON_WHITE + _WHITE_ON_BLACK], ink[plain < _BLACK_ON_WHITE + _WHITE_ON_BLACK] = 255, 0
    ground[plain < _WHITE_ON_BLACK], ink[plain < _WHITE_ON_BLACK] = 0, 255
    close = np.abs(ground - ink).sum(1) < _SEEN
    ink[close] = 255 - ground[close].round()
    close = np.abs(ground - ink).sum(1) < _SEEN  # middle grey is near its opposite
    ink[close] = 0
    return Inks(ground, ink)


def one_ink(n: int, ink: int, ground: int) -> Inks:
    """The same greys for all, such as black (0) on white (255)."""
    return Inks(np.full((n, 3), ground, np.float32), np.full((n, 3), ink, np.float32))


def paint(coverage: Bytes, inks: Inks) -> Bytes:
    """Pictures [n, height, width, 3] of digits that cover each pixel with ink by so much of 255 [n, height, width]."""
    share = coverage[..., None] / np.float32(255)
    mixed = inks.ink[:, None, None] * share + inks.ground[:, None, None] * (1 - share)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def coverage_of(pixels: Bytes | Floats, inks: Inks) -> Floats:
    """How much ink covers each pixel, float32 [n, height, width] in [0, 1]; pixels: [n, height, width, 3]."""
    across = inks.ink - inks.ground
    along = ((pixels - inks.ground[:, None, None]) * across[:, None, None]).sum(-1)
    share: Floats = (along / (across**2).sum(-1)[:, None, None]).clip(0, 1)
    return share


def mixtures(inks: Inks) -> Bytes:
    """Every colour that a digit in these inks has, uint8 [n, 256, 3]."""
    coverage = np.broadcast_to(np.arange(_MIXTURES, dtype=np.uint8), (len(inks), 1, _MIXTURES))
    return paint(coverage, inks)[:, 0]
